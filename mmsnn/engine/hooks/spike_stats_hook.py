"""Watches the neurons while a network trains."""

import os.path as osp
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Optional, cast

import numpy as np
import torch
from mmdet.registry import HOOKS
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import autocast
from torch import Tensor

from ...analysis import (
    LayerProfile,
    SpikeProfiler,
    SpikeRecorder,
    eval_mode,
    neuron_layers,
    some_layers,
)
from ...analysis.measured import of_neurons
from ...ops import SettingError
from ...visualization import draw_spikes, figure_picture, first_image, input_picture
from ..wrappers import spiking_model, unwrap

#: Layers on a sheet: of a deep network, so many from the first to the last.
MAX_LAYERS = 8


@HOOKS.register_module()
class SpikeStatsHook(Hook):
    """Log firing rates, warn where a layer dies or saturates, and draw spikes and attention.

    One iteration in ``interval`` is measured; the others cost nothing. For every layer of neurons
    the message hub and every backend of the visualizer get ``spikes/<layer>/firing_rate``,
    ``spikes/<layer>/dead`` and ``spikes/<layer>/saturated`` (shares of channels). A layer is
    called silent where all its channels are dead on that batch, and saturated where all of them are
    saturated; the first time that happens to a layer there is a warning. A learned gate's neurons
    may be at rest, and are not warned about.

    With ``num_images`` every validation ends with a sheet for each of the first images of the
    validation set, always the same (:func:`mmsnn.visualization.draw_spikes`): the maps and rasters
    of up to eight layers, from the first to the last, and the attention of every decoder. The
    visualizer's backends get it as ``spikes_<number>_<name of the image>``; ``LocalVisBackend``
    saves it under ``vis_data/vis_image``. Training goes on as it would have without.

    Under distributed training each process looks at its own images, and the first one's are logged;
    the first one draws.

    Args:
        interval: Measure one iteration in so many.
        dead_below: A channel is dead where its firing rate is not above this; 0 is one that never
            fired.
        saturated_above: A channel is saturated where its firing rate reaches this; of neurons that
            give several spikes at once, this share of the most that they can give.
        num_images: Images to draw at every validation; 0 draws nothing and costs nothing.

    Raises:
        SettingError: An interval below 1, a negative ``num_images``, or rates that are not 0 <=
            dead_below < saturated_above <= 1; at the start of training, a model without spiking
            neurons, or ``num_images`` without validation.

    Example:
        In a config: ``custom_hooks = [dict(type='SpikeStatsHook', interval=50, num_images=2)]``.
    """

    def __init__(
        self,
        interval: int = 100,
        dead_below: float = 0.0,
        saturated_above: float = 0.95,
        num_images: int = 0,
    ):
        if not isinstance(interval, int) or interval < 1:
            raise SettingError(f'interval must be a whole number of at least 1, got {interval!r}')
        if not isinstance(num_images, int) or num_images < 0:
            raise SettingError(f'num_images must be a whole number, 0 or more, got {num_images!r}')
        if not 0 <= dead_below < saturated_above <= 1:
            raise SettingError(
                'rates must be 0 <= dead_below < saturated_above <= 1, got '
                f'dead_below={dead_below!r} and saturated_above={saturated_above!r}'
            )
        self.interval = interval
        self.num_images = num_images
        self.dead_below = dead_below
        self.saturated_above = saturated_above
        self._profiler: Optional[SpikeProfiler] = None
        self._batches: Optional[list[dict]] = None
        self._warned: set[tuple[str, str]] = set()

    def before_train(self, runner) -> None:
        """Refuse a model that has nothing to watch, and a run that has nothing to draw.

        Args:
            runner: The runner.
        """
        spiking_model(runner.model, 'SpikeStatsHook watches spiking neurons')
        if self.num_images and runner.val_loop is None:
            raise SettingError(
                f'SpikeStatsHook(num_images={self.num_images}) draws images of the validation set, '
                'and this run has none: set num_images=0, or val_dataloader, val_cfg and '
                'val_evaluator'
            )

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        """Start to look where this iteration is to be measured.

        Args:
            runner: The runner.
            batch_idx: Number of the batch.
            data_batch: The batch.
        """
        self._stop()
        if self.every_n_train_iters(runner, self.interval):
            profiler = SpikeProfiler(unwrap(runner.model), operations=False)
            self._profiler = profiler.__enter__()

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Log what was seen.

        Args:
            runner: The runner.
            batch_idx: Number of the batch.
            data_batch: The batch.
            outputs: Losses.
        """
        profiler = self._stop()
        if profiler is None:
            return
        scalars = {}
        states: dict[str, list[str]] = dict(silent=[], saturated=[])
        # A learned gate's neurons may be silent.
        watched = neuron_layers(unwrap(runner.model))
        for layer in profiler.result().layers:
            dead, saturated = self._shares(layer)
            key = f'spikes/{layer.name}'
            scalars[f'{key}/firing_rate'] = layer.firing_rate
            scalars[f'{key}/dead'] = dead
            scalars[f'{key}/saturated'] = saturated
            if dead == 1 and layer.name in watched:
                states['silent'].append(layer.name)
            if saturated == 1:
                states['saturated'].append(layer.name)
        for key, value in scalars.items():
            runner.message_hub.update_scalar(key, value)
        runner.visualizer.add_scalars(scalars, step=runner.iter + 1)
        for state, names in states.items():
            self._warn(runner, state, names)

    def after_val_epoch(self, runner, metrics=None) -> None:
        """Draw the images.

        Args:
            runner: The runner.
            metrics: Numbers of the validation.
        """
        if not self.num_images or not is_main_process():
            return
        self._stop()
        model = unwrap(runner.model)
        recorder = SpikeRecorder(model, some_layers(model, MAX_LAYERS))
        fp16 = getattr(runner.val_loop, 'fp16', False)
        with _unchanged_random_numbers():
            if self._batches is None:
                # Kept: a pipeline may draw random numbers, and the images are to stay the same.
                self._batches = _first_batches(runner.val_dataloader, self.num_images)
            for i, batch in enumerate(self._batches):
                with eval_mode(model), torch.no_grad(), recorder, autocast(enabled=fp16):
                    sample = cast(BaseModel, model).val_step(batch)[0]
                name = osp.splitext(osp.basename(sample.metainfo.get('img_path') or ''))[0]
                picture = _draw(batch['inputs'][0], sample, recorder, name)
                # Not spikes/...: LocalVisBackend makes no folders.
                key = f'spikes_{i}_{name}' if name else f'spikes_{i}'
                runner.visualizer.add_image(key, picture, step=runner.iter)

    def after_train(self, runner) -> None:
        """Leave nothing behind.

        Args:
            runner: The runner.
        """
        self._stop()

    def _stop(self) -> Optional[SpikeProfiler]:
        profiler, self._profiler = self._profiler, None
        if profiler is not None:
            profiler.__exit__(None, None, None)
        return profiler

    def _shares(self, layer: LayerProfile) -> tuple[float, float]:
        rates = of_neurons(layer.rate_by_channel) / layer.levels
        dead, saturated = rates <= self.dead_below, rates >= self.saturated_above
        return float(dead.mean()), float(saturated.mean())

    def _warn(self, runner, state: str, names: list[str]) -> None:
        new = [name for name in names if (name, state) not in self._warned]
        if not new:
            return
        self._warned.update((name, state) for name in new)
        why = {
            'silent': 'no channel fires: look at v_threshold (too high?) and the norms before it',
            'saturated': 'all channels fire nearly always: look at v_threshold (too low?) and the '
            'norms before it',
        }
        runner.logger.warning(
            f'mmsnn: {state} at iteration {runner.iter + 1}: {", ".join(new)}; {why[state]}'
        )


def _first_batches(dataloader, num_images: int) -> list[dict]:
    dataset = dataloader.dataset
    return [dataloader.collate_fn([dataset[i]]) for i in range(min(num_images, len(dataset)))]


def _draw(inputs: Tensor, sample, recorder: SpikeRecorder, name: str) -> np.ndarray:
    sheet = draw_spikes(input_picture(inputs), *first_image(recorder, inputs, sample), name)
    return figure_picture(sheet)


@contextmanager
def _unchanged_random_numbers() -> Iterator[None]:
    """Restores the state of the random generators at the end of the block."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)

"""Everything that the report shows, measured on a model and its test data."""

import os
import time
from collections.abc import Collection, Sequence
from typing import Any, Optional

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner, autocast
from torch import nn

from .. import ops
from ..analysis import POTENTIAL_EDGES, SpikeProfile, SpikeProfiler, neuron_layers, profile
from ..analysis.measured import of_neurons, plain_numbers
from ..utils import (
    anytime,
    get_time_steps,
    main_score,
    plain_metrics,
    score_names,
    set_time_steps,
)
from ..version import __version__
from .gallery import Pictures, attention_summary, show_images
from .tasks import task_of
from .training import read_curves

#: Batches for what is measured several times over, or needs the slower, unfused layers.
FEW_BATCHES = 4
#: Up to so many images, every number of time steps is measured on all.
ALL_IMAGES = 500


class _Keep(Hook):
    """Keeps what a test run finds."""

    def __init__(self) -> None:
        self.samples: list = []

    def after_test_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.samples += [sample.to('cpu') for sample in outputs]


def collect(
    runner: Runner,
    model: nn.Module,
    steps: Sequence[int],
    num_images: int = 9,
    score_thr: Optional[float] = None,
    log_dir: Optional[str] = None,
    like: Optional[Sequence[tuple[int, str]]] = None,
    **energies: float,
) -> tuple[dict[str, Any], Pictures]:
    """Evaluate, measure and draw.

    Args:
        runner: The runner; the checkpoint is loaded, and the test data come in order.
        model: Its detector or classifier.
        steps: Numbers of time steps for the anytime table.
        num_images: How many images to show: the worst third, the typical and the best.
        score_thr: Least score of a detector's box; None for the one with the best F1.
        log_dir: Folder of the training run, for its curves; None for none.
        like: Numbers of the images to show instead, each with its group in another report.
        **energies: ``mac_energy`` and ``ac_energy`` of
            :class:`~mmsnn.analysis.SpikeProfiler`, in joules.

    Returns:
        The numbers, ready for JSON, and the pictures.

    Raises:
        ToolError: The evaluator has no score, or a number of time steps is out of range.
    """
    watched = neuron_layers(model)
    scores = score_names(runner.test_evaluator)
    configured = get_time_steps(model) if watched else None
    if watched:
        for t in (*steps, configured or 1):  # every one is checked before the work starts
            set_time_steps(model, t)
        assert configured is not None  # a model without T was refused above
        several: list[Optional[int]] = [*sorted({*steps, configured})]
    else:
        several = [None]
    keep = _Keep()
    runner.register_hook(keep)
    runner.logger.info('mmsnn: evaluating, and counting spikes')
    options: dict[str, Any] = {**energies}
    profiler = SpikeProfiler(model, **options)
    with profiler:
        metrics = runner.test_loop.run()
    scores = scores or main_score(plain_metrics(metrics, ()))
    metrics = plain_metrics(metrics, scores)
    result = profiler.result()
    potentials = None
    if watched:
        runner.logger.info('mmsnn: membrane potentials')
        with autocast(enabled=runner.test_loop.fp16):
            potentials = profile(
                model, runner.test_dataloader, FEW_BATCHES, operations=False, potentials=True
            )
    rows: list[dict[str, Any]] = [
        {k: v if isinstance(v, int) else _known(v) for k, v in {**row, 'time_steps': t}.items()}
        for t, row in zip([t or 1 for t in several], anytime(runner, model, several, configured)[0])
    ]
    batches = None if result.images <= ALL_IMAGES else FEW_BATCHES
    for row in rows:
        measured = result
        if watched and (batches is not None or row['time_steps'] != configured):
            set_time_steps(model, row['time_steps'])
            with autocast(enabled=runner.test_loop.fp16):
                measured = profile(model, runner.test_dataloader, batches, **options)
        row.update(
            firing_rate=measured.firing_rate,
            energy=measured.energy,
            energy_ratio=_ratio(measured.energy, measured.ann_energy),
            memory_energy=measured.memory_energy,
            memory_ratio=_ratio(measured.memory_energy, measured.ann_memory_energy),
        )
    if configured is not None:
        set_time_steps(model, configured)
    configured = configured or 1
    task = task_of(runner, keep.samples, score_thr)
    runner.logger.info('mmsnn: pictures')
    images, pictures = show_images(runner, model, task, num_images, like)
    numbers = dict(
        mmsnn=__version__,
        created=time.strftime('%Y-%m-%d %H:%M'),
        machine=_machine(),
        model=type(model).__name__,
        backbone=type(model.backbone).__name__,
        task=task.name,
        classes=list(task.classes),
        images=len(keep.samples),
        batch_size=runner.test_dataloader.batch_size,
        validated_on_test=_same_data(runner.cfg),
        time_steps=configured,
        scores=scores,
        metrics={name: _known(value) for name, value in metrics.items()},
        **task.numbers(),
        profile=_profile(result, potentials, watched),
        parts=_parts(result),
        anytime=rows,
        anytime_images=measured.images,
        ms_per_image=next(r['ms_per_image'] for r in rows if r['time_steps'] == configured),
        gallery=images,
        attention=attention_summary(images),
        training=None if log_dir is None else read_curves(log_dir, scores),
    )
    return plain_numbers(numbers), pictures


def _known(value: float) -> Optional[float]:
    """None where there was nothing to measure: -1 in COCO's evaluation, else not a number."""
    return float(value) if value >= 0 else None


def _machine() -> dict[str, Any]:
    gpu = torch.cuda.is_available()
    kernels = ops.choose('lif', torch.zeros(1, device='cuda' if gpu else 'cpu')).name
    return dict(
        device=torch.cuda.get_device_name() if gpu else f'CPU, {os.cpu_count()} cores',
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        kernels=kernels,
    )


def _profile(
    result: SpikeProfile, potentials: Optional[SpikeProfile], watched: Collection[str]
) -> dict[str, Any]:
    """The profile as JSON, with what the page says of whole layers."""
    numbers = result.to_dict()
    shares = {layer.name: layer.potentials for layer in potentials.layers} if potentials else {}
    for layer in numbers['layers']:
        found = shares.get(layer['name'])
        layer['in_gate'] = layer['kind'] == 'neuron' and layer['name'] not in watched
        full = layer['ann_macs'] * layer['time_steps']
        # Of the synapses that could carry a spike at each time step, the share that do.
        layer['activity'] = _ratio(layer['sops'], full) if layer['kind'] == 'spikes' else None
        layer['share'] = _ratio(layer['energy'], result.energy)
        layer['ann_energy'] = layer['ann_macs'] * result.mac_energy
        layer['potentials'] = None if found is None else np.asarray(found).tolist()
    # A learned gate may be at rest, and is no layer of the network.
    neurons = [layer for layer in result.neuron_layers if layer.name in watched]
    spiking = [layer for layer in result.layers if layer.kind == 'spikes']
    numbers.update(
        neurons=sum(of_neurons(layer.neurons) for layer in result.neuron_layers),
        energy_ratio=_ratio(result.energy, result.ann_energy),
        memory_ratio=_ratio(result.memory_energy, result.ann_memory_energy),
        potential_edges=POTENTIAL_EDGES.tolist(),
    )
    if potentials is None:
        return numbers
    channels = np.concatenate(
        [of_neurons(layer.rate_by_channel) / layer.levels for layer in neurons]
    )
    numbers.update(
        few_images=potentials.images,
        spikes=sum(of_neurons(layer.spikes) for layer in result.neuron_layers),
        silent=1 - of_neurons(result.active),
        dead=float((channels == 0).mean()),
        saturated=float((channels >= result.saturated_above).mean()),
        dead_layers=[layer.name for layer in neurons if layer.dead == 1],
        saturated_layers=[layer.name for layer in neurons if layer.saturated == 1],
        busiest=max(neurons, key=lambda layer: of_neurons(layer.firing_rate)).name,
        quietest=min(neurons, key=lambda layer: of_neurons(layer.firing_rate)).name,
        # Layers on spikes by themselves, without those that see real values.
        spiking_ratio=_ratio(*result.on_spikes),
        memory_spiking_ratio=_ratio(*result.memory_on_spikes),
        activity=_ratio(
            sum(layer.sops for layer in spiking),
            sum(layer.ann_macs * layer.time_steps for layer in spiking),
        ),
    )
    return numbers


def _ratio(part: float, whole: float) -> Optional[float]:
    return part / whole if whole else None


def _same_data(cfg) -> bool:
    """Whether the scores of training are of the test images."""
    val, test = (
        dict((cfg.get(f'{split}_dataloader') or {}).get('dataset') or {})
        for split in ('val', 'test')
    )
    test.pop('indices', None)
    return val == test


def _parts(result: SpikeProfile) -> list[dict[str, Any]]:
    """Operations and energy of backbone, neck and head, apart by what they see.

    Neurons have no operations that count, but memory, and belong to what sees spikes.
    """
    parts: dict[str, dict[str, Any]] = {}
    for layer in result.layers:
        name = layer.name.partition('.')[0]
        name += ', on real values' if layer.kind == 'real' else ', on spikes'
        sums = ('sops', 'macs', 'ann_macs', 'energy', 'memory_energy', 'ann_memory_energy')
        part = parts.setdefault(name, dict(name=name, **dict.fromkeys(sums, 0.0)))
        for key in sums:
            part[key] += getattr(layer, key)
    for part in parts.values():
        part['ann_energy'] = part['ann_macs'] * result.mac_energy
        part['share'] = _ratio(part['energy'], result.energy)
        part['ratio'] = _ratio(part['energy'], part['ann_energy'])
        part['memory_ratio'] = _ratio(part['memory_energy'], part['ann_memory_energy'])
    return list(parts.values())

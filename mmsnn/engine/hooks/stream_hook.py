"""Models that go on from window to window, in training and in evaluation."""

from collections.abc import Sequence
from typing import Any, Optional

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from torch import nn

from ...datasets import DatasetError
from ...datasets.stream_sampler import StreamBatchSampler
from ...models import SpikingRetinaNet
from ...models.layers import Streaming
from ...ops import SettingError
from ..wrappers import unwrap


@HOOKS.register_module()
class StreamHook(Hook):
    """Hand on membrane potentials from batch to batch, for as long as a recording goes on.

    It makes a stream of all that a config trains, validates and tests
    (:class:`mmsnn.models.layers.Streaming`). The data are windows in order: a data set with
    ``windows=LENGTH``, and in the data loader ``batch_sampler=dict(type='StreamBatchSampler')``. A
    recording begins from rest, wherever in a batch it comes. With ``windows=k`` of the sampler,
    gradients run back through k windows; training begins each k where the k before ended.

    Windows without labels take no part in the loss of
    :class:`mmsnn.models.detectors.SpikingRetinaNet`. Other detectors would learn them as empty, and
    are trained on data without such windows alone.

    Raises:
        DatasetError: A loader whose batches aren't those of a stream, or windows without labels for
            a detector that doesn't leave them out.
        ValueError: Windows that don't follow one another, or are mirrored differently.

    Example:
        In a config: ``custom_hooks = [dict(type='StreamHook')]``.
    """

    priority = 'VERY_HIGH'  # first, so that no other hook's forward pass is part of a stream

    def __init__(self) -> None:
        #: By what is done.
        self._streams: dict[str, _Followed] = {}

    def before_train(self, runner) -> None:
        """Check that windows come in order, and that those without labels are left out."""
        _check_loader(runner.train_dataloader, 'train')
        model, dataset = unwrap(runner.model), runner.train_dataloader.dataset
        if isinstance(model, SpikingRetinaNet):
            return
        for i in range(len(dataset)):
            info = dataset.get_data_info(i)
            if not info.get('labelled', True):
                raise DatasetError(
                    f'{info["recording"]} has no label near {info["t"]} us, and '
                    f'{type(model).__name__} would learn that window as empty: train a '
                    'SpikingRetinaNet, which leaves it out, or label all windows'
                )

    def before_val(self, runner) -> None:
        """Check that windows come in order."""
        _check_loader(runner.val_dataloader, 'val')

    def before_test(self, runner) -> None:
        """Check that windows come in order."""
        _check_loader(runner.test_dataloader, 'test')

    def _before_epoch(self, runner, mode: str = 'train') -> None:
        self._streams[mode] = _Followed(unwrap(runner.model), whole=mode != 'train')

    def _before_iter(self, runner, batch_idx: int, data_batch=None, mode: str = 'train') -> None:
        self._streams[mode].follow(data_batch['data_samples'])

    def _after_iter(
        self, runner, batch_idx: int, data_batch=None, outputs=None, mode: str = 'train'
    ) -> None:
        self._streams[mode].streaming.detach()


class _Followed:
    """A stream, and where in the last batch each recording was.

    Args:
        model: Whose states go on.
        whole: Whether every recording has to come from its first window on.
    """

    def __init__(self, model: nn.Module, whole: bool):
        self.streaming = Streaming(model)
        self._whole = whole
        self._places: dict[tuple[str, int], int] = {}
        self._flips: dict[str, Any] = {}

    def follow(self, samples: Sequence) -> None:
        """Attach the states of the recordings that a batch goes on with."""
        metas = [sample.metainfo for sample in samples]
        missing = [meta for meta in metas if 'window' not in meta or 'recording' not in meta]
        if missing:
            raise SettingError(
                f'StreamHook got a sample without recording and window ({missing[0].get("img_id")})'
                ': the data set must have windows=LENGTH, and the last transform be '
                'PackEventDetInputs'
            )
        number = len(dict.fromkeys(meta['recording'] for meta in metas))
        first, windows = metas[:number], len(metas) // number
        if len(metas) % number:
            raise SettingError(
                f'StreamHook got {len(metas)} windows of {number} recordings, not as many of each: '
                "let the data loader have batch_sampler=dict(type='StreamBatchSampler')"
            )
        for i, meta in enumerate(metas):
            expected = first[i % number]
            here = expected['recording'], expected['window'] + i // number
            if (meta['recording'], meta['window']) != here:
                raise SettingError(
                    f'StreamHook got window {meta["window"]} of {meta["recording"]} where window '
                    f'{here[1]} of {here[0]} belongs: let the data loader have '
                    "batch_sampler=dict(type='StreamBatchSampler')"
                )
        self._check_flips(metas)
        places: list[Optional[int]] = [
            self._places.get((meta['recording'], meta['window'] - 1)) for meta in first
        ]
        for meta, place in zip(first, places):
            if self._whole and meta['window'] and place is None:
                raise SettingError(
                    f'StreamHook got window {meta["window"]} of {meta["recording"]} without the '
                    'one before: let the data loader have '
                    "batch_sampler=dict(type='StreamBatchSampler')"
                )
        self.streaming.select(places)
        self._places = {
            (meta['recording'], meta['window'] + windows - 1): i for i, meta in enumerate(first)
        }
        self.streaming.attach(windows)

    def _check_flips(self, metas: Sequence[dict]) -> None:
        for meta in metas:
            name, flip = meta['recording'], (meta.get('flip'), meta.get('flip_direction'))
            if meta['window'] and self._flips.get(name, flip) != flip:
                raise SettingError(
                    f'window {meta["window"]} of {name} is mirrored otherwise than the one before: '
                    'take EventRandomFlip out of the train pipeline of a stream'
                )
            self._flips[name] = flip


def _check_loader(loader: Any, name: str) -> None:
    if not isinstance(loader.batch_sampler, StreamBatchSampler):
        raise DatasetError(
            f'StreamHook needs windows in order: set {name}_dataloader.batch_sampler='
            "dict(type='StreamBatchSampler'), and windows=LENGTH of its data set"
        )

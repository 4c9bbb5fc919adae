"""Detectors that follow recordings, window by window."""

import copy
import os
from collections.abc import Iterator, Sequence
from typing import Optional, Union

import numpy as np
import torch
from mmcv.transforms import Compose
from mmdet.structures import DetDataSample
from mmengine.model import BaseModel
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from ..config_types import type_name
from ..datasets.events.io import find_sensor_size
from ..datasets.events.prophesee import find_sensor
from ..datasets.transforms import LoadEventWindow
from ..datasets.transforms.event_detection import opened
from ..deploy.fuse import fuse
from ..models.layers import Streaming
from .model import test_dataset

Frames = Union[Tensor, np.ndarray]


class Stream:
    """A detector that goes on from window to window; :func:`stream` makes it.

    The states belong to the stream: between its windows, the model is as stateless as ever. A copy
    (``copy.deepcopy``) goes on from where this one is, with a model of its own.

    Args:
        model: A detector in eval mode, whose neurons can hand on their states.

    Raises:
        ValueError: As of :class:`mmsnn.models.layers.Streaming`.
    """

    def __init__(self, model: BaseModel):
        self.model = model
        self._streaming = Streaming(model)

    def __call__(
        self, windows: Union[Frames, Sequence[Frames]]
    ) -> Union[DetDataSample, list[DetDataSample]]:
        """Find objects in the next window.

        Args:
            windows: Event frames (T, C, H, W) of the recording's next window; or a list of them,
                one of each recording that goes on side by side, in the same order every time.

        Returns:
            One sample with ``pred_instances``, as of :func:`~mmsnn.apis.inference_detector`, or a
            list where one was given.

        Raises:
            ValueError: Another number of recordings, or frames of another size, than before;
                arrays that are no frames; a model in training mode.
        """
        if isinstance(windows, (Tensor, np.ndarray)):
            return self._find([windows])[0]
        return self._find(windows)

    def _find(
        self, windows: Sequence[Frames], samples: Optional[list[DetDataSample]] = None
    ) -> list[DetDataSample]:
        """Boxes in the next window of each recording, in pixels of what ``samples`` came from."""
        frames = [torch.as_tensor(window, dtype=torch.float32) for window in windows]
        for window in frames:
            if window.dim() != 4:
                raise ValueError(
                    'a window is event frames (T, C, H, W), or a list of one for each recording: '
                    f'got an array of shape {tuple(window.shape)}'
                )
        self._check_mode()
        self._streaming.expect(len(frames))
        if samples is None:
            sizes = [tuple(window.shape[-2:]) for window in frames]
            samples = [
                DetDataSample(
                    metainfo=dict(ori_shape=n, img_shape=n, scale_factor=(1.0, 1.0), img_id=0)
                )
                for n in sizes
            ]
        with self._streaming.carried(), torch.no_grad():
            return self.model.test_step(dict(inputs=frames, data_samples=samples))

    def follow(
        self,
        recording: Union[str, os.PathLike],
        start: Optional[int] = None,
        end: Optional[int] = None,
    ) -> Iterator[DetDataSample]:
        """Find objects in all windows of a recording, one after the other, from rest.

        Windows are loaded as the model's test pipeline does it, and boxes are in pixels of the
        sensor, whatever size the pipeline gives the frames.

        Args:
            recording: The file.
            start: Where the first window begins, in microseconds; default the first event.
            end: Where the last one ends at the latest; default the last event, with which a window
                may end that is not all there.

        Yields:
            What :meth:`__call__` gives, with ``t``, the end of the window, and its ``length``, both
            in microseconds, and ``recording`` in its metainfo; ``frames`` (T, C, H, W) are what the
            model saw.

        Raises:
            ValueError: The model's test pipeline doesn't begin with ``LoadEventWindow``.
            DatasetError: The recording can't be used, or is of another sensor than the data of the
                config.
        """
        dataset = test_dataset(self.model.cfg)
        pipeline = copy.deepcopy(dataset.get('pipeline') or [{}])
        if type_name(pipeline[0]) != 'LoadEventWindow':
            raise ValueError(
                "the test pipeline of the model's config doesn't begin with LoadEventWindow, so "
                'that it is not known what a window is'
            )
        load = Compose([step for step in pipeline if type_name(step) != 'LoadAnnotations'])
        length = next(t.length for t in load.transforms if isinstance(t, LoadEventWindow))
        path = os.fspath(recording)
        generation = dataset.get('generation')
        size = find_sensor(generation).size if generation else find_sensor_size(path)
        events = opened(path, size)
        start = events.start if start is None else start
        end = events.end + length if end is None else end
        self.reset()
        for t in range(start + length, end + 1, length):
            info = dict(recording=path, img_path=path, img_id=t, t=t, sensor_size=size)
            packed = load(info)
            (sample,) = self._find([packed['inputs']], [packed['data_samples']])
            sample.set_metainfo(dict(recording=path, t=t, length=length))
            sample.set_field(packed['inputs'], 'frames', dtype=Tensor)
            yield sample

    def reset(self, recordings: Optional[Sequence[int]] = None) -> None:
        """Begin anew, as at the bounds of recordings.

        Args:
            recordings: Places in the list of windows; default all, after which any number may come.

        Raises:
            ValueError: A place that there isn't.
        """
        self._streaming.reset(recordings)

    def fuse(self, precision: str = 'auto') -> 'Stream':
        """The same stream, from where it is, on a fused copy of the model.

        Args:
            precision: As of :func:`mmsnn.deploy.fuse`.

        Returns:
            The stream; this one goes on by itself.
        """
        fused = Stream(fuse(self.model, precision))
        fused._streaming.states = copy.deepcopy(self._streaming.states)
        fused._streaming.recordings = self._streaming.recordings
        return fused

    def _check_mode(self) -> None:
        norms = [name for name, m in self.model.named_modules() if isinstance(m, _BatchNorm)]
        training = [name for name in norms if self.model.get_submodule(name).training]
        if training:
            raise ValueError(
                f'{training[0]} is in training mode and normalises each window by its own '
                'statistics: call model.eval() before it streams'
            )


def stream(model: BaseModel) -> Stream:
    """Let a detector go on from window to window of a recording, instead of from rest at each.

    Windows that follow one another are then as one long forward, and each takes the time of one.

    Args:
        model: From :func:`~mmsnn.apis.init_detector`.

    Returns:
        The stream, at rest.

    Raises:
        ValueError: A neuron can't hand on its state; the message names it.

    Example:
        >>> import torch
        >>> from mmsnn.apis import init_detector, stream
        >>> options = {'backbone.depth': 10, 'backbone.time_steps': 2}
        >>> options = {f'model.{name}': value for name, value in options.items()}
        >>> config = 'configs/spiking_retinanet/spiking-retinanet_sg-r18_asd_fpn_gen1.py'
        >>> follow = stream(init_detector(config, cfg_options=options))
        >>> for window in torch.rand(3, 2, 4, 64, 64):  # T = 2, C = 4
        ...     found = follow(window).pred_instances
        >>> follow.reset()
    """
    return Stream(model)

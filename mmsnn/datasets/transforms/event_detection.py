"""Windows of events with boxes: what detectors load and pack."""

import functools
import os
from collections.abc import Sequence
from typing import Union

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet.datasets.transforms import PackDetInputs
from mmdet.registry import TRANSFORMS

from ..errors import DatasetError
from ..events.frames import check_framing
from ..events.prophesee import open_of_sensor
from ..events.recording import Recording
from ..events.representations import find_representation, in_steps

__all__ = ['LoadEventWindow', 'PackEventDetInputs']

# Recordings that a process keeps open.
MAX_OPEN = 32


@functools.lru_cache(maxsize=MAX_OPEN)
def _opened(path: str, size: tuple[int, int], process: int) -> Recording:
    """A recording that stays open; not shared with processes that fork, as HDF5 can't be."""
    return open_of_sensor(path, size)


def opened(path: str, size: Sequence[int]) -> Recording:
    """A recording as :class:`LoadEventWindow` reads it: opened once a process, and kept open.

    Args:
        path: The file.
        size: (W, H) of its sensor.

    Returns:
        The recording.

    Raises:
        DatasetError: As of :func:`~mmsnn.datasets.events.prophesee.open_of_sensor`.
    """
    width, height = size
    return _opened(os.path.abspath(path), (width, height), os.getpid())


@TRANSFORMS.register_module()
class LoadEventWindow(BaseTransform):
    """Read the events of the window that ends at ``t``, in T time steps.

    The window has the events with t - length <= time < t; each of T equally long parts of it
    becomes a map of C channels.

    Required: recording, t, sensor_size. Added: frames (T, C, H, W) float32, img_shape and ori_shape
    (H, W), scale_factor.

    Args:
        length: Of the window, in microseconds.
        time_steps: Number of time steps, T.
        representation: 'counts' (C = 2), 'stacked_histogram' (2 * bins), 'voxel_grid' (bins) or
            'time_surface' (2), or a ``dict`` with options, such as
            ``dict(type='stacked_histogram', bins=2)``; see
            :func:`~mmsnn.datasets.events.find_representation`.

    Raises:
        DatasetError: An argument or a recording that can't be used.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from mmsnn.datasets.transforms import LoadEventWindow
        >>> load = LoadEventWindow(length=100, time_steps=4, representation='counts')
        >>> with tempfile.TemporaryDirectory() as root:
        ...     np.save(f'{root}/a.npy', np.array([[3, 5, 100, 1], [3, 5, 199, 1], [3, 5, 200, 1]]))
        ...     info = dict(recording=f'{root}/a.npy', t=200, sensor_size=(8, 6))
        ...     frames = load(info)['frames']
        >>> frames.shape, frames.sum(axis=(1, 2, 3)).tolist()
        ((4, 2, 6, 8), [1.0, 0.0, 0.0, 1.0])
    """

    def __init__(
        self,
        length: int,
        time_steps: int,
        representation: Union[str, dict] = 'counts',
    ):
        try:
            check_framing(time_steps, 'time')
            self.represent = find_representation(representation)
            if not isinstance(length, int) or length < time_steps:
                raise ValueError(
                    f'length is {length!r}, expected whole microseconds, at least one a time step'
                )
        except ValueError as error:
            raise DatasetError(f'{type(self).__name__}: {error}') from error
        self.length, self.time_steps, self.representation = length, time_steps, representation

    def transform(self, results: dict) -> dict:
        """Load the window.

        Args:
            results: With ``recording``, ``t`` and ``sensor_size``.

        Returns:
            The same, with ``frames``.
        """
        t = results['t']
        t0 = t - self.length
        events = opened(results['recording'], results['sensor_size']).window(t0, t)
        frames = in_steps(events, t0, t, self.time_steps, self.represent)
        results['frames'] = frames.astype(np.float32)
        results['img_shape'] = results['ori_shape'] = frames.shape[-2:]
        results['scale_factor'] = (1.0, 1.0)
        return results

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(length={self.length}, time_steps={self.time_steps}, '
            f'representation={self.representation!r})'
        )


@TRANSFORMS.register_module()
class PackEventDetInputs(PackDetInputs):
    """Pack what a detector of events takes.

    Required: frames. Optional: what MMDetection's ``PackDetInputs`` packs, and the meta keys.

    Args:
        meta_keys: What goes into the sample's metainfo, as far as it is there. ``recording``, ``t``
            and ``boxes`` are what :class:`~mmsnn.evaluation.PropheseeMetric` needs.
    """

    def __init__(
        self,
        meta_keys: Sequence[str] = (
            'img_id',
            'img_path',
            'ori_shape',
            'img_shape',
            'scale_factor',
            'flip',
            'flip_direction',
            'recording',
            't',
            'window',
            'labelled',
            'boxes',
        ),
    ):
        super().__init__(tuple(meta_keys))

    def transform(self, results: dict) -> dict:
        """Pack.

        Args:
            results: With ``frames``.

        Returns:
            ``inputs``, a (T, C, H, W) float32 tensor, and ``data_samples``, a ``DetDataSample``.

        Raises:
            DatasetError: There are no frames, as of a pipeline that loads images.
        """
        if 'frames' not in results or 'img' in results:
            raise DatasetError(
                f'{type(self).__name__} packs event frames. Load them by LoadEventWindow; images '
                "take MMDetection's PackDetInputs"
            )
        packed = super().transform(results)
        frames = np.ascontiguousarray(results['frames'], dtype=np.float32)
        return dict(inputs=torch.from_numpy(frames), data_samples=packed['data_samples'])

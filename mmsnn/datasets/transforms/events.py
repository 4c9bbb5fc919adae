"""Load, resize, augment and pack frames of events.

All of them act on ``results['frames']``, a (T, 2, H, W) float32 array. A random one draws once for
a sample: every time step and both polarities are moved alike, and no frame is mixed with another.
Resizing and mirroring move ``results['gt_bboxes']`` too, where there are any; what would leave
boxes where no object is any more refuses them.
"""

import math
from collections.abc import Sequence
from typing import Optional, Union

import numpy as np
import torch
import torch.nn.functional as F
from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_randomness
from mmdet.registry import TRANSFORMS

from ...structures import ClsDataSample
from ..errors import DatasetError
from ..events.cache import load_frames
from ..events.frames import check_framing
from ..events.io import check_sensor_size, find_sensor_size
from ..events.problems import check_all

__all__ = [
    'NDA',
    'EventCutout',
    'EventRandomFlip',
    'EventRandomRoll',
    'EventRandomRotate',
    'EventRandomShear',
    'LoadEventFrames',
    'PackEventInputs',
    'ResizeEventFrames',
]


def _refuse_boxes(transform: BaseTransform, results: dict) -> None:
    if 'gt_bboxes' in results:
        raise DatasetError(
            f'{type(transform).__name__} moves the events and not their boxes: it is for '
            'recognition. Take it out of the pipeline'
        )


@TRANSFORMS.register_module()
class LoadEventFrames(BaseTransform):
    """Read the recording at ``img_path`` and count its events by frame, polarity and pixel.

    Required: img_path. Added: frames (T, 2, H, W) float32, img_shape and ori_shape (H, W).

    Args:
        time_steps: Number of time steps, T.
        split_by: 'count' for equally many events in each frame, 'time' for equally long frames.
        sensor_size: (W, H) in pixels, where the files do not say it.
        cache_dir: Folder in which the frames are kept for the next time. None keeps none.

    Raises:
        DatasetError: If an argument or the recording cannot be used.
    """

    def __init__(
        self,
        time_steps: int,
        split_by: str = 'count',
        sensor_size: Optional[Sequence[int]] = None,
        cache_dir: Optional[str] = None,
    ):
        try:
            check_framing(time_steps, split_by)
            self.sensor_size = None if sensor_size is None else check_sensor_size(sensor_size)
        except ValueError as error:
            raise DatasetError(f'{type(self).__name__}: {error}') from error
        self.time_steps = time_steps
        self.split_by = split_by
        self.cache_dir = cache_dir

    def check_files(self, paths: Sequence[str]) -> None:
        """Check before a run that the recordings say the size of their sensor, if it isn't given.

        Args:
            paths: The recordings.

        Raises:
            DatasetError: One does not, or a size that cannot be.
        """
        if self.sensor_size is None:
            check_all(paths, find_sensor_size)

    def transform(self, results: dict) -> dict:
        """Load the frames.

        Args:
            results: With ``img_path``.

        Returns:
            The same, with ``frames``.
        """
        frames = load_frames(
            results['img_path'], self.time_steps, self.split_by, self.sensor_size, self.cache_dir
        )
        results['frames'] = frames.astype(np.float32)
        results['img_shape'] = results['ori_shape'] = frames.shape[-2:]
        return results

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(time_steps={self.time_steps}, split_by={self.split_by!r}, '
            f'sensor_size={self.sensor_size}, cache_dir={self.cache_dir!r})'
        )


@TRANSFORMS.register_module()
class ResizeEventFrames(BaseTransform):
    """Resize every frame.

    Required and changed: frames, img_shape. Changed, if there: gt_bboxes. Added: scale_factor.

    Args:
        size: Side in pixels, or (H, W).
        mode: Of ``torch.nn.functional.interpolate``: 'bilinear' samples at the new pixels'
            centres, 'area' takes the mean over each new pixel, 'nearest' keeps whole counts.
    """

    def __init__(self, size: Union[int, Sequence[int]], mode: str = 'bilinear'):
        self.size = (size, size) if isinstance(size, int) else tuple(size)
        self.mode = mode

    def transform(self, results: dict) -> dict:
        """Resize.

        Args:
            results: With ``frames``.

        Returns:
            The same, resized.
        """
        frames = torch.from_numpy(np.ascontiguousarray(results['frames']))
        results['frames'] = F.interpolate(frames, size=self.size, mode=self.mode).numpy()
        results['img_shape'] = self.size
        height, width = frames.shape[-2:]
        scale = self.size[1] / width, self.size[0] / height
        before = results.get('scale_factor', (1.0, 1.0))
        results['scale_factor'] = (before[0] * scale[0], before[1] * scale[1])
        if 'gt_bboxes' in results:
            results['gt_bboxes'].rescale_(scale)
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(size={self.size}, mode={self.mode!r})'


@TRANSFORMS.register_module()
class EventRandomFlip(BaseTransform):
    """Mirror left and right.

    Required and changed: frames. Changed, if there: gt_bboxes. Added: flip, flip_direction.

    Args:
        prob: Probability.
    """

    def __init__(self, prob: float = 0.5):
        self.prob = prob

    @cache_randomness
    def _draw(self):
        return bool(np.random.rand() < self.prob)

    def transform(self, results: dict) -> dict:
        """Flip or not.

        Args:
            results: With ``frames``.

        Returns:
            The same.
        """
        results['flip'] = self._draw()
        results['flip_direction'] = 'horizontal' if results['flip'] else None
        if results['flip']:
            if 'gt_bboxes' in results:
                results['gt_bboxes'].flip_(results['frames'].shape[-2:], 'horizontal')
            results['frames'] = np.ascontiguousarray(results['frames'][..., ::-1])
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(prob={self.prob})'


@TRANSFORMS.register_module()
class EventRandomRoll(BaseTransform):
    """Shift in x and in y; what leaves at one side enters at the other.

    Required and changed: frames.

    Args:
        max_shift: Both shifts are drawn from -max_shift .. max_shift, in pixels.
    """

    def __init__(self, max_shift: int = 5):
        self.max_shift = max_shift

    @cache_randomness
    def _draw(self):
        return tuple(np.random.randint(-self.max_shift, self.max_shift + 1, size=2).tolist())

    def transform(self, results: dict) -> dict:
        """Roll.

        Args:
            results: With ``frames``.

        Returns:
            The same.
        """
        _refuse_boxes(self, results)
        results['frames'] = np.roll(results['frames'], self._draw(), axis=(-2, -1))
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(max_shift={self.max_shift})'


def warp(frames: np.ndarray, matrix: Sequence[Sequence[float]]) -> np.ndarray:
    """Take each pixel from where a matrix sends it, about the middle of the frame.

    The value at the offset (dx, dy) from the middle is the frame's at the offset
    matrix @ (dx, dy), by the nearest pixel, so that counts stay whole; outside is 0.

    Args:
        frames: (T, 2, H, W).
        matrix: 2x2, in pixels.

    Returns:
        (T, 2, H, W).
    """
    time_steps, polarities, height, width = frames.shape
    # affine_grid measures in halves of the width and of the height.
    (xx, xy), (yx, yy) = matrix
    theta = torch.tensor([[[xx, xy * height / width, 0], [yx * width / height, yy, 0]]])
    # Time and polarity are channels: one grid for all of them.
    image = torch.from_numpy(np.ascontiguousarray(frames)).reshape(1, -1, height, width)
    grid = F.affine_grid(theta.to(image), list(image.shape), align_corners=False)
    image = F.grid_sample(image, grid, mode='nearest', align_corners=False)
    return image.reshape(time_steps, polarities, height, width).numpy()


class _EventRandomWarp(BaseTransform):
    """Base of the transforms that draw one angle.

    Args:
        max_angle: The angle is drawn from -max_angle .. max_angle, in degrees.
    """

    def __init__(self, max_angle: float = 30.0):
        self.max_angle = max_angle

    @cache_randomness
    def _draw(self):
        return float(np.random.uniform(-self.max_angle, self.max_angle))

    def matrix(self, angle: float) -> list[list[float]]:
        """What :func:`warp` takes, for an angle in radians."""
        raise NotImplementedError

    def transform(self, results: dict) -> dict:
        """Draw an angle and warp.

        Args:
            results: With ``frames``.

        Returns:
            The same.
        """
        _refuse_boxes(self, results)
        results['frames'] = warp(results['frames'], self.matrix(math.radians(self._draw())))
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(max_angle={self.max_angle})'


@TRANSFORMS.register_module()
class EventRandomRotate(_EventRandomWarp):
    """Rotate about the middle.

    Required and changed: frames.

    Args:
        max_angle: The angle is drawn from -max_angle .. max_angle, in degrees.
    """

    def matrix(self, angle: float) -> list[list[float]]:
        """A rotation."""
        cos, sin = math.cos(angle), math.sin(angle)
        return [[cos, -sin], [sin, cos]]


@TRANSFORMS.register_module()
class EventRandomShear(_EventRandomWarp):
    """Shear in x: a pixel at dy from the middle row moves by tan(angle) dy.

    Required and changed: frames.

    Args:
        max_angle: The angle is drawn from -max_angle .. max_angle, in degrees.
    """

    def matrix(self, angle: float) -> list[list[float]]:
        """A shear."""
        return [[1.0, -math.tan(angle)], [0.0, 1.0]]


@TRANSFORMS.register_module()
class EventCutout(BaseTransform):
    """Silence a square, the same in every frame.

    Required and changed: frames.

    Args:
        max_size: The side is drawn from 1 .. max_size, in pixels. The square's middle is anywhere
            on the frame, so it may reach over the border.
    """

    def __init__(self, max_size: int = 8):
        self.max_size = max_size

    @cache_randomness
    def _draw(self, height, width):
        side = np.random.randint(1, self.max_size + 1)
        return side, np.random.randint(height), np.random.randint(width)

    def transform(self, results: dict) -> dict:
        """Cut out.

        Args:
            results: With ``frames``.

        Returns:
            The same; the array that came in is left as it was.
        """
        frames = results['frames'].copy()
        side, row, column = self._draw(*frames.shape[-2:])
        top, left = row - side // 2, column - side // 2
        frames[..., max(top, 0) : top + side, max(left, 0) : left + side] = 0
        results['frames'] = frames
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(max_size={self.max_size})'


@TRANSFORMS.register_module()
class NDA(BaseTransform):
    """Neuromorphic data augmentation (Li et al. 2022) as used for DVS-CIFAR10 at 48x48.

    A random flip, then one of roll, rotation, shear and cutout, drawn for each sample.

    Required and changed: frames. Added: flip.

    Args:
        flip_prob: Probability of the flip.
        max_shift: Of the roll, in pixels.
        max_angle: Of the rotation, in degrees.
        max_shear: Of the shear, in degrees. 0 leaves shear out.
        max_cutout: Side of the cutout, in pixels. 0 leaves cutout out.

    Example:
        >>> import numpy as np
        >>> from mmsnn.datasets.transforms import NDA
        >>> NDA()(dict(frames=np.ones((4, 2, 48, 48), np.float32)))['frames'].shape
        (4, 2, 48, 48)
    """

    def __init__(
        self,
        flip_prob: float = 0.5,
        max_shift: int = 5,
        max_angle: float = 30.0,
        max_shear: float = 30.0,
        max_cutout: int = 8,
    ):
        self.flip = EventRandomFlip(flip_prob)
        self.choices = [EventRandomRoll(max_shift), EventRandomRotate(max_angle)]
        if max_shear:
            self.choices.append(EventRandomShear(max_shear))
        if max_cutout:
            self.choices.append(EventCutout(max_cutout))

    @cache_randomness
    def _draw(self):
        return int(np.random.randint(len(self.choices)))

    def transform(self, results: dict) -> dict:
        """Augment.

        Args:
            results: With ``frames``.

        Returns:
            The same.
        """
        _refuse_boxes(self, results)
        return self.choices[self._draw()](self.flip(results))

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.flip}, one of {self.choices})'


@TRANSFORMS.register_module()
class PackEventInputs(BaseTransform):
    """Pack what the model takes.

    Required: frames. Optional: gt_label and the meta keys.

    Args:
        meta_keys: What goes into the sample's metainfo, as far as it is there.
    """

    def __init__(
        self,
        meta_keys: Sequence[str] = ('sample_idx', 'img_path', 'ori_shape', 'img_shape', 'flip'),
    ):
        self.meta_keys = tuple(meta_keys)

    def transform(self, results: dict) -> dict:
        """Pack.

        Args:
            results: With ``frames``.

        Returns:
            ``inputs``, a (T, 2, H, W) float32 tensor, and ``data_samples``, a
            :class:`~mmsnn.structures.ClsDataSample`.
        """
        frames = np.ascontiguousarray(results['frames'], dtype=np.float32)
        sample = ClsDataSample(
            metainfo={key: results[key] for key in self.meta_keys if key in results}
        )
        if 'gt_label' in results:
            sample.set_gt_label(results['gt_label'])
        return dict(inputs=torch.from_numpy(frames), data_samples=sample)

    def __repr__(self) -> str:
        return f'{type(self).__name__}(meta_keys={self.meta_keys})'

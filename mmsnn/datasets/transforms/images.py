"""What the recipes for CIFAR and ImageNet need and MMDetection and mmcv do not have.

Flips, resizing of the shorter edge, centre crops, colour and geometric operations, AutoAugment
and RandAugment are MMDetection's and mmcv's own. Everything random is drawn from NumPy's global
generator, as theirs is, which every worker of a data loader seeds for itself.
"""

import math
from collections.abc import Sequence
from typing import Union

import mmcv
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS

from ...structures import ClsDataSample

Size = Union[int, Sequence[int]]


def _pair(size: Size, name: str, least: int) -> tuple[int, int]:
    """One or two whole numbers as two.

    Args:
        size: The same number for height and width, or (height, width).
        name: The argument, for the message.
        least: Smallest number allowed.

    Returns:
        (height, width).

    Raises:
        ValueError: It is neither.
    """
    pair = (size, size) if isinstance(size, int) else tuple(size)
    if len(pair) != 2 or not all(isinstance(side, int) and side >= least for side in pair):
        raise ValueError(
            f'{name} must be a whole number of pixels or (height, width), at least {least}: '
            f'got {size!r}'
        )
    return pair


@TRANSFORMS.register_module()
class RandomPadCrop(BaseTransform):
    """Pad an image on all sides and crop a random window: the shift augmentation of CIFAR.

    Required keys: ``img`` (H, W) or (H, W, C). Modified keys: ``img``, ``img_shape``.

    Args:
        size: Size of the window, one number or (height, width).
        padding: Pixels added to each side, one number or (top and bottom, left and right).
        pad_val: Value of the added pixels, one number or one for each channel. Images are not
            normalised yet, so black is 0.

    Raises:
        ValueError: An argument makes no sense, or the padded image is smaller than the window.

    Example:
        >>> import numpy as np
        >>> from mmsnn.datasets.transforms import RandomPadCrop
        >>> results = dict(img=np.zeros((32, 32, 3), np.uint8))
        >>> RandomPadCrop(size=32, padding=4)(results)['img'].shape
        (32, 32, 3)
    """

    def __init__(
        self, size: Size, padding: Size = 0, pad_val: Union[float, Sequence[float]] = 0
    ) -> None:
        self.size = _pair(size, 'size', 1)
        self.padding = _pair(padding, 'padding', 0)
        self.pad_val = pad_val

    def transform(self, results: dict) -> dict:
        """Pad and crop.

        Args:
            results: Results of the pipeline so far.

        Returns:
            The same dict.
        """
        img = results['img']
        (height, width), (pad_y, pad_x) = self.size, self.padding
        padded_h, padded_w = img.shape[0] + 2 * pad_y, img.shape[1] + 2 * pad_x
        if padded_h < height or padded_w < width:
            raise ValueError(
                f'RandomPadCrop(size={self.size}, padding={self.padding}) got an image of '
                f'{img.shape[0]}x{img.shape[1]} pixels ({results.get("img_path")}), which is '
                'smaller than the window even when it is padded: make padding larger or size '
                'smaller'
            )
        padded = np.empty((padded_h, padded_w, *img.shape[2:]), img.dtype)
        padded[...] = self.pad_val
        padded[pad_y : pad_y + img.shape[0], pad_x : pad_x + img.shape[1]] = img
        top = np.random.randint(padded_h - height + 1)
        left = np.random.randint(padded_w - width + 1)
        # A copy: a view would keep the rim alive and make later transforms write into it.
        results['img'] = padded[top : top + height, left : left + width].copy()
        results['img_shape'] = self.size
        return results

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(size={self.size}, padding={self.padding}, '
            f'pad_val={self.pad_val})'
        )


@TRANSFORMS.register_module()
class RandomResizedCrop(BaseTransform):
    """Crop a window of random area and aspect ratio and resize it: the augmentation of ImageNet.

    The window's area is a share of the image's drawn uniformly from ``area``, its ratio of width
    to height is drawn log-uniformly from ``ratio``, and its place is uniform. Where no window
    drawn fits into the image, it is the largest one in the centre whose ratio is within ``ratio``.

    Required keys: ``img`` (H, W) or (H, W, C). Modified keys: ``img``, ``img_shape``.

    Args:
        size: Size of the result, one number or (height, width).
        area: Smallest and largest share of the image's area.
        ratio: Smallest and largest width / height of the window.
        interpolation: Of :func:`mmcv.imresize`.
        backend: Of :func:`mmcv.imresize`: ``'cv2'`` or ``'pillow'``.
        max_attempts: Draws before the window in the centre is taken.

    Raises:
        ValueError: An argument makes no sense.

    Example:
        >>> import numpy as np
        >>> from mmsnn.datasets.transforms import RandomResizedCrop
        >>> results = dict(img=np.zeros((375, 500, 3), np.uint8))
        >>> RandomResizedCrop(224)(results)['img'].shape
        (224, 224, 3)
    """

    def __init__(
        self,
        size: Size,
        area: Sequence[float] = (0.08, 1.0),
        ratio: Sequence[float] = (3 / 4, 4 / 3),
        interpolation: str = 'bilinear',
        backend: str = 'cv2',
        max_attempts: int = 10,
    ) -> None:
        self.size = _pair(size, 'size', 1)
        for name, span in (('area', area), ('ratio', ratio)):
            if len(span) != 2 or not 0 < span[0] <= span[1]:
                raise ValueError(
                    f'{name} must be (smallest, largest), both above 0: got {tuple(span)}'
                )
        if area[1] > 1:
            raise ValueError(f'area is a share of the image, at most 1: got {tuple(area)}')
        if max_attempts < 0:
            raise ValueError(f'max_attempts must not be negative: got {max_attempts}')
        self.area = tuple(area)
        self.ratio = tuple(ratio)
        self.interpolation = interpolation
        self.backend = backend
        self.max_attempts = max_attempts

    def draw_window(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Draw the window of an image.

        Args:
            height: Of the image.
            width: Of the image.

        Returns:
            (top, left, height, width) of the window.
        """
        low, high = map(math.log, self.ratio)
        for _ in range(self.max_attempts):
            pixels = np.random.uniform(self.area[0], self.area[1]) * height * width
            ratio = math.exp(np.random.uniform(low, high))
            crop_h, crop_w = round(math.sqrt(pixels / ratio)), round(math.sqrt(pixels * ratio))
            if 0 < crop_h <= height and 0 < crop_w <= width:
                top = np.random.randint(height - crop_h + 1)
                left = np.random.randint(width - crop_w + 1)
                return top, left, crop_h, crop_w
        crop_h = min(height, max(1, round(width / self.ratio[0])))
        crop_w = min(width, max(1, round(height * self.ratio[1])))
        return (height - crop_h) // 2, (width - crop_w) // 2, crop_h, crop_w

    def transform(self, results: dict) -> dict:
        """Crop and resize.

        Args:
            results: Results of the pipeline so far.

        Returns:
            The same dict.
        """
        img = results['img']
        top, left, height, width = self.draw_window(*img.shape[:2])
        results['img'] = mmcv.imresize(
            img[top : top + height, left : left + width],
            self.size[::-1],
            interpolation=self.interpolation,
            backend=self.backend,
        )
        results['img_shape'] = self.size
        return results

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(size={self.size}, area={self.area}, ratio={self.ratio}, '
            f'interpolation={self.interpolation!r}, backend={self.backend!r}, '
            f'max_attempts={self.max_attempts})'
        )


@TRANSFORMS.register_module()
class PackClsInputs(BaseTransform):
    """Pack an image and its label for a classifier.

    Required keys: ``img`` (H, W) or (H, W, C); ``gt_label`` where it is known.

    Args:
        meta_keys: Keys that go into the sample's metainfo where the results have them.

    Example:
        >>> import numpy as np
        >>> from mmsnn.datasets.transforms import PackClsInputs
        >>> results = dict(img=np.zeros((32, 32, 3), np.uint8), gt_label=3, img_path='a.png')
        >>> packed = PackClsInputs()(results)
        >>> packed['inputs'].shape, packed['data_samples'].gt_label
        (torch.Size([3, 32, 32]), tensor([3]))
    """

    def __init__(
        self,
        meta_keys: Sequence[str] = (
            'sample_idx',
            'img_path',
            'ori_shape',
            'img_shape',
            'scale_factor',
            'flip',
            'flip_direction',
        ),
    ) -> None:
        self.meta_keys = tuple(meta_keys)

    def transform(self, results: dict) -> dict:
        """Pack.

        Args:
            results: Results of the pipeline so far.

        Returns:
            ``inputs``: (C, H, W), contiguous, of the image's own dtype (the data preprocessor
            casts); ``data_samples``: a :class:`~mmsnn.structures.ClsDataSample`.
        """
        img = results['img']
        if img.ndim == 2:
            img = img[..., None]
        inputs = torch.from_numpy(np.ascontiguousarray(img.transpose(2, 0, 1)))
        sample = ClsDataSample(
            metainfo={key: results[key] for key in self.meta_keys if key in results}
        )
        if results.get('gt_label') is not None:
            sample.set_gt_label(results['gt_label'])
        return {'inputs': inputs, 'data_samples': sample}

    def __repr__(self) -> str:
        return f'{type(self).__name__}(meta_keys={self.meta_keys})'

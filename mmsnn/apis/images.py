"""Pictures as they are handed to the functions of mmsnn.apis."""

import os
from collections.abc import Sequence
from typing import Any, Union

import numpy as np
from mmengine.config import Config
from PIL import Image as PILImage
from PIL import ImageOps

from .model import test_dataset

Image = Union[str, os.PathLike, np.ndarray, PILImage.Image]


def as_list(images: Any) -> tuple[list, bool]:
    """One or several pictures as a list.

    Args:
        images: A picture, a sequence of them, or an array that stacks them.

    Returns:
        The pictures, and whether several were given.
    """
    stacked = isinstance(images, np.ndarray) and images.ndim == 4
    several = stacked or isinstance(images, (list, tuple))
    return (list(images) if several else [images]), several


def path_or_bgr(image: Image, cfg: Config) -> Union[str, np.ndarray]:
    """A path as text, and any other picture as mmcv would load it from a file.

    Args:
        image: A path; an array (H, W, 3) in BGR, (H, W, 1) or (H, W) in grey, of values from 0 to
            255; or a Pillow image.
        cfg: The model's config; where its pipeline loads otherwise than in colour, arrays stay as
            they are.

    Returns:
        The path, or an array (H, W, 3) in BGR.

    Raises:
        ValueError: What cannot be meant, or could be meant in several ways; the message names
            shape and dtype.
    """
    if isinstance(image, (str, os.PathLike)):
        return os.fspath(image)
    if isinstance(image, PILImage.Image):
        return _from_pillow(image)
    if not isinstance(image, np.ndarray):
        shape = f' of shape {tuple(image.shape)}' if hasattr(image, 'shape') else ''
        raise ValueError(
            f'a picture is a path, a numpy array (H, W, 3) in BGR or a Pillow image, got a '
            f'{type(image).__name__}{shape}'
        )
    pipeline: Sequence[dict] = test_dataset(cfg).get('pipeline') or [{}]
    if not str(pipeline[0].get('color_type', 'color')).startswith('color'):
        return image
    what = f'got an array of shape {image.shape} and dtype {image.dtype}'
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or image.shape[-1] not in (1, 3) or image.size == 0:
        raise ValueError(
            f'a picture as an array is (H, W, 3) in BGR, or (H, W) in grey: {what}{_mend(image)}'
        )
    if image.dtype != np.uint8:
        _check_values(image, what)
    return np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image


def _mend(image: np.ndarray) -> str:
    """What to write for arrays that are no picture as they are."""
    if image.ndim == 3 and image.shape[-1] == 4:
        return '. Leave the fourth channel out: image[..., :3] of BGRA, image[..., 2::-1] of RGBA'
    if image.ndim == 3 and image.shape[0] in (1, 3):
        return (
            '. Channels come last: image.transpose(1, 2, 0) of BGR, '
            'image[::-1].transpose(1, 2, 0) of RGB'
        )
    return ''


def _check_values(image: np.ndarray, what: str) -> None:
    """Refuse values that are no picture of 0 to 255, or may be one of another range."""
    kind = image.dtype.kind
    if kind in 'iuf':
        low, high = image.min(), image.max()
        what = f'{what} with values from {low} to {high}'
        # A dark picture of 16 bits and one of 8 bits can't be told apart, nor 0..1 and black.
        if low >= 0 and high <= 255 and (kind == 'i' or (kind == 'f' and high > 1)):
            return
    raise ValueError(
        f"a picture's values go from 0 to 255: {what}. Bring them there, as by "
        '(255 * image).round().astype(np.uint8) for 0..1 or (image // 257).astype(np.uint8) for '
        '16 bits'
    )


def _from_pillow(image: PILImage.Image) -> np.ndarray:
    if image.mode.startswith(('I', 'F')):
        raise ValueError(
            f'a Pillow image of mode {image.mode!r} and size {image.size} has no range of values '
            'that is known: convert it to 8 bits'
        )
    # As mmcv loads files: upright, and without transparency.
    upright = ImageOps.exif_transpose(image).convert('RGB')
    return np.ascontiguousarray(np.asarray(upright)[..., ::-1])

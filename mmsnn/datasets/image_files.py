"""Image files: listed, named, and read to be drawn on."""

import os
from collections.abc import Iterable, Sequence
from typing import Optional

import mmcv
import numpy as np

from .checks.images import image_problem
from .files import is_by_product

#: Endings of file names that are images, in small letters.
IMAGE_EXTENSIONS = ('.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.pgm', '.tif', '.tiff', '.webp')


class UnreadableImageError(ValueError):
    """A file that should be an image and isn't; the message names it."""


def read_rgb(path: str) -> np.ndarray:
    """Load an image as a picture to draw on.

    Args:
        path: The file.

    Returns:
        (H, W, 3), uint8, RGB.

    Raises:
        UnreadableImageError: It is missing or broken.
    """
    try:
        image = mmcv.imread(path, channel_order='rgb')
    except Exception as error:  # what OpenCV raises for an empty file has no class of its own
        raise UnreadableImageError(f'{path} ({image_problem(path) or error})') from error
    if image is None:
        raise UnreadableImageError(f'{path} ({image_problem(path) or "not readable"})')
    return image


def list_images(folder: str) -> tuple[list[str], list[str]]:
    """The images in a folder and all folders below, whatever the case of their endings.

    Args:
        folder: The folder.

    Returns:
        Paths of the images, and of other files, both sorted; hidden ones are in neither.
    """
    images: list[str] = []
    others: list[str] = []
    for where, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not is_by_product(name))
        for name in sorted(files):
            if not is_by_product(name):
                kind = images if name.lower().endswith(IMAGE_EXTENSIONS) else others
                kind.append(os.path.join(where, name))
    return images, others


def output_names(
    paths: Sequence[str], suffix: Optional[str] = None, taken: Sequence[str] = ()
) -> dict[str, str]:
    """Names for files that are made of images, no two the same.

    The image's own name, as in MMDetection; where two images have the same, all keep the folders
    below the one that holds them all. With another suffix, where ``a.jpg`` and ``a.png`` are both
    there, all keep their own too, as in ``a.jpg.json``.

    Args:
        paths: The images.
        suffix: Suffix of what is made, such as ``'.json'``; None for the image's own.
        taken: Names that are given to something else.

    Returns:
        A name, or a path relative to the folder of outputs, for each path.
    """
    full = {path: os.path.abspath(path) for path in paths}
    distinct = sorted(set(full.values()))
    names = {path: os.path.basename(path) for path in distinct}
    if not _all_differ(names.values()):
        root = os.path.commonpath([os.path.dirname(path) for path in distinct])
        names = {path: os.path.relpath(path, root) for path in distinct}
    if suffix is not None:
        stems = {path: os.path.splitext(name)[0] + suffix for path, name in names.items()}
        longer = {path: name + suffix for path, name in names.items()}
        names = stems if _all_differ([*stems.values(), *taken]) else longer
    return {path: names[absolute] for path, absolute in full.items()}


def _all_differ(names: Iterable[str]) -> bool:
    """Whether no two are the same, on file systems too that don't tell A from a."""
    names = [name.lower() for name in names]
    return len(set(names)) == len(names)

"""Image files: listed, named, and checked without decoding all of them."""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Optional

import mmcv
import numpy as np
from PIL import Image
from rich.progress import track

from .files import open_file

#: Endings of file names that are images, in small letters.
IMAGE_EXTENSIONS = ('.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.pgm', '.tif', '.tiff', '.webp')
# From about this many images on, a check takes seconds and shows its progress.
PROGRESS_FROM = 3000

JPEG_START, JPEG_END = b'\xff\xd8\xff', b'\xff\xd9'
PNG_START, PNG_END = b'\x89PNG\r\n\x1a\n', b'IEND\xaeB`\x82'


def image_problem(path: str) -> Optional[str]:
    """What is wrong with an image file.

    Decoding every image would take as long as an epoch. An image that starts and ends as its
    format should is taken as whole; only the others are decoded.

    Args:
        path: The file.

    Returns:
        One or a few words, or None.
    """
    try:
        with open_file(path) as file:
            start = file.read(8)
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - 64))
            end = file.read()
    except FileNotFoundError:
        return 'missing'
    except OSError as error:
        return error.strerror or 'not readable'
    except ValueError as error:  # a zero byte in the path
        return str(error)
    if size == 0:
        return 'empty, 0 bytes'
    if start.startswith(JPEG_START) and JPEG_END in end:
        return None
    if start == PNG_START and PNG_END in end:
        return None
    try:
        with Image.open(path) as image:
            image.load()
    except Exception as error:  # what Pillow raises for broken data depends on the format
        known = start.startswith(JPEG_START) or start == PNG_START
        return 'truncated' if known else f'not an image: {type(error).__name__}'
    return None


def list_bad_images(names: Sequence[str], folder: str) -> list[str]:
    """Image files that are missing or broken.

    Args:
        names: Paths, relative to the folder.
        folder: The folder.

    Returns:
        The name of each of them and, in brackets, what is wrong with it.
    """
    paths = [os.path.join(folder, name) for name in names]
    # The time goes into waiting for the disk, or for the network behind it.
    with ThreadPoolExecutor(16) as pool:
        problems = track(
            pool.map(image_problem, paths),
            description=f'Checking {folder}',
            total=len(paths),
            disable=len(paths) < PROGRESS_FROM,
        )
        return [f'{name} ({problem})' for name, problem in zip(names, problems) if problem]


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
    images, others = [], []
    for where, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith('.'))
        for name in sorted(files):
            if not name.startswith('.'):
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

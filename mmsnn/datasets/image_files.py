"""Find image files that are missing or broken without decoding all of them."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Optional

from PIL import Image
from rich.progress import track

from .files import open_file

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

"""Find image files that a run could not use, without decoding all of them."""

import hashlib
import json
import os
import struct
import threading
import warnings
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Optional, Union

import mmcv
from mmcv.transforms import LoadImageFromFile
from PIL import Image
from rich.progress import track

from ...config_types import find_type
from ...ops import cache_folder
from ..errors import DatasetError
from ..files import open_file

# From about this many images on, a check takes seconds and shows its progress.
PROGRESS_FROM = 3000

JPEG_START, JPEG_END = b'\xff\xd8\xff', b'\xff\xd9'
PNG_START, PNG_END = b'\x89PNG\r\n\x1a\n', b'IEND\xaeB`\x82'

ORIENTATION = 0x112  # the tag of EXIF
# Whole pictures of other formats are in memory while they are decoded.
_decoding = threading.BoundedSemaphore(2)


class Loader(NamedTuple):
    """How a pipeline reads image files: the arguments of its ``LoadImageFromFile``.

    - ``color_type``: decides whether an EXIF orientation is honoured.
    - ``backend``: the decoder.
    - ``ignore_empty``: files that cannot be read are passed over.
    """

    color_type: str = 'color'
    backend: str = 'cv2'
    ignore_empty: bool = False

    def turns(self) -> bool:
        """Whether pictures are turned as their EXIF orientation says."""
        return self.backend in ('cv2', 'pillow') and self.color_type in ('color', 'grayscale')


class Picture(NamedTuple):
    """What the run gets from a file.

    - ``width``, ``height``: as decoded, in pixels; 0 where the size is not known.
    - ``orientation``: the file's EXIF orientation, 1 for none.
    """

    width: int
    height: int
    orientation: int = 1


def find_loader(pipeline: Optional[Sequence[Any]]) -> Optional[Loader]:
    """How a pipeline reads image files.

    Args:
        pipeline: Configs of its transforms; nothing for MMDetection's defaults.

    Returns:
        The loader, or None where it isn't MMDetection's: what such a loader can read, and from
        where, is not known.
    """
    # Here and not above: reading headers should not need the whole of MMDetection.
    from mmdet.registry import TRANSFORMS

    from ..transforms import loading

    if not pipeline:
        return Loader()
    for transform in pipeline:
        # mmcv's or mmsnn's, which reads the same, and not what a user has made of them.
        if find_type(transform, TRANSFORMS) in (LoadImageFromFile, loading.LoadImageFromFile):
            return Loader(
                transform.get('color_type', 'color'),
                transform.get('imdecode_backend', 'cv2') or 'cv2',
                transform.get('ignore_empty', False),
            )
    return None


def image_problem(path: str) -> Optional[str]:
    """What is wrong with an image file in one or a few words, or None."""
    found = look_at_image(path, Loader())
    return found if isinstance(found, str) else None


def look_at_image(path: str, loader: Loader) -> Union[str, Picture]:
    """Look at an image file.

    Decoding every image would take as long as an epoch. A JPEG or PNG with a whole header that
    ends as its format should is taken as whole; others are decoded as the run does it.

    Args:
        path: The file.
        loader: How the run reads it.

    Returns:
        The picture, or what is wrong with it in one or a few words.
    """
    if '\0' in path:
        return 'embedded null byte'
    try:
        with open_file(path) as file:
            start = file.read(8)
            size = os.fstat(file.fileno()).st_size
            if size == 0:
                return 'empty, 0 bytes'
            file.seek(max(0, size - 64))
            end = file.read()
            jpeg, png = start.startswith(JPEG_START), start == PNG_START
            if (jpeg and JPEG_END in end) or (png and PNG_END in end):
                file.seek(0)
                picture = _read_header(file, loader)
                # Which decoder honours the orientation of a PNG depends on its version.
                if picture is not None and (jpeg or picture.orientation == 1):
                    return picture
            elif jpeg or png:
                file.seek(0)
                with _decoding, Image.open(file) as image:
                    image.load()  # more strict than OpenCV, which fills up with grey
            file.seek(0)
            with _decoding:
                return _decode(file.read(), loader)
    except FileNotFoundError:
        return 'missing'
    except OSError as error:  # Pillow's, too, but without an errno
        return (error.strerror if error.errno else 'truncated') or 'not readable'
    except (SyntaxError, ValueError, EOFError, struct.error, zlib.error):
        return 'truncated'


def _read_header(file, loader) -> Optional[Picture]:
    try:
        with Image.open(file) as image:
            width, height = image.size
            if loader.backend == 'pillow':
                exif = image.getexif()  # as ImageOps.exif_transpose does it
            else:
                exif = Image.Exif()
                exif.load(image.info.get('exif') or b'')
            orientation = int(exif.get(ORIENTATION) or 1)
    except Exception:  # what Pillow raises for broken data depends on the format
        return None
    if loader.turns() and orientation in (5, 6, 7, 8):
        width, height = height, width
    return Picture(width, height, orientation)


def _decode(content, loader) -> Union[str, Picture]:
    try:
        pixels = mmcv.imfrombytes(content, loader.color_type, backend=loader.backend)
    except Image.DecompressionBombError:
        return 'too large for Pillow, take another imdecode_backend'
    except Exception as error:  # what decoders raise for broken data depends on the format
        return f'not an image that {loader.backend} can read: {type(error).__name__}'
    if pixels is None:
        return f'not an image that {loader.backend} can read'
    return Picture(pixels.shape[1], pixels.shape[0])


# --- many files ----------------------------------------------------------------------------------


def look_at_images(
    names: Sequence[str], folder: str, loader: Loader
) -> dict[str, Union[str, Picture]]:
    """Look at image files; at those that were good the last time, not again.

    What was seen is kept in the cache of the user, by size and time of change of the files.

    Args:
        names: Paths, relative to the folder.
        folder: The folder.
        loader: How the run reads them.

    Returns:
        For each name, the picture or what is wrong with it in words.
    """
    names = list(dict.fromkeys(names))
    cache = _cache_file(folder, loader)
    seen = _read_cache(cache)
    new = {}

    def look(name):
        path = os.path.join(folder, name)
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            return look_at_image(path, loader)  # which says why
        stamp = [status.st_size, status.st_mtime_ns]
        known = seen.get(name)
        if known is not None and known[:2] == stamp:
            return Picture(*known[2:])
        found = look_at_image(path, loader)
        if isinstance(found, Picture):
            new[name] = [*stamp, *found]
        return found

    # The time goes into waiting for the disk, or for the network behind it; of a few files, not.
    with ThreadPoolExecutor(min(16, 1 + len(names) // 100)) as pool, warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of Pillow, on large pictures and odd metadata
        found = track(
            pool.map(look, names),
            description=f'Checking {folder}',
            total=len(names),
            disable=len(names) < PROGRESS_FROM,
        )
        pictures = dict(zip(names, found))
    if new:
        _write_cache(cache, {**seen, **new})
    return pictures


def _cache_file(folder, loader) -> Path:
    key = '\n'.join([os.path.abspath(folder or '.'), *map(str, loader)])
    return cache_folder() / 'images' / f'{hashlib.sha256(key.encode()).hexdigest()[:32]}.json'


def _read_cache(path) -> dict[str, list[int]]:
    try:
        seen = json.loads(path.read_text(encoding='utf-8'))
        whole = all(len(v) == 5 and all(type(n) is int for n in v) for v in seen.values())
    except (OSError, ValueError, AttributeError, TypeError):
        return {}  # it is written anew
    return seen if whole else {}


def _write_cache(path, seen) -> None:
    part = path.with_name(f'{path.name}.{os.getpid()}')
    with suppress(OSError):  # without a cache, the next check takes longer
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(seen), encoding='utf-8')
        os.replace(part, path)


def check_image_files(
    names: Sequence[str], folder: str, loader: Optional[Loader], of: str, advice: str
) -> tuple[dict[str, Picture], list[str]]:
    """Check that a run can read its image files.

    Args:
        names: Paths, relative to the folder.
        folder: The folder.
        loader: How the run reads them; None for a loader of the user's own, of which nothing is
            known: what is wrong is then warned of and not refused.
        of: Says in the message which images they are, after "of the N images".
        advice: What to do.

    Returns:
        The good ones, empty for a loader of the user's own; and warnings.

    Raises:
        DatasetError: Some are missing or broken; the message names up to three.
    """
    if loader is None:
        found: Mapping = {
            name: 'missing' for name in names if not os.path.exists(os.path.join(folder, name))
        }
    else:
        found = look_at_images(names, folder, loader)
    bad = [f'{name} ({problem})' for name, problem in found.items() if isinstance(problem, str)]
    good = {name: picture for name, picture in found.items() if isinstance(picture, Picture)}
    if not bad:
        return good, []
    message = f'{len(bad)} of the {len(names)} images{of} cannot be used from {folder}: '
    message += ', '.join(bad[:3]) + (f' and {len(bad) - 3} more' if len(bad) > 3 else '')
    if loader is None:
        return good, [f"{message}; the config's own loader may find them elsewhere"]
    if loader.ignore_empty:
        return good, [f'{message}; ignore_empty passes them over']
    raise DatasetError(f'{message}. {advice}')

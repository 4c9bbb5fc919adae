"""Frames on the disk, so that events are read and framed once."""

import hashlib
import json
import os
import tempfile
import zipfile
from pathlib import Path
from typing import Optional, Union

import numpy as np

from ..errors import DatasetError
from .frames import to_frames
from .io import read_events

__all__ = ['load_frames']

# To be raised where readers or frames change their meaning: older files are then not found.
CACHE_VERSION = 1


def load_frames(
    path: Union[str, Path],
    time_steps: int,
    split_by: str = 'count',
    sensor_size: Optional[tuple[int, int]] = None,
    cache_dir: Union[str, Path, None] = None,
) -> np.ndarray:
    """Read the events of a file and frame them, or take the frames from the cache.

    An entry is found by the file's absolute path, size and time of change and by the arguments, so
    a changed file is read again. A hit opens no event file. Entries are written beside their place
    and then renamed, so processes may share a cache and none sees half an entry.

    Args:
        path: The event file.
        time_steps: T.
        split_by: 'count' or 'time', see :func:`~mmsnn.datasets.events.to_frames`.
        sensor_size: (W, H), see :func:`~mmsnn.datasets.events.read_events`.
        cache_dir: Folder of the cache, made where it is missing. None caches nothing.

    Returns:
        (T, 2, H, W), counts of events in an integer dtype.

    Raises:
        DatasetError: If the file cannot be used or the cache not be written.
    """
    if cache_dir is None:
        return to_frames(read_events(path, sensor_size), time_steps, split_by)
    entry = _entry(path, time_steps, split_by, sensor_size, cache_dir)
    frames = _load(entry)
    if frames is None:
        frames = to_frames(read_events(path, sensor_size), time_steps, split_by)
        # A pixel rarely has more than 255 events in a frame: a byte instead of four.
        frames = frames.astype(np.min_scalar_type(int(frames.max())))
        _store(entry, frames)
    return frames


def _entry(path, time_steps, split_by, sensor_size, cache_dir):
    try:
        status = os.stat(path)
    except OSError as error:
        raise DatasetError(f'{os.fspath(path)} cannot be read: {error.strerror}') from error
    size = None if sensor_size is None else [int(side) for side in sensor_size]
    place = os.path.abspath(path)
    key = [CACHE_VERSION, place, status.st_size, status.st_mtime_ns, time_steps, split_by, size]
    name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]
    return Path(cache_dir) / name[:2] / f'{name}.npz'


def _load(entry):
    try:
        with np.load(entry, allow_pickle=False) as archive:
            return archive['frames']
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile):
        return None  # absent, or broken by a full disk: make it again


def _store(entry, frames):
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=entry.parent, suffix='.part')
        try:
            with os.fdopen(handle, 'wb') as file:
                np.savez_compressed(file, frames=frames)
            os.replace(temporary, entry)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise DatasetError(
            f'frames cannot be cached in {entry.parent}: {error.strerror}. Give another cache_dir, '
            'or None'
        ) from error

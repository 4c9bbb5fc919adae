"""Frames on the disk, so that events are read and framed once."""

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Optional, Union

import numpy as np

from ..errors import DatasetError
from ..files import open_file
from .arrays import member_head, open_archive, read_member
from .frames import check_framing, to_frames
from .io import check_sensor_size, read_events

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
        time_steps: Number of time steps, T.
        split_by: 'count' or 'time', see :func:`~mmsnn.datasets.events.to_frames`.
        sensor_size: (W, H), see :func:`~mmsnn.datasets.events.read_events`.
        cache_dir: Folder of the cache, made where it is missing. None caches nothing.

    Returns:
        (T, 2, H, W), counts of events in an integer dtype.

    Raises:
        DatasetError: If the file cannot be used or the cache not be written.
    """
    check_framing(time_steps, split_by)
    if sensor_size is not None:
        sensor_size = check_sensor_size(sensor_size)
    if cache_dir is None:
        return _frames(path, time_steps, split_by, sensor_size)
    entry = _entry(path, time_steps, split_by, sensor_size, cache_dir)
    frames = _load(entry, time_steps, sensor_size)
    if frames is None:
        frames = _frames(path, time_steps, split_by, sensor_size)
        # A pixel rarely has more than 255 events in a frame: a byte instead of four.
        frames = frames.astype(np.min_scalar_type(int(frames.max())))
        _store(entry, frames)
    return frames


def _frames(path, time_steps, split_by, sensor_size):
    events = read_events(path, sensor_size)
    try:
        return to_frames(events, time_steps, split_by)
    except MemoryError as error:
        width, height = events.sensor_size
        raise DatasetError(
            f'{os.fspath(path)}: {time_steps} frames of {width}x{height} pixels do not fit into '
            'the memory. Take fewer time_steps, or check sensor_size'
        ) from error


def _entry(path, time_steps, split_by, sensor_size, cache_dir):
    try:
        status = os.stat(path)
    except OSError as error:
        raise DatasetError(f'{os.fspath(path)} cannot be read: {error.strerror}') from error
    key = [CACHE_VERSION, os.path.abspath(path), status.st_size, status.st_mtime_ns]
    key += [int(time_steps), split_by, None if sensor_size is None else list(sensor_size)]
    name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]
    return Path(cache_dir) / name[:2] / f'{name}.npz'


def _load(entry, time_steps, sensor_size):
    """The frames of an entry, or None where it is absent, broken or of another shape."""
    try:
        with open_file(entry) as file:
            member = open_archive(file)['frames']
            head = member_head(*member)
            _, _, height, width = head.shape
            size = (width, height) if sensor_size is None else sensor_size
            if head.shape != (time_steps, 2, size[1], size[0]) or head.dtype.kind != 'u':
                return None
            return read_member(*member, head)
    except Exception:  # a broken archive can end in nearly any of them: make the entry again
        return None


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

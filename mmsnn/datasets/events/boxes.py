"""Boxes of Prophesee's data sets: ``*_bbox.npy`` beside the recordings."""

import os
from pathlib import Path
from typing import Union

import numpy as np

from ..errors import DatasetError
from ..files import open_file
from .problems import blame, expect

__all__ = ['BOX_DTYPE', 'crop_boxes', 'make_boxes', 'read_boxes']

#: A box: its time in microseconds; left, top, width and height in pixels; class, track, confidence.
BOX_DTYPE = np.dtype(
    [
        ('t', np.int64),
        ('x', np.float64),
        ('y', np.float64),
        ('w', np.float64),
        ('h', np.float64),
        ('class_id', np.int64),
        ('track_id', np.int64),
        ('class_confidence', np.float64),
    ]
)
# What fields are called in files, of which those of Gen1's first release have the second.
_NAMES = {'t': ('t', 'ts'), 'class_confidence': ('class_confidence', 'confidence')}


def make_boxes(number: int) -> np.ndarray:
    """Boxes to be filled in, of full confidence and without a track.

    Args:
        number: How many, N.

    Returns:
        (N,) of :data:`BOX_DTYPE`; ``track_id`` is -1, ``class_confidence`` 1, all else 0.
    """
    boxes = np.zeros(number, BOX_DTYPE)
    boxes['track_id'], boxes['class_confidence'] = -1, 1
    return boxes


def read_boxes(path: Union[str, Path]) -> np.ndarray:
    """Read a ``*_bbox.npy`` of either generation.

    The time is called ``t`` or ``ts``, the confidence ``class_confidence`` or ``confidence``.

    Args:
        path: The file.

    Returns:
        (N,) of :data:`BOX_DTYPE`, in the order of time; of equal times, in the file's.

    Raises:
        DatasetError: No such file, fields that are missing, sides or places that are no numbers.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from mmsnn.datasets.events import BOX_DTYPE, read_boxes
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(f'{folder}/a_bbox.npy', np.ones(2, BOX_DTYPE))
        ...     read_boxes(f'{folder}/a_bbox.npy')['w']
        array([1., 1.])
    """
    path = os.fspath(path)
    with blame(path):
        with open_file(path) as file:
            expect(file.peek(6)[:6] == b'\x93NUMPY', path, '.npy (it does not start as numpy does)')
        # Mapped, so that a header that claims more than there is takes no memory.
        table = np.load(path, mmap_mode='r', allow_pickle=False)
        if table.ndim != 1 or table.dtype.names is None:
            raise DatasetError(
                f'{path} holds an array of shape {table.shape} and dtype {table.dtype}. Expected: '
                "boxes with the fields t, x, y, w, h, class_id, ... as Prophesee's"
            )
        boxes = make_boxes(len(table))
        missing = []
        for name in BOX_DTYPE.names or ():
            found = [other for other in _NAMES.get(name, (name,)) if other in table.dtype.names]
            if found:
                boxes[name] = table[found[0]]
            elif name not in ('track_id', 'class_confidence'):
                missing.append(' or '.join(_NAMES.get(name, (name,))))
    if missing:
        raise DatasetError(
            f'{path} has no field {", ".join(missing)}. It has: {", ".join(table.dtype.names)}'
        )
    sides = np.stack([boxes[name] for name in 'xywh'])
    wrong = np.flatnonzero(~np.isfinite(sides).all(0) | (sides[2:] < 0).any(0))
    if len(wrong):
        x, y, w, h = sides[:, wrong[0]]
        raise DatasetError(
            f'{path}: box {wrong[0]} has x={x}, y={y}, w={w}, h={h}. Expected: numbers, sides from '
            '0. Fetch it again'
        )
    return boxes[np.argsort(boxes['t'], kind='stable')]


def crop_boxes(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Cut boxes at the borders of the sensor.

    Args:
        boxes: (N,) of :data:`BOX_DTYPE`.
        size: (W, H) of the sensor, in pixels.

    Returns:
        (N,), of which those that lie outside have a side of 0.
    """
    boxes = boxes.copy()
    for place, side, end in (('x', 'w', size[0]), ('y', 'h', size[1])):
        low = np.clip(boxes[place], 0, end)
        high = np.clip(boxes[place] + boxes[side], 0, end)
        boxes[place], boxes[side] = low, high - low
    return boxes

"""HDF5 by h5py: `*_td.dat.h5` as RVT and eTraM use them, and DSEC's `events.h5`.

All have a group ``events`` with the columns x, y, t, p. RVT's and eTraM's have also the ``height``
and ``width`` of the sensor in it; DSEC's have ``t_offset``, which is added to all times, and
``ms_to_idx``, the number of the first event of each millisecond, which is the index of blocks here.
"""

import contextlib
import os

import numpy as np

from ..errors import DatasetError
from .blocks import SlicedBlocks
from .problems import expect

DSEC_SIZE = (640, 480)
# Of the cache of chunks: with the megabyte that is usual, a search unpacks a large chunk each time.
CACHE_BYTES = 2**24
#: Filters by their registered numbers that are often met and come with a package.
FILTERS = {32001: 'Blosc', 32004: 'LZ4', 32015: 'Zstandard', 32026: 'Blosc2', 36559: 'ECF'}


def import_h5py():
    """The package, and its plugins for compression where they are installed.

    Raises:
        DatasetError: It is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise DatasetError("HDF5 files need the package h5py: pip install 'mmsnn[hdf5]'") from error
    with contextlib.suppress(ImportError):
        import hdf5plugin  # noqa: F401  # registers itself
    return h5py


def _open(file, path):
    """The open file of h5py, its columns, and the sensor's size."""
    h5py = import_h5py()
    expect(file.peek(8)[:8] == b'\x89HDF\r\n\x1a\n', path, 'HDF5 (it does not start as one does)')
    opened = h5py.File(path, 'r', rdcc_nbytes=CACHE_BYTES)
    try:
        return (opened, *_columns(h5py, opened, path))
    except BaseException:
        opened.close()
        raise


def _columns(h5py, opened, path):
    group = opened.get('events')
    missing = [
        f'events/{name}'
        for name in 'xytp'
        if not isinstance(group, h5py.Group) or not isinstance(group.get(name), h5py.Dataset)
    ]
    if missing:
        raise DatasetError(
            f'{path} has no {", ".join(missing)}. It has: '
            f'{", ".join(list(opened)[:8]) or "nothing"}. Expected: the group '
            'events with x, y, t, p, as RVT, eTraM and DSEC have it'
        )
    columns = [group[name] for name in 'xytp']
    for name, column in zip('xytp', columns):
        if column.dtype.kind not in 'biuf':
            raise DatasetError(f'{path}: {name} has the dtype {column.dtype}, expected numbers')
        pipeline = column.id.get_create_plist()
        for i in range(pipeline.get_nfilters()):
            number = pipeline.get_filter(i)[0]
            if not h5py.h5z.filter_avail(number):
                raise DatasetError(
                    f'{path}: {name} is compressed by {FILTERS.get(number, "a filter")} (number '
                    f'{number}), whose plugin is missing. pip install hdf5plugin'
                )
    shapes = [column.shape for column in columns]
    if len(set(shapes)) > 1 or len(shapes[0]) != 1:
        raise DatasetError(
            f'{path}: x, y, t, p have the shapes {shapes}. Expected: one dimension, the same length'
        )
    if 'height' in group and 'width' in group:
        return columns, (int(group['width'][()]), int(group['height'][()]))
    return columns, DSEC_SIZE if 'ms_to_idx' in opened else None


def hdf5_head(file, path):
    """The number of events, and the sensor's size."""
    opened, columns, size = _open(file, path)
    with opened:
        return len(columns[2]), size


def hdf5_blocks(file, path):
    """Open the columns, none of which is read."""
    opened, columns, size = _open(file, path)
    try:
        offset = int(opened['t_offset'][()]) if 't_offset' in opened else 0
        index = opened['ms_to_idx'][()] if 'ms_to_idx' in opened else None
        return HDF5Blocks(path, opened, columns, size, offset, index)
    except BaseException:
        opened.close()
        raise


class HDF5Blocks(SlicedBlocks):
    """Columns of an HDF5 file in blocks of as many events, or of a millisecond each.

    Args:
        path: The file, for messages.
        opened: The file of h5py.
        columns: x, y, t, p, datasets of h5py.
        size: The sensor's (W, H).
        offset: What is added to all times, in microseconds.
        index: Of each millisecond from 0 the number of the first event at or behind it, or None.
    """

    def __init__(self, path, opened, columns, size, offset=0, index=None):
        self.path, self.opened, self.datasets, self.offset = path, opened, columns, offset
        super().__init__(len(columns[2]), self._slice, size, name=path)
        self.process = os.getpid()
        self.index = None
        if index is not None:
            self.index = np.concatenate([index.astype(np.int64), [self.total]])
            if index[0] != 0 or (np.diff(self.index) < 0).any():
                raise DatasetError(
                    f'{path}: ms_to_idx does not count up from 0 to the {self.total} events. Fetch '
                    'it again'
                )
            self.number = len(index)

    def _slice(self, i, j):
        if os.getpid() != self.process:
            raise DatasetError(
                f'{self.path} was opened in another process, which HDF5 does not allow: open it in '
                'the worker'
            )
        x, y, t, p = (column[i:j] for column in self.datasets)
        return x, y, t.astype(np.int64) + self.offset if self.offset else t, p

    def start(self, i):
        """The time of the first event of a block, or the millisecond that it is.

        Args:
            i: The block.

        Returns:
            Microseconds.
        """
        if self.index is not None:
            return 1000 * i + self.offset
        return super().start(i)

    def before(self, i):
        """A bound of the times of all events before a block: none is later.

        Args:
            i: The block.

        Returns:
            Microseconds.
        """
        return super().before(i) if self.index is None else self.start(i) - 1

    def read(self, i, j):
        """Read the events of some blocks.

        Args:
            i: The first.
            j: The one behind the last.

        Returns:
            x, y, t, p.
        """
        if self.index is None:
            return super().read(i, j)
        columns = self._slice(int(self.index[i]), int(self.index[j]))
        t = columns[2]
        # The first and the last millisecond have no bound but this one.
        low, high = self.start(i), self.start(j) if j < self.number else None
        if len(t) and (int(t[0]) < low or (high is not None and int(t[-1]) >= high)):
            raise DatasetError(
                f'{self.path}: ms_to_idx does not fit its times: the events from {low} us on have '
                f'the times {int(t[0])} to {int(t[-1])}. Fetch it again'
            )
        return columns

    def close(self):
        """Close the file of h5py."""
        self.opened.close()

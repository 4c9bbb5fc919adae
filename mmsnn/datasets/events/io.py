"""Read the recordings of event cameras.

One reader for each format. AEDAT 4 (FlatBuffers, compressed by LZ4 or ZSTD) is read by the package
`aedat`. The other formats are fixed-size records behind a short header, which numpy reads in a few
lines. Why they are not left to a package, as of tonic 1.7.0 and expelliarmus 1.1.12:

- tonic fails on every AEDAT 2 file of a DVS128 (``read_dvs_128`` unpacks two of the three values
  of its header reader), needs librosa and a dozen more packages for audio and downloads, and is
  under the GPL.
- expelliarmus (tonic has no reader of DAT) takes a time that runs backwards for an overflow of the
  clock and adds 2 ** 32 to all that follow, and leaves out a truncated event without a word.
"""

import math
import numbers
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Optional, Union

import numpy as np

from ..errors import DatasetError
from ..files import open_file
from . import aedat4, arrays, records
from .problems import blame

__all__ = [
    'EVENT_SUFFIXES',
    'Events',
    'check_event_header',
    'check_sensor_size',
    'event_suffixes',
    'find_sensor_size',
    'read_events',
    'register_event_reader',
]

# Places of pixels have 15 bits at most in the formats here.
MAX_SIDE = 2**15
# Three times what the largest event cameras have. A file that claims more is broken, and frames of
# what it claims would fill the memory.
MAX_PIXELS = 2**22


class Format(NamedTuple):
    """How to read a format.

    Both take the open file and its path. What they raise that is no :class:`DatasetError` is
    taken for the file's fault.

    - ``head``: gives the number of events, as far as the head tells, and the size of the sensor,
      None where the file does not say it.
    - ``read``: gives the columns x, y, t, p and the size of the sensor.
    """

    head: Callable[[BufferedReader, str], tuple[int, Any]]
    read: Callable[[BufferedReader, str], tuple[tuple[np.ndarray, ...], Any]]


AEDAT2 = Format(records.aedat2_head, records.read_aedat2)
AEDAT4 = Format(aedat4.aedat4_head, aedat4.read_aedat4)
FORMATS = {
    '.aedat': AEDAT2,  # or AEDAT4: the later releases name both alike
    '.aedat4': AEDAT2,
    '.bin': Format(records.bin_head, records.read_bin),
    '.dat': Format(records.dat_head, records.read_dat),
    '.npy': Format(arrays.npy_head, arrays.read_npy),
    '.npz': Format(arrays.npz_head, arrays.read_npz),
}
#: Suffixes of the formats that are here; :func:`event_suffixes` has those of a user's own too.
EVENT_SUFFIXES = tuple(FORMATS)

Columns = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
Size = Optional[tuple[int, int]]


def register_event_reader(
    suffix: str,
    read: Callable[[BinaryIO, str], tuple[Columns, Size]],
    head: Optional[Callable[[BinaryIO, str], tuple[int, Size]]] = None,
) -> None:
    r"""Let :func:`read_events`, data sets and transforms read a format of one's own.

    Call it in a module that ``custom_imports`` of the config names. What comes out is checked as
    that of any format: whole numbers, times that never fall, places on the sensor, polarities.

    Args:
        suffix: What the names of its files end in, with the dot, in lower case.
        read: Takes the open file and its path, and gives the columns x, y, t (microseconds) and p
            (1 is ON), and the sensor's size (W, H), None where the file doesn't say it. What it
            raises is taken for the file's fault; a :class:`~mmsnn.datasets.DatasetError` speaks for
            itself.
        head: Likewise, and gives the number of events and the sensor's size as far as the head of
            the file tells; the check of a data set before a run takes it. Default ``read``.

    Raises:
        ValueError: A suffix that no file can have or that has a reader.

    Example:
        >>> import numpy as np
        >>> from mmsnn.datasets.events import read_events, register_event_reader
        >>> def read_xytp(file, path):
        ...     return np.loadtxt(file, dtype=np.int64, ndmin=2).T, (128, 128)
        >>> register_event_reader('.xytp', read_xytp)
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with open(f'{folder}/two.xytp', 'w') as file:
        ...         _ = file.write('3 5 100 1\n4 5 120 0\n')
        ...     read_events(f'{folder}/two.xytp').t
        array([100, 120])
    """
    if not isinstance(suffix, str) or not re.fullmatch(r'\.[a-z0-9_]+', suffix):
        raise ValueError(
            f"suffix must be a dot and small letters or digits, such as '.raw', got {suffix!r}"
        )
    if suffix in FORMATS:
        raise ValueError(f'{suffix!r} has a reader already: choose another suffix')

    def whole(file: BinaryIO, path: str) -> tuple[int, Size]:
        columns, size = read(file, path)
        return len(columns[2]), size

    FORMATS[suffix] = Format(head or whole, read)


def event_suffixes() -> tuple[str, ...]:
    """The suffixes of all event files that can be read.

    Returns:
        Those of mmsnn, and behind them those of :func:`register_event_reader`.
    """
    return tuple(FORMATS)


@dataclass(frozen=True)
class Events:
    """The events of one recording, in the order of time.

    - ``x``: (N,) int32, column, from 0 at the left.
    - ``y``: (N,) int32, row, from 0 at the top.
    - ``t``: (N,) int64, time in microseconds, never falling.
    - ``p``: (N,) uint8, polarity: 1 where it grew brighter (ON), 0 where darker (OFF).
    - ``sensor_size``: (W, H) in pixels.
    """

    x: np.ndarray
    y: np.ndarray
    t: np.ndarray
    p: np.ndarray
    sensor_size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.t)


def read_events(path: Union[str, Path], sensor_size: Optional[tuple[int, int]] = None) -> Events:
    """Read all events of a file. The suffix of its name says the format.

    - ``.aedat``: AEDAT 2 of a DVS128 (DVS-CIFAR10 as released), or AEDAT 4 if the header says so.
    - ``.aedat4``: AEDAT 4 of any camera, uncompressed, LZ4 or ZSTD. Needs the package `aedat`.
    - ``.bin``: N-MNIST, N-Caltech101.
    - ``.dat``: Prophesee DAT, CD events.
    - ``.npy``: a structured array with the fields x, y, t, p, or an (N, 4) array of the columns
      x, y, t, p.
    - ``.npz``: arrays x, y, t, p (as SpikingJelly writes) and, if there, ``sensor_size``; or one
      array as in ``.npy``.
    - Whatever else :func:`register_event_reader` was told.

    Args:
        path: The file.
        sensor_size: (W, H) in pixels. None takes what the file says, 128x128 for AEDAT 2 and
            34x34 (N-MNIST) for ``.bin``; ``.npy``, most ``.npz`` and some ``.dat`` say nothing.

    Returns:
        The events, at least one.

    Raises:
        DatasetError: If the file is missing, empty, truncated or of another format, if its times
            run backwards, or if an event lies off the sensor.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from mmsnn.datasets.events import read_events
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(f'{folder}/two.npy', np.array([[3, 5, 100, 1], [4, 5, 120, 0]]))
        ...     events = read_events(f'{folder}/two.npy', sensor_size=(8, 8))
        >>> len(events), events.t.tolist(), events.p.tolist()
        (2, [100, 120], [1, 0])
    """
    if sensor_size is not None:
        sensor_size = check_sensor_size(sensor_size)
    with _open(path) as (kind, file, path):
        columns, said = kind.read(file, path)
        return _checked(path, columns, sensor_size or _believe(said, path))


def check_event_header(path: Union[str, Path]) -> None:
    """Check that a file starts as its format should and holds events, reading only its head.

    Args:
        path: The file.

    Raises:
        DatasetError: If the suffix is unknown, or the file missing, empty, truncated or of another
            format, as far as its head tells.
    """
    with _open(path) as (kind, file, path):
        _check_number(kind.head(file, path)[0], path)


def find_sensor_size(path: Union[str, Path]) -> tuple[int, int]:
    """The size of the sensor that a file says, reading only its head.

    Args:
        path: The file.

    Returns:
        (W, H) in pixels.

    Raises:
        DatasetError: If it says none or one that cannot be, or as :func:`check_event_header`.
    """
    with _open(path) as (kind, file, path):
        return _believe(kind.head(file, path)[1], path)


def check_sensor_size(size: Any, name: str = 'sensor_size') -> tuple[int, int]:
    """Check the size of a sensor.

    Args:
        size: What was given.
        name: What to call it in the message.

    Returns:
        (W, H) in pixels.

    Raises:
        DatasetError: If it is not two whole numbers of pixels.
    """
    sides: tuple[Any, ...] = tuple(size) if isinstance(size, (Sequence, np.ndarray)) else ()
    if len(sides) != 2 or not all(
        isinstance(side, numbers.Real)
        and not isinstance(side, bool)
        and 1 <= side <= MAX_SIDE  # type: ignore[operator]  # numbers.Real says no order
        and side == math.floor(side)
        for side in sides
    ):
        raise DatasetError(
            f'{name} is {size!r}. Expected: (width, height), two whole numbers of pixels from 1 to '
            f'{MAX_SIDE}'
        )
    return int(sides[0]), int(sides[1])


# --- checks ------------------------------------------------------------------------------------


@contextmanager
def _open(path: Union[str, Path]) -> Iterator[tuple[Format, BufferedReader, str]]:
    """Open a file and choose its format; all that is raised inside is the file's fault."""
    path = os.fspath(path)
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in FORMATS:
        raise DatasetError(
            f'{path} has the suffix {suffix!r}, which is none of an event file. Known: '
            f'{", ".join(FORMATS)}. `register_event_reader` takes formats of your own'
        )
    kind = FORMATS[suffix]
    with blame(path), open_file(path) as file:
        start = file.peek(len(aedat4.MAGIC))
        if not start:
            raise DatasetError(f'{path} is empty, 0 bytes. Fetch it again')
        if kind is AEDAT2 and start.startswith(aedat4.MAGIC):
            kind = AEDAT4
        yield kind, file, path


def _believe(said, path):
    """The size of the sensor as a file says it, if that can be."""
    if said is None:
        raise DatasetError(
            f'{path} does not say the size of its sensor. Give sensor_size=(width, height)'
        )
    width, height = check_sensor_size(said, f'{path}: its sensor_size')
    if width * height > MAX_PIXELS:
        raise DatasetError(
            f'{path} claims a sensor of {width}x{height} pixels, more than any event camera has. '
            'Fetch it again, or give sensor_size=(width, height)'
        )
    return width, height


def _check_number(number, path):
    if not number:
        raise DatasetError(f'{path} holds no events. Fetch it again or leave it out')


def _whole(values, name, path):
    """Numbers as they are; bool as numbers, and floats only if they are whole."""
    if values.dtype.kind == 'b':
        return values.astype(np.uint8)
    if values.dtype.kind == 'f':
        values = values.astype(np.float64) if values.itemsize < 8 else values
        wrong = np.flatnonzero(~(np.isfinite(values) & (values == np.floor(values))))
        if len(wrong):
            raise DatasetError(
                f'{path}: event {wrong[0]} has {name}={values[wrong[0]]}, not a whole number. '
                'Columns are x, y, t, p; times are microseconds'
            )
    return values


def _times(t, path):
    """Times in int64, which holds 292,000 years of microseconds to either side of 0."""
    if t.dtype.kind == 'f':
        wrong = np.flatnonzero((t < -(2.0**63)) | (t >= 2.0**63))
    elif t.dtype.kind == 'u' and t.itemsize == 8:
        wrong = np.flatnonzero(t > np.uint64(2**63 - 1))
    else:
        wrong = ()
    if len(wrong):
        raise DatasetError(
            f'{path}: event {wrong[0]} has t={t[wrong[0]]}, beyond what 64 bits with a sign can '
            'hold. Times are microseconds'
        )
    t = t.astype(np.int64)
    wrong = np.flatnonzero(t[1:] < t[:-1])
    if len(wrong):
        first = int(wrong[0])
        raise DatasetError(
            f'{path}: times run backwards at event {first + 1}, from {t[first]} to '
            f'{t[first + 1]} us. Fetch it again, or sort its events'
        )
    return t


def _checked(path, columns, sensor_size):
    """Return the events in the dtypes of :class:`Events`, or say what is wrong with them."""
    x, y, t, p = columns
    _check_number(len(t), path)
    x, y, t, p = (_whole(values, name, path) for name, values in zip('xytp', (x, y, t, p)))
    t = _times(t, path)
    width, height = sensor_size
    wrong = np.flatnonzero((x < 0) | (x >= width) | (y < 0) | (y >= height))
    if len(wrong):
        first = int(wrong[0])
        raise DatasetError(
            f'{path}: event {first} at x={int(x[first])}, y={int(y[first])} lies off the sensor '
            f'of {width}x{height} pixels. Give the sensor_size=(width, height) of the camera'
        )
    wrong = np.flatnonzero((p != 0) & (p != 1))
    if len(wrong):
        first = int(wrong[0])
        raise DatasetError(
            f'{path}: event {first} has the polarity {int(p[first])}. Expected: 0 (OFF) or 1 (ON)'
        )
    return Events(x.astype(np.int32), y.astype(np.int32), t, p.astype(np.uint8), sensor_size)

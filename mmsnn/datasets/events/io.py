"""Read the recordings of event cameras.

One reader for each format, which opens a file and gives its blocks
(:mod:`~mmsnn.datasets.events.blocks`). AEDAT 4 (FlatBuffers, compressed by LZ4 or ZSTD) is read by
the package `aedat`, HDF5 by `h5py`; why .raw isn't left to one stands in
:mod:`~mmsnn.datasets.events.evt`. The other formats are records behind a short header, which numpy
reads in a few lines. Why they are not left to a package, as of tonic 1.7.0 and expelliarmus 1.1.12:

- tonic fails on every AEDAT 2 file of a DVS128 (``read_dvs_128`` unpacks two of the three values
  of its header reader), needs librosa and a dozen more packages for audio and downloads, and is
  under the GPL.
- expelliarmus (tonic has no reader of DAT) takes a time that runs backwards for an overflow of the
  clock and adds 2 ** 32 to all that follow, and leaves out a truncated event without a word.
"""

import os
import re
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Optional, Union

from ..errors import DatasetError
from ..files import open_file
from . import aedat3, aedat4, arrays, evt, hdf5, records
from .blocks import Blocks, Columns, Size, whole_blocks
from .problems import blame
from .recording import Events, Recording, believe_size, check_sensor_size, no_events

__all__ = [
    'EVENT_SUFFIXES',
    'Events',
    'check_event_header',
    'check_sensor_size',
    'event_suffixes',
    'find_sensor_size',
    'open_recording',
    'read_events',
    'register_event_reader',
]


class Format(NamedTuple):
    """How to read a format.

    Both take the open file and its path. What they raise that is no :class:`DatasetError` is
    taken for the file's fault.

    - ``head``: gives the number of events, as far as the head tells, and the size of the sensor,
      None where the file does not say it.
    - ``blocks``: opens the recording; the file stays open as long as that is used.
    """

    head: Callable[[BufferedReader, str], tuple[int, Any]]
    blocks: Callable[[BufferedReader, str], Blocks]


AEDAT2 = Format(records.aedat2_head, records.aedat2_blocks)
AEDAT3 = Format(aedat3.aedat3_head, aedat3.aedat3_blocks)
AEDAT4 = Format(aedat4.aedat4_head, aedat4.aedat4_blocks)
HDF5 = Format(hdf5.hdf5_head, hdf5.hdf5_blocks)
FORMATS = {
    '.aedat': AEDAT2,  # or AEDAT3 or AEDAT4: all releases name them alike
    '.aedat4': AEDAT2,
    '.bin': Format(records.bin_head, records.bin_blocks),
    '.dat': Format(records.dat_head, records.dat_blocks),
    '.h5': HDF5,
    '.hdf5': HDF5,
    '.npy': Format(arrays.npy_head, arrays.npy_blocks),
    '.npz': Format(arrays.npz_head, arrays.npz_blocks),
    '.raw': Format(evt.raw_head, evt.RawBlocks),
}
#: Suffixes of the formats that are here; :func:`event_suffixes` has those of a user's own too.
EVENT_SUFFIXES = tuple(FORMATS)


def register_event_reader(
    suffix: str,
    read: Callable[[BinaryIO, str], tuple[Columns, Size]],
    head: Optional[Callable[[BinaryIO, str], tuple[int, Size]]] = None,
) -> None:
    r"""Let :func:`read_events`, data sets and transforms read a format of one's own.

    Call it in a module that ``custom_imports`` of the config names. What comes out is checked as
    that of any format: whole numbers, times, places on the sensor, polarities.

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
            f"suffix must be a dot and small letters or digits, such as '.ev', got {suffix!r}"
        )
    if suffix in FORMATS:
        raise ValueError(f'{suffix!r} has a reader already: choose another suffix')

    def whole(file: BinaryIO, path: str) -> tuple[int, Size]:
        columns, size = read(file, path)
        return len(columns[2]), size

    def blocks(file: BinaryIO, path: str) -> Blocks:
        columns, size = read(file, path)
        return whole_blocks(columns, size)

    FORMATS[suffix] = Format(head or whole, blocks)


def event_suffixes() -> tuple[str, ...]:
    """The suffixes of all event files that can be read.

    Returns:
        Those of mmsnn, and behind them those of :func:`register_event_reader`.
    """
    return tuple(FORMATS)


def open_recording(
    path: Union[str, Path], sensor_size: Optional[tuple[int, int]] = None
) -> Recording:
    """Open a recording, to read its events by time. The suffix of its name says the format.

    The formats are those of :func:`read_events`. ``.dat``, ``.npy``, ``.h5`` and AEDAT 2 and 3.1
    are opened at once, whatever their length; ``.raw`` and AEDAT 4 are gone through once, to index
    their times. ``.bin`` is kept in memory, and ``.npz`` too, but for arrays of more than 64 MB,
    which are unpacked into a temporary file.

    Args:
        path: The file.
        sensor_size: (W, H) in pixels, as for :func:`read_events`.

    Returns:
        The recording: its ``width``, ``height``, ``start``, ``end`` and ``duration``, and
        ``window(t0, t1)``, the events of a window of time.

    Raises:
        DatasetError: If the file is missing, empty, truncated or of another format.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from mmsnn.datasets.events import open_recording
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     rows = [[3, 5, 100, 1], [4, 5, 120, 0], [4, 6, 180, 1]]
        ...     np.save(f'{folder}/three.npy', np.array(rows))
        ...     with open_recording(f'{folder}/three.npy', sensor_size=(8, 8)) as recording:
        ...         print(recording.start, recording.duration)
        ...         print(recording.window(100, 150).t)
        100 80
        [100 120]
    """
    if sensor_size is not None:
        sensor_size = check_sensor_size(sensor_size)
    path, file, kind = _choose(path)
    blocks = None
    try:
        with blame(path):
            blocks = kind.blocks(file, path)
        if not blocks.number:
            _check_number(0, path)
        return Recording(path, file, blocks, sensor_size or believe_size(blocks.size, path))
    except BaseException:
        if blocks is not None:
            blocks.close()
        file.close()
        raise


def read_events(path: Union[str, Path], sensor_size: Optional[tuple[int, int]] = None) -> Events:
    """Read all events of a file. The suffix of its name says the format.

    - ``.aedat``: AEDAT 2 of a DVS128 (DVS-CIFAR10 as released), AEDAT 3.1 (DVS128 Gesture) or
      AEDAT 4, as the header says.
    - ``.aedat4``: AEDAT 4 of any camera, uncompressed, LZ4 or ZSTD. Needs the package `aedat`.
    - ``.bin``: N-MNIST, N-Caltech101.
    - ``.dat``: Prophesee DAT, CD events.
    - ``.h5``, ``.hdf5``: the group ``events`` with x, y, t, p, as in RVT's and eTraM's
      ``*_td.dat.h5`` and in DSEC. Needs the package `h5py`.
    - ``.npy``: a structured array with the fields x, y, t, p, or an (N, 4) array of the columns
      x, y, t, p.
    - ``.npz``: arrays x, y, t, p (as SpikingJelly writes) and, if there, ``sensor_size``; or one
      array as in ``.npy``.
    - ``.raw``: Prophesee EVT 2.0, 2.1 and 3.0.
    - Whatever else :func:`register_event_reader` was told.

    Args:
        path: The file.
        sensor_size: (W, H) in pixels. None takes what the file says, 128x128 for AEDAT 2 and
            34x34 (N-MNIST) for ``.bin``; ``.npy``, most ``.npz`` and some ``.dat`` say nothing.

    Returns:
        The events, at least one.

    Raises:
        DatasetError: If the file is missing, empty, truncated or of another format, if its times
            run backwards by more than 50 ms, or if an event lies off the sensor.

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
    with open_recording(path, sensor_size) as recording:
        events = recording.all()
        _check_number(len(events), recording.path)
        return events


def check_event_header(path: Union[str, Path]) -> None:
    """Check that a file starts as its format should and holds events, reading only its head.

    Args:
        path: The file.

    Raises:
        DatasetError: If the suffix is unknown, or the file missing, empty, truncated or of another
            format, as far as its head tells.
    """
    path, number, _ = _head(path)
    _check_number(number, path)


def find_sensor_size(path: Union[str, Path]) -> tuple[int, int]:
    """The size of the sensor that a file says, reading only its head.

    Args:
        path: The file.

    Returns:
        (W, H) in pixels.

    Raises:
        DatasetError: If it says none or one that cannot be, or as :func:`check_event_header`.
    """
    path, _, size = _head(path)
    return believe_size(size, path)


# --- opening -----------------------------------------------------------------------------------


def _choose(path: Union[str, Path]) -> tuple[str, BufferedReader, Format]:
    """Open a file and choose its format."""
    path = os.fspath(path)
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in FORMATS:
        raise DatasetError(
            f'{path} has the suffix {suffix!r}, which is none of an event file. Known: '
            f'{", ".join(FORMATS)}. `register_event_reader` takes formats of your own'
        )
    kind = FORMATS[suffix]
    with blame(path):
        file = open_file(path)
        try:
            start = file.peek(len(aedat4.MAGIC))
            if not start:
                raise DatasetError(f'{path} is empty, 0 bytes. Fetch it again')
        except BaseException:
            file.close()
            raise
    if kind is AEDAT2 and start.startswith(aedat4.MAGIC):
        kind = AEDAT4
    elif kind is AEDAT2 and start.startswith(aedat3.START):
        kind = AEDAT3
    return path, file, kind


def _head(path: Union[str, Path]) -> tuple[str, int, Any]:
    """The path, the number of events and the sensor's size, as far as the head of a file tells."""
    path, file, kind = _choose(path)
    with file, blame(path):
        return (path, *kind.head(file, path))


def _check_number(number, path):
    if not number:
        raise no_events(path)

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

import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Union

import numpy as np

from ..errors import DatasetError

__all__ = ['EVENT_SUFFIXES', 'Events', 'check_event_header', 'read_events']

DVS128_SIZE = (128, 128)
NMNIST_SIZE = (34, 34)
AEDAT4_MAGIC = b'#!AER-DAT4.0\r\n'


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
    path = os.fspath(path)
    x, y, t, p, said_size = _reader(path)(path)
    sensor_size = sensor_size or said_size
    if sensor_size is None:
        raise DatasetError(
            f'{path} does not say the size of its sensor. Give sensor_size=(width, height)'
        )
    return _checked(path, x, y, t, p, tuple(int(side) for side in sensor_size))


def check_event_header(path: Union[str, Path]) -> None:
    """Check that a file starts as its format should, reading no more than its start.

    Args:
        path: The file.

    Raises:
        DatasetError: If the suffix is unknown, or the file missing, empty or of another format.
    """
    path = os.fspath(path)
    reader = _reader(path)
    with open(path, 'rb') as file:
        start = file.read(len(AEDAT4_MAGIC))
        if reader is _read_aedat4:
            _import_aedat()
            _check_aedat4_header(path)
        elif reader is _read_aedat2:
            file.seek(0)
            _skip_aedat2_header(file, path)
        elif reader is _read_dat:
            file.seek(0)
            _read_dat_header(file, path)
        elif reader is _read_npy:
            _expect(start.startswith(b'\x93NUMPY'), path, '.npy (it does not start as numpy does)')
        elif reader is _read_npz:
            _expect(start.startswith(b'PK'), path, '.npz (it does not start as a ZIP archive)')


# --- checks ------------------------------------------------------------------------------------


def _expect(condition, path, expected):
    if not condition:
        raise DatasetError(f'{path} is not a file of the format {expected}. Fetch it again')


def _whole(number_of_bytes, event_bytes, path):
    if number_of_bytes % event_bytes:
        raise DatasetError(
            f'{path} is truncated: {number_of_bytes} bytes of events are not a multiple of the '
            f'{event_bytes} bytes of one event. Fetch it again'
        )


def _reader(path):
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in READERS:
        raise DatasetError(
            f'{path} has the suffix {suffix!r}, which is none of an event file. Known: '
            f'{", ".join(EVENT_SUFFIXES)}'
        )
    try:
        size = os.path.getsize(path)
        with open(path, 'rb') as file:
            start = file.read(len(AEDAT4_MAGIC))
    except OSError as error:
        raise DatasetError(f'{path} cannot be read: {error.strerror}') from error
    if size == 0:
        raise DatasetError(f'{path} is empty, 0 bytes. Fetch it again')
    if suffix == '.aedat' and start == AEDAT4_MAGIC:  # the later releases name both alike
        return _read_aedat4
    return READERS[suffix]


def _checked(path, x, y, t, p, sensor_size):
    """Return the events in the dtypes of :class:`Events`, or say what is wrong with them."""
    if not len(t):
        raise DatasetError(f'{path} holds no events. Fetch it again or leave it out')
    for name, values in (('x', x), ('y', y), ('t', t), ('p', p)):
        if values.dtype.kind not in 'iuf':
            raise DatasetError(f'{path}: {name} has the dtype {values.dtype}, expected numbers')
        if values.dtype.kind == 'f':
            wrong = np.flatnonzero(~(np.isfinite(values) & (values == np.floor(values))))
            if len(wrong):
                raise DatasetError(
                    f'{path}: event {wrong[0]} has {name}={values[wrong[0]]}, not a whole number. '
                    'Columns are x, y, t, p; times are microseconds'
                )
    t = t.astype(np.int64)
    wrong = np.flatnonzero(t[1:] < t[:-1])
    if len(wrong):
        first = int(wrong[0])
        raise DatasetError(
            f'{path}: times run backwards at event {first + 1}, from {t[first]} to '
            f'{t[first + 1]} us. Fetch it again, or sort its events'
        )
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


# --- AEDAT -------------------------------------------------------------------------------------


def _skip_aedat2_header(file, path):
    """Place the file behind the header lines, which start with '#' and end with CR LF."""
    start = file.tell()
    line = file.readline()
    _expect(
        line.startswith(b'#!AER-DAT2'), path, 'AEDAT 2 or 4 (its first line is not #!AER-DAT2.0)'
    )
    # The first byte of an event is never '#': addresses of a DVS128 have 16 bits of 32.
    while line.startswith(b'#'):
        start = file.tell()
        line = file.readline()
    file.seek(start)


def _read_aedat2(path):
    """Read DVS128 events of AEDAT 2.

    An event is two big-endian 32-bit words: the address, then the time in microseconds. In the
    address, bit 0 is the polarity (1 is OFF), bits 1 to 7 are one coordinate, bits 8 to 14 the
    other, both counted from the far end, and bit 15 marks a signal that is no event of a pixel.

    Which of the two is x: the DVS-CIFAR10 of SpikingJelly (x = 127 - bits 8..14,
    y = 127 - bits 1..7) is what many published results were trained on, so it is taken here. jAER
    and dat2mat.m, which show the same pixels mirrored along the diagonal, have it the other way.
    Sources: jAER, DVS128.java; dat2mat.m of MNIST-DVS, which the data set's README refers to.
    """
    with open(path, 'rb') as file:
        _skip_aedat2_header(file, path)
        data = file.read()
    _whole(len(data), 8, path)
    words = np.frombuffer(data, dtype=[('address', '>u4'), ('t', '>i4')])
    address = words['address'].astype(np.int64)
    wrong = np.flatnonzero(address > 0xFFFF)
    if len(wrong):
        raise DatasetError(
            f'{path}: event {wrong[0]} has the address {address[wrong[0]]:#x}, but those of a '
            'DVS128 have 16 bits. AEDAT 2 of other cameras is not read: convert it to AEDAT 4'
        )
    pixels = address < 0x8000
    address, t = address[pixels], words['t'][pixels]
    x, y = 127 - (address >> 8 & 127), 127 - (address >> 1 & 127)
    return x, y, t, 1 - (address & 1), DVS128_SIZE


def _import_aedat():
    try:
        import aedat
    except ImportError as error:
        raise DatasetError(
            "AEDAT 4 files need the package aedat: pip install 'mmsnn[events]'"
        ) from error
    return aedat


def _check_aedat4_header(path):
    """Check the first line, and that the XML text behind it is there and whole."""
    with open(path, 'rb') as file:
        _expect(
            file.read(len(AEDAT4_MAGIC)) == AEDAT4_MAGIC,
            path,
            'AEDAT 4 (its first line is not #!AER-DAT4.0)',
        )
        length = int.from_bytes(file.read(4), 'little')
        header = file.read(length)
    text = header[max(header.find(b'<dv'), 0) : header.rfind(b'>') + 1]
    try:
        # The package aborts the process on text that is no UTF-8.
        whole = len(header) == length and text.decode('utf-8').startswith('<dv')
    except UnicodeDecodeError:
        whole = False
    if not whole:
        raise DatasetError(f'{path} is truncated or broken in its header. Fetch it again')


def _read_aedat4(path):
    """Read the first event stream of an AEDAT 4 file.

    Source: iniVation, AEDAT 4.0 file format.
    """
    aedat = _import_aedat()
    _check_aedat4_header(path)
    try:
        decoder = aedat.Decoder(path)
        streams = {i: s for i, s in decoder.id_to_stream().items() if s['type'] == 'events'}
        packets = [packet for packet in decoder if packet['stream_id'] in streams]
    except BaseException as error:
        # Where its header is damaged, the package panics, and a panic is no Exception.
        if not isinstance(error, RuntimeError) and type(error).__name__ != 'PanicException':
            raise
        raise DatasetError(f'{path} is truncated or broken: {error}. Fetch it again') from error
    if not streams:
        raise DatasetError(f'{path} has no stream of events')
    first = min(streams)
    packets = [packet['events'] for packet in packets if packet['stream_id'] == first]
    size = streams[first]['width'], streams[first]['height']
    if not packets:
        return (*(np.zeros(0, np.int64) for _ in range(4)), size)
    events = np.concatenate(packets)
    # The fields are int16 in the file; the package gives them unsigned.
    x, y = events['x'].astype(np.int16), events['y'].astype(np.int16)
    return x, y, events['t'], events['on'].astype(np.uint8), size


# --- N-MNIST and Prophesee -----------------------------------------------------------------------


def _read_bin(path):
    """Read N-MNIST or N-Caltech101.

    An event is 40 bits: 8 of x, 8 of y, 1 of polarity, 23 of time in microseconds, the highest
    first. y = 240 is no pixel but a tick of the camera's clock: 2 ** 13 us are added to all that
    follow. Source: Orchard et al. 2015 and Read_Ndataset.m, eventvision.py of the authors.
    """
    data = np.fromfile(path, dtype=np.uint8)
    _whole(len(data), 5, path)
    x, y, high, middle, low = data.reshape(-1, 5).T.astype(np.int64)
    tick = y == 240
    t = ((high & 127) << 16 | middle << 8 | low) + (np.cumsum(tick) << 13)
    pixels = ~tick
    return x[pixels], y[pixels], t[pixels], high[pixels] >> 7, NMNIST_SIZE


def _read_dat_header(file, path):
    """Return (W, H) or None, and leave the file at the first event."""
    size = {}
    while file.peek(1)[:1] == b'%':
        words = file.readline().decode('latin-1').split()
        if len(words) == 3 and words[1] in ('Width', 'Height') and words[2].isdigit():
            size[words[1]] = int(words[2])
    head = file.read(2)
    # Event2d or EventCd, of 8 bytes each
    _expect(
        len(head) == 2 and head[0] in (0, 12) and head[1] == 8,
        path,
        f'DAT with CD events of 8 bytes (type and size are {tuple(head)}, expected (12, 8))',
    )
    return (size['Width'], size['Height']) if len(size) == 2 else None


def _read_dat(path):
    """Read Prophesee DAT.

    Lines of '%', one byte of event type, one of event size, then little-endian events of two
    32-bit words: the time in microseconds; x in bits 0 to 13, y in 14 to 27, polarity in bit 28.
    Source: Prophesee, DAT File Format.
    """
    with open(path, 'rb') as file:
        size = _read_dat_header(file, path)
        data = file.read()
    _whole(len(data), 8, path)
    words = np.frombuffer(data, dtype=[('t', '<u4'), ('pixel', '<u4')])
    pixel = words['pixel'].astype(np.int64)
    return pixel & 0x3FFF, pixel >> 14 & 0x3FFF, words['t'], pixel >> 28 & 1, size


# --- numpy -------------------------------------------------------------------------------------


def _load_numpy(path, kind):
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, EOFError, zipfile.BadZipFile, OSError) as error:
        raise DatasetError(
            f'{path} is truncated or not a file of the format {kind}: {error}. Fetch it again'
        ) from error


def _columns(array, path):
    """Return x, y, t, p of one array."""
    names = array.dtype.names
    if names and set('xytp') <= set(names) and array.ndim == 1:
        columns = [array[name] for name in 'xytp']
    elif names is None and array.ndim == 2 and array.shape[1] == 4:
        columns = list(array.T)
    else:
        raise DatasetError(
            f'{path} holds an array of shape {array.shape} and dtype {array.dtype}. Expected: one '
            'dimension with the fields x, y, t, p, or (N, 4) with the columns x, y, t, p'
        )
    return [column.astype(np.uint8) if column.dtype == bool else column for column in columns]


def _read_npy(path):
    array = _load_numpy(path, '.npy')
    _expect(isinstance(array, np.ndarray), path, '.npy')
    return (*_columns(array, path), None)


def _read_npz(path):
    archive = _load_numpy(path, '.npz')
    _expect(isinstance(archive, np.lib.npyio.NpzFile), path, '.npz')
    try:
        with archive:
            arrays = {name: archive[name] for name in archive.files}
    except (ValueError, EOFError, zipfile.BadZipFile, OSError) as error:
        raise DatasetError(f'{path} is truncated or broken: {error}. Fetch it again') from error
    size = arrays.pop('sensor_size', None)
    if size is not None:
        _expect(size.shape == (2,), path, '.npz (its sensor_size is not (W, H))')
        size = tuple(size.tolist())
    if set('xytp') <= set(arrays):
        columns = [arrays[name] for name in 'xytp']
        shapes = {column.shape for column in columns}
        if len(shapes) > 1 or columns[0].ndim != 1:
            raise DatasetError(
                f'{path}: x, y, t, p have the shapes {[column.shape for column in columns]}. '
                'Expected: one dimension, the same length'
            )
    elif len(arrays) == 1:
        columns = _columns(next(iter(arrays.values())), path)
    else:
        raise DatasetError(
            f'{path} holds the arrays {", ".join(sorted(arrays)) or "none"}. Expected: x, y, t, p'
        )
    columns = [column.astype(np.uint8) if column.dtype == bool else column for column in columns]
    return (*columns, size)


READERS = {
    '.aedat': _read_aedat2,
    '.aedat4': _read_aedat4,
    '.bin': _read_bin,
    '.dat': _read_dat,
    '.npy': _read_npy,
    '.npz': _read_npz,
}
EVENT_SUFFIXES = tuple(READERS)

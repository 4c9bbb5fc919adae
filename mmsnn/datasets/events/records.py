"""Formats of fixed-size records: AEDAT 2, N-MNIST's bin and Prophesee's DAT.

Each has a function that reads the head and one that opens the events, see ``FORMATS`` in
:mod:`mmsnn.datasets.events.io`.
"""

import re
from io import BufferedReader

import numpy as np

from ..errors import DatasetError
from .blocks import BLOCK_EVENTS, MAX_BACKWARDS, MappedArray, SlicedBlocks, whole_blocks
from .problems import expect, whole_events

DVS128_SIZE = (128, 128)
NMNIST_SIZE = (34, 34)
# jAER writes the settings of the camera into the header, hundreds of kilobytes.
MAX_HEADER, MAX_LINES = 2**22, 2**16


def header_lines(file: BufferedReader, mark: bytes, path: str, end: bytes = b'') -> bytes:
    """The lines at the file's start that begin with a mark; leaves the file behind them.

    Args:
        file: The open file.
        mark: What they begin with.
        path: The file's name.
        end: The line that ends the header, where the format has one.

    Returns:
        The lines.

    Raises:
        DatasetError: They never end.
    """
    lines: list[bytes] = []
    length = 0
    while file.peek(len(mark))[: len(mark)] == mark:
        lines.append(file.readline(MAX_HEADER))
        length += len(lines[-1])
        if end and lines[-1].rstrip() == end:
            break
        if length >= MAX_HEADER or len(lines) >= MAX_LINES:
            raise DatasetError(
                f'{path} is broken: its header has not ended after {length} bytes. Fetch it again'
            )
    return b''.join(lines)


# --- AEDAT 2 -----------------------------------------------------------------------------------


def aedat2_head(file, path):
    """Skip the lines that start with '#' and end with CR LF; the rest are events of 8 bytes."""
    # The first byte of an event is never '#': addresses of a DVS128 have 16 bits of 32.
    header = header_lines(file, b'#', path)
    version = re.match(rb'#!AER-DAT(\d+\.\d+)', header)
    if version and not version[1].startswith((b'2.', b'3.1', b'4.0')):
        raise DatasetError(
            f'{path} is AEDAT {version[1].decode()}, of which no reader is here. Convert it to '
            'AEDAT 4, or to .npz with the arrays x, y, t, p'
        )
    expect(
        header.startswith(b'#!AER-DAT2.'),
        path,
        'AEDAT 2, 3.1 or 4 (its first line is not #!AER-DAT2.0)',
    )
    return whole_events(file, 8, path), DVS128_SIZE


def aedat2_blocks(file, path):
    """Open DVS128 events of AEDAT 2.

    An event is two big-endian 32-bit words: the address, then the time in microseconds. In the
    address, bit 0 is the polarity (1 is OFF), bits 1 to 7 are one coordinate, bits 8 to 14 the
    other, both counted from the far end, and bit 15 marks a signal that is no event of a pixel.

    Which of the two is x: the DVS-CIFAR10 of SpikingJelly (x = 127 - bits 8..14,
    y = 127 - bits 1..7) is what many published results were trained on, so it is taken here. jAER
    and dat2mat.m, which show the same pixels mirrored along the diagonal, have it the other way.
    Sources: jAER, DVS128.java; dat2mat.m of MNIST-DVS, which the data set's README refers to.
    """
    number, size = aedat2_head(file, path)
    words = MappedArray(file, [('address', '>u4'), ('t', '>i4')], file.tell())
    return _DVS128Blocks(number, words, size, path)


class _DVS128Blocks(SlicedBlocks):
    """Events of a DVS128, signals among them, which are left out behind the clock's repair."""

    def __init__(self, number, words, size, path):
        super().__init__(number, self._columns, size, clock_bits=32, name=path)
        self.words, self.path = words, path

    def _columns(self, i, j):
        words = self.words[i:j]
        return words['address'].astype(np.int64), None, words['t'].astype(np.int64), None

    def after(self, i):
        return self.start(i) - MAX_BACKWARDS  # a signal may be the first of the block

    def read(self, i, j):
        address, _, t, _ = super().read(i, j)
        wrong = np.flatnonzero(address > 0xFFFF)
        if len(wrong):
            raise DatasetError(
                f'{self.path}: event {wrong[0] + i * BLOCK_EVENTS} has the address '
                f'{address[wrong[0]]:#x}, but those of a DVS128 have 16 bits. AEDAT 2 of other '
                'cameras is not read: convert it to AEDAT 4'
            )
        pixels = address < 0x8000
        address, t = address[pixels], t[pixels]
        return 127 - (address >> 8 & 127), 127 - (address >> 1 & 127), t, 1 - (address & 1)


# --- N-MNIST and Prophesee -----------------------------------------------------------------------


def bin_head(file, path):
    """There is no header: all are events of 5 bytes."""
    return whole_events(file, 5, path), NMNIST_SIZE


def read_bin(file, path):
    """Read N-MNIST or N-Caltech101.

    An event is 40 bits: 8 of x, 8 of y, 1 of polarity, 23 of time in microseconds, the highest
    first. y = 240 is no pixel but a tick of the camera's clock: 2 ** 13 us are added to all that
    follow. Source: Orchard et al. 2015 and Read_Ndataset.m, eventvision.py of the authors.
    """
    number, size = bin_head(file, path)
    data = np.frombuffer(file.read(5 * number), dtype=np.uint8)
    x, y, high, middle, low = data.reshape(-1, 5).T.astype(np.int64)
    tick = y == 240
    t = ((high & 127) << 16 | middle << 8 | low) + (np.cumsum(tick) << 13)
    pixels = ~tick
    return (x[pixels], y[pixels], t[pixels], high[pixels] >> 7), size


def bin_blocks(file, path):
    """Open N-MNIST or N-Caltech101; a recording is short, and its clock needs all before it."""
    columns, size = read_bin(file, path)
    return whole_blocks(columns, size)


def dat_head(file, path):
    """Skip the lines of '%' and the two bytes of type and size; the rest are events of 8 bytes."""
    header = header_lines(file, b'%', path)
    sides = dict(re.findall(rb'(?m)^%[ \t]+(Width|Height)[ \t]+(\d{1,9})[ \t]*\r?$', header))
    head = file.read(2)
    # Event2d or EventCd, of 8 bytes each
    expect(
        len(head) == 2 and head[0] in (0, 12) and head[1] == 8,
        path,
        f'DAT with CD events of 8 bytes (type and size are {tuple(head)}, expected (12, 8))',
    )
    size = (int(sides[b'Width']), int(sides[b'Height'])) if len(sides) == 2 else None
    return whole_events(file, 8, path), size


def dat_blocks(file, path):
    """Open Prophesee DAT.

    Lines of '%', one byte of event type, one of event size, then little-endian events of two
    32-bit words: the time in microseconds; x in bits 0 to 13, y in 14 to 27, polarity in bit 28.
    Source: Prophesee, DAT File Format.
    """
    number, size = dat_head(file, path)
    words = MappedArray(file, [('t', '<u4'), ('pixel', '<u4')], file.tell())

    def columns(i, j):
        part = words[i:j]
        pixel = part['pixel'].astype(np.uint32)
        x, y = pixel & np.uint32(0x3FFF), pixel >> np.uint32(14) & np.uint32(0x3FFF)
        return x, y, part['t'], pixel >> np.uint32(28) & np.uint32(1)

    return SlicedBlocks(number, columns, size, clock_bits=32, name=path)

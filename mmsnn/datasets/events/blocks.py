"""Recordings in blocks: what a format's reader gives, so that a part of a file can be read alone.

A block is the smallest part that decodes by itself. The search for a time looks at where blocks
start, so it needs a few numbers of a file, or an index of them, and never the events.
"""

from collections.abc import Sequence
from io import BufferedReader
from typing import Callable, NamedTuple, Optional

import numpy as np

from ..errors import DatasetError

__all__ = [
    'Blocks',
    'Columns',
    'MappedArray',
    'Packet',
    'PacketBlocks',
    'Size',
    'SlicedBlocks',
    'join',
    'last_where',
    'unwrap',
    'whole_blocks',
]

#: x, y, t and p of events, as a file has them.
Columns = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
#: (W, H) of a sensor, or None where a file doesn't say it.
Size = Optional[tuple[int, int]]

# Events in a block of formats that have none of their own: small against a window of 50 ms, and
# for a gigabyte of events an index of a few thousand.
BLOCK_EVENTS = 2**14

# Microseconds by which a time may be earlier than one before it. Cameras and their converters
# write events a little out of order; what jumps further is another recording or a broken file.
MAX_BACKWARDS = 50_000


def unwrap(values: np.ndarray, bits: int) -> np.ndarray:
    """Undo the wraps of a clock of few bits: each step is the one of smallest size, mod 2^bits.

    So a clock may wrap, and run backwards a little at any time, also beside a wrap, as long as
    less than half of a turn lies between two values.

    Args:
        values: (N,), what the clock shows, in any integer dtype of up to 64 bits.
        bits: After 2^bits it begins again.

    Returns:
        (N,) int64; the first is ``values[0]``.

    Example:
        >>> import numpy as np
        >>> from mmsnn.datasets.events.blocks import unwrap
        >>> unwrap(np.array([250, 2, 255, 3]), bits=8)
        array([250, 258, 255, 259])
    """
    values = values.astype(np.int64)
    half = 1 << (bits - 1)
    steps = np.diff(values)
    turns = (steps < -half).astype(np.int64) - (steps > half)
    if turns.any():
        values[1:] += np.cumsum(turns) << bits
    return values


class Blocks:
    """A recording in blocks that decode by themselves.

    Attributes:
        number (int): Number of blocks.
        size (tuple[int, int] | None): The sensor's (W, H), as the file says it.
        repairs (dict[str, int]): What was mended or passed over so far, in words, and how often.
    """

    number: int
    size: Size = None

    def __init__(self) -> None:
        self.repairs: dict[str, int] = {}

    def start(self, i: int) -> int:
        """The time of the first event of a block, or one before it.

        Args:
            i: The block.

        Returns:
            Microseconds, wraps of the clock undone.
        """
        raise NotImplementedError

    def before(self, i: int) -> int:
        """A bound of the times of all events before a block: none is later.

        Args:
            i: The block.

        Returns:
            Microseconds.
        """
        return self.start(i) + MAX_BACKWARDS

    def after(self, i: int) -> int:
        """A bound of the repaired times of all events from a block on: none is earlier.

        Args:
            i: The block.

        Returns:
            Microseconds.
        """
        return self.start(i) - MAX_BACKWARDS

    def read(self, i: int, j: int) -> Columns:
        """Decode some blocks.

        Args:
            i: The first.
            j: The one behind the last.

        Returns:
            x, y, t and p of their events, wraps of the clock undone.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Close what is open besides the file itself."""


class SlicedBlocks(Blocks):
    """Events of a fixed size, any slice of which can be read.

    Args:
        total: Number of events.
        columns: Takes the first event and the one behind the last, and gives x, y, t, p.
        size: The sensor's (W, H).
        clock_bits: Where the clock wraps after 2^bits microseconds; None where it doesn't.
        name: The file, for messages.
    """

    def __init__(
        self,
        total: int,
        columns: Callable[[int, int], Columns],
        size: Size = None,
        clock_bits: Optional[int] = None,
        name: str = '',
    ):
        super().__init__()
        self.total, self.columns, self.size, self.name = total, columns, size, name
        self.number = -(-total // BLOCK_EVENTS)
        self.clock_bits = clock_bits
        self._starts: Optional[np.ndarray] = None

    def start(self, i: int) -> int:
        """The time of the first event of a block.

        Args:
            i: The block.

        Returns:
            Microseconds.
        """
        if self.clock_bits is None:
            return int(self.columns(i * BLOCK_EVENTS, i * BLOCK_EVENTS + 1)[2][0])
        if self._starts is None:
            # One number in each block: so the turns of the clock are known anywhere.
            firsts = [self.columns(at, at + 1)[2] for at in range(0, self.total, BLOCK_EVENTS)]
            self._starts = unwrap(np.concatenate(firsts), self.clock_bits)
        return int(self._starts[i])

    def after(self, i: int) -> int:
        """A bound of the repaired times of all events from a block on: that of its first.

        Args:
            i: The block.

        Returns:
            Microseconds.
        """
        return self.start(i)

    def read(self, i: int, j: int) -> Columns:
        """Read the events of some blocks.

        Args:
            i: The first.
            j: The one behind the last.

        Returns:
            x, y, t, p.
        """
        x, y, t, p = self.columns(i * BLOCK_EVENTS, min(j * BLOCK_EVENTS, self.total))
        if self.clock_bits is not None and len(t):
            first = self.start(i)
            assert self._starts is not None  # start() has made them
            raw = int(t[0])
            t = unwrap(t, self.clock_bits) + (first - raw)
            if (t[::BLOCK_EVENTS] != self._starts[i:j]).any():
                raise DatasetError(
                    f'{self.name}: its clock of {self.clock_bits} bits turns round more than once '
                    f'within {BLOCK_EVENTS} events, so that their times cannot be told. Convert it '
                    'to .npy with times of 64 bits'
                )
            if self._starts[-1] >> self.clock_bits:
                self.repairs['turns of its clock undone'] = int(self._starts[-1] >> self.clock_bits)
        return x, y, t, p


def join(parts: Sequence[Columns]) -> Columns:
    """The events of some parts, one behind the other.

    Args:
        parts: x, y, t, p of each.

    Returns:
        x, y, t, p; empty where there are no parts.
    """
    if not parts:
        return tuple(np.empty(0, np.int64) for _ in range(4))  # type: ignore[return-value]
    return tuple(map(np.concatenate, zip(*parts)))  # type: ignore[return-value]


def whole_blocks(columns: Columns, size: Size = None) -> SlicedBlocks:
    """Blocks of a recording that is in memory.

    Args:
        columns: x, y, t, p.
        size: The sensor's (W, H).

    Returns:
        Its blocks.

    Raises:
        ValueError: The columns are not equally long.
    """
    x, y, t, p = columns
    if len({len(column) for column in columns}) > 1:
        raise ValueError(f'x, y, t, p have the lengths {[len(column) for column in columns]}')
    return SlicedBlocks(len(t), lambda i, j: (x[i:j], y[i:j], t[i:j], p[i:j]), size)


class Packet(NamedTuple):
    """Where a packet lies and when it begins.

    - ``at``, ``length``: in the file, in bytes.
    - ``start``: the time of its first event, in microseconds.
    """

    at: int
    length: int
    start: int


class PacketBlocks(Blocks):
    """A file of packets.

    Args:
        packets: The packets with events, in the order of the file.
        decode: Takes packets that follow each other, and gives x, y, t, p.
        size: The sensor's (W, H).
    """

    def __init__(
        self,
        packets: Sequence[Packet],
        decode: Callable[[Sequence[Packet]], Columns],
        size: Size = None,
    ):
        super().__init__()
        self.packets, self.decode, self.size = packets, decode, size
        self.number = len(packets)

    def start(self, i: int) -> int:
        """The time of the first event of a packet.

        Args:
            i: The packet.

        Returns:
            Microseconds.
        """
        return self.packets[i].start

    def read(self, i: int, j: int) -> Columns:
        """Decode some packets.

        Args:
            i: The first.
            j: The one behind the last.

        Returns:
            x, y, t, p.
        """
        return self.decode(self.packets[i:j])


class MappedArray:
    """An array in a file, each slice of which is mapped by itself, so that none stays in memory.

    Args:
        file: The open file.
        dtype: Of an element.
        at: Bytes before the first.
        shape: Shape of an element.

    Example:
        >>> import tempfile
        >>> from mmsnn.datasets.events.blocks import MappedArray
        >>> with tempfile.TemporaryFile() as file:
        ...     _ = file.write(bytes(range(8)))
        ...     file.flush()
        ...     MappedArray(file, '<u2', at=2)[1:3].tolist()
        [1284, 1798]
    """

    def __init__(self, file: BufferedReader, dtype, at: int, shape: tuple[int, ...] = ()):
        self.file, self.dtype, self.at, self.shape = file, np.dtype(dtype), at, shape
        self.step = self.dtype.itemsize * int(np.prod(shape, dtype=np.int64))

    def __getitem__(self, where: slice) -> np.ndarray:
        number = where.stop - where.start
        if number <= 0:
            return np.empty((0, *self.shape), self.dtype)
        at = self.at + where.start * self.step
        mapped = np.memmap(self.file, self.dtype, 'r', at, (number, *self.shape))
        return mapped.view(np.ndarray)


def last_where(number: int, holds: Callable[[int], bool]) -> int:
    """A block for which something holds, and the next doesn't, by halving.

    Args:
        number: Number of blocks.
        holds: Takes a block; holds for the first ones and not for the later ones.

    Returns:
        The block, -1 where it holds for none.

    Example:
        >>> from mmsnn.datasets.events.blocks import last_where
        >>> last_where(10, lambda i: i < 4)
        3
    """
    low, high = -1, number
    while high - low > 1:
        middle = (low + high) // 2
        if holds(middle):
            low = middle
        else:
            high = middle
    return low

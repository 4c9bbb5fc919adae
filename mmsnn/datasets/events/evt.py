"""Prophesee's .raw: EVT 2.0, 2.1 and 3.0.

A word of 32, 64 or 16 bits has its type in the highest four bits. Clocks are split: the high bits
come in words of their own, and hold for what follows; in EVT 3.0 so do the low bits, the row, and
the column and polarity of vectors. So a file is gone through once as it is opened, which finds what
holds at the start of each block; then blocks decode by themselves.

Why no package of the index is taken: on the files of the tests, `evt3` 0.4.1 lets times begin again
at each turn of the clock of EVT 3.0 (16.8 s), and has no other version; `faery` 0.7.1 holds times
still behind such a turn, and knows no header of EVT 2.1 that calls it EVT21, as Prophesee's do;
`expelliarmus` 1.1.12 stops at an external trigger of EVT 3.0 and has no EVT 2.1. Where they do read
on, all three agree with this module.
Source: Prophesee, EVT 2.0, EVT 2.1 and EVT 3.0 Format.
"""

import re
from io import BufferedReader
from typing import NamedTuple, Optional

import numpy as np

from ..errors import DatasetError
from .blocks import Blocks, Columns, MappedArray, Size, join, unwrap
from .problems import expect, whole_events
from .records import header_lines

BLOCK_BYTES = 2**16
WIDTH = {'2.0': 4, '2.1': 8, '3.0': 2}
# The types of words that the specifications name.
KNOWN = {
    '2.0': (0, 1, 8, 10, 14, 15),
    '2.1': (0, 1, 8, 10, 14),
    '3.0': (0, 2, 3, 4, 5, 6, 7, 8, 10, 14, 15),
}
TIME_HIGH = 8
_RESERVED = 'words of reserved types passed over'
_NO_TIME = 'events before the first time or row passed over'


class RawHead(NamedTuple):
    """What the header of a .raw says.

    - ``version``: '2.0', '2.1' or '3.0'.
    - ``size``: (W, H) of the sensor, None where it isn't said.
    - ``words``: number of words behind the header.
    - ``at``: where they begin, in bytes.
    - ``dtype``: of a word; halves of EVT 2.1 are turned round where ``swapped``.
    """

    version: str
    size: Size
    words: int
    at: int
    dtype: str
    swapped: bool


def read_raw_head(file: BufferedReader, path: str) -> RawHead:
    """Read the lines of '%', and say what the words behind them are.

    Args:
        file: The open file.
        path: Its name, for messages.

    Returns:
        The head.

    Raises:
        DatasetError: No .raw, of another version, or truncated.
    """
    header = header_lines(file, b'% ', path, end=b'% end').decode('latin-1')
    expect(bool(header), path, '.raw (it does not start with lines of %)')
    options = dict(re.findall(r'(?m)^% (\w+)[ \t]+(\S.*?)[ \t]*\r?$', header))
    name, *parts = options.get('format', '').split(';')
    parts = dict(part.strip().split('=', 1) for part in parts if '=' in part)
    version = options.get('evt') or {'EVT2': '2.0', 'EVT21': '2.1', 'EVT3': '3.0'}.get(name, name)
    if version not in WIDTH:
        raise DatasetError(
            f'{path} is a .raw of the format {version or "that its header does not name"}. '
            "Expected: EVT 2.0, 2.1 or 3.0. Convert it by Prophesee's tools to one of them"
        )
    said = re.fullmatch(r'(\d{1,5})x(\d{1,5})', options.get('geometry', ''))
    sides = said.groups() if said else (parts.get('width', ''), parts.get('height', ''))
    size = (int(sides[0]), int(sides[1])) if all(side.isdecimal() for side in sides) else None
    at = file.tell()
    words = whole_events(file, WIDTH[version], path)
    order = options.get('endianness') or parts.get('endianness') or ''
    if order not in ('', 'little', 'legacy', 'big'):
        raise DatasetError(f'{path}: its endianness is {order!r}. Expected: little, legacy or big')
    dtype = f'{">" if order == "big" else "<"}u{WIDTH[version]}'
    swapped = version == '2.1' and order == 'legacy'
    head = RawHead(version, size, words, at, dtype, swapped)
    if version == '2.1' and not order:
        head = head._replace(swapped=_finds_halves(file, head, path))
    return head


def _finds_halves(file, head, path) -> bool:
    """Whether the halves of words of EVT 2.1 are turned round, where the header doesn't say it."""
    words = MappedArray(file, head.dtype, head.at)[0 : min(head.words, 2**14)]
    fits = []
    for swapped in (False, True):
        kind = _turned(words, swapped) >> np.uint64(60)
        fits.append(bool(np.isin(kind, KNOWN['2.1']).all() and (kind == TIME_HIGH).any()))
    if fits[0] == fits[1]:
        raise DatasetError(
            f'{path}: it cannot be told in which order the halves of its words of EVT 2.1 are. '
            'Write "% endianness little" (GenX320) or "% endianness legacy" (IMX636) to its header'
        )
    return fits[1]


def _turned(words: np.ndarray, swapped: bool) -> np.ndarray:
    return words << np.uint64(32) | words >> np.uint64(32) if swapped else words


class State(NamedTuple):
    """What holds at the start of a block; -1 where nothing was said yet.

    - ``high``: high bits of the clock, wraps undone.
    - ``low``: low bits of the clock, of EVT 3.0.
    - ``y``: row, of EVT 3.0.
    - ``base``: the word VECT_BASE_X, of EVT 3.0.
    - ``offset``: how many columns vectors behind it have taken.
    """

    high: int = -1
    low: int = -1
    y: int = -1
    base: int = -1
    offset: int = 0


class RawBlocks(Blocks):
    """A .raw in blocks of words.

    Args:
        file: The open file.
        path: Its name, for messages.
    """

    def __init__(self, file: BufferedReader, path: str):
        super().__init__()
        self.head = head = read_raw_head(file, path)
        self.size = head.size
        self.words = MappedArray(file, head.dtype, head.at)
        self.step = BLOCK_BYTES // WIDTH[head.version]
        self.number = -(-head.words // self.step)
        self.low_bits = 12 if head.version == '3.0' else 6
        self.high_bits = 12 if head.version == '3.0' else 28
        self._dropped: dict[int, int] = {}  # events of each block that was decoded
        self._first: Optional[int] = None  # the first high bits of the clock
        self._extremes: tuple[list[int], list[int]] = ([], [])  # of those in each block
        self.states = [State()]
        for i in range(self.number):
            self.states.append(self._behind(self._words(i), self.states[-1]))
        if self.number and self._first is None:
            raise DatasetError(
                f'{path} has no word EVT_TIME_HIGH, so that its events have no times. Fetch it '
                'again'
            )

        # All highs so far, and all to come, bound the times before and behind a block.
        self._highest = np.maximum.accumulate([self._first or 0, *self._extremes[1]])
        lowest = [*self._extremes[0], np.iinfo(np.int64).max >> self.low_bits]
        self._lowest = np.minimum.accumulate(lowest[::-1])[::-1]

    def start(self, i: int) -> int:
        """The time that the high bits of the clock give at the start of a block.

        Args:
            i: The block.

        Returns:
            Microseconds.
        """
        high = self.states[i].high
        return int(self._highest[0] if high < 0 else high) << self.low_bits

    def before(self, i: int) -> int:
        """A bound of the times of all events before a block: none is later.

        Args:
            i: The block.

        Returns:
            Microseconds.
        """
        return (int(self._highest[i]) + 1 << self.low_bits) - 1

    def after(self, i: int) -> int:
        """A bound of the times of all events from a block on: none is earlier.

        Args:
            i: The block.

        Returns:
            Microseconds.
        """
        return int(self._lowest[i]) << self.low_bits

    def read(self, i: int, j: int) -> Columns:
        """Decode some blocks.

        Args:
            i: The first.
            j: The one behind the last.

        Returns:
            x, y, t, p.
        """
        decode = {'2.0': self._evt2, '2.1': self._evt21, '3.0': self._evt3}[self.head.version]
        parts = []
        for k in range(i, j):
            *columns, keep = decode(self._words(k), self.states[k])
            if not keep.all():
                self._dropped[k] = int((~keep).sum())
                self.repairs[_NO_TIME] = sum(self._dropped.values())
                columns = [column[keep] for column in columns]
            parts.append(columns)
        return join(parts)

    def _words(self, i):
        words = self.words[i * self.step : min((i + 1) * self.step, self.head.words)]
        return _turned(words, True) if self.head.swapped else words

    def _kind(self, words):
        return (words >> words.dtype.type(8 * words.itemsize - 4)).astype(np.uint8)

    def _high_of(self, words, where, before: int):
        """The high bits that words TIME_HIGH say, wraps undone, behind those that held before."""
        if self.head.version == '2.1':
            values = (words[where] >> np.uint64(32) & np.uint64(0xFFFFFFF)).astype(np.int64)
        else:
            mask = (1 << self.high_bits) - 1
            values = words[where].astype(np.int64) & mask
        if before < 0:
            return np.concatenate([[-1], unwrap(values, self.high_bits)])
        turns = before >> self.high_bits << self.high_bits
        return unwrap(np.concatenate([[before - turns], values]), self.high_bits) + turns

    def _high_at(self, words, kind, state: State, where) -> np.ndarray:
        """The high bits of the clock that hold at some words."""
        is_high = kind == TIME_HIGH
        highs = self._high_of(words, is_high, state.high)
        return highs.take(np.cumsum(is_high, dtype=np.int32).take(where))

    def _behind(self, words, state: State) -> State:
        """What holds behind a block."""
        kind = self._kind(words)
        known = np.zeros(16, bool)
        known[list(KNOWN[self.head.version])] = True
        reserved = len(kind) - int(known[kind].sum())
        if reserved:
            self.repairs[_RESERVED] = self.repairs.get(_RESERVED, 0) + reserved
        highs = self._high_of(words, kind == TIME_HIGH, state.high)
        high = highs[-1]
        if self._first is None and len(highs) > 1:
            self._first = int(highs[1])
        known = highs[highs >= 0] if state.high < 0 else highs
        # A block without any, before the first: no event of it has a time.
        never = np.iinfo(np.int64).max >> self.low_bits
        self._extremes[0].append(int(known.min()) if len(known) else never)
        self._extremes[1].append(int(known.max()) if len(known) else -1)
        if self.head.version != '3.0':
            return State(int(high))
        low, y = (_last(words, kind == k, m, old) for k, m, old in _kept(state))
        base, offset, begin = state.base, state.offset, 0
        bases = np.flatnonzero(kind == 3)
        if len(bases):
            base, offset, begin = int(words[bases[-1]]), 0, int(bases[-1])
        rest = kind[begin:]
        offset += 12 * int((rest == 4).sum()) + 8 * int((rest == 5).sum())
        return State(int(high), low, y, base, offset)

    def _evt2(self, words, state: State):
        kind = self._kind(words)
        where = np.flatnonzero(kind <= 1)
        high = self._high_at(words, kind, state, where)
        word = words[where]
        t = high << 6 | (word >> np.uint32(22) & np.uint32(0x3F)).astype(np.int64)
        x, y = word >> np.uint32(11) & np.uint32(0x7FF), word & np.uint32(0x7FF)
        return x, y, t, kind[where], high >= 0

    def _evt21(self, words, state: State):
        kind = self._kind(words)
        where = np.flatnonzero(kind <= 1)
        high = self._high_at(words, kind, state, where)
        word = words[where]
        mask = (word & np.uint64(0xFFFFFFFF)).astype(np.uint32)
        part, bit = _bits(mask, 32)
        field = (word >> np.uint64(32)).astype(np.int64)
        t = high << 6 | field >> 22 & 0x3F
        x, y = (field >> 11 & 0x7FF)[part] + bit, (field & 0x7FF)[part]
        return x, y, t[part], kind[where][part], (high >= 0)[part]

    def _evt3(self, words, state: State):
        kind = self._kind(words)
        is_event = (kind == 2) | (kind == 4) | (kind == 5)
        where = np.flatnonzero(is_event)
        high = self._high_at(words, kind, state, where)
        low, y = (_held(words, kind == k, m, old, where) for k, m, old in _kept(state))
        word, kinds = words[where].astype(np.int64), kind[where]
        x, p = word & 0x7FF, word >> 11 & 1
        keep = (high >= 0) & (low >= 0) & (y >= 0)
        t = high << 12 | low  # in 64 bits, as the high bits are
        is_vector = kinds != 2
        if not is_vector.any():
            return x, y, t, p, keep
        # Vectors say a mask of the columns behind the last VECT_BASE_X and the vectors since then.
        steps = 12 * (kind == 4).astype(np.int64) + 8 * (kind == 5)
        before = np.cumsum(steps) - steps
        is_base = kind == 3
        number = np.cumsum(is_base)[where]
        bases = np.concatenate([[state.base], words[is_base].astype(np.int64)])[number]
        begins = np.concatenate([[-state.offset], before[is_base]])[number]
        keep &= ~is_vector | (bases >= 0)
        x = np.where(is_vector, (bases & 0x7FF) + before[where] - begins, x)
        p = np.where(is_vector, bases >> 11 & 1, p)
        mask = np.where(is_vector, np.where(kinds == 4, word & 0xFFF, word & 0xFF), 1)
        part, bit = _bits(mask.astype(np.uint16), 12)
        return x[part] + bit, y[part], t[part], p[part], keep[part]


def _kept(state: State):
    """Types of EVT 3.0 whose last word holds, the bits that count, and what held before."""
    return (6, 0xFFF, state.low), (0, 0x7FF, state.y)


def _last(words, where, mask: int, before: int) -> int:
    at = np.flatnonzero(where)
    return int(words[at[-1]]) & mask if len(at) else before


def _held(words, where, mask: int, before: int, at):
    """What the last of some words said, at each place."""
    places = np.flatnonzero(where)
    values = np.empty(len(places) + 1, np.int32)
    values[0] = before
    np.bitwise_and(words.take(places), mask, out=values[1:], casting='unsafe')
    return values.take(np.cumsum(where, dtype=np.int32).take(at))


def _bits(masks: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
    """The places of the ones in masks, by mask and then from the lowest on."""
    octets = masks.astype(masks.dtype.newbyteorder('<')).view(np.uint8).reshape(len(masks), -1)
    ones = np.unpackbits(octets, axis=1, bitorder='little')[:, :number]
    part, bit = np.nonzero(ones)
    return part, bit


def raw_head(file: BufferedReader, path: str) -> tuple[int, Optional[tuple[int, int]]]:
    """The number of words, which have at least no more events than that where there are none.

    Args:
        file: The open file.
        path: Its name.

    Returns:
        The number, and the sensor's size.
    """
    head = read_raw_head(file, path)
    return head.words, head.size

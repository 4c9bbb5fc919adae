"""A recording that is open: the events of any window of time, checked and repaired."""

import logging
import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from io import BufferedReader
from typing import Any, Optional

import numpy as np
from mmengine.logging import print_log

from ..errors import DatasetError
from . import blocks as limits
from .blocks import Blocks, last_where
from .problems import blame

__all__ = ['Events', 'Recording', 'check_sensor_size']

# Places of pixels have 15 bits at most in the formats here.
MAX_SIDE = 2**15
# Three times what the largest event cameras have. A file that claims more is broken, and frames of
# what it claims would fill the memory.
MAX_PIXELS = 2**22

_reported: set[tuple[str, str]] = set()


@dataclass(frozen=True)
class Events:
    """The events of one recording, or of a window of it, in the order of time.

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


class Recording:
    """A recording that is open; :func:`~mmsnn.datasets.events.open_recording` makes it.

    It keeps the file open and reads what is asked for. Use it in ``with``, or close it. Repairs are
    said once for each file: a time that runs backwards by up to 50 ms becomes the latest time
    before it, wraps of the clock are undone, polarities -1 and 1 become 0 and 1.

    Args:
        path: The file, for messages.
        file: The open file.
        blocks: What its format's reader gives.
        sensor_size: (W, H) in pixels.
    """

    def __init__(
        self, path: str, file: BufferedReader, blocks: Blocks, sensor_size: tuple[int, int]
    ):
        self.path, self.file, self.blocks, self.sensor_size = path, file, blocks, sensor_size
        self._has_zero = self._has_negative = False
        self._start: Optional[int] = None
        self._end: Optional[int] = None
        #: What was repaired in what was read so far, in words, and how many events.
        self.repairs: dict[str, int] = {}

    @property
    def width(self) -> int:
        """Of the sensor, in pixels."""
        return self.sensor_size[0]

    @property
    def height(self) -> int:
        """Of the sensor, in pixels."""
        return self.sensor_size[1]

    @property
    def start(self) -> int:
        """The time of the first event, in microseconds."""
        if self._start is None:
            self._start = self._first_time()
        return self._start

    @property
    def end(self) -> int:
        """The time of the last event, in microseconds."""
        if self._end is None:
            self._end = self._last_time()
        return self._end

    @property
    def duration(self) -> int:
        """From the first event to the last one, in microseconds."""
        return self.end - self.start

    def window(self, t0: int, t1: int) -> Events:
        """The events of a window of time.

        It takes memory for the window's events and for those up to 50 ms in front of it, whose
        times tell where the window begins, whatever the length of the recording. An event that is
        earlier by more than 50 ms than one before it is refused where it is read.

        Args:
            t0: Its beginning, in microseconds.
            t1: Its end, in microseconds, which is no part of it.

        Returns:
            The events with t0 <= t < t1, maybe none.

        Raises:
            DatasetError: Events that can't be used or repaired; an end before the beginning.
        """
        if t1 < t0:
            raise DatasetError(f'{self.path}: a window from {t0} to {t1} us ends before it begins')
        first = last_where(self.blocks.number, lambda i: self.blocks.before(i) < t0)
        last = last_where(self.blocks.number, lambda i: self.blocks.after(i) < t1)
        return self._read(max(first, 0), max(last + 1, first, 0), t0, t1)

    def all(self) -> Events:
        """All events.

        Returns:
            The events.

        Raises:
            DatasetError: Events that can't be used or repaired.
        """
        return self._read(0, self.blocks.number)

    def close(self) -> None:
        """Close the file."""
        self.blocks.close()
        self.file.close()

    def __enter__(self) -> 'Recording':
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.path!r}, {self.width}x{self.height})'

    def _all_before(self, t: int, i: int) -> bool:
        return self.blocks.before(i) < t

    def _first_time(self) -> int:
        for i in range(self.blocks.number):
            events = self._read(i, i + 1)
            if len(events):
                return int(events.t[0])
        raise no_events(self.path)

    def _last_time(self) -> int:
        last = self.blocks.number - 1
        while last >= 0:
            latest = self.blocks.start(last)
            last = last_where(last, partial(self._all_before, latest))
            events = self._read(max(last, 0), self.blocks.number)
            if len(events):
                return int(events.t[-1])
        raise no_events(self.path)

    def _read(self, i: int, j: int, t0: Optional[int] = None, t1: Optional[int] = None) -> Events:
        """Read blocks, repair their times, cut them to a window and check the rest."""
        with blame(self.path):
            x, y, t, p = self.blocks.read(i, j)
            at = _Place(self.path, self.blocks, i)
            t, late = repair_times(as_times(t, at), at)
            begin = 0 if t0 is None else int(np.searchsorted(t, t0, 'left'))
            end = len(t) if t1 is None else int(np.searchsorted(t, t1, 'left'))
            at = replace(at, offset=begin)
            x, y, p = (column[begin:end] for column in (x, y, p))
            x, y, p = (as_whole(column, name, at) for name, column in zip('xyp', (x, y, p)))
            check_places(x, y, self.sensor_size, at)
            p = self._polarity(p, at)
            t = t[begin:end]
            repaired = int(((late >= begin) & (late < end)).sum())
            if repaired:
                self.repairs[_BACKWARDS] = self.repairs.get(_BACKWARDS, 0) + repaired
            self.repairs.update(self.blocks.repairs)
            self._report()
            return Events(x.astype(np.int32), y.astype(np.int32), t, p, self.sensor_size)

    def _polarity(self, p: np.ndarray, at: '_Place') -> np.ndarray:
        """Polarities 0 and 1, of those or of -1 and 1."""
        if not len(p):
            return p.astype(np.uint8)
        if p.min() < -1 or p.max() > 1:
            wrong = int(np.flatnonzero((p < -1) | (p > 1))[0])
            raise DatasetError(
                f'{at.event(wrong)} has the polarity {int(p[wrong])}. Expected: 0 (OFF) or 1 (ON), '
                'or -1 and 1'
            )
        self._has_zero |= bool((p == 0).any())
        negative = int((p == -1).sum()) if p.dtype.kind != 'u' else 0
        self._has_negative |= negative > 0
        if self._has_negative and self._has_zero:
            raise DatasetError(
                f'{at.path} has the polarities -1 and 0, so that it cannot be told what OFF is. '
                'Write 0 (OFF) and 1 (ON)'
            )
        if negative:
            self.repairs[_SIGNED] = self.repairs.get(_SIGNED, 0) + negative
            p = p > 0
        return p.astype(np.uint8)

    def _report(self) -> None:
        for what, number in self.repairs.items():
            if (self.path, what) not in _reported:
                _reported.add((self.path, what))
                print_log(
                    f'{self.path}: {what}: {number} so far',
                    logger='current',
                    level=logging.WARNING,
                )


_BACKWARDS = 'times that run backwards a little set to the latest before them'
_SIGNED = 'polarities -1 taken for 0 (OFF)'


# --- checks --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Place:
    """How messages name an event: by its number from the block on where reading began."""

    path: str
    blocks: Blocks
    first: int
    offset: int = 0

    def name(self, number: int) -> str:
        since = f' from {self.blocks.start(self.first)} us on' if self.first else ''
        return f'event {int(number) + self.offset}{since}'

    def event(self, number: int) -> str:
        return f'{self.path}: {self.name(number)}'


def no_events(path: str) -> DatasetError:
    """What is said of a file without events."""
    return DatasetError(f'{path} holds no events. Fetch it again or leave it out')


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


def believe_size(said: Any, path: str) -> tuple[int, int]:
    """The size of the sensor as a file says it, if that can be.

    Args:
        said: What the file says, None where it doesn't.
        path: The file.

    Returns:
        (W, H) in pixels.

    Raises:
        DatasetError: It says none, or one that no camera has.
    """
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


def as_whole(values: np.ndarray, name: str, at: _Place) -> np.ndarray:
    """Numbers as they are; bool as numbers, and floats only if they are whole."""
    if values.dtype.kind == 'b':
        return values.astype(np.uint8)
    if values.dtype.kind == 'f':
        values = values.astype(np.float64) if values.itemsize < 8 else values
        wrong = np.flatnonzero(~(np.isfinite(values) & (values == np.floor(values))))
        if len(wrong):
            raise DatasetError(
                f'{at.event(wrong[0])} has {name}={values[wrong[0]]}, not a whole number. Columns '
                'are x, y, t, p; times are microseconds'
            )
    return values


def as_times(t: np.ndarray, at: _Place) -> np.ndarray:
    """Times in int64, which holds 292,000 years of microseconds to either side of 0."""
    t = as_whole(t, 't', at)
    if t.dtype.kind == 'f':
        wrong = np.flatnonzero((t < -(2.0**63)) | (t >= 2.0**63))
    elif t.dtype.kind == 'u' and t.itemsize == 8:
        wrong = np.flatnonzero(t > np.uint64(2**63 - 1))
    else:
        wrong = np.empty(0, np.int64)
    if len(wrong):
        raise DatasetError(
            f'{at.event(wrong[0])} has t={t[wrong[0]]}, beyond what 64 bits with a sign can hold. '
            'Times are microseconds'
        )
    return t.astype(np.int64)


def repair_times(t: np.ndarray, at: _Place) -> tuple[np.ndarray, np.ndarray]:
    """Times that never fall: each at least the latest before it, as RVT's preprocessing has them.

    Args:
        t: (N,) int64, in microseconds.
        at: For messages.

    Returns:
        The times, and the numbers of the events whose time was changed.

    Raises:
        DatasetError: One lies more than 50 ms before an earlier one.
    """
    if not len(t) or (t[1:] >= t[:-1]).all():
        return t, np.empty(0, np.int64)
    latest = np.maximum.accumulate(t)
    late = np.flatnonzero(t < latest)
    # The difference of two times may not fit into 64 bits with a sign.
    by = latest[late].view(np.uint64) - t[late].view(np.uint64)
    wrong = np.flatnonzero(by > limits.MAX_BACKWARDS)
    if len(wrong):
        first = int(late[wrong[0]])
        raise DatasetError(
            f'{at.path}: times run backwards at {at.name(first)}, from {latest[first]} to '
            f'{t[first]} us, by more than the {limits.MAX_BACKWARDS} us that are repaired. Fetch '
            'it again, or sort its events'
        )
    return latest, late


def check_places(x: np.ndarray, y: np.ndarray, sensor_size: tuple[int, int], at: _Place) -> None:
    """Check that all events lie on the sensor."""
    width, height = sensor_size
    if not len(x) or (x.min() >= 0 and x.max() < width and y.min() >= 0 and y.max() < height):
        return
    first = int(np.flatnonzero((x < 0) | (x >= width) | (y < 0) | (y >= height))[0])
    raise DatasetError(
        f'{at.event(first)} at x={int(x[first])}, y={int(y[first])} lies off the sensor of '
        f'{width}x{height} pixels. Give the sensor_size=(width, height) of the camera'
    )

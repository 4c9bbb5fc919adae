"""From events to frames: counts of events for each time step, polarity and pixel."""

from numbers import Integral

import numpy as np

from .recording import Events
from .representations import count_events

__all__ = ['SPLITS', 'check_framing', 'frame_index', 'to_frames']

SPLITS = ('count', 'time')


def check_framing(time_steps: int, split_by: str) -> None:
    """Check the arguments of :func:`frame_index`.

    Args:
        time_steps: Number of time steps, T.
        split_by: 'count' or 'time'.

    Raises:
        ValueError: If ``time_steps`` is no whole number from 1 or ``split_by`` unknown.
    """
    if not isinstance(time_steps, Integral) or isinstance(time_steps, bool) or time_steps < 1:
        raise ValueError(f'time_steps is {time_steps!r}, expected a whole number from 1')
    if split_by not in SPLITS:
        raise ValueError(f'split_by is {split_by!r}, expected one of {", ".join(SPLITS)}')


def frame_index(events: Events, time_steps: int, split_by: str = 'count') -> np.ndarray:
    """Say to which frame each event belongs.

    With N events and T frames, event i of time t[i] belongs to frame

    - 'count': floor(i T / N), so the frames hold equally many events, give or take one;
    - 'time': floor((t[i] - t[0]) T / (t[N-1] - t[0] + 1)), so the frames last equally long.

    Both are integer arithmetic and give 0 .. T - 1 for every event; the fixed number of slices of
    tonic and others, which drops the events of the remainder, does not.

    Args:
        events: N events, N >= 1.
        time_steps: Number of time steps, T.
        split_by: 'count' or 'time'.

    Returns:
        (N,) int64, never falling.

    Raises:
        ValueError: If ``time_steps`` is no whole number from 1 or ``split_by`` unknown.
    """
    check_framing(time_steps, split_by)
    time_steps = int(time_steps)
    if split_by == 'count':
        return np.arange(len(events), dtype=np.int64) * time_steps // len(events)
    # Frame k starts at the first whole time of at least t[0] + k (t[N-1] - t[0] + 1) / T. In
    # Python's integers, since the difference of two times may not fit into 64 bits.
    first, last = int(events.t[0]), int(events.t[-1])
    starts = (first - -k * (last - first + 1) // time_steps for k in range(1, time_steps))
    reached = np.array([start for start in starts if start <= last], np.int64)
    return np.searchsorted(reached, events.t, side='right')


def to_frames(events: Events, time_steps: int, split_by: str = 'count') -> np.ndarray:
    """Count events by frame, polarity and pixel; every event lands in exactly one frame.

    Args:
        events: N events of a sensor of (W, H).
        time_steps: Number of time steps, T.
        split_by: 'count' for equally many events in each frame, 'time' for equally long frames.

    Returns:
        (T, 2, H, W) int32, counts; channel 0 is OFF, channel 1 is ON. The sum is N.

    Raises:
        ValueError: If ``time_steps`` is no whole number from 1 or ``split_by`` unknown.

    Example:
        >>> import numpy as np
        >>> from mmsnn.datasets.events import Events, to_frames
        >>> x, y, t, p = np.array([[3, 5, 100, 1], [4, 5, 120, 0]]).T
        >>> events = Events(x, y, t, p, sensor_size=(8, 8))
        >>> to_frames(events, time_steps=2).sum(axis=(1, 2, 3))
        array([1, 1])
    """
    width, height = events.sensor_size
    index = frame_index(events, time_steps, split_by)
    frames = np.empty((time_steps, 2, height, width), np.int32)
    ends = np.searchsorted(index, np.arange(time_steps + 1))
    # One frame at a time: counting takes 64 bits a pixel, twice the memory of the result.
    for frame, start, end in zip(frames, ends[:-1], ends[1:]):
        x, y, t, p = (getattr(events, name)[start:end] for name in 'xytp')
        frame[:] = count_events(Events(x, y, t, p, events.sensor_size))
    return frames

"""From events to frames: counts of events for each time step, polarity and pixel."""

import numpy as np

from .io import Events

__all__ = ['SPLITS', 'frame_index', 'to_frames']

SPLITS = ('count', 'time')


def frame_index(events: Events, time_steps: int, split_by: str = 'count') -> np.ndarray:
    """Say to which frame each event belongs.

    With N events and T frames, event i of time t[i] belongs to frame

    - 'count': floor(i T / N), so the frames hold equally many events, give or take one;
    - 'time': floor((t[i] - t[0]) T / (t[N-1] - t[0] + 1)), so the frames last equally long.

    Both are integer arithmetic and give 0 .. T - 1 for every event; the fixed number of slices of
    tonic and others, which drops the events of the remainder, does not.

    Args:
        events: N events, N >= 1.
        time_steps: T.
        split_by: 'count' or 'time'.

    Returns:
        (N,) int64, never falling.

    Raises:
        ValueError: If ``time_steps`` is below 1 or ``split_by`` unknown.
    """
    if time_steps < 1:
        raise ValueError(f'time_steps is {time_steps}, expected 1 or more')
    if split_by == 'count':
        return np.arange(len(events), dtype=np.int64) * time_steps // len(events)
    if split_by == 'time':
        elapsed = events.t - events.t[0]
        return elapsed * time_steps // (elapsed[-1] + 1)
    raise ValueError(f'split_by is {split_by!r}, expected one of {", ".join(SPLITS)}')


def to_frames(events: Events, time_steps: int, split_by: str = 'count') -> np.ndarray:
    """Count events by frame, polarity and pixel; every event lands in exactly one frame.

    Args:
        events: N events of a sensor of (W, H).
        time_steps: T.
        split_by: 'count' for equally many events in each frame, 'time' for equally long frames.

    Returns:
        (T, 2, H, W) int32, counts; channel 0 is OFF, channel 1 is ON. The sum is N.

    Raises:
        ValueError: If ``time_steps`` is below 1 or ``split_by`` unknown.

    Example:
        >>> import numpy as np
        >>> from mmsnn.datasets.events import Events, to_frames
        >>> x, y, t, p = np.array([[3, 5, 100, 1], [4, 5, 120, 0]]).T
        >>> events = Events(x, y, t, p, sensor_size=(8, 8))
        >>> to_frames(events, time_steps=2).sum(axis=(1, 2, 3))
        array([1, 1])
    """
    width, height = events.sensor_size
    shape = (time_steps, 2, height, width)
    cell = frame_index(events, time_steps, split_by)
    cell = ((cell * 2 + events.p) * height + events.y) * width + events.x
    counts = np.bincount(cell, minlength=int(np.prod(shape)))
    return counts.reshape(shape).astype(np.int32)

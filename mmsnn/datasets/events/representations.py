"""From the events of a window of time to maps that a network takes; pure functions of numpy.

Each takes the events and the bounds t0 and t1 of their window, not the times of the first and the
last event: so a pause stays a pause. :func:`in_steps` applies one to each of T parts of a window.
"""

import functools
from collections.abc import Sequence
from typing import Any, Callable, Union

import numpy as np

from .recording import Events

__all__ = [
    'REPRESENTATIONS',
    'count_events',
    'cut_events',
    'find_representation',
    'in_steps',
    'stacked_histogram',
    'time_surface',
    'voxel_grid',
]


def _pixels(events: Events) -> np.ndarray:
    """The place of each event in a map of (2, H, W)."""
    width, height = events.sensor_size
    pixels = events.p.astype(np.intp)
    pixels *= height
    pixels += events.y
    pixels *= width
    pixels += events.x
    return pixels


def _check(t0: int, t1: int, **numbers: float) -> None:
    if t1 <= t0:
        raise ValueError(f'a window must last: it goes from {t0} to {t1} us')
    for name, number in numbers.items():
        if not number >= 1:
            raise ValueError(f'{name} must be at least 1, got {number}')


def _edges(t0: int, t1: int, parts: int) -> list[int]:
    """Where equally long parts of a window begin, t0 + ceil(k (t1 - t0) / N), and its end."""
    return [t0 - (-k * (t1 - t0) // parts) for k in range(parts + 1)]


def cut_events(events: Events, edges: Sequence[int]) -> list[Events]:
    """Cut events at some times.

    Args:
        events: In the order of time.
        edges: N + 1 times in microseconds, rising.

    Returns:
        N parts; part k has the events with edges[k] <= t < edges[k + 1].
    """
    at = np.searchsorted(events.t, np.asarray(edges, np.int64), 'left')
    return [
        Events(events.x[i:j], events.y[i:j], events.t[i:j], events.p[i:j], events.sensor_size)
        for i, j in zip(at[:-1], at[1:])
    ]


def count_events(events: Events, t0: int = 0, t1: int = 1) -> np.ndarray:
    """Count events by polarity and pixel.

    Args:
        events: N events of a sensor of (W, H).
        t0: Not used.
        t1: Not used.

    Returns:
        (2, H, W) int32, counts; channel 0 is OFF, channel 1 is ON. The sum is N.

    Example:
        >>> import numpy as np
        >>> from mmsnn.datasets.events import Events, count_events
        >>> x, y, t, p = np.array([[3, 5, 100, 1], [3, 5, 120, 1]]).T
        >>> int(count_events(Events(x, y, t, p, sensor_size=(8, 8)))[1, 5, 3])
        2
    """
    width, height = events.sensor_size
    counts = np.bincount(_pixels(events), minlength=2 * height * width)
    return counts.astype(np.int32).reshape(2, height, width)


def stacked_histogram(
    events: Events, t0: int, t1: int, bins: int = 10, cut: int = 10
) -> np.ndarray:
    """Count events by polarity, bin of time and pixel, up to a number.

    Bin of an event: floor(bins (t - t0) / (t1 - t0)). RVT's has 10 bins and is cut at 10; its bins
    lie between the first and the last event, where these lie between the window's bounds.
    Source: Gehrig and Scaramuzza 2023, RVT.

    Args:
        events: Events with t0 <= t < t1.
        t0: The window's beginning, in microseconds.
        t1: Its end.
        bins: Number of bins.
        cut: What larger counts become, up to 255.

    Returns:
        (2 * bins, H, W) uint8: the bins of OFF, then those of ON.

    Raises:
        ValueError: A window that doesn't last, no bins, a cut that isn't 1 to 255.

    Example:
        >>> import numpy as np
        >>> from mmsnn.datasets.events import Events, stacked_histogram
        >>> x, y, t, p = np.array([[3, 5, 100, 0], [3, 5, 190, 1]]).T
        >>> events = Events(x, y, t, p, sensor_size=(8, 8))
        >>> stacked_histogram(events, 100, 200, bins=2).sum(axis=(1, 2)).tolist()
        [1, 0, 0, 1]
    """
    _check(t0, t1, bins=bins, cut=cut)
    if cut > 255:
        raise ValueError(f'cut must be at most 255, as counts are kept in bytes, got {cut}')
    width, height = events.sensor_size
    # Events are in order: a bin is a slice of them.
    edges = _edges(t0, t1, bins)
    out = np.empty((2, bins, height, width), np.uint8)
    for k, part in enumerate(cut_events(events, edges)):
        np.minimum(count_events(part), cut, out=out[:, k], casting='unsafe')
    return out.reshape(2 * bins, height, width)


def voxel_grid(events: Events, t0: int, t1: int, bins: int = 5) -> np.ndarray:
    """Add up polarities -1 and 1 in bins, each event shared by the two that it lies between.

    V[b, y, x] = sum over its events of p max(0, 1 - abs(b - u)), where
    u = (bins - 1) (t - t0) / (t1 - t0).
    Source: Zhu et al. 2019, Unsupervised Event-based Learning of Optical Flow, Depth and Egomotion.

    Args:
        events: Events with t0 <= t < t1.
        t0: The window's beginning, in microseconds.
        t1: Its end.
        bins: Number of bins.

    Returns:
        (bins, H, W) float32. The sum is the number of ON less that of OFF events.

    Raises:
        ValueError: A window that doesn't last, or no bins.

    Example:
        >>> import numpy as np
        >>> from mmsnn.datasets.events import Events, voxel_grid
        >>> events = Events(*np.array([[3, 5, 125, 1]]).T, sensor_size=(8, 8))
        >>> voxel_grid(events, 100, 200, bins=3)[:, 5, 3].tolist()
        [0.5, 0.5, 0.0]
    """
    _check(t0, t1, bins=bins)
    width, height = events.sensor_size
    area = height * width
    u = (events.t - t0) * ((bins - 1) / (t1 - t0))
    low = u.astype(np.intp)
    share = u - low
    sign = 2.0 * events.p - 1
    pixels = low * area + events.y.astype(np.intp) * width + events.x
    share *= sign
    # One bin more than there are: what an event in the last one gives to the next is 0.
    grid = np.bincount(pixels, sign - share, minlength=(bins + 1) * area)
    grid[area:] += np.bincount(pixels, share, minlength=bins * area)[: bins * area]
    return grid[: bins * area].astype(np.float32).reshape(bins, height, width)


def time_surface(events: Events, t0: int, t1: int, tau: float = 50_000.0) -> np.ndarray:
    """How long ago the last event of each polarity and pixel is, fading.

    S[p, y, x] = exp(-(t1 - t_last) / tau), and 0 where the window has no event.
    Source: Lagorce et al. 2017, HOTS.

    Args:
        events: Events with t0 <= t < t1, in the order of time.
        t0: The window's beginning, in microseconds.
        t1: Its end.
        tau: Time constant, in microseconds.

    Returns:
        (2, H, W) float32, from 0 to 1.

    Raises:
        ValueError: A window that doesn't last, or a time constant below 1.

    Example:
        >>> import numpy as np
        >>> from mmsnn.datasets.events import Events, time_surface
        >>> events = Events(*np.array([[3, 5, 100, 1]]).T, sensor_size=(8, 8))
        >>> round(float(time_surface(events, 0, 200, tau=100)[1, 5, 3]), 4)
        0.3679
    """
    _check(t0, t1, tau=tau)
    width, height = events.sensor_size
    age = np.full(2 * height * width, np.inf, np.float32)
    # Of a pixel's events the last one is written last.
    age[_pixels(events)] = t1 - events.t
    np.multiply(age, -1 / tau, out=age)
    return np.exp(age, out=age).reshape(2, height, width)


#: By name: functions of events, t0 and t1, and options of their own, that give (C, H, W).
REPRESENTATIONS: dict[str, Callable[..., np.ndarray]] = {
    'counts': count_events,
    'stacked_histogram': stacked_histogram,
    'voxel_grid': voxel_grid,
    'time_surface': time_surface,
}


def find_representation(wanted: Union[str, dict[str, Any]]) -> Callable[..., np.ndarray]:
    """A representation by its name and options.

    Args:
        wanted: A name of :data:`REPRESENTATIONS`, or ``dict(type=NAME, ...)`` with its options.

    Returns:
        A function of events, t0 and t1.

    Raises:
        ValueError: No such name or option.

    Example:
        >>> from mmsnn.datasets.events import find_representation
        >>> find_representation(dict(type='stacked_histogram', bins=5)).keywords
        {'bins': 5}
    """
    options = dict(type=wanted) if isinstance(wanted, str) else dict(wanted)
    name = options.pop('type', None)
    if name not in REPRESENTATIONS:
        raise ValueError(
            f'the representation {name!r} is not known. Known: {", ".join(REPRESENTATIONS)}'
        )
    function = REPRESENTATIONS[name]
    code = function.__code__
    known = code.co_varnames[3 : code.co_argcount]
    unknown = [option for option in options if option not in known]
    if unknown:
        raise ValueError(
            f'{name} takes {", ".join(known) or "no options"}, not {", ".join(unknown)}'
        )
    return functools.partial(function, **options)


def in_steps(
    events: Events,
    t0: int,
    t1: int,
    time_steps: int,
    represent: Callable[..., np.ndarray] = count_events,
) -> np.ndarray:
    """Represent each of T equally long parts of a window.

    Part k goes from t0 + ceil(k (t1 - t0) / T) to the start of the next.

    Args:
        events: Events with t0 <= t < t1.
        t0: The window's beginning, in microseconds.
        t1: Its end.
        time_steps: Number of parts, T.
        represent: A function of the part's events and bounds that gives (C, H, W).

    Returns:
        (T, C, H, W).

    Raises:
        ValueError: A window of fewer microseconds than parts.

    Example:
        >>> import numpy as np
        >>> from mmsnn.datasets.events import Events, in_steps
        >>> x, y, t, p = np.array([[3, 5, 100, 0], [3, 5, 190, 1]]).T
        >>> events = Events(x, y, t, p, sensor_size=(8, 8))
        >>> in_steps(events, 0, 200, time_steps=4).sum(axis=(1, 2, 3))
        array([0, 0, 1, 1])
    """
    _check(t0, t1, time_steps=time_steps)
    if t1 - t0 < time_steps:
        raise ValueError(f'a window of {t1 - t0} us has no {time_steps} time steps')
    edges = _edges(t0, t1, time_steps)
    parts = zip(cut_events(events, edges), edges[:-1], edges[1:])
    return np.stack([represent(part, start, end) for part, start, end in parts])

"""A simulated event camera, and recordings as Prophesee's files."""

import os
import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Optional, Union

import numpy as np

from ..errors import DatasetError
from .recording import Events

__all__ = ['Camera', 'simulate_events', 'write_dat']


class Camera(NamedTuple):
    """A camera of which each pixel reports changes of the logarithm of its intensity.

    - ``threshold``: C, by how much the logarithm changes from one event to the next.
    - ``mismatch``: Standard deviation of C from pixel to pixel, as a share of it.
    - ``refractory``: Microseconds for which a pixel is blind behind an event.
    - ``noise``: Events a pixel and second that nothing has caused, half of either polarity.
    - ``dark``: Intensity, from 0 to 1, that is added to every pixel: the leak of the sensor.

    Values are those of no camera on the market.
    """

    threshold: float = 0.25
    mismatch: float = 0.05
    refractory: int = 1000
    noise: float = 0.5
    dark: float = 0.03


def simulate_events(
    frames: Iterable[np.ndarray],
    interval: int,
    camera: Optional[Camera] = None,
    seed: Union[int, Sequence[int]] = 0,
) -> Events:
    r"""The events of a camera that looks at a film.

    .. math::
        L(t) &= \log(I(t) + dark) \\
        |L(t) - L_{ref}| \ge C \Rightarrow
        &\text{event of } p = [L(t) > L_{ref}], \quad L_{ref} \leftarrow L_{ref} \pm C

    L is linear in time between two frames, so that events fall between them. A pixel that is blind
    gives no event, and its reference moves on all the same: what happens then is lost. The model is
    that of ESIM (Rebecq et al. 2018) and v2e (Hu et al. 2021), in its simplest form: no bandwidth
    of the photoreceptor, no leak events.

    Args:
        frames: (H, W) each, intensities from 0 to 1; the first is what the pixels know at first.
        interval: Between two of them, in microseconds.
        camera: Its constants; default those of :class:`Camera`.
        seed: Of all that is random; the same gives the same events.

    Returns:
        The events, from t = 0 on.

    Raises:
        DatasetError: No two frames, or constants that no camera has.

    Example:
        >>> import numpy as np
        >>> from mmsnn.datasets.events import Camera, simulate_events
        >>> frames = np.array([[[0.1]], [[0.5]]])
        >>> camera = Camera(threshold=0.5, mismatch=0, refractory=0, noise=0, dark=0)
        >>> events = simulate_events(frames, 1000, camera)
        >>> events.t.tolist(), events.p.tolist()  # log(0.5 / 0.1) = 1.61
        ([310, 621, 932], [1, 1, 1])
    """
    camera = camera or Camera()
    fine = camera.threshold > 0 and min(camera.mismatch, camera.refractory, camera.noise) >= 0
    if not fine or interval < 1 or camera.dark < 0:
        raise DatasetError(
            f'no camera has {camera} with frames {interval} us apart: threshold and interval are '
            'positive, and nothing is negative'
        )
    rng = np.random.default_rng(seed)
    films = iter(frames)
    try:
        before = _log(next(films), camera)
    except StopIteration:
        raise DatasetError('a film needs two frames at least, got 0') from None
    shape = before.shape
    spread = rng.normal(1, camera.mismatch, shape) if camera.mismatch else np.ones(shape)
    threshold = camera.threshold * np.maximum(spread, 0.1)
    reference = before.copy()
    blind_until = np.full(shape, -1, np.int64)
    columns, start = [], 0
    for frame in films:
        after = _log(frame, camera)
        if after.shape != shape:
            raise DatasetError(f'frames of {shape} and {after.shape} are not of one film')
        found = _crossings(before, after, reference, threshold)
        noisy = rng.poisson(camera.noise * interval * 1e-6 * before.size)
        place = rng.integers(0, before.size, noisy)
        noise = place, rng.random(noisy), rng.integers(0, 2, noisy)
        pixel, part, p = (np.concatenate(pair) for pair in zip(found, noise))
        t = start + np.minimum((part * interval).astype(np.int64), interval - 1)
        order = np.argsort(t, kind='stable')
        pixel, t, p = pixel[order], t[order], p[order]
        seen = _not_blind(pixel, t, blind_until.reshape(-1), camera.refractory)
        columns.append((pixel[seen], t[seen], p[seen]))
        before, start = after, start + interval
    if not columns:
        raise DatasetError('a film needs two frames at least, got 1')
    pixel, t, p = (np.concatenate(column) for column in zip(*columns))
    y, x = np.divmod(pixel, shape[1])
    return Events(
        x.astype(np.int32), y.astype(np.int32), t, p.astype(np.uint8), (shape[1], shape[0])
    )


def _log(frame: np.ndarray, camera: Camera) -> np.ndarray:
    return np.log(np.maximum(np.asarray(frame, np.float64) + camera.dark, 1e-6))


def _crossings(
    before: np.ndarray, after: np.ndarray, reference: np.ndarray, threshold: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixel, part of the interval and polarity of all events; ``reference`` moves on."""
    steps = np.trunc((after - reference) / threshold).astype(np.int64)
    changed = np.flatnonzero(steps)
    number = np.abs(steps.flat[changed])
    pixel = np.repeat(changed, number)
    # 1, 2, ... for each pixel.
    count = np.arange(len(pixel)) - np.repeat(np.cumsum(number) - number, number) + 1
    sign = np.sign(steps.flat[pixel])
    level = reference.flat[pixel] + sign * count * threshold.flat[pixel]
    slope = after.flat[pixel] - before.flat[pixel]
    part = np.divide(level - before.flat[pixel], slope, where=slope != 0, out=np.ones(len(pixel)))
    reference.flat[changed] += steps.flat[changed] * threshold.flat[changed]
    return pixel, np.clip(part, 0, 1), (sign > 0).astype(np.int64)


def _not_blind(
    pixel: np.ndarray, t: np.ndarray, blind_until: np.ndarray, refractory: int
) -> np.ndarray:
    """Which events, in the order of time, are seen; ``blind_until`` is of all pixels."""
    seen = np.zeros(len(t), bool)
    order = np.argsort(pixel, kind='stable')
    waiting = order
    while len(waiting):
        # The first of each pixel that is left, one after the other for pixels of many events.
        first = np.r_[True, pixel[waiting][1:] != pixel[waiting][:-1]]
        now = waiting[first]
        fires = t[now] >= blind_until[pixel[now]]
        seen[now[fires]] = True
        blind_until[pixel[now[fires]]] = t[now[fires]] + refractory
        waiting = waiting[~first]
    return seen


def write_dat(path: Union[str, os.PathLike], events: Events) -> None:
    """Write a recording as Prophesee's ``.dat``, version 2, of CD events.

    Args:
        path: The file, by custom ``NAME_td.dat``.
        events: In the order of time, which is from 0 to 2^32 - 1 microseconds.

    Raises:
        DatasetError: Times or places that the format doesn't hold.
        OSError: It can't be written.
    """
    width, height = events.sensor_size
    if len(events) and (events.t[0] < 0 or events.t[-1] >= 2**32 or max(width, height) > 2**14):
        raise DatasetError(
            f'{os.fspath(path)}: .dat holds times from 0 to 2^32 us and places below 2^14, got '
            f'{events.t[0]} to {events.t[-1]} us of a sensor of {width}x{height} pixels'
        )
    table = np.zeros((len(events), 2), '<u4')
    table[:, 0] = events.t
    table[:, 1] = (
        events.x.astype(np.uint32)
        | events.y.astype(np.uint32) << np.uint32(14)
        | events.p.astype(np.uint32) << np.uint32(28)
    )
    head = '% Data file containing CD events.\n% Version 2\n'
    head += f'% Width {width}\n% Height {height}\n'
    with open(path, 'wb') as file:
        file.write(head.encode() + struct.pack('BB', 0x0C, 8))
        file.write(table.tobytes())

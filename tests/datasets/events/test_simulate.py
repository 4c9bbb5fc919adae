"""The simulated camera against a pixel that is worked out step by step, and its files."""

import math

import numpy as np
import pytest

from mmsnn.datasets import DatasetError
from mmsnn.datasets.events import Events, open_recording
from mmsnn.datasets.events.simulate import Camera, simulate_events, write_dat

QUIET = Camera(threshold=0.3, mismatch=0, refractory=0, noise=0, dark=0.01)


def film(number=12, size=(6, 7), seed=0):
    return np.random.default_rng(seed).random((number, *size))


def slow_pixel(values, interval, camera):
    """One pixel's events by a walk in small steps of its level: (time, polarity)."""
    levels = [math.log(v + camera.dark) for v in values]
    reference, found, blind = levels[0], [], -1
    for i, (before, after) in enumerate(zip(levels, levels[1:])):
        while abs(after - reference) >= camera.threshold:
            sign = 1 if after > reference else -1
            reference += sign * camera.threshold
            part = (reference - before) / (after - before)
            t = i * interval + min(int(min(max(part, 0), 1) * interval), interval - 1)
            if t >= blind:
                found.append((t, sign > 0))
                blind = t + camera.refractory
    return found


@pytest.mark.parametrize('refractory', [0, 400, 2500])
def test_every_pixel_is_as_the_slow_one(refractory):
    frames, camera = film(), QUIET._replace(refractory=refractory)
    events = simulate_events(frames, 1000, camera)
    assert (np.diff(events.t) >= 0).all()
    assert events.sensor_size == (7, 6)
    total = 0
    for y in range(6):
        for x in range(7):
            here = (events.x == x) & (events.y == y)
            ours = list(zip(events.t[here].tolist(), events.p[here].astype(bool).tolist()))
            theirs = slow_pixel(frames[:, y, x].tolist(), 1000, camera)
            assert ours == theirs
            total += len(ours)
    assert total == len(events) > 50


def test_noise_mismatch_and_seed():
    still = np.full((101, 20, 20), 0.5)
    camera = Camera(noise=50.0, refractory=0)
    events = simulate_events(still, 10_000, camera, seed=3)
    # 400 pixels, 1 s, 50 a second: a Poisson number of mean 20000.
    assert abs(len(events) - 20_000) < 6 * 20_000**0.5
    assert 0.45 < events.p.mean() < 0.55
    again = simulate_events(still, 10_000, camera, seed=3)
    other = simulate_events(still, 10_000, camera, seed=4)
    assert np.array_equal(events.t, again.t)
    assert np.array_equal(events.x, again.x)
    assert len(other) != len(events) or not np.array_equal(other.t, events.t)
    # All pixels see the same; with thresholds of their own they don't say so at once.
    ramp = np.linspace(0.1, 0.9, 20)[:, None, None] * np.ones((1, 8, 8))
    same = simulate_events(ramp, 1000, QUIET)
    spread = simulate_events(ramp, 1000, QUIET._replace(mismatch=0.1))
    assert len(np.unique(same.t)) == len(same) // 64
    assert len(np.unique(spread.t)) > 2 * len(np.unique(same.t))


def test_a_blind_pixel_loses_events():
    counts = [
        len(simulate_events(film(), 1000, QUIET._replace(refractory=r))) for r in (0, 500, 5000)
    ]
    assert counts[0] > counts[1] > counts[2] > 0


@pytest.mark.parametrize(
    ('frames', 'change', 'message'),
    [
        ([], {}, 'a film needs two frames at least, got 0'),
        (film(1), {}, 'a film needs two frames at least, got 1'),
        ([np.ones((2, 2)), np.ones((2, 3))], {}, r'frames of \(2, 2\) and \(2, 3\)'),
        (film(2), dict(threshold=0), 'no camera has .*threshold=0'),
        (film(2), dict(noise=-1), 'no camera has .*noise=-1'),
    ],
)
def test_what_no_camera_sees(frames, change, message):
    with pytest.raises(DatasetError, match=message):
        simulate_events(frames, 1000, QUIET._replace(**change))


def test_files_are_read_event_for_event(tmp_path):
    events = simulate_events(film(size=(24, 30)), 1000, Camera())
    write_dat(tmp_path / 'a_td.dat', events)
    with open_recording(tmp_path / 'a_td.dat') as recording:
        assert recording.sensor_size == (30, 24)
        read = recording.all()
    for name in 'xytp':
        assert np.array_equal(getattr(read, name), getattr(events, name))
    late = Events(events.x[:1], events.y[:1], np.array([2**32]), events.p[:1], (30, 24))
    with pytest.raises(DatasetError, match=r'\.dat holds times from 0 to 2'):
        write_dat(tmp_path / 'b_td.dat', late)

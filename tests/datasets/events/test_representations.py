"""Representations against loops over events in float64, and by hand."""

import math
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsnn.datasets.events import (
    Events,
    count_events,
    cut_events,
    find_representation,
    in_steps,
    stacked_histogram,
    time_surface,
    voxel_grid,
)

SIZE = W, H = 5, 3


@st.composite
def windows(draw):
    """Events, few pixels and many times that repeat, and the bounds of their window."""
    number = draw(st.integers(0, 60))
    t0 = draw(st.sampled_from([0, -7, 10**12]))
    length = draw(st.integers(1, 200))
    column = st.lists(st.integers(0, 10**6), min_size=number, max_size=number)
    x, y, t, p = (np.array(draw(column), np.int64) for _ in range(4))
    t = t0 + np.sort(t % length)
    events = Events(
        (x % W).astype(np.int32), (y % H).astype(np.int32), t, (p % 2).astype(np.uint8), SIZE
    )
    return events, t0, t0 + length


def rows(events):
    return zip(events.x.tolist(), events.y.tolist(), events.t.tolist(), events.p.tolist())


@settings(max_examples=60, deadline=None)
@given(windows(), st.integers(1, 12), st.integers(1, 4))
def test_stacked_histogram(window, bins, cut):
    events, t0, t1 = window
    expected = np.zeros((2 * bins, H, W), int)
    for x, y, t, p in rows(events):
        expected[p * bins + (t - t0) * bins // (t1 - t0), y, x] += 1
    found = stacked_histogram(events, t0, t1, bins, cut)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, np.minimum(expected, cut))


@settings(max_examples=60, deadline=None)
@given(windows(), st.integers(1, 8))
def test_voxel_grid(window, bins):
    events, t0, t1 = window
    expected = np.zeros((bins, H, W))
    for x, y, t, p in rows(events):
        u = (bins - 1) * (t - t0) / (t1 - t0)
        for b in range(bins):
            expected[b, y, x] += (2 * p - 1) * max(0, 1 - abs(b - u))
    found = voxel_grid(events, t0, t1, bins)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)
    on = int(events.p.sum())
    assert found.sum() == pytest.approx(on - (len(events) - on), abs=1e-4)


@settings(max_examples=60, deadline=None)
@given(windows(), st.sampled_from([1.0, 30.0, 50_000.0]))
def test_time_surface(window, tau):
    events, t0, t1 = window
    expected = np.zeros((2, H, W))
    for x, y, t, p in rows(events):
        expected[p, y, x] = math.exp(-(t1 - t) / tau)
    found = time_surface(events, t0, t1, tau)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-30)


@settings(max_examples=60, deadline=None)
@given(windows(), st.integers(1, 9))
def test_counts_in_steps(window, time_steps):
    events, t0, t1 = window
    if t1 - t0 < time_steps:
        with pytest.raises(ValueError, match=rf'us has no {time_steps} time steps'):
            in_steps(events, t0, t1, time_steps)
        return
    expected = np.zeros((time_steps, 2, H, W), int)
    for x, y, t, p in rows(events):
        expected[(t - t0) * time_steps // (t1 - t0), p, y, x] += 1
    found = in_steps(events, t0, t1, time_steps)
    np.testing.assert_array_equal(found, expected)
    assert found.sum() == len(events)


def test_steps_have_bounds_of_their_own():
    x, y, t, p = np.array([[0, 0, 0, 1], [1, 0, 30, 0], [2, 2, 60, 1]]).T
    events = Events(x, y, t, p, SIZE)
    seen = []

    def represent(part, t0, t1):
        seen.append((part.t.tolist(), t0, t1))
        return count_events(part)

    in_steps(events, 0, 100, 3, represent)
    assert seen == [([0, 30], 0, 34), ([60], 34, 67), ([], 67, 100)]
    voxels = in_steps(events, 0, 100, 2, find_representation(dict(type='voxel_grid', bins=3)))
    assert voxels.shape == (2, 3, H, W)
    # 30 of 50 is 1.2 bins from the first; OFF counts -1.
    assert voxels[0, :, 0, 1].tolist() == pytest.approx([0, -0.8, -0.2])
    assert [len(part) for part in cut_events(events, [0, 30, 31, 60])] == [1, 1, 0]


def test_wrong_options():
    x, y, t, p = np.zeros((4, 0), int)
    events = Events(x, y, t, p, SIZE)
    assert stacked_histogram(events, 0, 1).sum() == 0
    for call, message in (
        (lambda: stacked_histogram(events, 5, 5), 'a window must last: it goes from 5 to 5 us'),
        (lambda: stacked_histogram(events, 0, 5, bins=0), 'bins must be at least 1, got 0'),
        (lambda: stacked_histogram(events, 0, 5, cut=256), 'cut must be at most 255'),
        (lambda: time_surface(events, 0, 5, tau=0), 'tau must be at least 1, got 0'),
        (lambda: voxel_grid(events, 0, 5, bins=float('nan')), 'bins must be at least 1, got nan'),
        (lambda: find_representation('histogram'), "'histogram' is not known. Known: counts, "),
        (
            lambda: find_representation(dict(type='voxel_grid', cut=3)),
            'voxel_grid takes bins, not cut',
        ),
        (lambda: find_representation(dict(type='counts', bins=3)), 'counts takes no options'),
    ):
        with pytest.raises(ValueError, match=message):
            call()


SPEED = """
    import time
    import numpy as np
    from mmsnn.datasets.events import Events, find_representation, in_steps
    rng, number, size = np.random.default_rng(0), 4_000_000, (304, 240)
    x, y = (rng.integers(0, side, number).astype(np.int32) for side in size)
    t = np.sort(rng.integers(0, 10**6, number))
    events = Events(x, y, t, rng.integers(0, 2, number).astype(np.uint8), size)
    for name in ('counts', 'stacked_histogram', 'voxel_grid', 'time_surface'):
        represent, best = find_representation(name), 1e9
        for _ in range(5):
            begin = time.process_time()
            in_steps(events, 0, 10**6, 4, represent)
            best = min(best, time.process_time() - begin)
        print(name, round(number / best / 1e6, 1), flush=True)
"""


@pytest.mark.slow
def test_twenty_million_events_a_second():
    done = subprocess.run(
        [sys.executable, '-c', textwrap.dedent(SPEED)],
        capture_output=True,
        text=True,
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path), 'OMP_NUM_THREADS': '1'},
        check=True,
    )
    print(done.stdout)
    speeds = dict(line.split() for line in done.stdout.splitlines() if line.count(' ') == 1)
    assert len(speeds) == 4
    assert all(float(speed) >= 20 for speed in speeds.values()), speeds

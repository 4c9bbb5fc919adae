"""Frames count every event once; the cache gives the same frames and reads no event file."""

import os
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsnn.datasets import DatasetError
from mmsnn.datasets.events import Events, cache, frame_index, load_frames, to_frames

SIZE = (5, 3)  # W, H


@st.composite
def recordings(draw):
    number = draw(st.integers(1, 60))
    column = st.lists(st.integers(0, 10**6), min_size=number, max_size=number)
    x, y, t, p = (np.array(draw(column)) for _ in range(4))
    start = draw(st.sampled_from([0, -7, 2**60, 2**63 - 10**6, -(2**63)]))
    t = start + np.sort(t % draw(st.sampled_from([1, 3, 10**6])))
    return Events(
        (x % 5).astype(np.int32), (y % 3).astype(np.int32), t, (p % 2).astype(np.uint8), SIZE
    )


@settings(max_examples=150, deadline=None)
@given(recordings(), st.integers(1, 70), st.sampled_from(['count', 'time']))
def test_every_event_is_in_exactly_one_frame(events, time_steps, split_by):
    frames = to_frames(events, time_steps, split_by)
    expected = np.zeros((time_steps, 2, 3, 5), int)
    first, last = int(events.t[0]), int(events.t[-1])
    for i in range(len(events)):
        if split_by == 'count':
            frame = i * time_steps // len(events)
        else:
            frame = (int(events.t[i]) - first) * time_steps // (last - first + 1)
        expected[frame, events.p[i], events.y[i], events.x[i]] += 1
    assert frames.dtype == np.int32
    assert frames.sum() == len(events)
    np.testing.assert_array_equal(frames, expected)


@settings(max_examples=100, deadline=None)
@given(recordings(), st.integers(1, 70))
def test_split_by_count_is_even_and_in_order(events, time_steps):
    index = frame_index(events, time_steps, 'count')
    assert (np.diff(index) >= 0).all()
    per_frame = np.bincount(index, minlength=time_steps)
    assert len(per_frame) == time_steps
    assert per_frame.max() - per_frame.min() <= 1


def events_at(times):
    zeros = np.zeros(len(times), np.int32)
    return Events(zeros, zeros, np.array(times, np.int64), zeros.astype(np.uint8), SIZE)


def test_split_by_time_is_by_time():
    index = frame_index(events_at([100, 101, 102, 149, 150, 199]), 2, 'time')
    assert index.tolist() == [0, 0, 0, 0, 1, 1]
    assert frame_index(events_at([7, 7, 7]), 4, 'time').tolist() == [0, 0, 0]


@pytest.mark.parametrize('time_steps', [1, 2, 3, 4, 7, 100])
def test_split_by_time_is_exact_for_any_64_bits(time_steps):
    first, last = -(2**63), 2**63 - 1
    times = [first, first + 1, -(2**62), -1, 0, 1, 2**62 - 1, 2**62, last - 1, last]
    # Both sides of where the second of three and of seven frames begin.
    times += [first + -(-(2**64) // k) - d for k in (3, 7) for d in (0, 1)]
    for part in (sorted(times), [last - 2, last - 1, last], [0, last], [last]):
        span = part[-1] - part[0] + 1
        expected = [(t - part[0]) * time_steps // span for t in part]
        assert frame_index(events_at(part), time_steps, 'time').tolist() == expected


def test_one_event_by_hand():
    one = Events(np.array([4]), np.array([1]), np.array([9]), np.array([1]), SIZE)
    frames = to_frames(one, 2)
    assert frames.shape == (2, 2, 3, 5)  # T, polarity, H, W
    assert np.argwhere(frames).tolist() == [[0, 1, 1, 4]]


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"split_by is 'number', expected one of count, time"):
        to_frames(events_at([1]), 2, 'number')
    with pytest.raises(ValueError, match=r'time_steps is 0'):
        to_frames(events_at([1]), 0)
    for time_steps in (2.5, float('nan'), '4', None, True):
        with pytest.raises(ValueError, match=r'time_steps is .* a whole number from 1'):
            to_frames(events_at([1]), time_steps)
    assert to_frames(events_at([1]), np.int64(2)).shape == (2, 2, 3, 5)


# --- the cache ------------------------------------------------------------------------------------


@pytest.fixture
def recording(tmp_path):
    path = tmp_path / 'a.npy'
    np.save(path, np.array([[1, 2, 10, 1], [0, 0, 20, 0], [4, 2, 30, 1]]))
    return path


@pytest.fixture
def reads(monkeypatch):
    """The event files that were opened."""
    opened = []
    read = cache.read_events
    monkeypatch.setattr(
        cache, 'read_events', lambda path, *args: opened.append(path) or read(path, *args)
    )
    return opened


def test_second_read_opens_no_event_file(recording, reads, tmp_path):
    folder = tmp_path / 'cache' / 'deep'
    first = load_frames(recording, 2, 'time', SIZE, folder)
    times = os.stat(recording).st_mtime_ns
    recording.write_bytes(b'x' * recording.stat().st_size)  # of the same size and time
    os.utime(recording, ns=(times, times))
    second = load_frames(recording, 2, 'time', SIZE, folder)
    assert len(reads) == 1
    np.testing.assert_array_equal(first, second)
    assert second.sum() == 3
    with pytest.raises(DatasetError, match='not a file of the format'):
        load_frames(recording, 2, 'time', SIZE)  # without the cache, it is read


def test_changed_file_or_framing_is_read_again(recording, reads, tmp_path):
    folder = tmp_path / 'cache'
    variants = [(2, 'time', SIZE), (2, 'count', SIZE), (3, 'time', SIZE), (2, 'time', (6, 3))]
    for variant in variants * 2:
        load_frames(recording, *variant, folder)
    assert len(reads) == len(variants)
    np.save(recording, np.array([[1, 2, 10, 1]]))
    assert load_frames(recording, 2, 'time', SIZE, folder).sum() == 1
    before = recording.stat()
    rows = np.array([[2, 1, 10, 1]])
    np.save(recording, rows)  # as large as before; only the time tells
    os.utime(recording, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert load_frames(recording, 2, 'time', SIZE, folder)[0, 1, 1, 2] == 1
    assert len(reads) == len(variants) + 2


def test_counts_above_a_byte_survive(reads, tmp_path):
    path = tmp_path / 'a.npy'
    np.save(path, np.array([[1, 2, 10, 1]] * 300))
    for _ in range(2):
        assert load_frames(path, 1, 'count', SIZE, tmp_path / 'cache')[0, 1, 2, 1] == 300
    assert len(reads) == 1


def test_entries_are_whole_or_not_there(recording, reads, tmp_path, monkeypatch):
    folder = tmp_path / 'cache'

    def fail(file, **arrays):
        file.write(b'half')
        raise OSError(28, 'No space left on device')

    with monkeypatch.context() as context:
        context.setattr(cache.np, 'savez_compressed', fail)
        with pytest.raises(DatasetError, match=r'cannot be cached in .*No space left'):
            load_frames(recording, 2, 'count', SIZE, folder)
    assert [p for p in folder.rglob('*') if p.is_file()] == []

    load_frames(recording, 2, 'count', SIZE, folder)
    (entry,) = (p for p in folder.rglob('*') if p.is_file())
    entry.write_bytes(entry.read_bytes()[:50])
    assert load_frames(recording, 2, 'count', SIZE, folder).sum() == 3
    assert zipfile.is_zipfile(entry)  # made again
    assert len(reads) == 3


def test_missing_file_with_a_cache(tmp_path):
    with pytest.raises(DatasetError, match=r'gone\.npy cannot be read: No such file'):
        load_frames(tmp_path / 'gone.npy', 2, 'count', SIZE, tmp_path / 'cache')


def test_entries_that_do_not_fit_are_made_again(recording, reads, tmp_path):
    folder = tmp_path / 'cache'
    expected = load_frames(recording, 2, 'count', SIZE, folder)
    (entry,) = folder.rglob('*.npz')
    whole = entry.read_bytes()
    for number, frames in enumerate(
        [
            expected[:1],
            expected.transpose(0, 1, 3, 2),
            expected[:, :1],
            expected.astype(float),
            expected.astype(object),
            np.zeros(3, np.uint8),
        ]
    ):
        np.savez_compressed(entry, frames=frames)
        np.testing.assert_array_equal(load_frames(recording, 2, 'count', SIZE, folder), expected)
        assert len(reads) == number + 2
        assert entry.read_bytes() == whole
    np.savez(entry, frames=expected)
    entry.write_bytes(entry.read_bytes().replace(expected.tobytes(), (expected * 2).tobytes()))
    np.testing.assert_array_equal(load_frames(recording, 2, 'count', SIZE, folder), expected)
    entry.unlink()
    os.mkfifo(entry)  # nobody writes to it
    np.testing.assert_array_equal(load_frames(recording, 2, 'count', SIZE, folder), expected)
    assert entry.read_bytes() == whole

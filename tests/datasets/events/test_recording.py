"""Recordings are read by windows of time: every format, against a slow reader of the tests' own."""

import os
import struct
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from event_files import (
    draw,
    draw_runs,
    raw_header,
    write_aedat2,
    write_aedat3,
    write_aedat4,
    write_bin,
    write_dat,
    write_dsec,
    write_evt2,
    write_evt3,
    write_evt21,
    write_hdf5,
    write_npy,
    write_npz,
    write_structured_npy,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsnn.datasets import DatasetError
from mmsnn.datasets.events import (
    arrays,
    blocks,
    check_event_header,
    evt,
    open_recording,
    read_events,
    recording,
)
from mmsnn.datasets.events.blocks import unwrap

# --- slow readers of the tests' own --------------------------------------------------------------


def words_of(data, kind):
    data = data[data.index(b'% end\n') + 6 :]
    return [word for (word,) in struct.iter_unpack(kind, data)]


def slow_evt2(data):
    turns, high = 0, None
    for word in words_of(data, '<I'):
        if word >> 28 == 8:
            new = word & (2**28 - 1)
            turns += high is not None and new < high - 2**27
            high = new
        elif word >> 28 <= 1:
            t = (turns * 2**28 + high) * 64 + (word // 2**22 % 64)
            yield word // 2**11 % 2**11, word % 2**11, t, word >> 28


def slow_evt21(data, halves=False):
    turns, high = 0, None
    for word in words_of(data, '<Q'):
        if halves:
            word = word % 2**32 * 2**32 + word // 2**32
        kind, middle = word >> 60, word >> 32
        if kind == 8:
            new = middle % 2**28
            turns += high is not None and new < high - 2**27
            high = new
        elif kind <= 1:
            for bit in range(32):
                if word >> bit & 1:
                    t = (turns * 2**28 + high) * 64 + middle // 2**22 % 64
                    yield middle // 2**11 % 2**11 + bit, middle % 2**11, t, kind


def slow_evt3(data):
    turns, high, low, y, base, base_p = 0, None, None, None, None, None
    for word in words_of(data, '<H'):
        kind, value = word >> 12, word % 2**12
        if kind == 8:
            turns += high is not None and value < high - 2**11
            high = value
        elif kind == 6:
            low = value
        elif kind == 0:
            y = value % 2**11
        elif kind == 3:
            base, base_p = value % 2**11, value >> 11
        t = ((turns * 2**12 + high) * 2**12 + low) if None not in (high, low) else None
        if kind == 2:
            yield value % 2**11, y, t, value >> 11
        elif kind in (4, 5):
            bits = 12 if kind == 4 else 8
            for bit in range(bits):
                if word >> bit & 1:
                    yield base + bit, y, t, base_p
            base += bits


def slow_aedat3(data):
    at = data.index(b'#!END-HEADER\r\n') + 14
    while at < len(data):
        kind, source, width, _, turns, _, number, _ = struct.unpack_from('<hhiiiiii', data, at)
        for i in range(number if (kind, source) == (1, 1) else 0):
            word, t = struct.unpack_from('<Ii', data, at + 28 + width * i)
            bits = f'{word:032b}'
            if bits[31] == '1':
                yield int(bits[:15], 2), int(bits[15:30], 2), turns * 2**31 + t, int(bits[30])
        at += 28 + width * number


def rows_of(events):
    return np.stack([events.x, events.y, events.t, events.p], axis=1).tolist()


def legacy(path, rows, size):
    write_evt21(path, rows, size, 'legacy')


def fortran(path, rows, size):
    np.save(path, np.asfortranarray(np.array(rows)))


def packed(path, rows, size):
    np.savez_compressed(path, events=np.array(rows), sensor_size=size)


def sized(write):
    return lambda path, rows, size: write(path, rows)


#: The name of a file, its writer, the sensor's size, the end of the clock, and a slow reader.
FORMATS = {
    'dat': ('a.dat', sized(write_dat), (640, 480), 2**20, None),
    'evt2': ('a.raw', write_evt2, (1280, 720), 2**20, slow_evt2),
    'evt21': ('a.raw', write_evt21, (1280, 720), 2**20, slow_evt21),
    'evt21-legacy': ('a.raw', legacy, (1280, 720), 2**20, lambda d: slow_evt21(d, halves=True)),
    'evt3': ('a.raw', write_evt3, (1280, 720), 2**20, slow_evt3),
    # The clock of EVT 3.0 turns round each 16.8 s.
    'evt3-turns': ('a.raw', write_evt3, (1280, 720), 5 * 2**24, slow_evt3),
    'hdf5': ('a_td.dat.h5', write_hdf5, (1280, 720), 2**20, None),
    'dsec': ('events.h5', lambda p, r, _: write_dsec(p, r), (640, 480), 2**20, None),
    'npy': ('a.npy', sized(write_npy), (64, 48), 2**20, None),
    'npy-fortran': ('a.npy', fortran, (64, 48), 2**20, None),
    'npy-fields': ('a.npy', sized(write_structured_npy), (64, 48), 2**20, None),
    'npz': ('a.npz', sized(write_npz), (64, 48), 2**20, None),
    'npz-packed': ('a.npz', packed, (64, 48), 2**20, None),
    'bin': ('a.bin', sized(write_bin), (34, 34), 2**20, None),
    'aedat2': ('a.aedat', sized(write_aedat2), (128, 128), 2**20, None),
    'aedat3': ('a.aedat', sized(write_aedat3), (128, 128), 2**33, slow_aedat3),
    'aedat4': ('a.aedat4', write_aedat4, (346, 260), 2**20, None),
}


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of a few events, so that a small file has many."""
    monkeypatch.setattr(blocks, 'BLOCK_EVENTS', 16)
    monkeypatch.setattr(evt, 'BLOCK_BYTES', 128)
    monkeypatch.setattr(blocks, 'MAX_BACKWARDS', 500)


@pytest.fixture(params=sorted(FORMATS))
def written(request, tmp_path, small_blocks):
    """A path, the rows in it, and the sensor's size, for each format."""
    name, write, size, end, slow = FORMATS[request.param]
    if name.endswith('.h5'):
        pytest.importorskip('h5py', reason="needs pip install 'mmsnn[hdf5]'")
    if name.endswith('.aedat4'):
        pytest.importorskip('aedat', reason="needs pip install 'mmsnn[events]'")
    rows = draw_runs(400, size, end) if name.endswith('.raw') else draw(700, size, end)
    write(tmp_path / name, rows, size)
    if slow:
        assert rows == [list(row) for row in slow((tmp_path / name).read_bytes())]
    return tmp_path / name, rows, size


def test_windows_of_every_format(written):
    path, rows, size = written
    times, rng = np.array([row[2] for row in rows]), np.random.default_rng(1)
    first, last = int(times[0]), int(times[-1])
    with open_recording(path, size) as opened:
        assert opened.blocks.number > 1
        assert (opened.width, opened.height) == size
        assert (opened.start, opened.end, opened.duration) == (first, last, last - first)
        assert rows_of(opened.all()) == rows
        edges = rng.choice(times, 60).tolist() + rng.integers(first, last, 60).tolist()
        edges += [first - 10, first, first + 1, last, last + 1, last + 10**9, -(10**9)]
        for t0 in edges[:60] + edges[-7:]:
            t1 = t0 + int(rng.choice([0, 1, 300, 10**4, 10**6]))
            expected = [row for row in rows if t0 <= row[2] < t1]
            assert rows_of(opened.window(t0, t1)) == expected
        with pytest.raises(DatasetError, match=r'a window from 5 to 4 us ends before it begins'):
            opened.window(5, 4)
    assert rows_of(read_events(path, size)) == rows


@pytest.mark.parametrize('kind', ['dat', 'evt2', 'evt3', 'hdf5', 'npy', 'aedat3', 'aedat4'])
def test_times_a_little_backwards(tmp_path, small_blocks, kind):
    name, write, size, *_ = FORMATS[kind]
    if kind == 'hdf5':
        pytest.importorskip('h5py')
    rows, rng = draw(700, size, 2**19, seed=3), np.random.default_rng(5)
    late = rng.random(len(rows)) < 0.2
    for i in np.flatnonzero(late):
        rows[i][2] = max(rows[i][2] - int(rng.integers(0, 480)), 0)
    write(tmp_path / name, rows, size)
    repaired, latest, changed = [], rows[0][2], 0
    for x, y, t, p in rows:
        changed += t < latest
        latest = max(latest, t)
        repaired.append([x, y, latest, p])
    assert changed > 20
    with open_recording(tmp_path / name, size) as opened:
        assert rows_of(opened.all()) == repaired
        assert [v for k, v in opened.repairs.items() if 'backwards' in k] == [changed]
        for t0 in rng.integers(0, 2**19, 80).tolist():
            expected = [row for row in repaired if t0 <= row[2] < t0 + 5000]
            assert rows_of(opened.window(t0, t0 + 5000)) == expected
    rows[300][2] = rows[299][2] - 600 if kind != 'evt3' else rows[299][2] - 6000
    write(tmp_path / name, rows, size)
    with pytest.raises(DatasetError, match=r'times run backwards at event 300, .* Fetch it again'):
        read_events(tmp_path / name, size)


def test_the_clock_of_dat_turns_round(tmp_path, small_blocks):
    rows = draw(700, (640, 480), 2**31)
    for row in rows:
        row[2] += 2**32 - 2**30
    rows[200][2] -= 100  # and runs backwards a little, too
    write_dat(tmp_path / 'a.dat', [[x, y, t % 2**32, p] for x, y, t, p in rows])
    rows[200][2] = max(rows[199][2], rows[200][2])
    with open_recording(tmp_path / 'a.dat') as opened:
        assert rows_of(opened.all()) == rows
        assert opened.repairs['turns of its clock undone'] == 1
        for t0 in range(2**32 - 2**30, 2**32 + 2**30, 2**27):
            expected = [row for row in rows if t0 <= row[2] < t0 + 2**26]
            assert rows_of(opened.window(t0, t0 + 2**26)) == expected
    # Two turns between two events of the index can't be told, and aren't guessed.
    t = np.linspace(0, 2.2 * 2**32, 17).astype(np.int64)
    write_dat(tmp_path / 'b.dat', [[0, 0, int(v) % 2**32, 1] for v in t] + [[0, 0, 2**31, 1]] * 15)
    with pytest.raises(DatasetError, match=r'b\.dat: its clock of 32 bits turns round more than'):
        read_events(tmp_path / 'b.dat')


@settings(max_examples=200, deadline=None)
@given(
    st.integers(3, 63),
    st.lists(st.floats(-0.49, 0.49), max_size=40),
    st.integers(0, 2**62),
)
def test_unwrap(bits, steps, first):
    times = [first % 2**bits]
    for step in steps:
        times.append(times[-1] + int(step * 2 ** min(bits, 57)))
    shown = np.array([t % 2**bits for t in times], np.int64)
    assert unwrap(shown, bits).tolist() == times


def test_signed_polarities(tmp_path):
    rows = draw(50, (8, 8))
    signed = [[x, y, t, 2 * p - 1] for x, y, t, p in rows]
    write_npy(tmp_path / 'a.npy', signed)
    with open_recording(tmp_path / 'a.npy', (8, 8)) as opened:
        assert rows_of(opened.all()) == rows
        assert opened.repairs['polarities -1 taken for 0 (OFF)'] == sum(1 - r[3] for r in rows)
    write_npy(tmp_path / 'b.npy', [*signed, [0, 0, 2**20, 0]])
    with pytest.raises(DatasetError, match=r'b\.npy has the polarities -1 and 0'):
        read_events(tmp_path / 'b.npy', (8, 8))
    write_npy(tmp_path / 'c.npy', [*signed, [0, 0, 2**20, -2]])
    with pytest.raises(DatasetError, match=r'event 50 has the polarity -2'):
        read_events(tmp_path / 'c.npy', (8, 8))


def test_a_repair_is_said_once_a_file(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(recording, 'print_log', lambda text, **_: said.append(text))
    write_npy(tmp_path / 'a.npy', [[1, 1, 100, 1], [1, 1, 90, 1], [1, 1, 95, 1]])
    for _ in range(3):
        assert read_events(tmp_path / 'a.npy', (8, 8)).t.tolist() == [100, 100, 100]
    assert len(said) == 1
    assert 'a.npy: times that run backwards a little' in said[0]
    assert said[0].endswith(': 2 so far')


# --- .raw ----------------------------------------------------------------------------------------


def test_raw_passes_over_what_it_cannot_place(tmp_path):
    words = [
        2 << 12 | 5,
        8 << 12 | 1,
        6 << 12 | 2,
        2 << 12 | 6,
        3,
        4 << 12 | 1,
        13 << 12,
        2 << 12 | 7,
    ]
    path = tmp_path / 'a.raw'
    path.write_bytes(raw_header('3.0') + struct.pack('<8H', *words))
    with open_recording(path) as opened:
        # Before the clock, before the row, and a vector before its column.
        assert rows_of(opened.all()) == [[7, 3, 1 << 12 | 2, 0]]
        assert opened.repairs['events before the first time or row passed over'] == 3
        assert opened.repairs['words of reserved types passed over'] == 1


def test_raw_of_every_header(tmp_path):
    rows = draw_runs(60, (320, 240))
    path = tmp_path / 'a.raw'
    for endianness in ('little', 'legacy', 'big', None):
        write_evt21(path, rows, (320, 240), endianness)
        assert rows_of(read_events(path)) == rows
    # Without a line of its own, the order is found.
    write_evt21(path, rows, (320, 240), 'legacy')
    path.write_bytes(path.read_bytes().replace(b'% endianness legacy\n', b''))
    assert rows_of(read_events(path)) == rows
    header = raw_header('2.1')
    path.write_bytes(header + struct.pack('<II', 8 << 28, 8 << 28))
    with pytest.raises(DatasetError, match='cannot be told in which order'):
        read_events(path)
    write_evt3(path, rows, (320, 240))
    whole = path.read_bytes()
    for line in (b'% evt 3.0\n', b'% geometry 320x240\n'):  # `format` says both
        path.write_bytes(whole.replace(line, b''))
        assert rows_of(read_events(path)) == rows
        assert read_events(path).sensor_size == (320, 240)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda data: data[:-1], r'a\.raw is truncated: \d+ bytes of events are not a multiple'),
        (lambda data: data.replace(b'evt 3.0', b'evt 4.0'), r'format 4\.0. Expected: EVT 2\.0'),
        (lambda data: b'RIFF' + data, r'not a file of the format \.raw'),
        (lambda data: raw_header('3.0') + b'\0\0', r'has no word EVT_TIME_HIGH'),
        (lambda data: raw_header('3.0'), r'holds no events'),
    ],
)
def test_raw_that_cannot_be_used(tmp_path, change, message):
    path = tmp_path / 'a.raw'
    write_evt3(path, draw_runs(30))
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DatasetError, match=message):
        read_events(path)


# --- HDF5 ----------------------------------------------------------------------------------------


def test_dsec_adds_its_offset_and_trusts_no_wrong_index(tmp_path):
    h5py = pytest.importorskip('h5py')
    offset = 49_599_300_523
    rows = [[x, y, t + offset, p] for x, y, t, p in draw(500, (640, 480))]
    write_dsec(tmp_path / 'a.h5', rows, offset)
    with open_recording(tmp_path / 'a.h5') as opened:
        assert opened.sensor_size == (640, 480)
        t0 = offset + 300_000
        expected = [row for row in rows if t0 <= row[2] < t0 + 50_000]
        assert rows_of(opened.window(t0, t0 + 50_000)) == expected
    with h5py.File(tmp_path / 'a.h5', 'r+') as file:
        file['ms_to_idx'][...] += 40
        file['ms_to_idx'][0] = 0
        file['ms_to_idx'][...] = np.minimum(file['ms_to_idx'][...], 500)
    refused = pytest.raises(DatasetError, match='ms_to_idx does not fit its times')
    with open_recording(tmp_path / 'a.h5') as opened, refused:
        opened.window(t0, t0 + 50_000)


def test_hdf5_that_cannot_be_used(tmp_path, monkeypatch):
    h5py = pytest.importorskip('h5py')
    path = tmp_path / 'a.h5'
    write_hdf5(path, draw(50, (64, 48)), (64, 48), compression='gzip')
    whole = path.read_bytes()
    with h5py.File(path, 'r+') as file:
        del file['events/p']
    with pytest.raises(DatasetError, match=r'a\.h5 has no events/p\. It has: events'):
        read_events(path)
    with h5py.File(path, 'w') as file:
        file['CD/indexes'] = np.zeros(3)
    with pytest.raises(DatasetError, match=r'has no events/x, .*It has: CD\. Expected: the group'):
        read_events(path)
    path.write_bytes(b'\x89PNG\r\n' + whole[6:])
    with pytest.raises(DatasetError, match='not a file of the format HDF5'):
        read_events(path)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DatasetError, match=r'a\.h5 (is truncated|cannot be read)'):
        read_events(path)
    path.write_bytes(whole)
    monkeypatch.setattr(h5py.h5z, 'filter_avail', lambda number: False)
    with pytest.raises(DatasetError, match=r'compressed by .*number 1.*pip install hdf5plugin'):
        read_events(path)


def test_hdf5_without_its_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'h5py', None)
    (tmp_path / 'a_td.dat.h5').write_bytes(b'\x89HDF\r\n\x1a\n' + bytes(100))
    for read in (read_events, check_event_header):
        with pytest.raises(DatasetError, match=r"HDF5 files need .*pip install 'mmsnn\[hdf5\]'"):
            read(tmp_path / 'a_td.dat.h5')


def test_aedat3_that_cannot_be_used(tmp_path):
    path = tmp_path / 'a.aedat'
    write_aedat3(path, draw(50))
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    with pytest.raises(DatasetError, match=r'the packet at byte \d+ reaches beyond its end'):
        read_events(path)
    path.write_bytes(whole.replace(b'Format: RAW', b'Format: Serial-TS'))
    with pytest.raises(DatasetError, match=r'AEDAT 3\.1 of the format Serial-TS\. Expected: RAW'):
        read_events(path)
    write_aedat3(path, draw(50), source='Camera9')
    with pytest.raises(DatasetError, match='does not say the size'):
        read_events(path)
    assert len(read_events(path, (128, 128))) == 50


@pytest.mark.parametrize('compression', [0, 1, 3])
def test_aedat4_with_a_table_behind_its_packets(tmp_path, compression):
    pytest.importorskip('aedat', reason="needs pip install 'mmsnn[events]'")
    path, rows = tmp_path / 'a.aedat4', draw(700)
    write_aedat4(path, rows, compression=compression)
    data = bytearray(path.read_bytes())
    at = data.index(struct.pack('<q', -1))
    data[at : at + 8] = struct.pack('<q', len(data))
    path.write_bytes(data + b'FTAB' + bytes(60))
    with open_recording(path) as opened:
        expected = [row for row in rows if 100_000 <= row[2] < 300_000]
        assert rows_of(opened.window(100_000, 300_000)) == expected
        assert rows_of(opened.all()) == rows


def test_large_arrays_of_archives_are_not_kept_in_memory(tmp_path, monkeypatch):
    rows = draw(300, (64, 48))
    write_npz(tmp_path / 'a.npz', rows)
    packed(tmp_path / 'b.npz', rows, (64, 48))
    monkeypatch.setattr(arrays, 'MIN_CLAIM', 16)
    monkeypatch.setattr(arrays, 'MAX_RATIO', 10**6)
    for name in ('a.npz', 'b.npz'):
        assert rows_of(read_events(tmp_path / name, (64, 48))) == rows


# --- a gigabyte ----------------------------------------------------------------------------------

BIG = """
    import sys, time
    import numpy as np
    from mmsnn.datasets.events import open_recording

    def megabytes(what):
        with open('/proc/self/status') as file:
            return int(file.read().split(what)[1].split()[0]) / 1024

    path, rate, limit = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    with open('/proc/self/clear_refs', 'w') as file:
        file.write('5')  # the peak begins anew
    before = megabytes('VmRSS:')
    begin = time.perf_counter()
    recording = open_recording(path)
    opened = time.perf_counter() - begin
    rng, count = np.random.default_rng(0), 0
    begin = time.perf_counter()
    for t0 in rng.integers(0, recording.end - 50_000, 1000).tolist():
        events = recording.window(t0, t0 + 50_000)
        assert len(events) == 50_000 // (1_000_000 // rate), len(events)
        assert t0 <= events.t[0] and events.t[-1] < t0 + 50_000
        count += len(events)
    seconds = time.perf_counter() - begin
    grown = megabytes('VmHWM:') - before
    print(f'opened in {opened:.2f} s; 1000 windows, {count} events in {seconds:.2f} s; ', end='')
    print(f'{grown:.0f} MB')
    sys.exit(seconds > limit or grown > 300)
"""


def big_dat(path, number, rate):
    with open(path, 'wb') as file:
        file.write(b'% Width 1280\n% Height 720\n' + bytes([12, 8]))
        for begin in range(0, number, 2**22):
            words = np.empty((min(2**22, number - begin), 2), '<u4')
            words[:, 0] = np.arange(begin, begin + len(words)) * (10**6 // rate)
            words[:, 1] = 7 << 14 | 5 | 1 << 28
            words.tofile(file)


def big_evt3(path, number, rate):
    """A time, a row and a column for each event, and the high bits where they change."""
    step = 10**6 // rate
    with open(path, 'wb') as file:
        file.write(raw_header('3.0'))
        for begin in range(0, number, 2**21):
            t = np.arange(begin, min(begin + 2**21, number)) * step
            words = np.empty((len(t), 4), '<u2')
            words[:, 0] = 8 << 12 | t >> 12 & 0xFFF
            words[:, 1] = 6 << 12 | t & 0xFFF
            words[:, 2], words[:, 3] = 7, 2 << 12 | 1 << 11 | 5
            words.tofile(file)


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'write', 'number', 'rate', 'limit'),
    [('a.dat', big_dat, 2**27, 10**6, 10), ('a.raw', big_evt3, 2**27, 500_000, 30)],
)
@pytest.mark.skipif(sys.platform != 'linux', reason='measures memory by /proc')
def test_a_gigabyte_by_windows(tmp_path, name, write, number, rate, limit):
    write(tmp_path / name, number, rate)
    assert (tmp_path / name).stat().st_size >= 2**30
    done = subprocess.run(
        [sys.executable, '-c', textwrap.dedent(BIG), str(tmp_path / name), str(rate), str(limit)],
        capture_output=True,
        text=True,
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)},
    )
    print(done.stdout, done.stderr[-2000:])
    assert done.returncode == 0

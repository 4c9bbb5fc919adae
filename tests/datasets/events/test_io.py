"""Every format is written here to its specification and read event for event."""

import os
import signal
import struct
import sys
import time
import tracemalloc
import zipfile

import numpy as np
import pytest
from event_files import (
    HEADER_AEDAT2,
    HEADER_DAT,
    array_bytes,
    draw,
    stream,
    write_aedat2,
    write_aedat4,
    write_bin,
    write_dat,
    write_npy,
    write_npz,
    write_structured_npy,
    write_zip,
    zstd_frame,
)

from mmsnn.datasets import DatasetError
from mmsnn.datasets.events import EVENT_SUFFIXES, aedat4, check_event_header, read_events
from mmsnn.datasets.events.io import check_sensor_size, find_sensor_size

# --- slow readers of the tests' own --------------------------------------------------------------


def hand_aedat2(data):
    while data.startswith(b'#'):
        data = data[data.index(b'\r\n') + 2 :]
    for address, t in struct.iter_unpack('>Ii', data):
        bits = f'{address:032b}'[::-1]
        first, second = int(bits[1:8][::-1], 2), int(bits[8:15][::-1], 2)
        yield 127 - second, 127 - first, t, int(bits[0] == '0')


def hand_bin(data):
    for i in range(0, len(data), 5):
        bits = ''.join(f'{byte:08b}' for byte in data[i : i + 5])
        yield int(bits[:8], 2), int(bits[8:16], 2), int(bits[17:], 2), int(bits[16])


def hand_dat(data):
    while data.startswith(b'%'):
        data = data[data.index(b'\n') + 1 :]
    for t, pixel in struct.iter_unpack('<II', data[2:]):
        bits = f'{pixel:032b}'
        yield int(bits[18:], 2), int(bits[4:18], 2), t, int(bits[3])


def hand_aedat4(data):
    at = 14 + 4 + struct.unpack_from('<I', data, 14)[0]
    while at < len(data):
        length = struct.unpack_from('<ii', data, at)[1]
        packet, at = data[at + 12 : at + 8 + length], at + 8 + length
        table = struct.unpack_from('<I', packet)[0]
        vtable = table - struct.unpack_from('<i', packet, table)[0]
        field = table + struct.unpack_from('<H', packet, vtable + 4)[0]
        vector = field + struct.unpack_from('<I', packet, field)[0]
        for i in range(struct.unpack_from('<I', packet, vector)[0]):
            t, x, y, on = struct.unpack_from('<qhhB', packet, vector + 4 + 16 * i)
            yield x, y, t, on


def rows_of(events):
    return np.stack([events.x, events.y, events.t, events.p], axis=1).tolist()


@pytest.fixture
def needs_aedat():
    pytest.importorskip('aedat', reason="needs pip install 'mmsnn[events]'")


# --- reading -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('name', 'write', 'hand', 'size', 'end'),
    [
        ('a.aedat', write_aedat2, hand_aedat2, (128, 128), 2**31),
        ('a.bin', write_bin, hand_bin, (34, 34), 2**23),
        ('a.dat', write_dat, hand_dat, (640, 480), 2**32),
        ('a.aedat4', write_aedat4, hand_aedat4, (128, 128), 2**60),
        ('a.aedat', write_aedat4, hand_aedat4, (128, 128), 2**60),
    ],
)
def test_camera_formats_are_read_event_for_event(tmp_path, name, write, hand, size, end, request):
    if write is write_aedat4:
        request.getfixturevalue('needs_aedat')
    path, rows = tmp_path / name, draw(size=size, end=end)
    write(path, rows)
    check_event_header(path)
    events = read_events(path)
    assert rows_of(events) == rows == [list(row) for row in hand(path.read_bytes())]
    assert events.sensor_size == size
    assert (events.t.dtype, events.p.dtype) == (np.int64, np.uint8)
    assert len(events) == len(rows)


@pytest.mark.parametrize(
    ('name', 'write'),
    [('a.npy', write_npy), ('a.npy', write_structured_npy), ('a.npz', write_npz)],
)
def test_arrays_are_read_event_for_event(tmp_path, name, write):
    path, rows = tmp_path / name, draw(size=(20, 10))
    write(path, rows)
    check_event_header(path)
    events = read_events(path, sensor_size=[20, 10])
    assert rows_of(events) == rows
    assert events.sensor_size == (20, 10)
    with pytest.raises(DatasetError, match=r'does not say the size of its sensor'):
        read_events(path)


def test_npz_may_say_its_sensor_size_or_hold_one_array(tmp_path):
    rows = np.array(draw(size=(20, 10)))
    np.savez(tmp_path / 'a.npz', events=rows, sensor_size=(20, 10))
    events = read_events(tmp_path / 'a.npz')
    assert rows_of(events) == rows.tolist()
    assert events.sensor_size == (20, 10)


def test_floats_that_are_whole_are_taken_and_others_not(tmp_path):
    rows = np.array(draw(size=(20, 10)), dtype=np.float64)
    np.save(tmp_path / 'a.npy', rows)
    assert rows_of(read_events(tmp_path / 'a.npy', (20, 10))) == rows.tolist()
    rows[3, 2] += 0.5
    np.save(tmp_path / 'a.npy', rows)
    with pytest.raises(DatasetError, match=r'event 3 has t=.*5, not a whole number'):
        read_events(tmp_path / 'a.npy', (20, 10))
    rows[3, 2] = np.inf
    np.save(tmp_path / 'a.npy', rows)
    with pytest.raises(DatasetError, match=r'event 3 has t=inf'):
        read_events(tmp_path / 'a.npy', (20, 10))


def test_aedat4_lz4_and_other_streams(tmp_path, needs_aedat):
    path, rows = tmp_path / 'a.aedat4', draw(size=(346, 260))
    write_aedat4(path, rows, (346, 260), compression=1)
    assert rows_of(read_events(path)) == rows
    assert read_events(path).sensor_size == (346, 260)
    write_aedat4(path, [], streams=stream(3, 'FRME', (8, 8)))
    with pytest.raises(DatasetError, match='has no stream of events'):
        read_events(path)


def test_bin_ticks_carry_the_clock_on(tmp_path):
    path = tmp_path / 'a.bin'
    write_bin(path, [(1, 2, 100, 1), (0, 240, 0, 0), (3, 4, 50, 0), (9, 240, 5, 1), (5, 6, 7, 1)])
    expected = [[1, 2, 100, 1], [3, 4, 50 + 8192, 0], [5, 6, 7 + 2 * 8192, 1]]
    assert rows_of(read_events(path)) == expected


def test_aedat2_leaves_out_signals_that_are_no_pixel(tmp_path):
    path = tmp_path / 'a.aedat'
    write_aedat2(path, [(1, 2, 10, 1), (3, 4, 20, 0)])
    path.write_bytes(path.read_bytes() + struct.pack('>Ii', 0x8000, 30))
    assert rows_of(read_events(path)) == [[1, 2, 10, 1], [3, 4, 20, 0]]


def test_dat_polarity_is_one_bit(tmp_path):
    path = tmp_path / 'a.dat'
    path.write_bytes(HEADER_DAT + b'\x0c\x08' + struct.pack('<II', 10, 0b1011 << 28 | 2 << 14 | 1))
    assert rows_of(read_events(path)) == [[1, 2, 10, 1]]


def test_dat_without_a_size_asks_for_it(tmp_path):
    path, rows = tmp_path / 'a.dat', draw(size=(64, 32))
    write_dat(path, rows, header=b'% Version 2\n')
    with pytest.raises(DatasetError, match='does not say the size'):
        read_events(path)
    assert rows_of(read_events(path, (64, 32))) == rows


# --- bad input ------------------------------------------------------------------------------------

WRITERS = {
    'a.aedat': write_aedat2,
    'a.aedat4': write_aedat4,
    'a.bin': write_bin,
    'a.dat': write_dat,
    'a.npy': write_npy,
    'a.npz': write_npz,
}


@pytest.fixture(params=sorted(WRITERS))
def recording(request, tmp_path):
    """A path and its writer, for each format."""
    if request.param == 'a.aedat4':
        request.getfixturevalue('needs_aedat')
    return tmp_path / request.param, WRITERS[request.param]


def test_times_that_run_backwards(recording):
    path, write = recording
    rows = draw(20, (34, 34), end=1000)
    rows[7][2], rows[8][2], rows[9][2] = 700, 650, 900
    write(path, rows[:10])
    rows[8][2] = 700
    assert rows_of(read_events(path, (34, 34))) == rows[:10]
    rows[9][2], rows[7][2], rows[8][2] = 120_900, 120_700, 60_650
    write(path, rows[:10])
    with pytest.raises(DatasetError) as error:
        read_events(path, (34, 34))
    assert str(path) in str(error.value)
    assert 'backwards at event 8, from 120700 to 60650 us' in str(error.value)


def test_events_off_the_sensor(recording):
    path, write = recording
    rows = draw(20, (34, 34), end=1000)
    rows[4][:2] = 33, 20
    write(path, rows)
    assert rows_of(read_events(path, (34, 34))) == rows
    rows[4][:2] = 34, 20
    write(path, rows)
    with pytest.raises(DatasetError) as error:
        read_events(path, (34, 34))
    assert str(path) in str(error.value)
    assert 'event 4 at x=34, y=20 lies off the sensor of 34x34 pixels' in str(error.value)


def test_damaged_header_of_aedat4(tmp_path, needs_aedat):
    path = tmp_path / 'a.aedat4'
    write_aedat4(path, draw(5))
    whole = path.read_bytes()
    text, table = whole.index(b'outInfo'), 18
    path.write_bytes(whole[:text] + b'\xff' + whole[text + 1 :])  # the package would abort
    for read in (read_events, check_event_header):
        with pytest.raises(DatasetError, match=r'a\.aedat4 is truncated or broken in its header'):
            read(path)
    path.write_bytes(whole[:table] + b'\xff\xff' + whole[table + 2 :])  # the package panics
    for read in (read_events, check_event_header):
        with pytest.raises(DatasetError, match=r'a\.aedat4 is truncated or broken in its header'):
            read(path)


def test_negative_coordinates_of_aedat4(tmp_path, needs_aedat):
    write_aedat4(tmp_path / 'a.aedat4', [(5, -1, 10, 1)])
    with pytest.raises(DatasetError, match=r'event 0 at x=5, y=-1 lies off'):
        read_events(tmp_path / 'a.aedat4')


def test_empty_truncated_and_foreign_files(recording):
    path, write = recording
    write(path, draw(20, (34, 34), end=1000))
    whole = path.read_bytes()
    path.write_bytes(b'')
    for read in (read_events, check_event_header):
        with pytest.raises(DatasetError, match=r'a\.\w+ is empty, 0 bytes'):
            read(path)
    path.write_bytes(whole[:-3])
    with pytest.raises(DatasetError, match=r'a\.\w+ is truncated'):
        read_events(path, (34, 34))
    if path.suffix != '.bin':  # N-MNIST has no header to tell it by
        path.write_bytes(b'\x89PNG\r\n\x1a\n' + bytes(100))
        for read in (read_events, check_event_header):
            with pytest.raises(DatasetError, match=r'a\.\w+ is .*not a file of the format'):
                read(path)


def test_files_without_events(recording):
    path, write = recording
    if path.suffix == '.bin':
        path.write_bytes(bytes([0, 240, 0, 0, 0]))
    elif path.suffix in ('.npy', '.npz'):
        write(path, np.zeros((0, 4), int))
    else:
        write(path, [])
    with pytest.raises(DatasetError, match=r'a\.\w+ holds no events'):
        read_events(path, (34, 34))


@pytest.mark.parametrize('read', [read_events, check_event_header])
def test_unknown_suffix_and_missing_file(tmp_path, read):
    with pytest.raises(DatasetError) as error:
        read(tmp_path / 'a.evs')
    assert "the suffix '.evs'" in str(error.value)
    assert all(suffix in str(error.value) for suffix in EVENT_SUFFIXES)
    with pytest.raises(DatasetError, match=r'a\.npy cannot be read: No such file'):
        read(tmp_path / 'a.npy')


def test_aedat2_of_another_camera(tmp_path):
    path = tmp_path / 'a.aedat'
    path.write_bytes(HEADER_AEDAT2 + struct.pack('>Ii', 5 << 22 | 7 << 12, 10))
    with pytest.raises(DatasetError, match=r'event 0 has the address 0x1407000.*DVS128'):
        read_events(path)


def test_dat_of_other_events(tmp_path):
    write_dat(tmp_path / 'a.dat', draw(5), kind=b'\x0e\x08')
    for read in (read_events, check_event_header):
        with pytest.raises(DatasetError, match=r'type and size are \(14, 8\)'):
            read(tmp_path / 'a.dat')


def test_arrays_of_another_form(tmp_path):
    path = tmp_path / 'a.npy'
    np.save(path, np.zeros((5, 3)))
    with pytest.raises(DatasetError, match=r'shape \(5, 3\).*columns x, y, t, p'):
        read_events(path, (8, 8))
    np.save(path, np.array([[1, 1, 5, 2]]))
    with pytest.raises(DatasetError, match=r'event 0 has the polarity 2'):
        read_events(path, (8, 8))
    np.save(path, np.array([['1', '1', '5', '1']]))
    with pytest.raises(DatasetError, match=r'x has the dtype <U1, expected numbers'):
        read_events(path, (8, 8))
    np.savez(tmp_path / 'a.npz', x=np.zeros(2), y=np.zeros(2))
    with pytest.raises(DatasetError, match=r'holds the arrays x, y. Expected: x, y, t, p'):
        read_events(tmp_path / 'a.npz', (8, 8))
    np.savez(tmp_path / 'a.npz', x=np.zeros(2), y=np.zeros(2), t=np.zeros(2), p=np.zeros(3))
    with pytest.raises(DatasetError, match=r'the same length'):
        read_events(tmp_path / 'a.npz', (8, 8))


def test_missing_package_is_named(tmp_path, monkeypatch):
    write_aedat4(tmp_path / 'a.aedat4', draw(5))
    monkeypatch.setitem(sys.modules, 'aedat', None)
    for read in (read_events, check_event_header):
        with pytest.raises(DatasetError, match=r"pip install 'mmsnn\[events\]'"):
            read(tmp_path / 'a.aedat4')


# --- times and sizes -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    't',
    [
        np.array([5, 2**63], np.uint64),
        np.array([5.0, 1e19]),
        np.array([5.0, 2.0**63]),
        np.array([5, 2**64 - 1], np.uint64),
        np.array([5, 1e19], np.longdouble),
    ],
)
def test_times_beyond_64_bits(tmp_path, t):
    np.savez(tmp_path / 'a.npz', x=[0, 1], y=[0, 1], t=t, p=[0, 1], sensor_size=(2, 2))
    with pytest.raises(DatasetError, match=r'a\.npz: event 1 has t=\d.*beyond what 64 bits'):
        read_events(tmp_path / 'a.npz')
    np.savez(tmp_path / 'a.npz', x=[0, 1], y=[0, 1], t=-t.astype(float), p=[0, 1])
    with pytest.raises(DatasetError, match=r'beyond what 64 bits|run backwards'):
        read_events(tmp_path / 'a.npz', (2, 2))


def test_the_first_and_the_last_time_are_taken(tmp_path):
    path = tmp_path / 'a.npy'
    np.save(path, np.array([[0, 0, -(2**63), 1], [0, 0, 2**63 - 1, 1]]))
    assert read_events(path, (1, 1)).t.tolist() == [-(2**63), 2**63 - 1]
    np.save(path, np.array([[0, 0, 2**63 - 1, 1]], np.uint64))
    assert read_events(path, (1, 1)).t.tolist() == [2**63 - 1]
    np.save(path, np.array([[0, 0, -(2.0**63), 1], [0, 0, 2.0**53, 1]]))
    assert read_events(path, (1, 1)).t.tolist() == [-(2**63), 2**53]


def test_negative_times_of_aedat4(tmp_path, needs_aedat):
    write_aedat4(tmp_path / 'a.aedat4', [(5, 1, -10, 1)])  # the package gives them unsigned
    with pytest.raises(DatasetError, match=r'event 0 has t=18446744073709551606, beyond'):
        read_events(tmp_path / 'a.aedat4')


@pytest.mark.parametrize(
    'size',
    [
        (8, 8, 3),
        (8,),
        (),
        8,
        (float('nan'), 8),
        (8, float('inf')),
        (8.9, 8),
        ('8', '8'),
        '88',
        (0, 8),
        (-8, 8),
        (True, 8),
        (None, 8),
        (40000, 40000),
        (10**400, 8),
    ],
)
def test_sizes_that_are_none(tmp_path, size):
    write_npy(tmp_path / 'a.npy', draw(20, (8, 8)))
    with pytest.raises(DatasetError, match=r'sensor_size is .*two whole numbers of pixels'):
        read_events(tmp_path / 'a.npy', size)


def test_sizes_of_any_kind_of_whole_number():
    for size in ([8, 4], (8.0, np.float32(4)), np.array([8, 4]), (np.uint8(8), np.int64(4))):
        taken = check_sensor_size(size)
        assert taken == (8, 4)
        assert {type(side) for side in taken} == {int}


def test_sizes_that_a_file_claims(tmp_path, request):
    path, rows = tmp_path / 'a.dat', draw(size=(64, 32))
    write_dat(path, rows, header=b'% Width 16000\n% Height 12000\n')
    for read in (read_events, find_sensor_size):
        with pytest.raises(DatasetError, match=r'a\.dat claims a sensor of 16000x12000 pixels'):
            read(path)
    assert rows_of(read_events(path, (64, 32))) == rows  # what is given goes first
    check_event_header(path)
    write_dat(path, rows, header=b'% Width 40000\n% Height 40000\n')
    with pytest.raises(DatasetError, match=r'its sensor_size is \(40000, 40000\)'):
        read_events(path)
    for size in ([np.nan, 8], [8.5, 8], [8, 8, 8], ['8', '8'], 8, np.zeros(1000)):
        np.savez(tmp_path / 'a.npz', events=rows, sensor_size=size)
        for read in (read_events, find_sensor_size):
            with pytest.raises(DatasetError, match=r'a\.npz: its sensor_size is'):
                read(tmp_path / 'a.npz')
        assert rows_of(read_events(tmp_path / 'a.npz', (64, 32))) == rows
    request.getfixturevalue('needs_aedat')
    for size in ((60000, 60000), (0, 128), (8000, 8000)):
        write_aedat4(tmp_path / 'a.aedat4', rows, size)
        with pytest.raises(DatasetError, match=r'a\.aedat4.* sensor'):
            read_events(tmp_path / 'a.aedat4')


# --- files that do not say what they hold --------------------------------------------------------


@pytest.fixture
def peak():
    """Megabytes that Python and NumPy took at most during the test so far."""
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()


@pytest.fixture
def ends():
    """An end after ten seconds to what would wait for ever."""

    def stop(*_):
        raise TimeoutError('it hangs')

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(10)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize('suffix', EVENT_SUFFIXES)
def test_pipes_and_folders_are_no_recordings(tmp_path, suffix, ends):
    os.mkfifo(tmp_path / f'pipe{suffix}')
    (tmp_path / f'folder{suffix}').mkdir()
    for name in ('pipe', 'folder'):
        for read in (read_events, check_event_header):
            with pytest.raises(DatasetError, match=rf'{name}{suffix} cannot be read: it is no reg'):
                read(tmp_path / f'{name}{suffix}', (8, 8)) if read is read_events else read(
                    tmp_path / f'{name}{suffix}'
                )


def test_other_versions_of_aedat(tmp_path):
    path = tmp_path / 'a.aedat'
    for version in ('3.0', '1.0', '4.1'):
        path.write_bytes(f'#!AER-DAT{version}\r\n#Format: RAW\r\n'.encode() + bytes(100))
        for read in (read_events, check_event_header):
            with pytest.raises(
                DatasetError, match=rf'is AEDAT {version}, .*Convert it to'
            ) as error:
                read(path)
            assert 'Fetch' not in str(error.value)


def test_headers_without_an_end(tmp_path):
    for name, start, line in (
        ('a.dat', b'', b'%\n'),
        ('a.dat', b'', b'%' + b' ' * 10**5 + b'\n'),
        ('a.dat', b'', b'%'),
        ('a.aedat', b'#!AER-DAT2.0\r\n', b'#\n'),
    ):
        (tmp_path / name).write_bytes(start + line * (5_000_000 // len(line)))
        begin = time.perf_counter()
        for read in (read_events, check_event_header):
            with pytest.raises(DatasetError, match=r'its header has not ended after \d+ bytes'):
                read(tmp_path / name)
        assert time.perf_counter() - begin < 2
    header = HEADER_DAT + b'% a setting of the camera\n' * 20000
    write_dat(tmp_path / 'a.dat', draw(5), header=header)
    assert len(read_events(tmp_path / 'a.dat')) == 5


def test_claims_of_a_header_take_no_memory(tmp_path, peak):
    path = tmp_path / 'a.npy'
    whole = array_bytes(np.array(draw(20, (8, 8))))
    for claim in (b'(20000000000, 4), }', b'(9' + b'0' * 30 + b', 4), }', b'(-20, 4), }'):
        path.write_bytes(whole.replace(b'(20, 4), }', claim))
        for read in (read_events, check_event_header):
            with pytest.raises(DatasetError, match=r'a\.npy is truncated'):
                read(path)
    path.write_bytes(whole + whole)  # numpy.load would leave the second out
    for read in (read_events, check_event_header):
        with pytest.raises(DatasetError, match=r'a\.npy is broken: .* takes 640 bytes, but 1408'):
            read(path)
    path.write_bytes(b'\x93NUMPY\x02\x00' + b'\xff' * 4 + whole[10:])  # a header of 4 GB
    with pytest.raises(DatasetError, match=r'a\.npy is truncated'):
        read_events(path)
    assert peak() < 5


def test_archives_that_unpack_to_far_more(tmp_path, peak):
    path, rows = tmp_path / 'a.npz', np.array(draw(20, (8, 8)))
    columns = {name: array_bytes(column) for name, column in zip('xytp', rows.T)}
    write_zip(path, {**columns, 'note': None})  # not needed
    assert rows_of(read_events(path, (8, 8))) == rows.tolist()
    write_zip(path, {**columns, 't': None})
    with pytest.raises(DatasetError, match=r'a\.npz is truncated or broken'):
        read_events(path, (8, 8))
    claim = array_bytes(np.zeros(0, np.int64)).replace(b'(0,)', b'(3000000,)')
    write_zip(path, dict.fromkeys('xytp', claim))
    for read in (read_events, check_event_header):
        with pytest.raises(DatasetError, match=r'claims 3000000 events, which take \d+ bytes'):
            read(path)
    assert peak() < 60  # most of it for writing


def test_archives_of_other_methods_and_with_passwords(tmp_path):
    path, rows = tmp_path / 'a.npz', np.array(draw(20, (8, 8)))
    write_zip(path, {'events': array_bytes(rows)}, zipfile.ZIP_BZIP2)
    with pytest.raises(DatasetError, match=r'events\.npy is packed by method 12'):
        read_events(path, (8, 8))
    np.savez(path, events=rows)
    data = bytearray(path.read_bytes())
    data[data.index(b'PK\x01\x02') + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(DatasetError, match=r'a\.npz is .*RuntimeError.*encrypted'):
        read_events(path, (8, 8))


def test_archives_whose_contents_were_changed(tmp_path):
    path, rows = tmp_path / 'a.npz', np.array(draw(20, (8, 8)))
    np.savez(path, events=rows)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"'shape': (20, 4), } ", b"'shape': (10, 4), } "))
    with pytest.raises(DatasetError, match=r'a\.npz is truncated or broken'):
        read_events(path, (8, 8))
    path.write_bytes(data.replace(rows[5].tobytes(), rows[6].tobytes()))  # numpy.load takes it
    with pytest.raises(DatasetError, match=r'a\.npz is truncated or broken: .*CRC'):
        read_events(path, (8, 8))


def test_python_objects(tmp_path):
    np.save(tmp_path / 'a.npy', np.array([[1, 1, 5, 1]], object))
    np.savez(tmp_path / 'a.npz', x=np.zeros(1, object), y=[0], t=[0], p=[0])
    for name in ('a.npy', 'a.npz'):
        for read in (read_events, check_event_header):
            with pytest.raises(DatasetError, match=r'x holds Python objects, which are not opened'):
                read(tmp_path / name)


def test_claims_of_aedat4(tmp_path, needs_aedat, peak):
    path = tmp_path / 'a.aedat4'
    write_aedat4(path, draw(5), streams=stream(0, 'EVTS', (128, 128)) + '<a>' * 10**5)
    for read in (read_events, check_event_header):
        with pytest.raises(DatasetError, match='truncated or broken in its header'):
            read(path)
    deep = '<a>' * 10**5 + '</a>' * 10**5  # the package would crash
    write_aedat4(path, draw(5), streams=stream(0, 'EVTS', (128, 128)) + deep)
    for read in (read_events, check_event_header):
        with pytest.raises(DatasetError, match='truncated or broken in its header'):
            read(path)
    write_aedat4(path, [])
    start = path.read_bytes()
    path.write_bytes(start[:14] + b'\xff' * 4 + start[18:])  # a header of 4 GB
    for read in (read_events, check_event_header):
        with pytest.raises(DatasetError, match='truncated or broken in its header'):
            read(path)
    for packet in (struct.pack('<II', 0, 2**31) + bytes(20), struct.pack('<II', 0, 4) + bytes(4)):
        path.write_bytes(start + packet)
        with pytest.raises(DatasetError, match='its packets do not end as they say'):
            read_events(path)
    write_aedat4(path, [], compression=1)
    frame = b'\x04\x22\x4d\x18\x68\x70' + struct.pack('<Q', 2**31) + bytes(9)
    path.write_bytes(path.read_bytes() + struct.pack('<II', 0, len(frame)) + frame)
    with pytest.raises(DatasetError, match='claims to unpack to 2147483648 bytes'):
        read_events(path)
    write_aedat4(path, [], compression=3)
    frame = b'\x28\xb5\x2f\xfd\xa0' + struct.pack('<I', 2**31) + bytes(9)
    path.write_bytes(path.read_bytes() + struct.pack('<II', 0, len(frame)) + frame)
    with pytest.raises(DatasetError, match='claims to unpack to 2147483648 bytes'):
        read_events(path)
    # One that says nothing of its size, of blocks that repeat a byte 128 Ki times.
    write_aedat4(path, [], compression=3)
    frame = zstd_frame(*[(1, b'\0', 2**17)] * 2**13)
    path.write_bytes(path.read_bytes() + struct.pack('<II', 0, len(frame)) + frame)
    with pytest.raises(DatasetError, match='claims to unpack to 1073741824 bytes'):
        read_events(path)
    assert peak() < 20


def test_aedat4_of_frames_without_a_size(tmp_path, needs_aedat, monkeypatch):
    rows = draw(500)
    write_aedat4(tmp_path / 'plain.aedat4', rows)
    write_aedat4(tmp_path / 'zstd.aedat4', rows, compression=3)
    plain, compressed = (read_events(tmp_path / f'{name}.aedat4') for name in ('plain', 'zstd'))
    for name in 'xytp':
        assert np.array_equal(getattr(plain, name), getattr(compressed, name))
    # What unpacks to more than headers say is stopped on the way.
    monkeypatch.setattr(aedat4, 'MIN_UNPACKED', 1000)
    monkeypatch.setattr(aedat4, 'MAX_RATIO', 0.5)
    monkeypatch.setattr(aedat4, '_check_claim', lambda *_: None)
    with pytest.raises(DatasetError, match=r'zstd.aedat4 has \d+ bytes, but unpacks to more than'):
        read_events(tmp_path / 'zstd.aedat4')

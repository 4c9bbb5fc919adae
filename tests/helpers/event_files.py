"""Writes recordings of event cameras to the specifications of their formats."""

import io
import struct
import zipfile

import numpy as np

HEADER_AEDAT2 = (
    b'#!AER-DAT2.0\r\n'
    b'# This is a raw AE data file - do not edit\r\n'
    b'# Data format is int32 address, int32 timestamp (8 bytes total), repeated\r\n'
    b'# Timestamps tick is 1 us\r\n'
)
HEADER_DAT = (
    b'% Data file containing CD events\n% Version 2\n% Date 2020-09-14 14:18:29\n'
    b'% Width 640\n% Height 480\n'
)


def draw(number=500, size=(128, 128), end=2**20, seed=0):
    """Rows of x, y, t, p; times that repeat and touch both ends, pixels in all corners."""
    rng = np.random.default_rng(seed)
    rows = np.stack(
        [
            rng.integers(0, size[0], number),
            rng.integers(0, size[1], number),
            np.sort(rng.integers(0, end, number)),
            rng.integers(0, 2, number),
        ],
        axis=1,
    )
    rows[0, :2], rows[1, :2] = (0, size[1] - 1), (size[0] - 1, 0)
    rows[2:4, 2] = rows[2, 2]
    rows[-1, 2] = end - 1
    return rows.tolist()


# --- writers, to the specifications ------------------------------------------------------------


def write_aedat2(path, rows):
    data = bytearray(HEADER_AEDAT2)
    for x, y, t, p in rows:
        data += struct.pack('>Ii', (127 - x) << 8 | (127 - y) << 1 | (1 - p), t)
    path.write_bytes(data)


def write_bin(path, rows):
    data = bytearray()
    for x, y, t, p in rows:
        data += bytes([x, y]) + (p << 23 | t).to_bytes(3, 'big')
    path.write_bytes(data)


def write_dat(path, rows, header=HEADER_DAT, kind=b'\x0c\x08'):
    data = bytearray(header + kind)
    for x, y, t, p in rows:
        data += struct.pack('<II', t, x | y << 14 | p << 28)
    path.write_bytes(data)


def write_npy(path, rows):
    np.save(path, np.array(rows))


def write_structured_npy(path, rows):
    kind = [('t', '<u8'), ('x', '<u2'), ('y', '<u2'), ('p', '?')]
    np.save(path, np.array([(t, x, y, p) for x, y, t, p in rows], dtype=kind))


def write_npz(path, rows):
    x, y, t, p = np.array(rows).T
    np.savez(path, t=t, x=x, y=y, p=p.astype(bool))


def write_zip(path, arrays, method=zipfile.ZIP_DEFLATED):
    """An .npz of bytes that are given; those of None are 192 MB of zeros, packed."""
    with zipfile.ZipFile(path, 'w', method) as archive:
        for name, content in arrays.items():
            with archive.open(f'{name}.npy', 'w', force_zip64=True) as member:
                for part in [content] if content is not None else [bytes(2**24)] * 12:
                    member.write(part)


def array_bytes(array):
    """What an .npy of the array holds."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def flatbuffer(identifier, fields, after):
    """A size-prefixed FlatBuffer with one table.

    `fields` are little-endian inline values, None for one that is left out, or 'offset' for what
    `after` holds (a vector or a string), each aligned to its size.
    """
    inline, places = bytearray(4), []  # the table begins with the distance to its vtable
    for value in fields:
        if value is None:
            places.append(0)
            continue
        width = 4 if value == 'offset' else len(value)
        inline += bytes(-len(inline) % width)
        places.append(len(inline))
        inline += bytes(4) if value == 'offset' else value
    vtable = struct.pack('<HH', 4 + 2 * len(fields), len(inline))
    vtable += b''.join(struct.pack('<H', place) for place in places)
    vtable += bytes(-(8 + len(vtable)) % 8)
    table = 8 + len(vtable)  # behind the root offset and the identifier
    inline[:4] = struct.pack('<i', len(vtable))
    inline += bytes(-(table + len(inline)) % 4)
    # Elements of a vector of 8-byte aligned structs start at a multiple of 8, behind its length.
    inline += bytes((4 - (table + len(inline))) % 8)
    where = fields.index('offset')
    at = places[where]
    inline[at : at + 4] = struct.pack('<I', len(inline) - at)
    body = struct.pack('<I', table) + identifier + vtable + bytes(inline) + after
    return struct.pack('<I', len(body)) + body


def lz4_frame(data):
    """An LZ4 frame of stored blocks: valid, and written without a package."""
    frame = b'\x04\x22\x4d\x18\x60\x70\x73'  # independent blocks of up to 4 MB, header checksum
    frame += struct.pack('<I', 1 << 31 | len(data)) + data
    return frame + bytes(4)


def stream(number, identifier, size):
    return (
        f'<node name="{number}" path="/mainloop/Recorder/outInfo/{number}/">'
        f'<attr key="typeIdentifier" type="string">{identifier}</attr>'
        f'<node name="info" path="/mainloop/Recorder/outInfo/{number}/info/">'
        f'<attr key="sizeX" type="int">{size[0]}</attr>'
        f'<attr key="sizeY" type="int">{size[1]}</attr></node></node>'
    )


def zstd_frame(*blocks, size=None):
    """Blocks (kind, bytes): 0 as they are, 1 one byte and how often; with the size or without."""
    frame = b'\x28\xb5\x2f\xfd'
    frame += b'\x00\x58' if size is None else b'\xa0' + struct.pack('<I', size)
    for i, (kind, content, n) in enumerate(blocks):
        head = (i == len(blocks) - 1) | kind << 1 | n << 3
        frame += head.to_bytes(3, 'little') + content
    return frame


#: By AEDAT 4's number of the compression.
COMPRESSED = {
    0: bytes,
    1: lambda packet: lz4_frame(packet),
    3: lambda packet: zstd_frame((0, packet, len(packet))),
}


def write_aedat4(path, rows, size=(128, 128), compression=0, streams=None):
    xml = '<dv version="2.0"><node name="outInfo" path="/mainloop/Recorder/outInfo/">'
    xml += streams or stream(0, 'EVTS', size)
    xml = (xml + '</node></dv>').encode()
    string = struct.pack('<I', len(xml)) + xml + b'\0'
    fields = [struct.pack('<i', compression), struct.pack('<q', -1), 'offset']
    data = b'#!AER-DAT4.0\r\n' + flatbuffer(b'IOHE', fields, string)
    for start in range(0, len(rows), 200):  # a recording comes in packets
        part = rows[start : start + 200]
        vector = struct.pack('<I', len(part))
        vector += b''.join(struct.pack('<qhhB3x', t, x, y, p) for x, y, t, p in part)
        packet = flatbuffer(b'EVTS', ['offset'], vector)
        packet = COMPRESSED[compression](packet)
        data += struct.pack('<ii', 0, len(packet)) + packet
    path.write_bytes(data)


def write_aedat3(path, rows, source='DVS128', others=True):
    """Packets of 100 events; with some of another type and invalid events, if ``others``."""
    data = bytearray(
        f'#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: {source}\r\n'
        '#Start-Time: 2017-01-01 00:00:00 (TZ+0000)\r\n#!END-HEADER\r\n'.encode()
    )
    begin = 0
    while begin < len(rows):
        turns = rows[begin][2] >> 31
        part = [row for row in rows[begin : begin + 100] if row[2] >> 31 == turns]
        begin, events = begin + len(part), bytearray()
        for i, (x, y, t, p) in enumerate(part):
            if others and i % 7 == 3:
                events += struct.pack('<Ii', 5 << 17 | 5 << 2, t - (turns << 31))  # invalid
            events += struct.pack('<Ii', x << 17 | y << 2 | p << 1 | 1, t - (turns << 31))
        number = len(events) // 8
        head = struct.pack('<hhiiiiii', 1, 1, 8, 4, turns, number, number, len(part))
        data += head + events
        if others:  # of type special, and one of a second camera
            data += struct.pack('<hhiiiiii', 0, 1, 8, 4, turns, 1, 1, 1) + struct.pack('<Ii', 3, 0)
            data += struct.pack('<hhiiiiii', 1, 2, 8, 4, turns, 1, 1, 1) + struct.pack('<Ii', 1, 0)
    path.write_bytes(data)


def raw_header(version, size=(1280, 720), endianness=None):
    lines = ['camera_integrator_name Prophesee', 'date 2024-01-01 00:00:00', f'evt {version}']
    lines += [f'endianness {endianness}'] if endianness else []
    name = {'2.0': 'EVT2', '2.1': 'EVT21', '3.0': 'EVT3'}[version]
    lines += [f'format {name};height={size[1]};width={size[0]}', f'geometry {size[0]}x{size[1]}']
    return ''.join(f'% {line}\n' for line in [*lines, 'end']).encode()


def write_evt2(path, rows, size=(1280, 720)):
    data, high = bytearray(raw_header('2.0', size)), None
    for i, (x, y, t, p) in enumerate(rows):
        if t >> 6 != high:
            high = t >> 6
            data += struct.pack('<I', 8 << 28 | high & 0xFFFFFFF)
        if i % 50 == 7:
            data += struct.pack('<III', 10 << 28 | 1, 14 << 28 | 5, 15 << 28 | 9)  # no events
        data += struct.pack('<I', p << 28 | (t & 63) << 22 | x << 11 | y)
    path.write_bytes(data)


def write_evt21(path, rows, size=(1280, 720), endianness='little'):
    """Events of a row, a time and a polarity that follow each other share a word."""
    words, high, at = [], None, 0
    while at < len(rows):
        x, y, t, p = rows[at]
        if t >> 6 != high:
            high = t >> 6
            words.append(8 << 60 | (high & 0xFFFFFFF) << 32)
        base, mask, last = x & ~31, 0, -1
        while at < len(rows) and [y, t, p] == list(rows[at][1:]) and last < rows[at][0] < base + 32:
            last = rows[at][0]
            mask |= 1 << (last - base)
            at += 1
        words.append(p << 60 | (t & 63) << 54 | base << 43 | y << 32 | mask)
        if len(words) % 40 == 0:
            words.append(10 << 60 | 1)
    pack = {'little': '<Q', 'big': '>Q', None: '<Q'}
    data = bytearray(raw_header('2.1', size, endianness))
    for word in words:
        if endianness == 'legacy':  # the halves one after another, the higher first
            data += struct.pack('<II', word >> 32, word & 0xFFFFFFFF)
        else:
            data += struct.pack(pack[endianness], word)
    path.write_bytes(data)


def write_evt3(path, rows, size=(1280, 720)):
    """What doesn't change isn't written again; runs of a row become vectors."""
    words, high, low, row, at = [], None, None, None, 0
    while at < len(rows):
        x, y, t, p = rows[at]
        if t >> 12 != high:
            high = t >> 12
            words.append(8 << 12 | high & 0xFFF)
        if t & 0xFFF != low:
            low = t & 0xFFF
            words.append(6 << 12 | low)
        if y != row:
            row = y
            words.append(y | at % 2 << 11)
        run = [x]
        while at + len(run) < len(rows):
            other = rows[at + len(run)]
            if list(other[1:]) != [y, t, p] or not run[-1] < other[0] < run[-1] + 12:
                break
            run.append(other[0])
        at += len(run)
        if len(run) == 1:
            words.append(2 << 12 | p << 11 | x)
            continue
        words.append(3 << 12 | p << 11 | x)
        base = x
        while run:
            bits, kind = (12, 4) if at % 3 else (8, 5)
            mask = sum(1 << (place - base) for place in run if place < base + bits)
            run = [place for place in run if place >= base + bits]
            words.append(kind << 12 | mask)
            base += bits
        if at % 5 == 0:
            words += [10 << 12 | 1, 7 << 12 | 3, 14 << 12, 15 << 12 | 77]  # no events
    path.write_bytes(raw_header('3.0', size) + struct.pack(f'<{len(words)}H', *words))


def draw_runs(number=400, size=(1280, 720), end=2**20, seed=0):
    """Rows as of :func:`draw`, in runs of a row, a time and a polarity, as vectors hold them."""
    rng, rows = np.random.default_rng(seed), []
    for x, y, t, p in draw(number, size, end, seed):
        places = x + np.cumsum([0, *rng.integers(1, 12, rng.choice([0, 0, 1, 5, 40]))])
        rows += [[int(place), y, t, p] for place in places if place < size[0]]
    return rows


def write_hdf5(path, rows, size=(1280, 720), **options):
    """As RVT and eTraM have it."""
    import h5py

    x, y, t, p = np.array(rows).reshape(-1, 4).T
    with h5py.File(path, 'w') as file:
        group = file.create_group('events')
        for name, column, dtype in (('x', x, 'u2'), ('y', y, 'u2'), ('t', t, 'i8'), ('p', p, 'u1')):
            group.create_dataset(name, data=column.astype(dtype), chunks=(32,), **options)
        group['width'], group['height'] = size


def write_dsec(path, rows, offset=0):
    """As DSEC has it: times from the offset on, and the first event of each millisecond."""
    import h5py

    x, y, t, p = np.array(rows).T
    t = t - offset
    with h5py.File(path, 'w') as file:
        for name, column, dtype in (('x', x, 'u2'), ('y', y, 'u2'), ('t', t, 'u4'), ('p', p, 'u1')):
            file[f'events/{name}'] = column.astype(dtype)
        file['t_offset'] = offset
        file['ms_to_idx'] = np.searchsorted(t, np.arange(0, t[-1] + 1, 1000)).astype('u8')


# --- corruption ----------------------------------------------------------------------------------

WRITERS = {
    'a.aedat': write_aedat2,
    'a.aedat4': write_aedat4,
    'b.aedat4': lambda path, rows: write_aedat4(path, rows, compression=1),
    'a.bin': write_bin,
    'a.dat': write_dat,
    'a.npy': write_npy,
    'b.npy': write_structured_npy,
    'a.npz': write_npz,
    'b.aedat': write_aedat3,
    'a.raw': lambda path, rows: write_evt2(path, rows, (34, 34)),
    'b.raw': lambda path, rows: write_evt21(path, rows, (34, 34)),
    'c.raw': lambda path, rows: write_evt3(path, rows, (34, 34)),
    'b.npz': lambda path, rows: np.savez_compressed(path, events=rows, sensor_size=(34, 34)),
}


def corrupt(data, rng):
    """Flip, cut, insert, double, clear or overwrite bytes, mostly near one of the ends."""
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 8])):
        near = min(len(data), 300)
        at = int(
            rng.choice(
                [
                    rng.integers(near + 1),
                    len(data) - rng.integers(near + 1),
                    rng.integers(len(data) + 1),
                ]
            )
        )
        width = int(rng.choice([1, 1, 2, 4, 8, 64]))
        kind = rng.integers(8)
        if kind <= 2:
            if at < len(data):
                data[at] ^= 1 << rng.integers(8)
        elif kind == 3:
            del data[at:]
        elif kind == 4:
            del data[at : at + width]
        elif kind == 5:
            data[at:at] = rng.bytes(width)
        elif kind == 6:
            data[at : at + width] = rng.choice([b'\0', b'\xff', b'9', b'\x7f'])[:1] * width
        else:
            data[at : at + width] = rng.bytes(width)
    return bytes(data)

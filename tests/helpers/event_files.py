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

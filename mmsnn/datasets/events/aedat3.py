"""AEDAT 3.1: packets of events behind lines of text, all in little-endian.

A packet has a head of 28 bytes: type, source (int16 each), bytes of an event, place of the time
in it, turns of the clock of 31 bits, capacity, number of events and of valid ones (int32 each).
Polarity events have type 1 and two words: valid in bit 0, polarity in bit 1, y in bits 2 to 16, x
in bits 17 to 31; then the time in microseconds.
Source: iniVation, AEDAT 3.1 file format.
"""

import os
import re
import struct

import numpy as np

from ..errors import DatasetError
from .blocks import Packet, PacketBlocks, join
from .problems import expect
from .records import MAX_HEADER

START = b'#!AER-DAT3.1\r\n'
HEAD = struct.Struct('<hhiiiiii')
POLARITY = 1
#: (W, H) of the cameras that the line of the source names.
SENSORS = {
    'DVS128': (128, 128),
    'DAVIS128': (128, 128),
    'DAVIS240A': (240, 180),
    'DAVIS240B': (240, 180),
    'DAVIS240C': (240, 180),
    'DAVIS208': (208, 192),
    'DAVIS346A': (346, 260),
    'DAVIS346B': (346, 260),
    'DAVIS346': (346, 260),
    'DAVIS640': (640, 480),
    'DVXPLORER': (640, 480),
}
_EVENT = np.dtype([('data', '<u4'), ('t', '<i4')])


def aedat3_head(file, path):
    """Read the lines, and say whether packets follow and the sensor's size."""
    expect(file.peek(len(START))[: len(START)] == START, path, 'AEDAT 3.1')
    lines, length = [], 0
    while not lines or not lines[-1].startswith(b'#!END-HEADER'):
        lines.append(file.readline(MAX_HEADER))
        length += len(lines[-1])
        if not lines[-1].startswith(b'#') or length > MAX_HEADER:
            raise DatasetError(
                f'{path} is broken: its header has not ended after {length} bytes. Fetch it again'
            )
    header = b''.join(lines).decode('latin-1')
    form = re.search(r'(?m)^#Format:[ \t]*([^\r\n]*?)[ \t]*\r?$', header)
    if form and form[1] != 'RAW':
        raise DatasetError(
            f'{path} is AEDAT 3.1 of the format {form[1]}. Expected: RAW. Convert it to AEDAT 4, '
            'or to .npz with the arrays x, y, t, p'
        )
    sources = re.findall(r'(?m)^#Source (\d+):[ \t]*(\S+)', header)
    size = next((SENSORS[name.upper()] for _, name in sources if name.upper() in SENSORS), None)
    return min(1, os.fstat(file.fileno()).st_size - file.tell()), size


def aedat3_blocks(file, path):
    """Go through the heads of the packets; other types and invalid events are left out."""
    _, size = aedat3_head(file, path)
    end, at, packets, source = os.fstat(file.fileno()).st_size, file.tell(), [], None
    while at < end:
        head = os.pread(file.fileno(), HEAD.size + _EVENT.itemsize, at)
        if len(head) < HEAD.size:
            raise _cut(path, at)
        kind, sender, width, place, turns, _, number, _ = HEAD.unpack_from(head)
        length = HEAD.size + width * number
        if width < 0 or number < 0 or at + length > end:
            raise _cut(path, at)
        if kind == POLARITY and number:
            expect((width, place) == (8, 4), path, 'AEDAT 3.1 with polarity events of 8 bytes')
            source = sender if source is None else source
            if sender == source:  # of the first camera alone
                low = struct.unpack_from('<i', head, HEAD.size + 4)[0]
                packets.append(Packet(at, length, (turns << 31) + low))
        at += length

    def decode(part):
        return join([_decode(os.pread(file.fileno(), p.length, p.at)) for p in part])

    return PacketBlocks(packets, decode, size)


def _cut(path, at):
    return DatasetError(
        f'{path} is truncated or broken: the packet at byte {at} reaches beyond its end. Fetch it '
        'again'
    )


def _decode(packet: bytes):
    turns = HEAD.unpack_from(packet)[4]
    events = np.frombuffer(packet, _EVENT, offset=HEAD.size)
    events = events[(events['data'] & np.uint32(1)).astype(bool)]
    data = events['data']
    t = (turns << 31) + events['t'].astype(np.int64)
    x, y = data >> np.uint32(17), data >> np.uint32(2) & np.uint32(0x7FFF)
    return x, y, t, data >> np.uint32(1) & np.uint32(1)

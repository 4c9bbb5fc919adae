"""AEDAT 4 (FlatBuffers, compressed by LZ4 or ZSTD), by the package `aedat`.

What the package takes on trust is checked before: it aborts the process on text that is no UTF-8 or
nested too deep, follows the offsets of the header wherever they lead, and allocates what a packet
says that it has.
Source: iniVation, AEDAT 4.0 file format.
"""

import os
import struct
import tempfile
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple
from xml.parsers import expat

import numpy as np

from ..errors import DatasetError
from .blocks import Packet, PacketBlocks, join
from .problems import remaining

MAGIC = b'#!AER-DAT4.0\r\n'
LZ4, ZSTD = (1, 2), (3, 4)
# Levels of the XML text, of which cameras need fewer than ten.
MAX_DEPTH = 100
# Packets may unpack to this much, or more than that if the file is larger than a 200th of it.
MIN_UNPACKED, MAX_RATIO = 2**26, 200
MAX_BLOCK = 2**17  # of ZSTD


class _Header(NamedTuple):
    """What stands before the packets.

    - ``compression``: 0 is none, see ``LZ4`` and ``ZSTD``.
    - ``table``: where the table behind the packets starts, -1 where there is none.
    - ``data``: the bytes of the header, which say that there is no such table.
    """

    compression: int
    table: int
    data: bytes


def import_aedat():
    """The package.

    Raises:
        DatasetError: It is not installed.
    """
    try:
        import aedat
    except ImportError as error:
        raise DatasetError(
            "AEDAT 4 files need the package aedat: pip install 'mmsnn[events]'"
        ) from error
    return aedat


def _read_header(file: BinaryIO, path: str) -> _Header:
    """Read the table of the header, and leave the file at the first packet."""
    file.seek(len(MAGIC))
    prefix = file.read(4)
    length = int.from_bytes(prefix, 'little')
    try:
        if length > remaining(file):
            raise ValueError('truncated')
        data = file.read(length)
        compression, table, place = _parse_header(data)
        if place:  # of a file of some packets, there is no table behind them
            data = data[:place] + struct.pack('<q', -1) + data[place + 8 :]
        return _Header(compression, table, MAGIC + prefix + data)
    except (ValueError, struct.error, expat.ExpatError) as error:
        raise DatasetError(
            f'{path} is truncated or broken in its header. Fetch it again'
        ) from error


def _parse_header(data: bytes) -> tuple[int, int, int]:
    """Parse a FlatBuffer: a table of compression, place of the table of packets, and XML text.

    Returns:
        The compression, the place, and where in the data that is said; 0 where it isn't.
    """

    def value(kind, at):
        if at < 0:
            raise ValueError('an offset leads out of the header')
        return struct.unpack_from(kind, data, at)[0]

    root = value('<I', 0)
    vtable = root - value('<i', root)
    fields = (value('<H', vtable) - 4) // 2

    def place(number):
        at = value('<H', vtable + 4 + 2 * number) if number < fields else 0
        return root + at if at else 0

    def field(number, kind, default):
        at = place(number)
        return value(kind, at) if at else default

    if fields < 3 or not value('<H', vtable + 8):
        raise ValueError('no text')
    text = root + value('<H', vtable + 8)
    text += value('<I', text)
    end = text + 4 + value('<I', text)
    if end > len(data):
        raise ValueError('the text leads out of the header')
    _check_xml(data[text + 4 : end].decode('utf-8'))
    return field(0, '<i', 0), field(1, '<q', -1), place(1)


def _check_xml(text: str) -> None:
    """Check that an XML text is whole and not too deep: the package recurses until it crashes."""
    depth = 0

    def enter(*_):
        nonlocal depth
        depth += 1
        if depth > MAX_DEPTH:
            raise ValueError('too many levels')

    def leave(*_):
        nonlocal depth
        depth -= 1

    def refuse(*_):
        raise ValueError('it defines a type of its own')

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = enter, leave
    parser.StartDoctypeDeclHandler = refuse
    parser.Parse(text, True)


def _find_packets(file: BinaryIO, header: _Header, path: str) -> list[tuple[int, int, int]]:
    """Find the packets, and check that they fill the file and don't unpack to far more than it has.

    Returns:
        For each, its place, its length and the number of its stream.
    """
    packets = []
    size = os.fstat(file.fileno()).st_size
    end = size if header.table < file.tell() else header.table
    at, unpacked = file.tell(), 0
    while at < end:
        file.seek(at)
        start = file.read(8 + 18)
        if len(start) < 8:
            break
        stream, length = struct.unpack_from('<iI', start)
        if header.compression == 0 and length < 12:  # the package panics, with a page of output
            break
        said = _unpacked_bytes(start[8:], header.compression)
        if not said and header.compression in ZSTD and at + 8 + length <= end:
            file.seek(at + 8)
            said = _bytes_of_blocks(file.read(length))
        unpacked += max(length, said)
        packets.append((at, 8 + length, stream))
        at += 8 + length
    if at != end or end > size:
        raise DatasetError(
            f'{path} is truncated or broken: its packets do not end as they say. Fetch it again'
        )
    _check_claim(unpacked, size, path)
    return packets


def _check_claim(unpacked: int, size: int, path: str) -> None:
    if unpacked > _most_unpacked(size):
        raise DatasetError(
            f'{path} has {size} bytes, but claims to unpack to {unpacked} bytes. Fetch it again'
        )


def _most_unpacked(size: int) -> int:
    return max(MIN_UNPACKED, MAX_RATIO * size)


def _unpacked_bytes(start: bytes, compression: int) -> int:
    """What the header of an LZ4 or ZSTD frame says that it unpacks to; 0 where it says nothing."""
    if len(start) < 5:
        return 0
    flags = start[4]
    if compression in LZ4 and flags & 8:
        return int.from_bytes(start[6:14], 'little')
    if compression in ZSTD:
        single = flags >> 5 & 1
        at = 5 + (1 - single) + (0, 1, 2, 4)[flags & 3]
        width = (single, 2, 4, 8)[flags >> 6]
        return int.from_bytes(start[at : at + width], 'little')
    return 0


def _bytes_of_blocks(frame: bytes) -> int:
    """What a ZSTD frame that says nothing of its size unpacks to, by the headers of its blocks.

    A compressed block holds no more than 128 KiB, and all but the last are full: that one is left
    out, so that many small frames don't count for more than they are.
    Source: RFC 8878, sections 3.1.1.1 and 3.1.1.2.
    """
    if len(frame) < 5:
        return 0
    single, dictionary = frame[4] >> 5 & 1, (0, 1, 2, 4)[frame[4] & 3]
    at, total, last = 5 + (1 - single) + dictionary, 0, 0
    while not last and at + 3 <= len(frame):
        head = int.from_bytes(frame[at : at + 3], 'little')
        last, kind, size = head & 1, head >> 1 & 3, head >> 3
        if kind == 2:  # compressed
            total += 0 if last else MAX_BLOCK
        else:  # as it is, or one byte many times
            total += size
        at += 3 + (1 if kind == 1 else size)
    return total


def _call(path, function, *args):
    """Call the package, whose panics are no Exception."""
    try:
        return function(*args)
    except BaseException as error:
        if not isinstance(error, RuntimeError) and type(error).__name__ != 'PanicException':
            raise
        raise DatasetError(f'{path} is truncated or broken: {error}. Fetch it again') from error


def _open(file, path):
    """The package's decoder, the number of the first stream of events, and its size."""
    decoder = _call(path, import_aedat().Decoder, path)
    streams = _call(path, decoder.id_to_stream)
    events = [number for number, stream in streams.items() if stream['type'] == 'events']
    if not events:
        raise DatasetError(f'{path} has no stream of events')
    first = min(events)
    return decoder, first, (streams[first]['width'], streams[first]['height'])


def aedat4_head(file, path):
    """Read the header; how many events there are is not known before they are unpacked."""
    import_aedat()
    _read_header(file, path)
    return min(1, remaining(file)), _open(file, path)[2]


def _decode(decoder, stream: int, path: str, size: int) -> Iterator[np.ndarray]:
    """The events of each packet of a stream, as long as they stay in proportion to the file."""
    unpacked, packets = 0, iter(decoder)
    while True:
        packet = _call(path, next, packets, None)
        if packet is None:
            return
        if packet['stream_id'] != stream:
            continue
        yield packet['events']
        unpacked += packet['events'].nbytes
        if unpacked > _most_unpacked(size):
            raise DatasetError(
                f'{path} has {size} bytes, but unpacks to more than {_most_unpacked(size)} bytes. '
                'Fetch it again'
            )


def aedat4_blocks(file, path):
    """Open the first stream of events.

    The package reads a file from its beginning to its end. It does so once, to find when each
    packet begins; then it gets the packets of a window as a small file of their own.
    """
    import_aedat()
    header = _read_header(file, path)
    found = _find_packets(file, header, path)
    decoder, stream, size = _open(file, path)
    places = [place for place in found if place[2] == stream]
    file_bytes = os.fstat(file.fileno()).st_size
    packets, counts = [], 0
    for events in _decode(decoder, stream, path, file_bytes):
        if counts == len(places):
            raise DatasetError(f'{path} is broken: it has more packets than places. Fetch it again')
        at, length, _ = places[counts]
        counts += 1
        if len(events):
            packets.append(Packet(at, length, int(events['t'][0])))
    if counts != len(places):
        raise DatasetError(
            f'{path} is truncated or broken: {len(places) - counts} of its packets have no events '
            'that can be read. Fetch it again'
        )

    def decode(part):
        if not part:
            return join([])
        with tempfile.NamedTemporaryFile(suffix='.aedat4') as some:
            some.write(header.data)
            for packet in part:
                # Not by seek and read: processes that fork share the place in the file.
                some.write(os.pread(file.fileno(), packet.length, packet.at))
            some.flush()
            own = _call(path, import_aedat().Decoder, some.name)
            events = np.concatenate(list(_decode(own, stream, path, file_bytes)))
        # The fields are int16 in the file; the package gives them unsigned.
        x, y = events['x'].astype(np.int16), events['y'].astype(np.int16)
        return x, y, events['t'], events['on'].astype(np.uint8)

    return PacketBlocks(packets, decode, size)

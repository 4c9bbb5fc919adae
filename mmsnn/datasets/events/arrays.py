"""NumPy's .npy and .npz: what a header claims is checked before memory is taken for it.

``numpy.load`` allocates first and, of an archive, checks no CRC: it stops reading at the end of
the array, before the end of the member, where the CRC is compared.
"""

import io
import math
import os
import shutil
import tempfile
import zipfile
from typing import BinaryIO, Literal, NamedTuple, Union

import numpy as np

from ..errors import DatasetError
from .blocks import MappedArray, SlicedBlocks, whole_blocks
from .problems import expect, remaining

# NumPy refuses longer headers as well.
HEAD_BYTES = 2**14
# What events take here in memory besides their arrays, see Events.
EVENT_BYTES = 17
# An archive may claim this much, or more than that if it is itself larger than a 200th of it:
# packed, an event of a camera takes a byte or more.
MIN_CLAIM, MAX_RATIO = 2**26, 200


class ArrayHead(NamedTuple):
    """What stands before the data of an array.

    - ``shape``, ``is_fortran``, ``dtype``: of the array.
    - ``offset``: bytes before the data.
    """

    shape: tuple[int, ...]
    is_fortran: bool
    dtype: np.dtype
    offset: int

    @property
    def nbytes(self) -> int:
        """Of the data."""
        return math.prod(self.shape) * self.dtype.itemsize


def _parse_head(start: bytes) -> ArrayHead:
    file = io.BytesIO(start)
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise ValueError(f'unknown version {version} of .npy')
    # 3.0 differs from 2.0 in the letters that names of fields may have.
    read = np.lib.format.read_array_header_1_0
    shape, is_fortran, dtype = (read if version == (1, 0) else np.lib.format.read_array_header_2_0)(
        file
    )
    if any(side < 0 for side in shape):
        raise ValueError(f'negative shape {shape}')
    return ArrayHead(shape, is_fortran, dtype, file.tell())


def _as_array(head: ArrayHead, data: Union[bytes, memoryview]) -> np.ndarray:
    values = np.frombuffer(data, head.dtype)
    if head.is_fortran:
        return values.reshape(head.shape, order='F')
    return values.reshape(head.shape)


# --- members of an archive -----------------------------------------------------------------------


def open_archive(file: BinaryIO) -> dict[str, tuple[zipfile.ZipFile, zipfile.ZipInfo]]:
    """The arrays of a .npz by name, none of them read."""
    archive = zipfile.ZipFile(file)
    return {
        info.filename[: -len('.npy')]: (archive, info)
        for info in archive.infolist()
        if info.filename.endswith('.npy')
    }


def member_head(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> ArrayHead:
    """The head of an array in an archive.

    Raises:
        Exception: Nearly any, where the archive is broken.
    """
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # The other methods unpack as much as there is, at once. NumPy writes these two.
        raise ValueError(f'{info.filename} is packed by method {info.compress_type}')
    assert archive.fp is not None  # it is open
    if info.compress_size > os.fstat(archive.fp.fileno()).st_size:
        raise ValueError(f'{info.filename} claims to be larger than the archive')
    with archive.open(info) as member:
        return _parse_head(member.read(HEAD_BYTES))


def read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, head: ArrayHead) -> np.ndarray:
    """Read an array of an archive, whose head was checked, and compare its CRC.

    Raises:
        Exception: Nearly any, where the archive is broken.
    """
    with archive.open(info) as member:
        data = member.read(head.offset + head.nbytes)
        # Only at its end is a member's CRC compared.
        if len(data) != head.offset + head.nbytes or member.read(1):
            raise ValueError(f'{info.filename} does not hold the {head.nbytes} bytes of its shape')
    return _as_array(head, memoryview(data)[head.offset :])


def unpack_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, head: ArrayHead) -> np.ndarray:
    """As :func:`read_member`, into a file without a name, so that the array takes no memory."""
    with archive.open(info) as member, tempfile.TemporaryFile() as file:
        shutil.copyfileobj(member, file, 2**20)  # to its end, where the CRC is compared
        if file.tell() != head.offset + head.nbytes:
            raise ValueError(f'{info.filename} does not hold the {head.nbytes} bytes of its shape')
        order: Literal['F', 'C'] = 'F' if head.is_fortran else 'C'
        file.flush()
        return np.memmap(file, head.dtype, 'r', head.offset, head.shape, order)


# --- events --------------------------------------------------------------------------------------


def _check_numbers(name, dtype, path):
    if dtype.hasobject:
        raise DatasetError(
            f'{path}: {name} holds Python objects, which are not opened: they could run code. '
            'Save it as an array of numbers'
        )
    if dtype.kind not in 'biuf':
        raise DatasetError(f'{path}: {name} has the dtype {dtype}, expected numbers')


def _check_table(head: ArrayHead, path: str) -> int:
    """Check one array that holds all four columns; returns the number of events."""
    names, shape, dtype = head.dtype.names, head.shape, head.dtype
    if names and set('xytp') <= set(names) and len(shape) == 1:
        for name in 'xytp':
            _check_numbers(name, dtype[name], path)
    elif names is None and len(shape) == 2 and shape[1] == 4:
        _check_numbers('x', dtype, path)
    else:
        raise DatasetError(
            f'{path} holds an array of shape {shape} and dtype {dtype}. Expected: one '
            'dimension with the fields x, y, t, p, or (N, 4) with the columns x, y, t, p'
        )
    return shape[0]


def _columns(table: np.ndarray) -> tuple[np.ndarray, ...]:
    return tuple(table[name] for name in 'xytp') if table.dtype.names else tuple(table.T)


def _npy_head(file, path):
    expect(file.peek(6)[:6] == b'\x93NUMPY', path, '.npy (it does not start as numpy does)')
    head = _parse_head(file.read(HEAD_BYTES))
    file.seek(head.offset)
    number = _check_table(head, path)
    there = remaining(file)
    if there != head.nbytes:
        raise DatasetError(
            f'{path} is {"truncated" if there < head.nbytes else "broken"}: its shape '
            f'{head.shape} takes {head.nbytes} bytes, but {there} follow. Fetch it again'
        )
    return head, number


def npy_head(file, path):
    """One array, which says no size of the sensor."""
    return _npy_head(file, path)[1], None


def npy_blocks(file, path):
    """Open a structured array or rows; a Fortran-ordered one has its columns one after another."""
    head, number = _npy_head(file, path)
    if head.is_fortran and head.dtype.names is None:
        step = number * head.dtype.itemsize
        parts = [MappedArray(file, head.dtype, head.offset + k * step) for k in range(4)]
        return SlicedBlocks(number, lambda i, j: tuple(part[i:j] for part in parts))
    table = MappedArray(file, head.dtype, head.offset, head.shape[1:])
    return SlicedBlocks(number, lambda i, j: _columns(table[i:j]))


def _npz_heads(file, path):
    """The members with events, the number of events, and what is said of the sensor."""
    expect(file.peek(2)[:2] == b'PK', path, '.npz (it does not start as a ZIP archive)')
    members = open_archive(file)
    size = members.pop('sensor_size', None)
    if set('xytp') <= set(members):
        wanted = {name: members[name] for name in 'xytp'}
    elif len(members) == 1:
        wanted = members
    else:
        raise DatasetError(
            f'{path} holds the arrays {", ".join(sorted(members)) or "none"}. Expected: x, y, t, p'
        )
    heads = {name: member_head(*member) for name, member in wanted.items()}
    if len(wanted) == 1:
        ((_, head),) = heads.items()
        number = _check_table(head, path)
    else:
        for name, head in heads.items():
            _check_numbers(name, head.dtype, path)
        shapes = [head.shape for head in heads.values()]
        if len(set(shapes)) > 1 or len(shapes[0]) != 1:
            raise DatasetError(
                f'{path}: x, y, t, p have the shapes {shapes}. Expected: one dimension, the same '
                'length'
            )
        number = shapes[0][0]
    file_bytes = os.fstat(file.fileno()).st_size
    claim = sum(head.nbytes for head in heads.values()) + EVENT_BYTES * number
    if claim > max(MIN_CLAIM, MAX_RATIO * file_bytes):
        raise DatasetError(
            f'{path} has {file_bytes} bytes, but claims {number} events, which take {claim} bytes. '
            'Fetch it again'
        )
    return [(wanted[name], head) for name, head in heads.items()], number, _said_size(size)


def _said_size(member):
    """What an archive says of its sensor, right or wrong."""
    if member is None:
        return None
    head = member_head(*member)
    if head.dtype.kind not in 'biuf' or head.nbytes > 64:
        return f'an array of shape {head.shape} and dtype {head.dtype}'
    return read_member(*member, head).tolist()


def npz_head(file, path):
    """The heads of the arrays."""
    return _npz_heads(file, path)[1:]


def npz_blocks(file, path):
    """Open the arrays that hold events, and no other, each unpacked once."""
    members, _, size = _npz_heads(file, path)
    arrays = [
        read_member(*member, head) if head.nbytes <= MIN_CLAIM else unpack_member(*member, head)
        for member, head in members
    ]
    columns = tuple(arrays) if len(arrays) > 1 else _columns(arrays[0])
    return whole_blocks(columns, size)

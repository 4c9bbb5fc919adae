"""Spikes as bits, in memory order."""

import math
from typing import Optional

import torch
from torch import Tensor

from ..backends.base import Backend
from ..checks import check_bits
from ..dispatch import choose
from ..layout import is_dense
from .base import define


def _pack(x, rows, backend: Optional[Backend] = None):
    if not is_dense(x):
        raise ValueError(f'pack_spikes takes dense tensors, got strides {x.stride()}')
    if rows < 1 or x.numel() % rows:
        raise ValueError(f'{x.numel()} spikes are not {rows} rows of one length')
    bits = _pack_fake(x, rows)
    if not (backend or choose('pack', x)).pack(x, rows, bits):
        raise ValueError('only zeros and ones fit in a bit, got a tensor with other values')
    return bits


def _pack_fake(x, rows):
    return x.new_empty(rows, (x.numel() // rows + 7) // 8, dtype=torch.uint8)


pack_spikes = define('pack_spikes(Tensor x, int rows) -> Tensor', _pack, _pack_fake)


def _unpack(bits, size, stride, dtype, backend: Optional[Backend] = None):
    check_bits(bits, 1, math.prod(size))
    x = _unpack_fake(bits, size, stride, dtype)
    if not is_dense(x):
        raise ValueError(f'unpack_spikes gives dense tensors, not the strides {tuple(stride)}')
    (backend or choose('unpack', x)).unpack(bits.contiguous(), x)
    return x


def _unpack_fake(bits, size, stride, dtype):
    return torch.empty_strided(size, stride, dtype=dtype, device=bits.device)


unpack_spikes = define(
    'unpack_spikes(Tensor bits, SymInt[] size, SymInt[] stride, ScalarType dtype) -> Tensor',
    _unpack,
    _unpack_fake,
)


def pack_or_keep(x: Tensor, rows: int = 1) -> Tensor:
    """Bits where `x` is spikes, `x` itself where it isn't.

    A graph can't branch on values: under torch.compile, anything but spikes is an error.
    """
    if not is_dense(x):
        x = x.contiguous()
    try:
        return pack_spikes(x, rows)
    except ValueError:
        return x

"""The torch.library operators: what torch.compile, torch.export and autograd see of the kernels.

Every operator runs without a kernel too, on the reference, so that a program exported on one
machine runs on any.
"""

from . import bits, bits_conv, boxes, decode, ilif, lif, lif_pool, pool
from .base import is_traced, is_watched
from .bits import pack_or_keep, pack_spikes, unpack_spikes

__all__ = [
    'bits',
    'bits_conv',
    'boxes',
    'decode',
    'ilif',
    'is_traced',
    'is_watched',
    'lif',
    'lif_pool',
    'pack_or_keep',
    'pack_spikes',
    'pool',
    'unpack_spikes',
]

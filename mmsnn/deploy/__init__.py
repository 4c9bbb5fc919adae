"""Models made ready for inference."""

from .fold import fold
from .fuse import PRECISIONS, fuse, resolve_precision
from .spike_conv import IntegerSpikeConv2d

__all__ = ['PRECISIONS', 'IntegerSpikeConv2d', 'fold', 'fuse', 'resolve_precision']

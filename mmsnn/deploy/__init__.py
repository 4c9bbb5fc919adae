"""Models made ready for inference."""

from .fold import fold
from .fuse import PRECISIONS, fuse, has_amx, resolve_precision
from .integer_conv import IntegerConv2d

__all__ = ['PRECISIONS', 'IntegerConv2d', 'fold', 'fuse', 'has_amx', 'resolve_precision']

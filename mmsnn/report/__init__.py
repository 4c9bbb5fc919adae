"""One page of everything measured: how good, how sparse, at what cost, and what went wrong."""

from .collect import collect
from .compare import CompareError, Report, compare, read_report
from .page import find_number, format_number, render, write

__all__ = [
    'CompareError',
    'Report',
    'collect',
    'compare',
    'find_number',
    'format_number',
    'read_report',
    'render',
    'write',
]

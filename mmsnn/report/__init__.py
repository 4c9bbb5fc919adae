"""One page of everything measured: how good, how sparse, at what cost, and what went wrong."""

from .collect import collect
from .page import find_number, format_number, render, write

__all__ = ['collect', 'find_number', 'format_number', 'render', 'write']

"""What the stack prints that is not so, or that nobody can act on."""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TextIO


class _Without:
    """A stream that leaves out lines with known beginnings."""

    def __init__(self, stream: TextIO, starts: tuple[str, ...]):
        self._stream = stream
        self._starts = starts
        self._line_open = False  # print() writes a line and its end apart

    def write(self, text: str) -> int:
        if self._line_open and text == '\n':
            self._line_open = False
            return 1
        left_out = text.startswith(self._starts)
        self._line_open = left_out and not text.endswith('\n')
        return len(text) if left_out else self._stream.write(text)

    def __getattr__(self, name: str):
        return getattr(self._stream, name)


@contextmanager
def without_lines(*starts: str) -> Iterator[None]:
    """Leave lines out of what is printed meanwhile.

    Args:
        *starts: How the lines begin.
    """
    if sys.stdout is None:  # a process without a console
        yield
        return
    with redirect_stdout(_Without(sys.stdout, starts)):
        yield


@contextmanager
def quiet_import() -> Iterator[None]:
    """Import the stack without what it says of parts that nobody asked for."""
    # Of one metric, CocoFastMetric, without which all others are computed as ever. It stays: the
    # module may be imported again by name.
    message = 'faster_coco_eval is not installed, metrics will not be computed'
    warnings.filterwarnings('ignore', message=message)
    # Printed twice by onedl's MMDetection, as a debug message that has no logger. The data sets
    # are those of a service.
    with without_lines('Could not import OneDL. Skipping OneDL datasets.'):
        yield


@contextmanager
def quiet_coco() -> Iterator[None]:
    """Build data sets in COCO format without what pycocotools prints of each."""
    with without_lines(
        'loading annotations into memory...', 'Done (t=', 'creating index...', 'index created!'
    ):
        yield

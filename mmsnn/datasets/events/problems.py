"""Say what is wrong with event files; the formats' readers use it."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import BinaryIO

from rich.progress import track

from ..errors import DatasetError

# From about this many files on, a check takes seconds and shows its progress.
PROGRESS_FROM = 3000
# Of more files than this, an even sample is looked at.
MAX_OPENED = 100_000


@contextmanager
def blame(path: str) -> Iterator[None]:
    """Say of whatever is raised while a file is parsed that it is the file's fault.

    Parsing garbage can end in nearly any exception, and which one differs between releases of
    Python and NumPy.

    Raises:
        DatasetError: In place of any other exception.
    """
    try:
        yield
    except DatasetError:
        raise
    except MemoryError as error:
        raise DatasetError(f'{path}: its events do not fit into the memory') from error
    except OSError as error:
        raise DatasetError(f'{path} cannot be read: {error.strerror or error}') from error
    except Exception as error:
        text = ' '.join(str(error).split())  # in one line
        raise DatasetError(
            f'{path} is truncated or broken: {type(error).__name__}: {text}. Fetch it again'
        ) from error


def expect(condition: bool, path: str, expected: str) -> None:
    """Raise a :class:`DatasetError` for a file that is not of its format."""
    if not condition:
        raise DatasetError(f'{path} is not a file of the format {expected}. Fetch it again')


def remaining(file: BinaryIO) -> int:
    """Bytes from the place in the file to its end."""
    return os.fstat(file.fileno()).st_size - file.tell()


def whole_events(file: BinaryIO, event_bytes: int, path: str) -> int:
    """Number of the events, of a fixed size each, from the place in the file to its end."""
    number_of_bytes = remaining(file)
    if number_of_bytes % event_bytes:
        raise DatasetError(
            f'{path} is truncated: {number_of_bytes} bytes of events are not a multiple of the '
            f'{event_bytes} bytes of one event. Fetch it again'
        )
    return number_of_bytes // event_bytes


def check_all(paths: Sequence[str], check: Callable[[str], object]) -> None:
    """Look at all files; of very many, at an even sample.

    Args:
        paths: The files.
        check: Takes a path and raises a :class:`DatasetError` if something is wrong with it.

    Raises:
        DatasetError: The first that was raised. Where there are more, it says how many.
    """
    paths = paths[:: -(-len(paths) // MAX_OPENED) or 1]

    def problem(path):
        try:
            check(path)
        except DatasetError as error:
            return str(error)

    # The time goes into waiting for the disk, or for the network behind it.
    with ThreadPoolExecutor(16) as pool:
        problems = track(
            pool.map(problem, paths),
            description='Checking recordings',
            total=len(paths),
            disable=len(paths) < PROGRESS_FROM,
        )
        bad = [(path, problem) for path, problem in zip(paths, problems) if problem]
    if bad:
        others = [path for path, _ in bad[1:]]
        more = (
            f'. {len(others)} more of the {len(paths)} recordings cannot be used either: '
            f'{", ".join(others[:2])}{", ..." if len(others) > 2 else ""}'
            if others
            else ''
        )
        raise DatasetError(f'{bad[0][1]}{more}')

"""Open the files of data sets."""

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path
from typing import Union

# Of a label in a list: more do not fit into its integers, and Python refuses to read thousands.
MAX_DIGITS = 9


def open_file(path: Union[str, Path]) -> BufferedReader:
    """Open a regular file to read its bytes.

    Args:
        path: The file.

    Returns:
        The open file.

    Raises:
        OSError: It cannot be read, or is a folder, a pipe or a device: reading those may wait for
            ever or never end.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, 'it is no regular file', os.fspath(path))
    return open(path, 'rb')


def is_by_product(name: str) -> bool:
    """Whether a name in a folder is no part of the data: hidden, or left by macOS.

    macOS puts a ``._NAME`` beside a file on foreign disks, and both into a ``__MACOSX`` folder of
    archives.

    Args:
        name: The last part of a path.
    """
    return name.startswith('.') or name == '__MACOSX'

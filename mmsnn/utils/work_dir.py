"""One run at a time in a work directory."""

import os
import socket

from .cli import ToolError, is_first_process

_NAME = '.lock'


def lock_work_dir(work_dir: str) -> None:
    """Keep other runs out of a work directory until this process ends, however it ends.

    Of a run with several processes the first one does it. The lock is the operating system's:
    the file ``.lock`` may stay behind, and means nothing without a process.

    Args:
        work_dir: Where the run will save; made if it isn't there.

    Raises:
        ToolError: Another run is at work there, or the folder can't be written to.
    """
    if not is_first_process():
        return
    try:
        import fcntl
    except ImportError:  # Windows
        return
    path = os.path.join(work_dir, _NAME)
    try:
        os.makedirs(work_dir, exist_ok=True)
        # Never closed: that would release the lock.
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise ToolError(
            f'work_dir {work_dir} cannot be written to: {error.strerror}. Choose another folder '
            'with --work-dir'
        ) from error
    try:
        # Of the two kinds of lock the one that belongs to a process: workers that are forked
        # don't keep it alive when their parent is killed.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        holder = os.pread(file, 1000, 0).decode(errors='replace')
        os.close(file)
        raise ToolError(
            f'{work_dir} is in use: {holder or "another process"} is training there, and the two '
            'runs would overwrite each other. Choose another folder with --work-dir, or wait'
        ) from error
    except OSError as error:
        print(
            f'mmsnn: {work_dir} lies on a file system without locks ({error.strerror}): start no '
            'second run there'
        )
        return
    os.ftruncate(file, 0)
    os.pwrite(file, f'process {os.getpid()} on {socket.gethostname()}'.encode(), 0)

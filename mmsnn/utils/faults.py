"""What ends a run from outside: a full disk, a file that is gone, a worker that was killed."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Optional

from .cli import ToolError

_GO_ON = 'then go on with the same command and --resume'
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def faults_in_one_line() -> Iterator[None]:
    """Turn what the machine did to a run into one message.

    Raises:
        ToolError: With the file or the worker, and what to do.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        message = _explain(error)
        if message is None:
            raise
        raise ToolError(message) from error


def _explain(error: Exception) -> Optional[str]:
    text = str(error)
    worker = re.search(r'DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (.*)', text)
    if worker:
        happened = worker[2].partition('. ')[0].strip().rstrip('.')
        return (
            f'a data-loader worker (process {worker[1]}) {happened}; most often memory had run '
            'out. Lower train_dataloader.num_workers or batch_size (in a container, raise its '
            f'shared memory: docker run --shm-size), {_GO_ON}'
        )
    if isinstance(error, RuntimeError) and 'No space left on device' in text:
        return (
            f'shared memory is full ({text.splitlines()[0]}): lower train_dataloader.num_workers '
            f'or batch_size, or raise the shared memory (docker run --shm-size), {_GO_ON}'
        )
    if not isinstance(error, OSError):
        return None
    if error.errno in _FULL:
        return (
            f'{error.filename or "a file"} cannot be written: {error.strerror}. The checkpoints '
            f'saved before are kept. Make room, {_GO_ON}'
        )
    if error.filename is not None:
        return f'{error.filename}: {error.strerror}. Mend it, {_GO_ON}'
    # From a worker an error comes as text: its traceback, which ends with the error's own line.
    last = text.strip().splitlines()[-1] if text.strip() else ''
    found = re.search(r'\[Errno \d+\] (.*): (\'.*\'|".*")$', last)
    return f'{found[2][1:-1]}: {found[1]}. Mend it, {_GO_ON}' if found else None

"""Tensors in memory between two pages that nobody may touch, for a process of their own.

    python tests/helpers/guards.py TEST_FILE

calls `guarded` of a test file; what reads or writes beyond a tensor there ends the process.
"""

import ctypes
import importlib.util
import mmap
import subprocess
import sys

import torch

DONE = 'nothing else was touched'
_kept = []


def between_guards(x, at_end):
    """A copy whose bytes end, or begin, where such a page does."""
    libc, page = ctypes.CDLL(None, use_errno=True), mmap.PAGESIZE
    size = x.numel() * x.element_size()
    count = -(-size // page) + 2
    memory = mmap.mmap(-1, count * page)
    _kept.append(memory)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    offset = (count - 1) * page - size if at_end else page
    there = torch.frombuffer(memory, dtype=x.dtype, count=x.numel(), offset=offset)
    there.copy_(x.flatten())
    for guard in (start, start + (count - 1) * page):
        assert libc.mprotect(ctypes.c_void_p(guard), page, 0) == 0
    return there.view(x.shape)


def maps(x, at_end):
    """The same of maps (..., C, H, W) whose channels come last in memory."""
    return between_guards(x.movedim(-3, -1).contiguous(), at_end).movedim(-1, -3)


def check(file):
    """Run `guarded` of a test file in another process.

    Raises:
        AssertionError: It ended before its end.
    """
    done = subprocess.run(
        [sys.executable, __file__, file], capture_output=True, text=True, check=False
    )
    assert DONE in done.stdout, (done.returncode, done.stderr[-2000:])


if __name__ == '__main__':
    spec = importlib.util.spec_from_file_location('guarded', sys.argv[1])
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.guarded()
    print(DONE)

"""Interleaved timing, and the peak memory of a call."""

import argparse
import contextlib
import ctypes
import gc
import time
from collections.abc import Callable, Sequence
from typing import Optional

import torch

MB = 2**20
#: Rounds that a group always gets, whatever they take.
MIN_ROUNDS = 3


def positive(text: str) -> int:
    """A whole number from 1."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'{text!r} is no whole number from 1')
    return int(text)


def synchronize(device: str) -> None:
    """Wait for what was launched; a CPU call has returned when it is done."""
    if device == 'cuda':
        torch.cuda.synchronize()


def interleave(
    runs: Sequence[Callable[[], None]],
    rounds: int,
    seconds: float,
    device: str = 'cpu',
) -> list[list[float]]:
    """Seconds of every call, measured in turn.

    Every round runs every case once, so that what slows the machine for a while slows all of them.

    Args:
        runs: What to time, warmed up already.
        rounds: Rounds, at most.
        seconds: No further round starts after this long, but ``MIN_ROUNDS`` are always run.
        device: ``'cpu'`` or ``'cuda'``.

    Returns:
        One list of seconds a case.
    """
    times = [[] for _ in runs]
    begin = time.perf_counter()
    for i in range(rounds):
        if i >= MIN_ROUNDS and time.perf_counter() - begin > seconds:
            break
        for run, taken in zip(runs, times):
            synchronize(device)
            start = time.perf_counter()
            run()
            synchronize(device)
            taken.append(time.perf_counter() - start)
    return times


def peak_memory(run: Callable[[], None], device: str = 'cpu') -> Optional[float]:
    """Most memory in MB that a call holds beyond what was held before it.

    On a CPU it is the growth of the process's resident set, whose high-water mark Linux sets back
    on request.

    Args:
        run: The call, warmed up already.
        device: ``'cpu'`` or ``'cuda'``.

    Returns:
        MB, or None where the system can't tell.
    """
    gc.collect()
    if device == 'cuda':
        synchronize(device)
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        synchronize(device)
        return (torch.cuda.max_memory_allocated() - before) / MB
    try:
        ctypes.CDLL(None).malloc_trim(0)
        with open('/proc/self/clear_refs', 'w') as file:
            file.write('5')  # proc(5): sets VmHWM back to VmRSS
    except (AttributeError, OSError):  # neither glibc nor Linux
        return None
    before = _status('VmRSS')
    run()
    return max(0, _status('VmHWM') - before) / MB


def peak_memories(builders: Callable[[], dict], device: str) -> dict:
    """Peak memory of each of several calls; to be run in a process of its own.

    There glibc is told from the start to map every tensor by itself, and so to give it back when it
    is freed. In a process that did other things before, tensors land in what these left of the
    heap, and the resident set grows by more, or less, than what is held.

    Args:
        builders: Gives what builds each call, by key.
        device: ``'cpu'`` or ``'cuda'``.

    Returns:
        MB by key, without those that couldn't be built or run.
    """
    m_mmap_threshold = -3  # mallopt(3)
    with contextlib.suppress(AttributeError):  # no glibc
        ctypes.CDLL(None).mallopt(m_mmap_threshold, 64 * 2**10)
    peaks = {}
    for key, build in builders().items():
        with contextlib.suppress(Exception):  # whoever times it finds it too, and says so
            run = build()
            run()
            peaks[key] = peak_memory(run, device)
        run = None
    return peaks


def limit_memory() -> None:
    """Let an allocation beyond the free memory fail, instead of the machine swap or kill."""
    try:
        import resource

        with open('/proc/meminfo') as file:
            free = next(int(line.split()[1]) for line in file if line.startswith('MemAvailable'))
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        limit = _status('VmData') + int(0.9 * free * 1024)
        if hard == resource.RLIM_INFINITY or limit < hard:
            resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    except (ImportError, OSError, StopIteration):  # not Linux: no limit
        return


def _status(field: str) -> int:
    """Bytes of a field of /proc/self/status."""
    with open('/proc/self/status') as file:
        return next(int(line.split()[1]) for line in file if line.startswith(f'{field}:')) * 1024

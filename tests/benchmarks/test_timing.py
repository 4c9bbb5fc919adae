"""Rounds are interleaved; peak memory is what a call holds at most, whatever was before it."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import timing
import torch


def test_rounds_are_interleaved():
    order = []
    times = timing.interleave([lambda: order.append('a'), lambda: order.append('b')], 4, 60)
    assert order == ['a', 'b'] * 4
    assert [len(t) for t in times] == [4, 4]


def test_slow_groups_get_few_rounds():
    times = timing.interleave([lambda: None], 50, 0)
    assert len(times[0]) == timing.MIN_ROUNDS


def test_no_more_rounds_than_asked_for():
    assert len(timing.interleave([lambda: None], 1, 60)[0]) == 1


def build(count: int):
    """A call that holds 64 MB, in this many tensors."""
    return lambda: [torch.ones(64 * 2**18 // count) for _ in range(count)]


def held_before():
    """A call that holds 1 MB, beside 64 MB that were there before it."""
    held = torch.ones(64 * 2**18)
    return lambda: held[: 2**18].clone()


def in_parts():
    """A call that holds 32 MB at a time, and three times that in all."""
    return lambda: [torch.ones(32 * 2**18).sum() for _ in range(3)]


def broken():
    """A call that can't be built."""
    raise RuntimeError


BUILDERS = dict(
    one=partial(build, 1),
    many=partial(build, 100),
    broken=broken,
    again=partial(build, 1),
    held_before=held_before,
    in_parts=in_parts,
)


def test_peak_memories():
    # In a process of its own, as in the benchmark.
    script = (
        f'import json, runpy, sys; sys.path.insert(0, {str(Path(timing.__file__).parent)!r})\n'
        f'builders = runpy.run_path({__file__!r})["BUILDERS"]\n'
        'import timing; print(json.dumps(timing.peak_memories(lambda: builders, "cpu")))'
    )
    done = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-1500:]
    peaks = json.loads(done.stdout)
    if None in peaks.values():
        pytest.skip('this system does not tell the peak of a process')
    expected = dict(one=64, many=64, again=64, held_before=1, in_parts=32)
    assert peaks == pytest.approx(expected, abs=3)

"""Timing is interleaved; memory is measured, and not twice."""

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


@pytest.mark.parametrize('count', [1, 100])
def test_peak_memory(count):
    def run():
        [torch.ones(64 * 2**18 // count) for _ in range(count)]

    peaks = [timing.peak_memory(run) for _ in range(3)]
    if None in peaks:
        pytest.skip('this system does not tell the peak of a process')
    # The second time too: what the first one freed must not hide it.
    assert peaks == pytest.approx([64] * 3, rel=0.1)


def test_peak_memory_is_of_the_call_alone():
    held = torch.ones(64 * 2**18)
    peak = timing.peak_memory(lambda: torch.ones(2**18))
    if peak is None:
        pytest.skip('this system does not tell the peak of a process')
    assert peak < 8
    assert held.sum() == held.numel()

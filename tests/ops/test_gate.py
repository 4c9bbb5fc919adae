import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsnn.ops import iand, select, spike_or

R = [0.0, 0.0, 1.0, 1.0]
S = [0.0, 1.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ('gate', 'expected'),
    [
        (spike_or, [0, 1, 1, 1]),
        (iand, [0, 1, 0, 0]),
    ],
)
def test_truth_table(gate, expected):
    assert gate(torch.tensor(R), torch.tensor(S)).tolist() == expected


def test_truth_table_of_select():
    g = torch.tensor([0.0] * 4 + [1.0] * 4)
    # G = 0 takes the shortcut, G = 1 the residual.
    assert select(g, torch.tensor(R + R), torch.tensor(S + S)).tolist() == S + R


def test_or_is_select_with_its_own_residual():
    r, s = torch.tensor(R), torch.tensor(S)
    assert torch.equal(spike_or(r, s), select(r, r, s))


@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    rate=st.floats(0, 1),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
)
@settings(max_examples=50, deadline=None)
def test_spikes_in_spikes_out(seed, shape, rate, dtype):
    rng = torch.Generator().manual_seed(seed)
    g, r, s = ((torch.rand(shape, generator=rng) < rate).to(dtype) for _ in range(3))
    for out in (select(g, r, s), spike_or(r, s), iand(r, s)):
        assert out.dtype == dtype
        assert bool(((out == 0) | (out == 1)).all())


@pytest.mark.parametrize(
    ('gate', 'by_r', 'by_s'),
    [
        (spike_or, lambda r, s: 1 - s, lambda r, s: 1 - r),
        (iand, lambda r, s: -s, lambda r, s: 1 - r),
    ],
)
def test_derivatives(gate, by_r, by_s):
    r = torch.tensor(R, requires_grad=True)
    s = torch.tensor(S, requires_grad=True)
    gate(r, s).sum().backward()
    assert torch.equal(r.grad, by_r(r, s))
    assert torch.equal(s.grad, by_s(r, s))


def test_derivatives_of_select():
    g = torch.tensor([0.0] * 4 + [1.0] * 4, requires_grad=True)
    r = torch.tensor(R + R, requires_grad=True)
    s = torch.tensor(S + S, requires_grad=True)
    select(g, r, s).sum().backward()
    assert torch.equal(g.grad, r - s)
    assert torch.equal(r.grad, g)
    assert torch.equal(s.grad, 1 - g)

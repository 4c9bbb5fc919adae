import itertools

import pytest
import torch

from mmsnn.ops import attention_decode, last_decode, rate_decode


def random_parts(steps, batch=2, channels=3, height=2, width=4, seed=0):
    rng = torch.Generator().manual_seed(seed)
    shapes = [
        (steps, batch, channels, height, width),
        (steps, batch),
        (steps, batch, channels),
        (steps, batch, height, width),
    ]
    spikes, *weights = (torch.rand(s, generator=rng, dtype=torch.float64) for s in shapes)
    return (spikes > 0.5).double(), *weights


def test_rate_and_last():
    spikes = torch.tensor([[1.0, 0.0, 1.0], [1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    assert rate_decode(spikes).tolist() == [0.75, 0.25, 0.5]
    assert last_decode(spikes).tolist() == [0.0, 0.0, 1.0]


@pytest.mark.parametrize('steps', [1, 2, 5])
def test_attention_against_loops(steps):
    spikes, a_t, a_c, a_s = random_parts(steps)
    expected = torch.zeros(spikes.shape[1:], dtype=torch.float64)
    for t, b, c, h, w in itertools.product(*map(range, spikes.shape)):
        expected[b, c, h, w] += a_t[t, b] * a_c[t, b, c] * a_s[t, b, h, w] * spikes[t, b, c, h, w]
    out = attention_decode(spikes, a_t, a_c, a_s)
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    by_name = torch.einsum('tb,tbc,tbhw,tbchw->bchw', a_t, a_c, a_s, spikes)
    torch.testing.assert_close(out, by_name, rtol=1e-12, atol=1e-12)


def test_neutral_weights_are_rate_coding():
    spikes, a_t, a_c, a_s = random_parts(4)
    out = attention_decode(
        spikes, torch.full_like(a_t, 1 / 4), torch.ones_like(a_c), torch.ones_like(a_s)
    )
    assert torch.equal(out, rate_decode(spikes))


def test_gradients():
    parts = [p.requires_grad_() for p in random_parts(2, 2, 2, 2, 2)]
    assert torch.autograd.gradcheck(attention_decode, parts)

import itertools
import warnings

import pytest
import torch

from mmsnn import ops
from mmsnn.ops import (
    attention_decode,
    attention_statistics,
    dispatch,
    last_decode,
    rate_decode,
)

BACKENDS = ['reference', *([] if dispatch.why_not('c') else ['c'])]
FORMATS = dict(contiguous=torch.contiguous_format, channels_last=torch.channels_last)
every_backend = pytest.mark.parametrize('name', BACKENDS)
every_dtype = pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.uint8])
every_layout = pytest.mark.parametrize('layout', ['contiguous', 'channels_last', 'other', 'holes'])
every_shape = pytest.mark.parametrize(
    'shape',
    [(1, 1, 1, 1, 1), (4, 2, 3, 5, 7), (2, 1, 300, 6, 3), (3, 2, 17, 20, 31), (5, 1, 64, 1, 2)],
    ids=str,
)


def laid_out(x, layout):
    """(T, B, C, H, W) with steps in this layout."""
    if layout == 'channels_last':
        return x.flatten(0, 1).contiguous(memory_format=torch.channels_last).view_as(x)
    if layout == 'other':
        return x.transpose(2, 3).contiguous().transpose(2, 3)
    if layout == 'holes':
        return torch.stack([x, x], 1)[:, 0]
    return x


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


@every_backend
@every_dtype
@every_layout
@every_shape
def test_inference_against_float64(name, dtype, layout, shape):
    exact = random_parts(*shape)
    spikes = laid_out(exact[0].to(dtype), layout)
    weights = [w.float() for w in exact[1:]]
    with ops.use_backend(name), torch.no_grad():
        out = attention_decode(spikes, *weights)
        rate = rate_decode(spikes)
        statistics = attention_statistics(spikes)
        halves = attention_decode(spikes, *(w.bfloat16() for w in weights))
    assert out.dtype == torch.float32
    assert halves.dtype == torch.bfloat16
    assert rate.dtype == (torch.bfloat16 if dtype == torch.bfloat16 else torch.float32)
    expected = torch.einsum('tb,tbc,tbhw,tbchw->bchw', *exact[1:], exact[0])
    torch.testing.assert_close(out.double(), expected, rtol=1e-6, atol=1e-12)
    tolerance = 2**-8 if name != 'reference' else 2**-5
    wide = [w.bfloat16().double() for w in exact[1:]]
    expected = torch.einsum('tb,tbc,tbhw,tbchw->bchw', *wide, exact[0])
    torch.testing.assert_close(halves.double(), expected, rtol=tolerance, atol=1e-12)
    tolerance = 2**-8 if dtype == torch.bfloat16 else 1e-6
    torch.testing.assert_close(rate.double(), exact[0].mean(0), rtol=tolerance, atol=0)
    expected = exact[0].mean((3, 4)), exact[0].mean(2), exact[0].amax(2)
    for ours, theirs in zip(statistics, expected):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-6, atol=0)
    if layout in ('contiguous', 'channels_last'):
        assert out.is_contiguous(memory_format=FORMATS[layout])


@every_backend
def test_spikes_may_be_any_numbers(name):
    x = torch.randn(3, 2, 70, 40, 41, dtype=torch.float64)
    for layout in ('contiguous', 'channels_last'):
        with ops.use_backend(name):
            statistics = attention_statistics(laid_out(x.float(), layout))
            rate = rate_decode(laid_out(x.float(), layout))
        expected = x.mean((3, 4)), x.mean(2), x.amax(2)
        for ours, theirs in zip(statistics, expected):
            torch.testing.assert_close(ours.double(), theirs, rtol=1e-6, atol=1e-7)
        # Three summands of up to 5, each rounded to float32.
        torch.testing.assert_close(rate.double(), x.mean(0), rtol=1e-6, atol=5e-7)


@every_backend
def test_gradients_take_pytorchs_operations(name):
    exact = [p.requires_grad_() for p in random_parts(3)]
    ours = [p.detach().float().requires_grad_() for p in exact]
    with ops.use_backend(name):
        for parts in (exact, ours):
            out = attention_decode(*parts).square().sum() + rate_decode(parts[0]).square().sum()
            (out + sum(s.square().sum() for s in attention_statistics(parts[0]))).backward()
    for a, b in zip(ours, exact):
        torch.testing.assert_close(a.grad.double(), b.grad, rtol=1e-4, atol=1e-5)


@every_backend
@every_dtype
@pytest.mark.parametrize('shape', [(2, 3, 4, 0, 5), (2, 0, 4, 3, 5)], ids=str)
def test_nothing_to_decode(name, dtype, shape):
    steps, batch, channels, height, width = shape
    spikes = torch.zeros(shape, dtype=dtype)
    weights = torch.ones(steps, batch), torch.ones(steps, batch, channels)
    with ops.use_backend(name):
        out = attention_decode(spikes, *weights, torch.ones(steps, batch, height, width))
        sizes = [v.shape for v in attention_statistics(spikes)]
        assert rate_decode(spikes).shape == out.shape == shape[1:]
    assert sizes == [shape[:3], *[(steps, batch, height, width)] * 2]


@every_backend
def test_bytes_become_numbers(name):
    spikes = torch.tensor([[1, 0, 1], [1, 0, 0], [1, 1, 0]], dtype=torch.uint8)
    with ops.use_backend(name):
        torch.testing.assert_close(rate_decode(spikes), torch.tensor([1, 1 / 3, 1 / 3]))
        assert last_decode(spikes).dtype == torch.float32
        assert last_decode(spikes).tolist() == [1.0, 1.0, 0.0]


@every_backend
@every_dtype
def test_operators_pass_pytorchs_own_checks(name, dtype):
    spikes, *weights = (p.float() for p in random_parts(3))
    with ops.use_backend(name), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        for layout in ('contiguous', 'channels_last'):
            x = laid_out(spikes.to(dtype), layout)
            torch.library.opcheck(torch.ops.mmsnn.rate_decode.default, (x,))
            torch.library.opcheck(torch.ops.mmsnn.attention_statistics.default, (x,))
            torch.library.opcheck(torch.ops.mmsnn.attention_decode.default, (x, *weights))

"""Convs on bits and the gradient of their weights, against float64."""

import sys

import pytest
import torch
import torch.nn.functional as F
from guards import between_guards, check
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsnn.ops import dispatch
from mmsnn.ops.operators import bits_conv, pack_spikes

C = dispatch.named('c')
WHY_NOT = dispatch.why_not('c')
needs_kernel = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or 'runs')
every_kernel = pytest.mark.parametrize(
    'backend', [dispatch.REFERENCE, pytest.param(C, marks=needs_kernel)], ids=lambda b: b.name
)
PLAIN = [1, 1], [1, 1], [1, 1], 1


def maps(*size, rate=0.3, seed=0):
    spikes = torch.rand(size, generator=torch.Generator().manual_seed(seed)) < rate
    return spikes.float().contiguous(memory_format=torch.channels_last)


def currents(x, weight, bias, options, backend):
    return bits_conv._bits_conv(pack_spikes(x, 1), x.shape, weight, bias, *options, backend=backend)


def weight_grad(grad, x, weight, options, backend):
    bits = pack_spikes(x, 1)
    return bits_conv._weight_grad(grad, bits, x.shape, weight, *options, backend=backend)


def close(ours, exact, sizes, terms):
    """Whether a sum of so many terms, whose sizes add up to that, is as near as rounding allows."""
    return ((ours - exact).abs() <= terms * 2.0**-24 * sizes + 1e-30).all()


@st.composite
def cases(draw):
    batch, groups = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    channels = groups * draw(st.sampled_from([1, 2, 7, 8, 9, 16, 17, 65]))
    outputs = groups * draw(st.sampled_from([1, 3, 31, 32, 33, 65]))
    pair = lambda low, high: draw(st.tuples(st.integers(low, high), st.integers(low, high)))  # noqa: E731
    kernel, stride, dilation = pair(1, 4), pair(1, 3), pair(1, 3)
    # As much padding as a window reaches: beyond, the reference may crash (docs/faults.md).
    padding = tuple(draw(st.integers(0, d * (k - 1))) for k, d in zip(kernel, dilation))
    least = (max(1, d * (k - 1) + 1 - 2 * p) for k, p, d in zip(kernel, padding, dilation))
    room = draw(st.sampled_from([8, 8, 90]))  # larger ones are worked at in several bands
    size = [draw(st.integers(n, n + room)) for n in least]
    seed = draw(st.integers(0, 2**31))
    x = maps(batch, channels, *size, rate=draw(st.sampled_from([0, 0.1, 0.5, 1])), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(outputs, channels // groups, *kernel, generator=generator)
    if draw(st.booleans()):
        weight = weight.contiguous(memory_format=torch.channels_last)
    bias = torch.randn(outputs, generator=generator) if draw(st.booleans()) else None
    return x, weight, bias, (list(stride), list(padding), list(dilation), groups)


@every_kernel
@settings(max_examples=120, deadline=None)
@given(case=cases())
def test_against_float64(backend, case):
    x, weight, bias, options = case
    leaves = [weight.double().requires_grad_(), None if bias is None else bias.double()]
    exact = F.conv2d(x.double(), *leaves, *options)
    sizes = [None if v is None else v.detach().abs() for v in leaves]
    sizes = F.conv2d(x.double(), *sizes, *options)
    y = currents(x, weight, bias, options, backend)
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert close(y, exact.detach(), sizes, weight[0].numel() + 2)

    grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    ours = weight_grad(grad, x, weight, options, backend)
    exact.backward(grad.double())
    by_size = weight.double().requires_grad_()
    F.conv2d(x.double(), by_size, None, *options).backward(grad.double().abs())
    assert close(ours, leaves[0].grad, by_size.grad, len(y) * y[0, 0].numel() + 2)


@every_kernel
def test_by_hand(backend):
    # Two channels of three columns; the first fires at columns 0 and 2, the second at 1.
    x = torch.tensor([[1.0, 0, 1], [0, 1, 0]]).view(1, 2, 1, 3)
    x = x.contiguous(memory_format=torch.channels_last)
    weight = torch.tensor([[1.0, 2, 4], [8, 16, 32]]).view(1, 2, 1, 3)
    options = [1, 1], [0, 1], [1, 1], 1
    y = currents(x, weight, torch.tensor([100.0]), options, backend)
    assert y.flatten().tolist() == [2 + 32 + 100, 1 + 4 + 16 + 100, 2 + 8 + 100]
    grad = torch.tensor([1.0, 10, 100]).view(1, 1, 1, 3)
    # A spike at column j meets tap k at pixel j + 1 - k.
    expected = [[10 + 0, 1 + 100, 0 + 10], [100, 10, 1]]
    assert weight_grad(grad, x, weight, options, backend).view(2, 3).tolist() == expected


@needs_kernel
def test_it_does_not_depend_on_threads():
    before, results = torch.get_num_threads(), []
    x, weight = maps(3, 40, 61, 47), torch.randn(70, 40, 3, 3)
    grad = torch.randn(3, 70, 61, 47).contiguous(memory_format=torch.channels_last)
    assert x.numel() > 32768, 'a second thread should be worth it'
    try:
        for threads in (1, 2, 4, 7):
            torch.set_num_threads(threads)
            y = currents(x, weight, None, PLAIN, C)
            results.append((y, weight_grad(grad, x, weight, PLAIN, C)))
    finally:
        torch.set_num_threads(before)
    for y, ours in results:
        assert torch.equal(y, results[0][0])
        assert torch.equal(ours, results[0][1])


@needs_kernel
def test_more_threads_than_channels():
    x, weight = maps(2, 3, 80, 80), torch.randn(16, 3, 3, 3)
    grad = torch.randn(2, 16, 80, 80)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(7)
        ours = weight_grad(grad, x, weight, PLAIN, C)
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(
        ours, weight_grad(grad, x, weight, PLAIN, dispatch.REFERENCE), rtol=1e-4, atol=1e-3
    )


@needs_kernel
@pytest.mark.parametrize('padding', [3, 9])
def test_padding_beyond_what_windows_reach(padding):
    # Windows of padding alone; by hand, as PyTorch's conv may crash on them.
    x, weight = maps(1, 8, 4, 5, rate=0.5), torch.randn(32, 8, 2, 2)
    options = [3, 2], [padding, padding], [1, 1], 1
    y = currents(x, weight, None, options, C)
    padded = F.pad(x, [padding] * 4)
    expected = F.conv2d(padded.contiguous(), weight, None, [3, 2])
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)
    grad = torch.randn(y.shape)
    ours = weight_grad(grad, x, weight, options, C)
    exact = torch.nn.grad.conv2d_weight(padded.double(), weight.shape, grad.double(), [3, 2])
    torch.testing.assert_close(ours, exact.float(), rtol=1e-5, atol=1e-5)


def guarded():
    for outputs, channels, groups, kernel, size, stride, padding, dilation in (
        (64, 8, 1, 3, (5, 5), 1, 1, 1),
        (70, 5, 1, 3, (4, 7), 2, 1, 2),
        (3, 3, 3, 1, (1, 1), 1, 0, 1),
        (128, 20, 2, 5, (9, 8), 1, 3, 1),
        (33, 13, 1, 2, (40, 41), 3, 1, 1),
    ):
        x = (
            (torch.rand(2, channels, *size) < 0.5)
            .float()
            .contiguous(memory_format=torch.channels_last)
        )
        weight = torch.randn(outputs, channels // groups, kernel, kernel)
        options = [stride] * 2, [padding] * 2, [dilation] * 2, groups
        bits = pack_spikes(x, 1)
        y = bits_conv._bits_conv(bits, x.shape, weight, None, *options)
        expected = bits_conv._weight_grad(y, bits, x.shape, weight, *options)
        for at_end in (False, True):
            there = between_guards(bits, at_end), x.shape, between_guards(weight, at_end)
            assert torch.equal(bits_conv._bits_conv(*there, None, *options), y)
            grad = between_guards(y.movedim(1, -1).contiguous(), at_end).movedim(-1, 1)
            assert torch.equal(bits_conv._weight_grad(grad, *there, *options), expected)


@needs_kernel
@pytest.mark.skipif(sys.platform != 'linux', reason='guards memory by mprotect of Linux')
def test_nothing_else_is_read():
    check(__file__)


@pytest.mark.parametrize('groups', [1, 2])
def test_operators(groups):
    x, weight = maps(2, 8, 5, 6), torch.randn(6, 8 // groups, 3, 3)
    bits, rest = pack_spikes(x, 1), ([1, 2], [1, 0], [1, 1], groups)
    y = bits_conv.bits_conv(bits, x.shape, weight, None, *rest)
    opcheck = torch.library.opcheck
    opcheck(torch.ops.mmsnn.bits_conv.default, (bits, x.shape, weight, torch.randn(6), *rest))
    opcheck(torch.ops.mmsnn.bits_conv_weight_grad.default, (y, bits, x.shape, weight, *rest))


@every_kernel
@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(size=(2, 8, 5)), r'no conv of 1 groups, .* \(2, 8, 5\)'),
        (dict(size=(2, 4, 5, 6)), r'no conv .* maps of shape \(2, 4, 5, 6\)'),
        (dict(size=(2, 8, 0, 6)), 'no conv'),
        (dict(size=(2, 8, 2, 6)), 'no conv'),
        (dict(size=(3, 8, 5, 6)), '1 x 720 spikes are bits of shape'),
        (dict(stride=[0, 1]), r'stride \[0, 1\]'),
        (dict(stride=[1]), r'stride \[1\]'),
        (dict(padding=[-1, 0]), r'padding \[-1, 0\]'),
        (dict(groups=0), 'no conv of 0 groups'),
        (dict(groups=4), 'no conv of 4 groups'),
        (dict(weight=torch.zeros(6, 8, 3, 3, dtype=torch.float64)), 'weights in torch.float64'),
        (dict(weight=torch.zeros(6, 8, 3)), 'no conv'),
        (dict(bits=torch.zeros(1, 60)), 'spikes are bits'),
    ],
)
def test_wrong_inputs(change, message, backend):
    given = dict(
        bits=torch.zeros(1, 60, dtype=torch.uint8), size=(2, 8, 5, 6),
        weight=torch.zeros(6, 8, 3, 3), stride=[1, 1], padding=[0, 0], dilation=[1, 1], groups=1,
    )  # fmt: skip
    bits, size, weight, *options = {**given, **change}.values()
    with pytest.raises(ValueError, match=message):
        bits_conv._bits_conv(bits, size, weight, None, *options, backend=backend)
    grad = torch.zeros(2, 6, 3, 4)
    with pytest.raises(ValueError, match=message):
        bits_conv._weight_grad(grad, bits, size, weight, *options, backend=backend)


@every_kernel
@pytest.mark.parametrize(
    ('grad', 'message'),
    [
        (torch.zeros(2, 6, 5, 6), 'the gradient needs the shape'),
        (torch.zeros(2, 6, 3, 4).double(), 'got a gradient in torch.float64'),
    ],
)
def test_a_gradient_of_another_conv(grad, message, backend):
    bits, weight = torch.zeros(1, 60, dtype=torch.uint8), torch.zeros(6, 8, 3, 3)
    with pytest.raises(ValueError, match=message):
        bits_conv._weight_grad(
            grad, bits, (2, 8, 5, 6), weight, [1, 1], [0, 0], [1, 1], 1, backend=backend
        )

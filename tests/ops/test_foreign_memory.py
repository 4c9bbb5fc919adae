"""Inputs with which a kernel would leave its tensors, or the reference, case by case."""

import pytest
import torch

from mmsnn import ops
from mmsnn.ops import conv_lif, dispatch, operators

backends = pytest.mark.parametrize('name', ['reference', 'auto'])
NEURON = ops.LIF()
NAN, INF = float('nan'), float('inf')


def both(run):
    """Results on the reference and on the kernels of this machine."""
    results = []
    for name in ('reference', 'auto'):
        with ops.use_backend(name):
            results.append(run())
    return results


def same(run):
    expected, got = both(run)
    torch.testing.assert_close(got, expected, equal_nan=True)
    return expected


@pytest.mark.parametrize('grad', [False, True])
def test_weights_of_attention_broadcast(grad):
    spikes, temporal = (torch.rand(3, 2, 5, 4, 6) > 0.5).float(), torch.rand(3, 2)
    channel, spatial = torch.rand(3, 2, 1), torch.rand(3, 1, 4, 6)
    whole = channel.expand(3, 2, 5), spatial.expand(3, 2, 4, 6)
    temporal.requires_grad_(grad)
    with torch.set_grad_enabled(grad):
        out = same(lambda: ops.attention_decode(spikes, temporal, channel, spatial))
        expected = (temporal[..., None] * whole[0])[..., None, None] * whole[1][:, :, None] * spikes
        torch.testing.assert_close(out, expected.sum(0))


@backends
@pytest.mark.parametrize('grad', [False, True])
@pytest.mark.parametrize(
    ('which', 'shape'), [(0, (3, 3)), (1, (3, 2, 4)), (1, (5,)), (2, (3, 2, 4, 7)), (2, (4, 6))]
)
def test_weights_of_other_shapes(name, grad, which, shape):
    spikes = torch.zeros(3, 2, 5, 4, 6, requires_grad=grad)
    weights = [torch.zeros(3, 2), torch.zeros(3, 2, 5), torch.zeros(3, 2, 4, 6)]
    weights[which] = torch.zeros(shape)
    what = ('temporal', 'channel', 'spatial')[which]
    with ops.use_backend(name), pytest.raises(ValueError, match=f'{what} needs the shape'):
        ops.attention_decode(spikes, *weights)


@backends
@pytest.mark.parametrize('which', [0, 1, 2])
def test_weights_that_are_whole_numbers(name, which):
    # The result would have to be one, too: as bytes, the kernel wrote twice its size.
    weights = [torch.ones(3, 2), torch.ones(3, 2, 5), torch.ones(3, 2, 4, 6)]
    weights[which] = weights[which].to(torch.uint8)
    what = ('temporal', 'channel', 'spatial')[which]
    with ops.use_backend(name), pytest.raises(ValueError, match=f'{what} has a floating dtype'):
        ops.attention_decode(torch.zeros(3, 2, 5, 4, 6), *weights)


@backends
def test_too_few_bits(name):
    bits = torch.zeros(1, 2, dtype=torch.uint8)
    with ops.use_backend(name):
        with pytest.raises(ValueError, match=r'1 x 17 spikes are bits of shape \(1, 3\)'):
            operators.unpack_spikes(bits, [17], [1], torch.float32)
        with pytest.raises(ValueError, match='dense'):
            operators.unpack_spikes(bits, [4, 4], [0, 1], torch.float32)
        with pytest.raises(ValueError, match='9 spikes are not 2 rows'):
            operators.pack_spikes(torch.zeros(9), 2)


@backends
def test_operators_check_for_themselves(name):
    x = torch.randn(2, 1, 5, 3, 3)
    rest = None, None, *NEURON, None, 0
    with ops.use_backend(name), torch.no_grad():
        for run in (operators.lif.lif, torch.ops.mmsnn.lif):
            with pytest.raises(ValueError, match=r'scale needs the shape \(C,\).*got \(2,\)'):
                run(x, torch.ones(2), None, None, None, None, *rest)
        with pytest.raises(ValueError, match='is on meta, the input on cpu'):
            operators.lif.lif(x, torch.ones(5, device='meta'), None, None, None, None, *rest)
        needs = [True] + [False] * 5
        with pytest.raises(ValueError, match='the gradient needs the shape'):
            operators.lif.lif_backward(x[:, :, :2], x, *[None] * 7, *NEURON, None, 0, needs)
        maps = torch.zeros(1, 1, 2, 2, dtype=torch.uint8)
        with pytest.raises(ValueError, match='floating dtype'):
            operators.pool.max_pool_backward(
                maps, maps, [1, 1, 2, 2], False, [1, 1], [1, 1], [0, 0]
            )


@pytest.mark.parametrize('kernel', ['reference', 'c'])
def test_conv_lif(kernel):
    backend = dispatch.named(kernel)
    if backend.supports('conv_lif', torch.zeros(1, dtype=torch.uint8)):
        pytest.skip('no VNNI in this CPU or its compiler')
    q = torch.randint(-9, 9, (70, 8, 3, 3), generator=torch.Generator().manual_seed(0))
    weights = conv_lif.pack_weights([(q, torch.full((70,), 0.05))], torch.zeros(70))
    x = (torch.rand(2, 1, 8, 5, 6) > 0.5).to(torch.uint8)
    args = ((1, 1), (0, 0), (1, 1)), NEURON
    with pytest.raises(ValueError, match="got gate='or' and no shortcut"):
        conv_lif.conv_lif(x, weights, *args, None, 'or', backend)
    short = weights._replace(shift=weights.shift[:70])
    with pytest.raises(ValueError, match='not as pack_weights makes them'):
        conv_lif.conv_lif(x, short, *args, backend=backend)
    expected = conv_lif.conv_lif(x, weights, *args, backend=dispatch.REFERENCE)
    for offset in (1, 4):  # weights may begin anywhere
        q = torch.zeros(weights.q.numel() + offset, dtype=torch.int8)[offset:]
        moved = weights._replace(q=q.view(weights.q.shape).copy_(weights.q))
        assert torch.equal(conv_lif.conv_lif(x, moved, *args, backend=backend), expected)


@pytest.mark.parametrize('shape', [(4, 3, 5), (3, 5)])
def test_norms_of_vectors_train(shape):
    steps = 4 if len(shape) == 2 else None
    x, weight, bias = torch.randn(shape), torch.rand(5) + 1, torch.rand(5)

    def run():
        leaves = [v.clone().requires_grad_() for v in (x, weight, bias)]
        out = ops.norm_lif(*leaves, None, None, training=True, time_steps=steps)
        (out * torch.arange(60.0).view(4, 3, 5)).sum().backward()
        return [out.detach(), *(v.grad for v in leaves)]

    expected, got = both(run)
    for a, b in zip(got, expected):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)
    assert 0 < expected[0].sum() < 60


def test_out_over_its_input():
    x = torch.randn(4, 2, 3, 5, 5)
    expected = ops.lif(x)
    for start in (0, 2, 4):
        memory = torch.zeros(6 * x[0].numel())
        inputs = memory[: x.numel()].view(x.shape).copy_(x)
        out = memory[start * 25 : start * 25 + x.numel()].view(x.shape)
        assert torch.equal(ops.lif(inputs, out=out), expected)
    shortcut = (torch.rand_like(x) > 0.5).float()
    expected = ops.lif(x, shortcut=shortcut, gate='or')
    assert torch.equal(ops.lif(x, shortcut=shortcut, gate='or', out=shortcut), expected)


@backends
def test_expanded_out(name):
    with ops.use_backend(name), pytest.raises(ValueError, match='out needs memory for each spike'):
        ops.lif(torch.zeros(4, 3), out=torch.zeros(1, 3).expand(4, 3))


def test_negative_bit():
    x = torch.randn(4, 2, 3, 5, 5)
    negative = torch.view_as_complex(torch.stack([x, -x], -1)).conj().imag
    assert negative.is_neg()
    assert torch.equal(negative, x)
    assert torch.equal(ops.lif(negative), ops.lif(x))
    assert torch.equal(ops.rate_decode(negative), ops.rate_decode(x))
    assert torch.equal(ops.to_bytes(negative)[0], ops.to_bytes(x)[0])
    out = torch._neg_view(torch.zeros_like(x))
    assert torch.equal(ops.lif(x, out=out), ops.lif(x))
    leaf = negative.clone().requires_grad_()
    ops.lif(leaf).backward(negative)
    other = x.clone().requires_grad_()
    ops.lif(other).backward(x)
    assert torch.equal(leaf.grad, other.grad)


@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_nan_in_maxima(dtype, layout):
    spikes = torch.randn(6, 5, 4, 70).to(dtype)
    spikes[0, 3, 1, 2], spikes[1, 0, 0, 0], spikes[5, 4, 3, 69] = NAN, -NAN, NAN
    spikes = spikes.contiguous(memory_format=layout).unflatten(0, (3, 2))
    most = same(lambda: ops.attention_statistics(spikes))[2]
    assert most.isnan().sum() == 3


@pytest.mark.parametrize('surrogate', ops.SURROGATES)
@pytest.mark.parametrize('value', [NAN, INF, -INF])
def test_gradients_of_odd_values(surrogate, value):
    x = torch.randn(1, 40)
    x[0, ::7] = value

    def run():
        leaf = x.clone().requires_grad_()
        ops.lif(leaf, detach_reset=True, surrogate=surrogate).sum().backward()
        return leaf.grad

    same(run)


def test_gates_keep_nan():
    x = torch.randn(2, 1, 400).bfloat16()
    shortcut = torch.randn(2, 1, 400).bfloat16()
    shortcut[..., ::3], shortcut[..., 1::5] = NAN, INF
    for gate in ('or', 'and', 'iand', 'add'):
        out = same(lambda gate=gate: ops.lif(x, shortcut=shortcut, gate=gate))
        assert out.isnan().any()


def test_gradient_of_maxima_of_odd_values():
    x = torch.randn(2, 3, 6, 7)
    x[0, :, ::2], x[0, 0], x[1, :, 2, ::3] = NAN, -INF, INF

    def run():
        leaf = x.clone().requires_grad_()
        ops.spike_max_pool2d(leaf, 3, 2, 1).sum().backward()
        return leaf.grad

    assert same(run).sum() == 2 * 3 * 3 * 4


def test_gradient_behind_a_shortcut_with_steps_apart():
    x = torch.randn(6, 3, 4, 5).contiguous(memory_format=torch.channels_last).unflatten(0, (3, 2))
    wide = (torch.rand(12, 3, 4, 5) > 0.5).float().contiguous(memory_format=torch.channels_last)
    shortcut = wide.unflatten(0, (6, 2))[::2]

    def run():
        leaf = x.clone().requires_grad_()
        ops.lif(leaf, shortcut=shortcut, gate='or').sum().backward()
        return leaf.grad

    same(run)


def test_dtypes_that_kernels_have_not():
    x, shortcut = torch.randn(3, 2, 4), torch.randn(3, 2, 4)
    for dtype in (torch.float64, torch.float16, torch.int32, torch.bfloat16):
        out = same(lambda dtype=dtype: ops.lif(x, shortcut=shortcut, gate='add', dtype=dtype))
        assert out.dtype == dtype


@backends
@pytest.mark.parametrize('value', [NAN, INF])
def test_bytes_are_finite(name, value):
    with ops.use_backend(name), pytest.raises(ValueError, match='bytes are for finite values'):
        ops.to_bytes(torch.tensor([1.0, value]))

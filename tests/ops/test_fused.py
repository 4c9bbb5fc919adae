"""The fused neuron on every backend against the reference, and against float64."""

import itertools
import math
import os
import warnings

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from saved_bytes import saved_bytes
from torch.utils.checkpoint import checkpoint

from mmsnn import ops
from mmsnn.ops import dispatch, operators, reference

# Triton's interpreter takes a millisecond an operation, and cuts off bits where a GPU rounds.
INTERPRETED = os.environ.get('TRITON_INTERPRET') == '1'
FEWER = 8 if INTERPRETED else 1
HALF_ULP = 2**-7 if INTERPRETED else 2**-8

GATES = (None, 'or', 'add', 'and', 'iand')
KERNELS = [name for name in dispatch.names() if not dispatch.why_not(name)]
every_kernel = pytest.mark.parametrize(
    'name',
    KERNELS
    or [
        pytest.param('none', marks=pytest.mark.skip(reason='needs a kernel backend: a C compiler'))
    ],
)


def leaf(values, dtype=None):
    return values.detach().clone(memory_format=torch.preserve_format).to(dtype).requires_grad_()


def run(name, inputs, neuron, grad, dtype=None):
    """Output and the gradient of every tensor in `inputs`."""
    with ops.use_backend(name):
        leaves = {
            key: leaf(value, dtype or value.dtype) if isinstance(value, torch.Tensor) else value
            for key, value in inputs.items()
        }
        out = ops.lif(**leaves, **neuron)
        out.backward(grad.to(out.dtype))
    return out.detach(), {
        key: value.grad for key, value in leaves.items() if isinstance(value, torch.Tensor)
    }


def in_layout(x, order):
    """The same values with the axes in this order of memory."""
    return x.permute(order).contiguous().permute([order.index(i) for i in range(x.dim())])


@st.composite
def cases(draw):
    steps, batch = draw(st.integers(1, 6)), draw(st.integers(1, 3))
    channels, shared = draw(st.sampled_from([1, 3, 8, 130])), draw(st.booleans())
    behind = draw(st.lists(st.sampled_from([1, 2, 5, 9, 20]), max_size=3))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    shape = (batch, channels, *behind)
    x = 0.6 + normal(*shape) if shared else 0.6 + normal(steps, *shape)
    order = draw(st.permutations(range(len(shape))))
    x = in_layout(x, order) if shared else in_layout(x, [0, *(i + 1 for i in order)])
    form = draw(st.sampled_from(['plain', 'repeated', 'strided', 'holes']))
    if form == 'repeated' and not shared:  # the same current at every step, distance 0
        x = x[:1].expand_as(x)
    elif form == 'strided' and not shared:
        x = torch.stack([x, x], 1)[:, 0]
    elif form == 'holes':
        x = torch.stack([x, x], -1)[..., 0]
    gate = draw(st.sampled_from(GATES))
    inputs = dict(x=x)
    if gate:
        binary = gate != 'add' and draw(st.booleans())
        shortcut = normal(steps, *shape)
        inputs['shortcut'] = (shortcut > 0).float() if binary else shortcut.round()
    if draw(st.booleans()):
        inputs['scale'] = 1 + normal(channels) / 2
    if draw(st.booleans()):
        inputs['shift'] = normal(channels) / 4
    if draw(st.booleans()):
        inputs['decay'] = torch.tensor(draw(st.floats(0, 1)))
    if draw(st.booleans()):
        inputs['input_scale'] = torch.tensor([draw(st.floats(0.2, 2))])
    neuron = dict(
        v_threshold=draw(st.floats(0.2, 2)),
        reset=draw(st.sampled_from(sorted(ops.RESETS))),
        detach_reset=draw(st.booleans()),
        surrogate=draw(st.sampled_from(sorted(ops.SURROGATES))),
        surrogate_width=draw(st.floats(0.4, 3)),
        gate=gate,
        time_steps=steps if shared else None,
    )
    if draw(st.booleans()):
        neuron['decay'] = inputs.pop('decay', torch.tensor(0.3)).item()
    return inputs, neuron, normal(steps, *shape)


def magnitudes(inputs, neuron, grad, grads):
    """What an error in the gradient of each input is measured by, in float64.

    A sum over time or over all elements can cancel, and is then no measure of its own rounding
    errors.
    """
    x, steps = inputs['x'], neuron['time_steps']
    by_step = grads['x']
    if steps:
        every = dict(inputs, x=x.expand(steps, *x.shape))
        _, every = run('reference', every, dict(neuron, time_steps=None), grad, torch.float64)
        by_step = every['x']
    total = (x.double().norm() + x.numel() ** 0.5) * by_step.norm()
    sizes = {key: total if grad.dim() < 2 else grad.abs().max() for key, grad in grads.items()}
    return dict(sizes, x=by_step.abs().sum(0).max())


def zeros_for_none(grads, inputs):
    """With one time step autograd finds the decay unused; the kernel says 0."""
    return {
        key: torch.zeros_like(inputs[key]) if grad is None else grad for key, grad in grads.items()
    }


@every_kernel
@given(case=cases())
@settings(max_examples=150 // FEWER, deadline=None)
def test_kernels_equal_the_reference(name, case):
    inputs, neuron, grad = case
    expected, expected_grads = run('reference', inputs, neuron, grad)
    out, grads = run(name, inputs, neuron, grad)
    assert torch.equal(out, expected)
    with ops.use_backend(name), torch.no_grad():  # without a gradient, prepared and then again
        for x in (inputs['x'], inputs['x'] * 2, inputs['x']):
            out = ops.lif(**{**inputs, 'x': x}, **neuron)
            larger = torch.full((2 * len(grad), *expected.shape[1:]), -1.0)
            part = ops.lif(**{**inputs, 'x': x}, **neuron, out=larger[::2])
            assert torch.equal(part, out)
    assert torch.equal(out, expected)
    assert torch.equal(larger[::2], out)
    assert (larger[1::2] == -1).all()
    _, oracle_grads = run('reference', inputs, neuron, grad, torch.float64)
    expected_grads, oracle_grads = (
        zeros_for_none(grads, inputs) for grads in (expected_grads, oracle_grads)
    )
    # Where float32 and float64 fall on two sides of a threshold or of a surrogate's edge, they are
    # two different neurons. A gate may hide it, so the spikes are compared without; how near an
    # edge is, the gradients say.
    alone = {key: value for key, value in inputs.items() if key != 'shortcut'}
    fired = [
        run('reference', alone, dict(neuron, gate=None), grad, dtype)[0]
        for dtype in (None, torch.float64)
    ]
    assume(torch.equal(fired[0].double(), fired[1]))
    size = magnitudes(inputs, neuron, grad, oracle_grads)
    for key, ours in grads.items():
        error = (ours - oracle_grads[key]).abs().max()
        edges = ops.SURROGATES[neuron['surrogate']].reach < math.inf
        if edges and error > 1e-5 * size[key]:
            assert (expected_grads[key] - oracle_grads[key]).abs().max() > 1e-5 * size[key]
        else:
            assert error <= 1e-5 * size[key] + 1e-12, key


@every_kernel
@given(case=cases())
@settings(max_examples=40 // FEWER, deadline=None)
def test_bfloat16_is_float32_rounded(name, case):
    # Integrated in float32: the spikes are those of the same numbers in float32, and a gradient is
    # off by its own rounding, 2^-9, alone.
    inputs, neuron, grad = case
    half = {
        key: value.bfloat16() if key in ('x', 'shortcut') else value
        for key, value in inputs.items()
    }
    grad = grad.bfloat16()
    out, grads = run(name, half, neuron, grad)
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, run('reference', half, neuron, grad)[0])
    single = {
        key: value.float() if isinstance(value, torch.Tensor) else value
        for key, value in half.items()
    }
    wide, wide_grads = run(name, single, neuron, grad.float())
    assert torch.equal(out, wide.bfloat16())
    for key in grads:
        torch.testing.assert_close(grads[key].float(), wide_grads[key], rtol=HALF_ULP, atol=1e-30)


@given(case=cases())
@settings(max_examples=40 // FEWER, deadline=None)
def test_derivative_by_hand_is_that_of_autograd(case):
    inputs, neuron, grad = case
    inputs = {key: value.double() for key, value in inputs.items()}
    out, expected = run('reference', inputs, neuron, grad)
    x, scale, shift, shortcut = (inputs.get(key) for key in ('x', 'scale', 'shift', 'shortcut'))
    decay, gain = (inputs.get(key) for key in ('decay', 'input_scale'))
    args = (
        x,
        scale,
        shift,
        shortcut,
        decay,
        gain,
        None,
        None,
        neuron.get('decay', 0.5),
        1.0,
        *(
            neuron[key]
            for key in (
                'v_threshold',
                'reset',
                'detach_reset',
                'surrogate',
                'surrogate_width',
                'gate',
            )
        ),
        neuron['time_steps'] or 0,
    )
    assert torch.equal(operators.lif.lif(*args), out)
    needs = [v is not None for v in (x, scale, shift, shortcut, decay, gain)]
    grads = operators.lif.lif_backward(grad.double(), *args, needs)
    names = ('x', 'scale', 'shift', 'shortcut', 'decay', 'input_scale')
    for key, need, ours in zip(names, needs, grads):
        if need and expected[key] is not None:
            torch.testing.assert_close(ours, expected[key], rtol=1e-9, atol=1e-9)


@every_kernel
@pytest.mark.parametrize('value', [float('inf'), -float('inf'), float('nan'), 3e38, 1e-45, -0.0])
@pytest.mark.parametrize('reset', ops.RESETS)
def test_odd_numbers(name, value, reset):
    x = torch.full((4, 3), 0.7)
    x[1, 1] = value
    with ops.use_backend('reference'):
        expected = ops.lif(x, reset=reset)
    with ops.use_backend(name):
        assert torch.equal(ops.lif(x, reset=reset), expected)


@every_kernel
@pytest.mark.parametrize('shape', [(3, 0), (2, 3, 0, 4), (1,), (5, 1)])
def test_odd_shapes(name, shape):
    with ops.use_backend(name):
        x = torch.ones(shape, requires_grad=True)
        out = ops.lif(x)
        assert out.shape == shape
        out.sum().backward()
        assert x.grad.shape == shape


@pytest.mark.parametrize('name', ['reference', *KERNELS])
def test_fused_is_its_parts(name):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(4, 2, 6, 5, 5, generator=g)
    scale, shift = torch.rand(6, generator=g), torch.rand(6, generator=g)
    shortcut = (torch.rand(4, 2, 6, 5, 5, generator=g) > 0.5).float()
    current = x * scale[:, None, None] + shift[:, None, None]
    joins = dict(zip(GATES[1:], (ops.spike_or, lambda r, s: r + s, lambda r, s: r * s, ops.iand)))
    with ops.use_backend(name):
        spikes = ops.lif(current)
        for gate, join in joins.items():
            out = ops.lif(x, scale=scale, shift=shift, shortcut=shortcut, gate=gate)
            assert torch.equal(out, join(spikes, shortcut))
        shared = ops.lif(x[0], time_steps=4, scale=scale)
        assert torch.equal(shared, ops.lif(x[:1].expand_as(x), scale=scale))


@every_kernel
def test_layout_is_kept(name):
    x = torch.randn(8, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    with ops.use_backend(name):
        out = ops.lif(x.unflatten(0, (4, 2))).flatten(0, 1)
        assert out.is_contiguous(memory_format=torch.channels_last)
        shared = ops.lif(x, time_steps=2)
        assert shared[0].is_contiguous(memory_format=torch.channels_last)
        y = x.clone().requires_grad_()
        ops.lif(y, time_steps=2).backward(torch.rand(2, 8, 3, 4, 5))
        assert y.grad.is_contiguous(memory_format=torch.channels_last)


# ---- norm_lif ----


def norm_reference(x, weight, bias, mean, var, shortcut, shared, training):
    """PyTorch's own batch norm, then the neuron, then the gate."""
    y = F.batch_norm(x if shared else x.flatten(0, 1), mean, var, weight, bias, training, 0.2, 1e-4)
    y = y.expand(4, *y.shape) if shared else y.unflatten(0, x.shape[:2])
    with ops.use_backend('reference'):
        return ops.spike_or(ops.lif(y, reset='soft'), shortcut)


@pytest.mark.parametrize('name', ['reference', *KERNELS])
@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize('shared', [False, True])
@pytest.mark.parametrize('last', [False, True], ids=['contiguous', 'channels_last'])
def test_norm_lif_is_batch_norm_and_lif(name, training, shared, last):
    g = torch.Generator().manual_seed(1)
    shape = (3, 12, 7, 6)
    x = 2 + 3 * torch.randn(*shape if shared else (4, *shape), generator=g)
    if last:
        x = in_layout(x, [0, 2, 3, 1] if shared else [0, 1, 3, 4, 2])
    weight, bias = 0.5 + torch.rand(12, generator=g), torch.rand(12, generator=g)
    shortcut = (torch.rand(4, *shape, generator=g) > 0.5).float()
    grad = torch.randn(4, *shape, generator=g)
    mean, var = torch.full((12,), 1.5), torch.full((12,), 8.0)

    exact = [leaf(v, torch.float64) for v in (x, weight, bias, shortcut)]
    exact_stats = mean.double(), var.double()
    oracle = norm_reference(*exact[:3], *exact_stats, exact[3], shared, training)
    oracle.backward(grad.double())

    leaves = [leaf(v, v.dtype) for v in (x, weight, bias, shortcut)]
    with ops.use_backend(name):
        out = ops.norm_lif(
            *leaves[:3],
            mean,
            var,
            training,
            0.2,
            1e-4,
            reset='soft',
            shortcut=leaves[3],
            gate='or',
            time_steps=4 if shared else None,
        )
        out.backward(grad)
    assert torch.equal(out.double(), oracle)
    for ours, theirs in zip(leaves, exact):
        error = (ours.grad - theirs.grad).abs().max()
        assert error <= 1e-5 * theirs.grad.abs().max()
    torch.testing.assert_close((mean.double(), var.double()), exact_stats, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('name', ['reference', *KERNELS])
def test_statistics_far_from_zero(name):
    # Means a thousand times the deviation cost the naive sum of squares all its digits.
    x = 1000 + torch.randn(2, 4, 8, 30, 30, generator=torch.Generator().manual_seed(2))
    with ops.use_backend(name):
        mean, var = operators.lif.channel_stats(x, 0)
    exact = torch.var_mean(x.double(), (0, 1, 3, 4), correction=0)
    torch.testing.assert_close((var.double(), mean.double()), exact, rtol=1e-4, atol=1e-3)


def test_statistics_of_no_time_step():
    with pytest.raises(ValueError, match='at least one time step'):
        operators.lif.channel_stats(torch.zeros(0, 2, 3, 4), 0)


# ---- bits ----


@pytest.mark.parametrize('name', ['reference', *KERNELS])
@given(
    rows=st.integers(1, 4),
    n=st.integers(1, 700),
    seed=st.integers(0, 1000),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
@settings(max_examples=50 // FEWER, deadline=None)
def test_bits_come_back(name, rows, n, seed, dtype):
    x = torch.rand(rows, n, generator=torch.Generator().manual_seed(seed)).round().to(dtype)
    with ops.use_backend(name):
        bits = operators.pack_spikes(x, rows)
        assert bits.shape == (rows, (n + 7) // 8)
        assert torch.equal(bits, reference.pack(x))
        one = operators.pack_spikes(x, 1)
        assert torch.equal(operators.unpack_spikes(one, x.shape, x.stride(), dtype), x)
        x[rows - 1, n - 1] = 0.5
        with pytest.raises(ValueError, match='only zeros and ones fit in a bit'):
            operators.pack_spikes(x, rows)


@every_kernel
def test_the_fused_neuron_keeps_its_input_and_bits(name):
    x = torch.randn(4, 2, 16, 20, 20, requires_grad=True)
    shortcut = (torch.rand_like(x) > 0.8).float()
    scale = torch.rand(16, requires_grad=True)
    with ops.use_backend(name):
        kept, _ = saved_bytes(
            lambda: ops.norm_lif(x, scale, scale, None, None, True, shortcut=shortcut, gate='or')
        )
    assert kept <= x.nbytes * (1 + 1 / 32) + 2048


@pytest.mark.parametrize('name', ['reference', *KERNELS])
def test_autocast_leaves_the_neuron_alone(name):
    x = torch.randn(4, 2, 3, 5, 5)
    with ops.use_backend(name), torch.autocast('cpu', torch.bfloat16):
        assert ops.lif(x, scale=torch.ones(3)).dtype == torch.float32
        half = ops.lif(x.bfloat16(), shortcut=torch.zeros_like(x), gate='or')
        assert half.dtype == torch.bfloat16


# ---- torch.compile, export, checkpointing ----


class Block(torch.nn.Module):
    """What a spiking block is made of."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.weight = torch.nn.Parameter(torch.full((4,), 1.5))
        self.bias = torch.nn.Parameter(torch.full((4,), 0.3))
        self.leak = torch.nn.Parameter(torch.tensor(0.2))
        self.register_buffer('mean', torch.zeros(4))
        self.register_buffer('var', torch.ones(4))

    def forward(self, s):
        x = ops.spike_conv2d(s.flatten(0, 1), self.conv.weight, None, 1, 1)
        return ops.norm_lif(
            x.unflatten(0, s.shape[:2]),
            self.weight,
            self.bias,
            self.mean,
            self.var,
            self.training,
            0.1,
            1e-5,
            self.leak.sigmoid(),
            shortcut=s,
            gate='or',
        )


def spikes(*shape, seed=0):
    return (torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) > 0.7).float()


def step(block, run, s):
    block.zero_grad()
    block.mean.zero_()
    block.var.fill_(1)
    s = s.clone().requires_grad_()
    out = run(s)
    out.backward(torch.linspace(-1, 1, out.numel()).view(out.shape))
    return [out.detach(), s.grad, *(p.grad for p in block.parameters()), block.mean, block.var]


@pytest.fixture
def block():
    torch.manual_seed(0)
    return Block()


@pytest.mark.parametrize('name', ['auto', 'reference'])
@pytest.mark.parametrize('training', [True, False], ids=['train', 'eval'])
def test_compile_without_a_graph_break(block, name, training):
    block.train(training)
    with ops.use_backend(name):
        torch._dynamo.reset()
        compiled = torch.compile(block, fullgraph=True, backend='aot_eager')
        for shape in ((2, 3, 4, 6, 6), (2, 5, 4, 6, 6)):
            s = spikes(*shape)
            expected = [v.clone() for v in step(block, block, s)]
            torch.testing.assert_close(step(block, compiled, s), expected, rtol=1e-4, atol=1e-5)


@every_kernel
def test_operators_pass_pytorchs_own_checks(name):
    x, scale = torch.randn(3, 2, 4, 5, 5, requires_grad=True), torch.rand(4, requires_grad=True)
    shortcut = spikes(3, 2, 4, 5, 5).requires_grad_()
    leak = torch.tensor(0.4, requires_grad=True)
    neuron = (0.5, 1.0, 1.0, 'hard', False, 'arctan', 1.0, 'or')
    last = x[0].detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    with ops.use_backend(name), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        check = torch.library.opcheck
        check(
            torch.ops.mmsnn.lif.default,
            (x, scale, scale, shortcut, leak, None, None, None, *neuron, 0),
        )
        stats = scale.detach()
        check(
            torch.ops.mmsnn.lif.default,
            (last, scale, scale, shortcut, None, leak, stats, stats, *neuron, 3),
        )
        check(torch.ops.mmsnn.channel_stats.default, (x.detach(), 0))
        bits = operators.pack_spikes(shortcut.detach(), 1)
        check(torch.ops.mmsnn.pack_spikes.default, (shortcut.detach(), 3))
        check(torch.ops.mmsnn.unpack_spikes.default, (bits, x.shape, x.stride(), torch.float32))


def test_export(block):
    s = spikes(2, 3, 4, 6, 6)
    batch = torch.export.Dim('batch', min=2, max=64)
    with torch.no_grad():
        program = torch.export.export(block.eval(), (s,), dynamic_shapes=({1: batch},))
        for shape in ((2, 3, 4, 6, 6), (2, 7, 4, 6, 6)):
            assert torch.equal(program.module()(spikes(*shape)), block(spikes(*shape)))
    names = {str(node.target) for node in program.graph.nodes}
    if KERNELS:
        assert 'mmsnn.lif.default' in names
        # And it runs where there is no kernel.
        with ops.use_backend('reference'), torch.no_grad():
            assert torch.equal(program.module()(s), block(s))


def test_checkpointing(block):
    s = spikes(2, 3, 4, 6, 6)
    expected = step(block.eval(), block, s)
    again = step(block, lambda s: checkpoint(block, s, use_reentrant=False), s)
    for ours, theirs in zip(again, expected):
        assert torch.equal(ours, theirs)


def test_compiled_graphs_refuse_what_they_cannot_keep(block):
    torch._dynamo.reset()
    compiled = torch.compile(block, fullgraph=True, backend='aot_eager')
    with pytest.raises(ValueError, match='only zeros and ones fit in a bit'):
        compiled(spikes(2, 3, 4, 6, 6) + 0.5)


# ---- refusals ----


@pytest.mark.parametrize('name', ['auto', 'reference'])
@pytest.mark.parametrize(
    ('kwargs', 'match'),
    [
        (dict(gate='xor', shortcut=torch.zeros(2, 3, 4)), "unknown gate 'xor': choose one of"),
        (dict(gate='or'), "got gate='or' and no shortcut"),
        (dict(shortcut=torch.zeros(2, 3, 4)), 'got gate=None and a shortcut'),
        (dict(gate='or', shortcut=torch.zeros(2, 3, 1)), r'shortcut needs the shape \(2, 3, 4\)'),
        (
            dict(gate='or', shortcut=torch.zeros(2, 3, 4), time_steps=2),
            r'shortcut needs the shape \(2, 2, 3, 4\)',
        ),
        (dict(scale=torch.ones(3)), r'scale needs the shape \(C,\) of an input \(T, B, C, ...\)'),
        (
            dict(shift=torch.ones(4), time_steps=2),
            r'shift .* of an input \(B, C, ...\), got \(4,\)',
        ),
        (dict(scale=torch.ones(1, 4)), r'got \(1, 4\) for an input of shape \(2, 3, 4\)'),
        (dict(out=torch.zeros(2, 3, 5)), r'out needs the shape \(2, 3, 4\) of the spikes'),
        (dict(out=torch.zeros(2, 3, 4), dtype=torch.uint8), 'their dtype, torch.uint8, got'),
        (dict(time_steps=0), 'at least one time step'),
        (dict(time_steps=-1), 'at least one time step'),
    ],
)
def test_refusals(name, kwargs, match):
    with ops.use_backend(name), pytest.raises(ValueError, match=match):
        ops.lif(torch.zeros(2, 3, 4), **kwargs)


def test_norm_lif_refuses_one_value_a_channel():
    with pytest.raises(ValueError, match='more than one value a channel'):
        ops.norm_lif(torch.zeros(1, 1, 3), torch.ones(3), torch.ones(3), None, None, training=True)


def test_every_combination_has_been_compared():
    # The self-check samples; the tests above draw. Here is all of it once, small.
    if not KERNELS:
        pytest.skip('needs a kernel backend')
    g = torch.Generator().manual_seed(3)
    x, shortcut = torch.randn(3, 2, 5, 6, generator=g), spikes(3, 2, 5, 6)
    grad = torch.randn(3, 2, 5, 6, generator=g)
    for reset, detach, surrogate, gate in itertools.product(
        ops.RESETS, (False, True), ops.SURROGATES, GATES
    ):
        inputs = dict(x=x, **(dict(shortcut=shortcut) if gate else {}))
        neuron = dict(reset=reset, detach_reset=detach, surrogate=surrogate, gate=gate)
        expected, expected_grads = run('reference', inputs, neuron, grad)
        for name in KERNELS:
            out, grads = run(name, inputs, neuron, grad)
            assert torch.equal(out, expected)
            torch.testing.assert_close(grads, expected_grads, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('gate', [None, 'or', 'add', 'and', 'iand'])
@pytest.mark.parametrize('last', [False, True])
@pytest.mark.parametrize('kind', [torch.float32, torch.bfloat16, torch.float64])
def test_spikes_come_in_the_dtype_asked_for(gate, last, kind):
    torch.manual_seed(0)
    x = torch.randn(4 * 2, 5, 7, 9, dtype=kind)
    x = (x.contiguous(memory_format=torch.channels_last) if last else x).unflatten(0, (4, 2))
    shortcut = None if gate is None else torch.randint_like(x, 2).to(torch.uint8)
    affine = dict(scale=torch.rand(5) + 0.5, shift=torch.rand(5))
    spikes = ops.lif(x, shortcut=shortcut, gate=gate, dtype=torch.uint8, **affine)
    same = None if shortcut is None else shortcut.to(kind)
    expected = ops.lif(x, shortcut=same, gate=gate, **affine)
    assert spikes.dtype == torch.uint8
    assert 0 < spikes.sum() < spikes.numel()
    assert torch.equal(spikes.to(kind), expected)
    assert [spikes.stride(i) for i in range(5)] == [expected.stride(i) for i in range(5)]
    with ops.use_backend('reference'):
        again = ops.lif(x, shortcut=shortcut, gate=gate, dtype=torch.uint8, **affine)
    assert torch.equal(spikes, again)

"""Integer leaky integrate-and-fire: whole numbers, virtual steps of 0 and 1, and the gradient."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_nets import detection_data, detections, detector, images
from torch import nn

from mmsnn import ops
from mmsnn.analysis import SpikeRecorder, profile
from mmsnn.deploy import EventConv2d, IntegerConv2d, fuse
from mmsnn.deploy.fuse import event_convs
from mmsnn.deploy.integer_conv import integer_convs
from mmsnn.models import SGResNet, SpikingClassifier
from mmsnn.models.layers import ILIFNeuron, SpikeMaxPool2d
from mmsnn.ops import conv_lif

#: Why there are no convs in whole numbers, or ''.
NO_INTEGERS = integer_convs() and event_convs()


def currents(*shape, scale=2.0, seed=0):
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def by_hand(x, levels, decay, v_threshold):
    """One neuron after the other, in Python's own numbers."""
    out = []
    for neuron in x.flatten(1).T.tolist():
        u, spikes = 0.0, []
        for current in neuron:
            h = decay * u + current / v_threshold
            spikes.append(min(max(math.floor(h + 0.5), 0), levels))
            u = h - spikes[-1]
        out.append(spikes)
    return torch.tensor(out, dtype=x.dtype).T.reshape(x.shape)


@pytest.mark.parametrize(
    ('levels', 'decay', 'v_threshold'), [(4, 0.5, 1.0), (1, 1.0, 0.7), (7, 0.25, 0.3)]
)
def test_whole_numbers_as_by_hand(levels, decay, v_threshold):
    x = currents(5, 30, 4).double()
    spikes = ILIFNeuron(levels, decay, v_threshold)(x)
    assert torch.equal(spikes, by_hand(x, levels, decay, v_threshold))
    assert set(spikes.flatten().tolist()) == set(range(levels + 1))


#: Numbers at which rounding decides, and that float32 holds only in part.
HARD = [0.5, 1.5, 2.5, 3.5, 0.49999997, 1.4999999, 2.4999998, -0.5, 1e-30, 2.0**23 + 0.5, 1e9, 1e30]


@settings(deadline=None, max_examples=60)
@given(
    x=st.lists(st.floats(-20, 20, width=32) | st.sampled_from(HARD), min_size=4, max_size=4),
    levels=st.integers(1, 6),
    decay=st.sampled_from([0.0, 0.25, 0.3, 0.5, 1.0]),
    v_threshold=st.sampled_from([1.0, 0.3, 0.5]),
)
def test_virtual_steps_are_the_same_numbers_bit_for_bit(x, levels, decay, v_threshold):
    x = torch.tensor(x).view(4, 1)
    neuron = ILIFNeuron(levels, decay, v_threshold)
    steps = neuron.virtual_steps(x)
    assert steps.shape == (4, levels, 1)
    assert ((steps == 0) | (steps == 1)).all()
    assert (steps[:, 1:] <= steps[:, :-1]).all()  # first the spikes, then silence
    assert torch.equal(steps.sum(1), neuron(x))


def test_what_is_no_number_gives_no_spike():
    x = torch.tensor([[math.nan, math.inf, -math.inf]])
    neuron = ILIFNeuron(4)
    assert neuron(x).tolist() == [[0, 4, 0]]
    assert torch.equal(neuron.virtual_steps(x).sum(1), neuron(x))


@pytest.mark.parametrize('detach', [False, True])
def test_the_gradient_is_that_by_hand(detach):
    x = currents(4, 30).double().requires_grad_()
    g = currents(4, 30, seed=1).double()
    neuron = ILIFNeuron(3, decay=0.5, v_threshold=0.8, detach_reset=detach)
    neuron(x).backward(g)
    inside = []
    u = torch.zeros(30, dtype=torch.float64)
    for t in range(4):
        h = 0.5 * u + x[t].detach() / 0.8
        inside.append(((h >= 0) & (h <= 3)).double())
        u = h - by_hand(h[None], 3, 0.0, 1.0)[0]
    assert 0.1 < torch.stack(inside).mean() < 0.9
    expected, u_grad = [], torch.zeros(30, dtype=torch.float64)
    for t in reversed(range(4)):
        s_grad = g[t] if detach else g[t] - u_grad
        h_grad = u_grad + inside[t] * s_grad
        expected.append(h_grad / 0.8)
        u_grad = 0.5 * h_grad
    torch.testing.assert_close(x.grad, torch.stack(expected[::-1]))


def test_or_of_counts_is_or_at_every_virtual_step():
    r, s = torch.meshgrid(torch.arange(5.0), torch.arange(5.0), indexing='ij')
    train = torch.arange(4).view(4, 1, 1)
    at_each_step = ops.spike_or((train < r).float(), (train < s).float()).sum(0)
    assert torch.equal(ops.count_or(r, s), at_each_step)
    assert torch.equal(ops.count_or(r.byte(), s.byte()), at_each_step.byte())
    r, s = r.clone().requires_grad_(), s.clone().requires_grad_()
    ops.count_or(r, s).sum().backward()
    assert torch.equal(s.grad, (s >= r).float())
    assert torch.equal(r.grad, (r >= s).float())
    assert (s.grad[0] == 1).all()  # with R silent the block is the identity


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_half_precision_is_integrated_in_float32(dtype):
    x = currents(6, 50).to(dtype)
    spikes = ILIFNeuron(4)(x)
    assert spikes.dtype == dtype
    assert torch.equal(spikes.float(), ILIFNeuron(4)(x.float()))


@pytest.mark.parametrize(
    ('options', 'match'),
    [
        (dict(D=0), 'D must be a whole number of spikes from 1 to 255, got 0'),
        (dict(D=256), 'got 256'),
        (dict(D=2.5), 'got 2.5'),
        (dict(D=True), 'got True'),
        (dict(decay=1.1), r'decay must lie in \[0, 1\], got 1.1'),
        (dict(v_threshold=0), 'v_threshold must be positive'),
        (dict(time_steps=0), 'time_steps must be a whole number'),
    ],
)
def test_refusals(options, match):
    with pytest.raises(ValueError, match=match):
        ILIFNeuron(**options)


# In networks

ILIF = dict(type='ILIFNeuron', D=4, v_threshold=0.3)


def network(time_steps=1, **options):
    torch.manual_seed(0)
    return SGResNet(10, time_steps, base_channels=8, act_cfg=ILIF, **options)


@pytest.mark.parametrize('block', ['sg', 'sew', 'plain', 'tdbn', 'ms'])
def test_every_block_trains_on_counts(block):
    net = network(block=block)
    levels = net(images())
    assert max(level.max() for level in levels) > 1
    for level in levels:
        assert torch.equal(level, level.round())
        assert level.min() == 0
        assert block == 'sew' or level.max() <= 4
    sum(level.square().mean() for level in levels).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    assert net.stem[0]['conv'].weight.grad.abs().sum() > 0


def test_a_gate_that_learns_has_a_neuron_of_its_own():
    gate = dict(type='LearnedGate', act_cfg=dict(type='LIFNeuron'))
    net = network(gate_cfg=gate)
    net(images())[-1].sum().backward()
    with pytest.raises(ValueError, match='a signal of 0 and 1, and ILIFNeuron gives counts'):
        network(gate_cfg=dict(type='LearnedGate'))
    with pytest.raises(ValueError, match=r'SEWAndGate joins .* ILIFNeuron gives counts'):
        network(gate_cfg=dict(type='SEWAndGate'))


def virtually(net):
    """Every neuron fires at D virtual steps, and every conv on spikes sees D maps of 0 and 1."""

    def fire(neuron):
        return lambda x: neuron.virtual_steps(x).sum(1)

    def conv(module, args, out):
        (x,) = args
        if not torch.equal(x.round(), x):
            return out
        assert 0 <= x.min() <= x.max() <= 4
        return sum(plain(module, (x > d).to(x.dtype)) for d in range(4))

    def plain(module, x):
        return nn.functional.conv2d(x, module.weight, module.bias, module.stride, module.padding)

    for module in net.modules():
        if isinstance(module, ILIFNeuron):
            module.fire = fire(module)
        elif isinstance(module, nn.Conv2d):
            module.register_forward_hook(conv)
    return net


def on_a_grid(net):
    """Weights of few bits, whose sums are exact in float32."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data = (module.weight.data * 64).round() / 64
    return net


@pytest.mark.parametrize('time_steps', [1, 2])
def test_virtual_steps_give_the_same_detections_bit_for_bit(time_steps):
    model = on_a_grid(detector(time_steps, act_cfg=ILIF)).eval()
    expected = detections(model)
    assert len(expected[1]) > 0
    counts = profile(model.backbone, [images(1)]).neuron_layers
    assert max(layer.firing_rate / layer.active for layer in counts) > 1.2
    for a, b in zip(expected, detections(virtually(model))):
        assert torch.equal(a, b)


def test_a_detector_takes_a_step_of_training():
    model = detector(1, act_cfg=ILIF)
    data = model.data_preprocessor(detection_data(), True)
    losses = model(**data, mode='loss')
    sum(sum(values) for values in losses.values()).backward()
    assert model.backbone.stem[0]['conv'].weight.grad.abs().sum() > 0


def test_a_classifier_counts_spikes_as_spikes():
    torch.manual_seed(0)
    model = SpikingClassifier(
        dict(type='SGResNet', depth=10, time_steps=1, base_channels=8, stem='cifar', act_cfg=ILIF),
        dict(type='SpikingClsHead', num_classes=3, in_channels=64),
    ).eval()
    with torch.no_grad(), SpikeRecorder(model) as recorder:
        model(images())
    measured = profile(model, [images()])
    for name, spikes in recorder.spikes.items():
        assert spikes.dtype == torch.uint8
        layer = measured[name]
        assert 2 * layer.spikes == spikes.sum().item()
        assert layer.firing_rate == pytest.approx(spikes.double().mean().item(), rel=1e-9)
        assert layer.active == pytest.approx((spikes > 0).double().mean().item(), rel=1e-9)
        assert layer.levels == 4
    assert max(spikes.max() for spikes in recorder.spikes.values()) > 1
    # A count of 3 is three accumulates for each output that it reaches.
    conv = model.backbone.get_submodule('layer1.0.conv1')
    spikes = recorder.spikes['backbone.stem.0.neuron'].flatten(0, 1).float()
    reached = nn.functional.conv2d(spikes, torch.ones_like(conv.weight), None, 1, 1)
    layer = measured['backbone.layer1.0.conv1']
    assert (layer.kind, layer.macs) == ('spikes', 0)
    assert 2 * layer.sops == reached.sum().item()
    assert measured['backbone.stem.0.conv'].kind == 'real'


@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
def test_kernels_take_counts(layout):
    counts = currents(6, 16, 9, 8).abs().round().clamp(max=4).contiguous(memory_format=layout)
    assert torch.equal(
        ops.spike_max_pool2d(counts, 3, 2, 1), nn.functional.max_pool2d(counts, 3, 2, 1)
    )
    for spikes in (counts, counts.byte()):
        steps = spikes.unflatten(0, (3, 2))
        with ops.use_backend('reference'):
            expected = ops.rate_decode(steps), *ops.attention_statistics(steps)
        for a, b in zip((ops.rate_decode(steps), *ops.attention_statistics(steps)), expected):
            torch.testing.assert_close(a, b)
    x, weight = counts.clone().requires_grad_(), torch.randn(8, 16, 3, 3, requires_grad=True)
    ops.spike_conv2d(x, weight, padding=1).square().sum().backward()
    x2, weight2 = counts.clone().requires_grad_(), weight.detach().clone().requires_grad_()
    nn.functional.conv2d(x2, weight2, padding=1).square().sum().backward()
    torch.testing.assert_close(weight.grad, weight2.grad, rtol=1e-4, atol=1e-2)
    pool = SpikeMaxPool2d(3, 2, 1, binary=False)
    for spikes in (counts, counts - 3, -counts - 1):
        x, x2 = spikes.clone().requires_grad_(), spikes.clone().requires_grad_()
        out, expected = pool(x), nn.functional.max_pool2d(x2, 3, 2, 1)
        assert torch.equal(out, expected)
        out.square().sum().backward()
        expected.square().sum().backward()
        assert torch.equal(x.grad, x2.grad)
        with torch.no_grad():
            assert torch.equal(pool(spikes), expected)


@pytest.fixture
def own_graphs():
    """Graphs of other sizes, compiled before or behind, would make sizes dynamic."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.usefixtures('own_graphs')
def test_a_network_of_counts_compiles_in_one_graph():
    net = network(2, num_stages=1, strides=(1,), out_indices=(0,))
    x = images(1)
    expected = net(x)[0]
    expected.square().sum().backward()
    grad = net.stem[0]['conv'].weight.grad.clone()
    net.zero_grad()
    out = torch.compile(net, backend='aot_eager', fullgraph=True)(x)[0]
    out.square().sum().backward()
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(net.stem[0]['conv'].weight.grad, grad, rtol=1e-3, atol=1e-2)


@pytest.mark.skipif(bool(integer_convs()), reason=f'no integer convs: {integer_convs()}')
@pytest.mark.parametrize('bits', [8, 16])
@pytest.mark.parametrize('options', [dict(kernel_size=3, padding=1), dict(kernel_size=1, stride=2)])
def test_integer_convs_of_counts_are_exact(options, bits):
    torch.manual_seed(0)
    conv = nn.Conv2d(64, 48, **options)
    integer = IntegerConv2d(conv, bits)
    x = torch.randint(0, 256, (2, 64, 9, 9), dtype=torch.uint8)
    expected = 0.0
    parts, bias = integer._round()
    for q, scale in parts:
        sums = nn.functional.conv2d(x.double(), q.double(), None, conv.stride, conv.padding)
        assert sums.abs().max() < 2**31
        expected = expected + sums.float() * scale.view(-1, 1, 1)
    out = integer(x)
    torch.testing.assert_close(out, expected + bias.view(-1, 1, 1), rtol=1e-6, atol=1e-4)
    # The neurons in the conv see the same sums.
    tiles = conv_lif.pack_weights(*integer._round())
    geometry = conv.stride, conv.padding, conv.dilation
    neuron = ops.LIF(v_threshold=3.0)
    spikes = [
        conv_lif.conv_lif(x[None], tiles, geometry, neuron, backend=ops.named(name))
        for name in ('c', 'reference')
    ]
    assert 0 < spikes[0].float().mean() < 1
    assert torch.equal(*spikes)


@pytest.mark.skipif(bool(NO_INTEGERS), reason=f'no integer convs: {NO_INTEGERS}')
@pytest.mark.parametrize('precision', ['int8', 'int16'])
def test_fused_in_integers_counts_stay_bytes(precision):
    net = network(2).eval()
    fast = fuse(net, precision)
    seen = set()
    for module in fast.modules():
        if isinstance(module, (IntegerConv2d, EventConv2d)):
            module.register_forward_pre_hook(lambda m, a: seen.add(a[0].dtype))
    levels = fast(images())
    assert all(level.dtype == torch.uint8 for level in levels)
    assert seen == {torch.uint8, torch.float32}  # the stem's conv sees the image
    if precision == 'int16':
        for level, plain in zip(levels, net(images())):
            assert (level.float() != plain).float().mean() < 0.01


def test_fused_in_fp32_and_bf16_counts_are_the_same():
    net = network(2).eval()
    expected = net(images())
    for level, plain in zip(fuse(net, 'fp32')(images()), expected):
        assert (level != plain).float().mean() < 0.01
    for level, plain in zip(fuse(net, 'bf16')(images()), expected):
        assert torch.equal(level, level.round())
        assert (level.float() - plain).abs().mean() < 0.2 * plain.mean()

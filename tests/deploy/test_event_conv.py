"""Convs of fused models by way of their spikes: the numbers, and which way is taken."""

import copy

import pytest
import torch
from torch import nn

from mmsnn import ops
from mmsnn.deploy import EventConv2d, fuse, integer_conv, resolve_precision
from mmsnn.deploy.fuse import event_convs
from mmsnn.deploy.integer_conv import IntegerConv2d, integer_convs
from mmsnn.models import SGResNet
from mmsnn.models.layers import TDBN

pytestmark = pytest.mark.skipif(bool(event_convs()), reason=event_convs() or 'runs')
NEURON = ops.LIF(v_threshold=0.1)


@pytest.fixture(autouse=True)
def an_ordinary_cpu(monkeypatch):
    monkeypatch.setattr(integer_conv, 'has_vnni', lambda: False)
    integer_convs.cache_clear()
    monkeypatch.setenv('MMSNN_EVENTS_BELOW', '1')
    yield
    monkeypatch.undo()
    integer_convs.cache_clear()


def spikes(*shape, rate=0.3):
    return (torch.rand(shape, generator=torch.Generator().manual_seed(0)) < rate).to(torch.uint8)


def conv_of(**options):
    torch.manual_seed(0)
    return nn.Conv2d(12, 70, 3, padding=1, **options)


@torch.no_grad()
@pytest.mark.parametrize('bits', [None, 16, 8, 2])
@pytest.mark.parametrize('options', [{}, dict(stride=2, bias=False), dict(groups=2, dilation=2)])
def test_currents(options, bits):
    conv = conv_of(**options)
    x = spikes(6, 12, 9, 8)
    layer = EventConv2d(conv, bits)
    exact = copy.deepcopy(conv).double()
    if bits:
        q, scale, _ = integer_conv.rounded(conv, bits)
        exact.weight = nn.Parameter(q.double() * scale.double().view(-1, 1, 1, 1))
    y = layer(x)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y.double(), exact(x.double()), rtol=1e-5, atol=1e-5)
    assert torch.equal(layer(x.float()), conv(x.float())), 'real values take the conv as it is'


@pytest.mark.parametrize('options', [{}, dict(stride=2, bias=False), dict(groups=2, dilation=2)])
def test_integers_are_integers_also_where_autograd_watches(options):
    layer, x = EventConv2d(conv_of(**options).requires_grad_(False), 8), spikes(6, 12, 9, 8)
    watched = layer(x)
    with torch.no_grad():
        assert torch.equal(layer(x), watched)


@torch.no_grad()
@pytest.mark.parametrize('bits', [None, 16, 8])
@pytest.mark.parametrize('gate', [None, 'or'])
def test_neurons_in_the_conv_are_those_behind_it(gate, bits):
    layer = EventConv2d(conv_of(), bits)
    x = spikes(6, 12, 9, 8).unflatten(0, (3, 2))
    options = dict(dtype=torch.uint8)
    if gate:
        options.update(gate=gate, shortcut=spikes(6, 70, 9, 8).unflatten(0, (3, 2)))
    out = layer.lif(x, NEURON, **options)
    currents = layer(x.flatten(0, 1)).unflatten(0, (3, 2))
    assert 0.05 < out.float().mean() < 0.95
    assert torch.equal(out, ops.lif(currents, *NEURON, **options))


@torch.no_grad()
def test_what_does_not_fire_in_the_conv(monkeypatch):
    layer, x = EventConv2d(conv_of()), spikes(3, 2, 12, 9, 8)
    assert layer.lif(x, NEURON, dtype=torch.uint8) is not None
    assert layer.lif(x, NEURON, dtype=torch.float32) is None
    assert layer.lif(x.float(), NEURON, dtype=torch.uint8) is None
    assert layer.lif(x, NEURON._replace(decay=torch.tensor(0.5)), dtype=torch.uint8) is None
    with torch.enable_grad():
        assert layer.lif(x, NEURON, dtype=torch.uint8) is None
    shortcut = torch.zeros(3, 2, 70, 9, 8)
    assert layer.lif(x, NEURON, gate='or', shortcut=shortcut, dtype=torch.uint8) is None


@torch.no_grad()
@pytest.mark.parametrize('bits', [None, 16, 8])
def test_weights_that_are_loaded_later_count(bits):
    layer, other = EventConv2d(conv_of(), bits), EventConv2d(conv_of(), bits)
    x = spikes(2, 12, 9, 8)
    first = layer(x)
    other.weight.copy_(2 * layer.weight)
    expected = other(x)
    layer.load_state_dict(other.state_dict())
    assert torch.equal(layer(x), expected)
    assert not torch.equal(expected, first)


@torch.no_grad()
def test_the_density_is_looked_at_once(monkeypatch):
    looked, density = [], ops.density
    monkeypatch.setattr(ops, 'density', lambda x: (looked.append(1), density(x))[1])
    monkeypatch.setenv('MMSNN_EVENTS_BELOW', '0')
    net = network()
    fast = fuse(net, 'fp32')
    fast(torch.randn(1, 3, 32, 32))
    convs = [m for m in fast.modules() if isinstance(m, EventConv2d)]
    assert len(looked) == len(convs) - 1, 'once for each conv but the first, which gets an image'


@torch.no_grad()
@pytest.mark.parametrize(
    ('below', 'rate', 'by_events'), [('0.2', 0.1, True), ('0.2', 0.3, False), ('0', 0.0, False)]
)
def test_the_way_goes_by_the_density(monkeypatch, below, rate, by_events):
    monkeypatch.setenv('MMSNN_EVENTS_BELOW', below)
    called = []
    by_spikes = ops.event_conv2d
    monkeypatch.setattr(ops, 'event_conv2d', lambda *args: (called.append(1), by_spikes(*args))[1])
    conv = conv_of()
    layer = EventConv2d(conv)
    x = spikes(2, 12, 40, 40, rate=rate)
    assert abs(ops.density(x) - rate) < 0.03
    y = layer(x)
    assert bool(called) == by_events
    torch.testing.assert_close(y, conv(x.float()), rtol=1e-5, atol=1e-5)
    # In whole numbers there is one way.
    assert EventConv2d(conv, 8).lif(x.unsqueeze(0), NEURON, dtype=torch.uint8) is not None


def network(**options):
    torch.manual_seed(0)
    act_cfg = dict(type='LIFNeuron', v_threshold=0.5)
    net = SGResNet(10, 3, base_channels=16, act_cfg=act_cfg, **options)
    for module in net.modules():
        if isinstance(module, TDBN):  # so that the deepest layers fire
            nn.init.constant_(module.bias, 0.3)
    with torch.no_grad():
        for _ in range(12):
            net(torch.randn(2, 3, 32, 32))
    return net.eval()


@torch.no_grad()
@pytest.mark.parametrize('precision', ['fp32', 'int16', 'int8'])
@pytest.mark.parametrize('block', ['sg', 'sew', 'tdbn'])
def test_a_fused_network(block, precision, monkeypatch):
    net = network(block=block)
    x = torch.randn(2, 3, 32, 32)
    fast = fuse(net, precision)
    kinds = {type(module) for module in fast.modules() if isinstance(module, nn.Conv2d)}
    assert kinds == {EventConv2d}
    levels = fast(x)
    expected = net(x)
    allowed = dict(fp32=0.002, int16=0.01, int8=0.2)[precision]
    for i, (level, other) in enumerate(zip(levels, expected)):
        assert level.shape == other.shape
        assert (level.dtype == torch.float32) == (precision == 'fp32')
        if i == 0 or precision == 'fp32':  # behind it rounded weights have moved many spikes
            assert (level.float() != other).float().mean() < allowed
    assert 0.02 < levels[-1].float().mean() < 0.9
    again = copy.deepcopy(fast)
    assert all(map(torch.equal, again(x), levels))


def test_without_kernels_nothing_goes_by_events():
    with ops.use_backend('reference'):
        fast = fuse(network(), 'fp32')
        assert not any(isinstance(module, EventConv2d) for module in fast.modules())
        with pytest.raises(ValueError, match="'int8' needs integer convs: this CPU has no VNNI"):
            resolve_precision('int8')
    assert resolve_precision('int8') == 'int8'


def test_units_for_bytes_come_first(monkeypatch):
    monkeypatch.setattr(integer_conv, 'has_vnni', lambda: True)
    integer_convs.cache_clear()
    if integer_convs():
        pytest.skip(integer_convs())
    fast = fuse(network(), 'int8')
    assert any(isinstance(module, IntegerConv2d) for module in fast.modules())
    assert not any(isinstance(module, EventConv2d) for module in fast.modules())

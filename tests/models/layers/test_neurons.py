import math

import pytest
import torch
from mmcv.cnn import ConvModule
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope

from mmsnn.models import IFNeuron, LIFNeuron, PLIFNeuron
from mmsnn.models.layers import check_time_steps
from mmsnn.ops import lif


@pytest.fixture
def currents():
    rng = torch.Generator().manual_seed(0)
    return 0.6 + torch.randn(6, 2, 3, 4, 4, generator=rng, dtype=torch.float64)


def spikes_and_gradient(call, x):
    x = x.clone().requires_grad_()
    s = call(x)
    (s * torch.linspace(-1, 1, s.numel(), dtype=s.dtype).view_as(s)).sum().backward()
    return s.detach(), x.grad


@pytest.mark.parametrize(
    'kwargs',
    [
        dict(reset='soft', v_threshold=0.5),
        dict(detach_reset=True, surrogate='rectangle', surrogate_width=2.0),
        dict(surrogate='sigmoid'),
    ],
)
@pytest.mark.parametrize(
    ('neuron', 'leak', 'decay', 'input_scale'),
    [
        (LIFNeuron, dict(), 0.5, 1.0),
        (LIFNeuron, dict(decay=0.25), 0.25, 1.0),
        (LIFNeuron, dict(tau=4.0), 0.75, 0.25),
        (IFNeuron, dict(), 1.0, 1.0),
        (PLIFNeuron, dict(decay=0.25), 0.25, 1.0),
        (PLIFNeuron, dict(tau=4.0), 0.75, 0.25),
    ],
)
def test_neurons_hand_their_arguments_to_lif(currents, neuron, leak, decay, input_scale, kwargs):
    layer = neuron(**leak, **kwargs).double()
    expected = spikes_and_gradient(lambda x: lif(x, decay, input_scale, **kwargs), currents)
    assert 0 < expected[0].mean() < 1
    s, grad = spikes_and_gradient(layer, currents)
    assert torch.equal(s, expected[0])
    torch.testing.assert_close(grad, expected[1], rtol=1e-5, atol=1e-6)


def test_the_two_spellings_are_one_neuron(currents):
    tau = 3.0
    # h = v + (x - v) / tau, step by step.
    v = torch.zeros_like(currents[0])
    expected = []
    for x in currents:
        h = v + (x - v) / tau
        s = (h >= 0.5).double()
        v = h * (1 - s)
        expected.append(s)
    expected = torch.stack(expected)
    assert 0 < expected.mean() < 1
    assert torch.equal(LIFNeuron(tau=tau, v_threshold=0.5)(currents), expected)
    by_decay = LIFNeuron(decay=1 - 1 / tau, v_threshold=0.5)
    assert torch.equal(by_decay(currents / tau), expected)


@pytest.mark.parametrize('reset', ['hard', 'soft'])
@pytest.mark.parametrize('detach', [False, True])
@pytest.mark.parametrize('spelling', ['decay', 'tau'])
def test_plif_gradient_of_its_parameter(reset, detach, spelling):
    rng = torch.Generator().manual_seed(3)
    x = 0.6 + torch.randn(5, 8, generator=rng, dtype=torch.float64)
    g = torch.randn(5, 8, generator=rng, dtype=torch.float64)
    layer = PLIFNeuron(
        **{spelling: 0.7 if spelling == 'decay' else 1.6}, reset=reset, detach_reset=detach
    ).double()
    layer(x).backward(g)

    p = 1 / (1 + math.exp(-layer.w.item()))
    decay, scale = (p, 1.0) if spelling == 'decay' else (1 - p, p)
    by_decay = by_scale = 0.0
    for i in range(8):
        v, h, s = [0.0], [], []
        for t in range(5):
            h.append(decay * v[t] + scale * x[t, i].item())
            s.append(float(h[t] >= 1))
            v.append(h[t] * (1 - s[t]) if reset == 'hard' else h[t] - s[t])
        dv = 0.0
        for t in reversed(range(5)):
            into_spike = 0.0 if detach else dv * (h[t] if reset == 'hard' else 1.0)
            keep = 1 - s[t] if reset == 'hard' else 1.0
            bump = 1 / (1 + (math.pi * (h[t] - 1)) ** 2)
            dh = dv * keep + (g[t, i].item() - into_spike) * bump
            by_decay += dh * v[t]
            by_scale += dh * x[t, i].item()
            dv = decay * dh
    # d sigmoid(w) = p (1 - p); in the tau spelling the decay is 1 - p and the scale is p.
    by_p = by_decay if spelling == 'decay' else by_scale - by_decay
    assert layer.w.grad.item() == pytest.approx(by_p * p * (1 - p), rel=1e-10)
    assert abs(layer.w.grad.item()) > 1e-3


def test_plif_starts_where_it_is_told_and_stays_in_range():
    assert PLIFNeuron(decay=0.9).decay.item() == pytest.approx(0.9)
    assert PLIFNeuron(decay=0.9).input_scale == 1
    by_tau = PLIFNeuron(tau=4)
    assert by_tau.decay.item() == pytest.approx(0.75)
    assert by_tau.input_scale.item() == pytest.approx(0.25)
    assert [name for name, _ in by_tau.named_parameters()] == ['w']
    with torch.no_grad():
        by_tau.w.fill_(100.0)
    assert 0 <= by_tau.decay.item() <= 1


@pytest.mark.parametrize('neuron', [LIFNeuron, IFNeuron])
def test_no_state_and_no_parameters(neuron, currents):
    layer = neuron()
    assert not layer.state_dict()
    assert torch.equal(layer(currents), layer(currents))


def test_time_folded_into_the_batch(currents):
    expected = LIFNeuron()(currents).flatten(0, 1)
    folded = currents.flatten(0, 1)
    assert torch.equal(LIFNeuron()(folded, 6), expected)
    assert torch.equal(LIFNeuron(time_steps=6)(folded), expected)
    # What the caller says goes before what the layer was built with.
    assert torch.equal(LIFNeuron(time_steps=4)(folded, 6), expected)
    assert not torch.equal(LIFNeuron()(folded, 3), expected)


def test_time_must_divide_the_batch():
    with pytest.raises(ValueError, match=r'time_steps=4 does not divide .* shape \(6, 3\)'):
        LIFNeuron(time_steps=4)(torch.zeros(6, 3))


@pytest.mark.parametrize('value', [0, -1, True, 2.5, '4', None])
def test_time_steps_is_a_positive_whole_number(value):
    with pytest.raises(ValueError, match='time_steps must be a whole number of at least 1, got'):
        check_time_steps(value)
    if value is not None:
        with pytest.raises(ValueError, match='time_steps must be a whole number'):
            LIFNeuron(time_steps=value)


@pytest.mark.parametrize(
    ('neuron', 'kwargs', 'match'),
    [
        (LIFNeuron, dict(decay=0.5, tau=2), r'not both: got decay=0.5 and tau=2'),
        (LIFNeuron, dict(decay=-0.1), r'decay must lie in \[0, 1\], got -0.1'),
        (LIFNeuron, dict(decay=1.1), 'got 1.1'),
        (LIFNeuron, dict(tau=0.5), 'tau must be at least 1 time step, got 0.5'),
        (LIFNeuron, dict(v_threshold=0), 'v_threshold must be positive and finite, got 0'),
        (LIFNeuron, dict(reset='none'), "unknown reset 'none': choose one of"),
        (LIFNeuron, dict(surrogate='step'), "unknown surrogate 'step': choose one of"),
        (LIFNeuron, dict(surrogate_width=-1), 'surrogate_width must be a positive number, got -1'),
        (PLIFNeuron, dict(decay=1.0), 'decay=1.0, needs more than 0 and less than 1'),
        (PLIFNeuron, dict(decay=0.0), 'decay=0.0'),
        (PLIFNeuron, dict(tau=1.0), 'tau=1.0, needs more than 1'),
    ],
)
def test_refusals(neuron, kwargs, match):
    with pytest.raises(ValueError, match=match):
        neuron(**kwargs)


@pytest.mark.parametrize('neuron', ['LIFNeuron', 'IFNeuron', 'PLIFNeuron'])
def test_as_an_mmcv_activation(neuron):
    init_default_scope('mmdet')
    torch.manual_seed(0)
    module = ConvModule(
        3,
        5,
        3,
        padding=1,
        norm_cfg=dict(type='TDBN', v_threshold=0.5),
        act_cfg=dict(type=neuron, time_steps=4, v_threshold=0.5),
    )
    assert type(module.activate) is MODELS.get(neuron)
    x = torch.randn(4 * 2, 3, 6, 6)
    out = module(x)
    weights = module.conv.weight
    current = torch.nn.functional.conv2d(x, weights, padding=1)
    mean = current.mean((0, 2, 3), keepdim=True)
    var = current.var((0, 2, 3), keepdim=True, unbiased=False)
    current = 0.5 * (current - mean) / (var + 1e-5).sqrt()
    decay = 1.0 if neuron == 'IFNeuron' else 0.5
    expected = lif(current.unflatten(0, (4, 2)), decay, v_threshold=0.5).flatten(0, 1)
    assert 0.05 < expected.mean() < 0.95
    assert torch.equal(out, expected)
    # mmcv asks for in-place activations; currents must survive them.
    x = torch.full((4, 1), 0.7)
    module.activate(x)
    assert torch.equal(x, torch.full((4, 1), 0.7))

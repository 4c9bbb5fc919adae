import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.registry import MODELS

from mmsnn.models.layers import LearnedGate, ResidualGate, SpikingNeuron, build_gate

NORM = dict(type='TDBN')
LIF = dict(type='LIFNeuron')


def spikes(shape, rate=0.5, seed=0):
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < rate).float()


def learned_gate(channels=4, act_cfg=LIF):
    torch.manual_seed(0)
    return LearnedGate(channels, NORM, act_cfg)


def open_gate(gate):
    """Make about half of the gate signals fire."""
    torch.nn.init.ones_(gate.norm.weight)
    torch.nn.init.constant_(gate.norm.bias, 0.7)
    return gate


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('ResidualGate', [0, 1, 1, 1]),
        ('SEWAddGate', [0, 1, 1, 2]),
        ('SEWAndGate', [0, 0, 0, 1]),
        ('SEWIAndGate', [0, 1, 0, 0]),
    ],
)
def test_truth_table(name, expected):
    r = torch.tensor([0.0, 0.0, 1.0, 1.0]).view(4, 1, 1, 1)
    s = torch.tensor([0.0, 1.0, 0.0, 1.0]).view(4, 1, 1, 1)
    gate = build_gate(dict(type=name), 1, NORM, LIF)
    assert type(gate) is MODELS.get(name)
    assert gate(r, s, 4).flatten().tolist() == expected
    assert not list(gate.parameters())


@given(seed=st.integers(0, 2**16), rate=st.floats(0, 1), time_steps=st.integers(1, 4))
@settings(max_examples=25, deadline=None)
def test_sg_gates_are_binary(seed, rate, time_steps):
    r, s = (spikes((time_steps * 2, 4, 3, 3), rate, seed + i) for i in range(2))
    for gate in (ResidualGate(), learned_gate(), open_gate(learned_gate())):
        out = gate(r, s, time_steps)
        assert out.shape == r.shape
        assert bool(((out == 0) | (out == 1)).all())


def test_derivatives_of_the_residual_gate():
    r, s = spikes((4, 2, 3, 3)).requires_grad_(), spikes((4, 2, 3, 3), seed=1).requires_grad_()
    ResidualGate()(r, s, 4).sum().backward()
    assert torch.equal(s.grad, 1 - r)
    assert torch.equal(r.grad, 1 - s)


def test_learned_gate_selects_by_its_signal():
    gate = open_gate(learned_gate())
    r, s = spikes((8, 4, 5, 5)), spikes((8, 4, 5, 5), seed=1)
    # The signal sees nothing but the shortcut: conv, norm over (T, B, H, W), neuron of 4 steps.
    current = torch.einsum('oi,bihw->bohw', gate.conv.weight[..., 0, 0], s)
    mean = current.mean((0, 2, 3), keepdim=True)
    std = (current.var((0, 2, 3), keepdim=True, unbiased=False) + 1e-5).sqrt()
    current = ((current - mean) / std + 0.7).view(4, 2, 4, 5, 5)
    v, signal = 0.0, []
    for x in current:
        h = 0.5 * v + x
        signal.append((h >= 1).float())
        v = h * (1 - signal[-1])
    signal = torch.cat(signal)
    assert 0.1 < signal.mean() < 0.9
    assert torch.equal(gate(r, s, 4), torch.where(signal == 1, r, s))


@pytest.mark.parametrize('training', [True, False])
def test_learned_gate_starts_as_the_identity(training):
    gate = learned_gate().train(training)
    r, s = spikes((8, 4, 5, 5)), spikes((8, 4, 5, 5), seed=1).requires_grad_()
    out = gate(r, s, 4)
    assert torch.equal(out, s)
    g = torch.randn_like(out)
    out.backward(g)
    assert torch.equal(s.grad, g)


@pytest.mark.parametrize(
    'act_cfg',
    [
        LIF,
        dict(LIF, decay=0.9),
        dict(type='LIFNeuron', tau=3.0, v_threshold=0.5),
        dict(type='PLIFNeuron', decay=0.25),
        dict(type='IFNeuron'),
    ],
)
def test_learned_gate_starts_just_below_the_threshold(act_cfg):
    gate = learned_gate(act_cfg=act_cfg)
    neuron = gate.neuron
    decay, scale = (torch.as_tensor(x).item() for x in (neuron.decay, neuron.input_scale))
    h = 0.0
    for t in range(1, 65):
        h = decay * h + scale * gate.norm.bias[0].item()
        assert h < 0.81 * neuron.v_threshold, t
    if act_cfg['type'] != 'IFNeuron':
        assert h == pytest.approx(0.8 * neuron.v_threshold, rel=0.01)
    s = spikes((64, 4, 5, 5))
    assert torch.equal(gate(1 - s, s, 64), s)


def test_learned_gate_learns():
    gate = learned_gate()
    optim = torch.optim.SGD(gate.parameters(), lr=1e-3)
    r, s = spikes((8, 4, 5, 5)), spikes((8, 4, 5, 5), seed=1)

    def backward():
        optim.zero_grad()
        (gate(r, s, 4) - r).square().sum().backward()

    # The affine of zero hides the conv at first; its own gradient is there at once.
    backward()
    assert (gate.norm.weight.grad != 0).all()
    assert (gate.norm.bias.grad != 0).all()
    assert not gate.conv.weight.grad.any()
    optim.step()
    backward()
    assert (gate.conv.weight.grad != 0).all()
    for _ in range(100):
        backward()
        optim.step()
    # Asked to give R everywhere, it opens.
    assert not torch.equal(gate(r, s, 4), s)


@pytest.mark.parametrize(
    ('surrogate', 'width', 'fits'),
    [
        # h = 0.4 after a step, u = -0.6; a rectangle reaches width / 2, a triangle width.
        ('rectangle', 1.0, False),
        ('rectangle', 1.1, False),
        ('rectangle', 1.3, True),
        ('triangle', 0.5, False),
        ('triangle', 0.7, True),
        ('arctan', 0.1, True),
        ('sigmoid', 1.0, True),
    ],
)
def test_learned_gate_wants_a_surrogate_with_a_gradient_at_its_start(surrogate, width, fits):
    act_cfg = dict(LIF, surrogate=surrogate, surrogate_width=width)
    if not fits:
        with pytest.raises(ValueError, match=f"'{surrogate}' surrogate .* could never open"):
            learned_gate(act_cfg=act_cfg)
        return
    gate = learned_gate(act_cfg=act_cfg)
    gate(spikes((8, 4, 5, 5)), spikes((8, 4, 5, 5), seed=1), 4).sum().backward()
    assert gate.norm.bias.grad.abs().sum() > 0


def test_reach_counts_in_thresholds():
    act_cfg = dict(LIF, surrogate='rectangle', surrogate_width=1.0, v_threshold=0.4)
    assert learned_gate(act_cfg=act_cfg).norm.v_threshold == 0.4


def test_a_neuron_of_ones_own_without_a_gradient_is_refused_in_words():
    class Deaf(SpikingNeuron):
        def fire(self, x):
            return (x > 1).to(x.dtype)

        def learns_at(self, potential):
            return False

    MODELS.register_module(name='Deaf', module=Deaf, force=True)
    with pytest.raises(ValueError, match=r'a surrogate of its own has no gradient .* never open'):
        learned_gate(act_cfg=dict(type='Deaf'))

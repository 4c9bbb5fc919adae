import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.registry import MODELS
from torch import nn

from mmsnn.compat.checkpoint import CheckpointError, load_weights
from mmsnn.models.layers import LearnedGate, ResidualGate, build_gate

NORM = dict(type='TDBN')
LIF = dict(type='LIFNeuron')


def spikes(shape, rate=0.5, seed=0):
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < rate).float()


def learned_gate(channels=4, act_cfg=LIF):
    torch.manual_seed(0)
    return LearnedGate(channels, NORM, act_cfg)


def open_gate(gate):
    """Let it open and close here and there."""
    torch.nn.init.constant_(gate.norm.weight, 2.0)
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


def signals(gate, r):
    """What the gate's neuron makes of a branch, step by step: conv, norm over (T, B, H, W)."""
    current = torch.einsum('oi,bihw->bohw', gate.conv.weight[..., 0, 0], r)
    mean = current.mean((0, 2, 3), keepdim=True)
    std = (current.var((0, 2, 3), keepdim=True, unbiased=False) + 1e-5).sqrt()
    current = (2 * (current - mean) / std).view(4, -1, *r.shape[1:])
    v, fired = [0.0, 0.0], ([], [])
    for x in current:
        for i, h in enumerate((0.5 * v[0] + x, 0.5 * v[1] - x)):
            fired[i].append((h >= 1).float())
            v[i] = h * (1 - fired[i][-1])
    return [torch.cat(steps) for steps in fired]


def test_learned_gate_selects_by_its_signal():
    gate = open_gate(learned_gate())
    r, s = spikes((8, 4, 5, 5)), spikes((8, 4, 5, 5), seed=1)
    opens, closes = signals(gate, r)
    assert 0.1 < opens.mean() < 0.5
    assert 0.1 < closes.mean() < 0.5
    assert not (opens * closes).any()
    signal = torch.where(opens == 1, 1.0, torch.where(closes == 1, 0.0, r))
    assert torch.equal(gate(r, s, 4), torch.where(signal == 1, r, s))


@pytest.mark.parametrize('values', ['counts', 'signed'])
def test_learned_gate_of_other_spikes(values):
    """Where it opens the branch goes out, where it closes the shortcut, else what is stronger."""
    gate = open_gate(learned_gate())
    gate.values = values
    low = -1 if values == 'signed' else 0
    r, s = (torch.randint(low, 2 if values == 'signed' else 5, (8, 4, 5, 5)).float() for _ in 'rs')
    opens, closes = signals(gate, r)
    both = torch.maximum(r, s) if values == 'counts' else torch.where(r != 0, r, s)
    expected = torch.where(opens == 1, r, torch.where(closes == 1, s, both))
    assert torch.equal(gate(r, s, 4), expected)


@pytest.mark.parametrize('training', [True, False])
def test_learned_gate_at_rest_is_the_residual_gate(training):
    gate = learned_gate().train(training)
    torch.nn.init.zeros_(gate.norm.weight)
    results = []
    for join in (gate, ResidualGate()):
        r, s = spikes((8, 4, 5, 5)).requires_grad_(), spikes((8, 4, 5, 5), seed=1).requires_grad_()
        out = join(r, s, 4)
        out.backward(torch.linspace(-1, 1, out.numel()).view_as(out))
        results.append((out, r.grad, s.grad))
    assert all(torch.equal(own, residual) for own, residual in zip(*results))


@pytest.mark.parametrize('norm', ['TDBN', 'BN'])
@pytest.mark.parametrize('v_threshold', [0.3, 1.0])
def test_learned_gate_starts_near_the_residual_gate(norm, v_threshold):
    """As near at every threshold."""
    torch.manual_seed(0)
    gate = LearnedGate(16, dict(type=norm), dict(LIF, v_threshold=v_threshold))
    r, s = (spikes((8, 16, 9, 9), 0.3, seed) for seed in (0, 1))
    differs = (gate(r, s, 4) != ResidualGate()(r, s, 4)).float().mean()
    assert 0.005 < differs < 0.1


@pytest.mark.parametrize('surrogate', ['arctan', 'rectangle'])
def test_learned_gate_learns(surrogate):
    gate = learned_gate(act_cfg=dict(LIF, surrogate=surrogate))
    optim = torch.optim.SGD(gate.parameters(), lr=3e-2)
    r, s = spikes((8, 4, 5, 5)), spikes((8, 4, 5, 5), seed=1)
    losses = []
    for _ in range(100):
        optim.zero_grad()
        loss = (gate(r, s, 4) - s).square().sum()
        loss.backward()
        if not losses:
            assert all(parameter.grad.any() for parameter in gate.parameters())
        optim.step()
        losses.append(loss.item())
    # Asked to give S everywhere, it closes where the branch would go out.
    assert losses[-1] < losses[0] / 2


def test_reach_counts_in_thresholds():
    act_cfg = dict(LIF, surrogate='rectangle', surrogate_width=1.0, v_threshold=0.4)
    assert learned_gate(act_cfg=act_cfg).norm.v_threshold == 0.4


def test_weights_of_the_earlier_learned_gate_are_refused():
    gate = LearnedGate(4, norm_cfg=dict(type='TDBN'), act_cfg=dict(type='LIFNeuron'))
    state = gate.state_dict()
    gate.load_state_dict(state)
    gate.load_state_dict(dict(state))  # as a file of weights alone has them
    state._metadata['']['version'] = 1
    with pytest.raises(RuntimeError, match='LearnedGate of an earlier mmsnn'):
        gate.load_state_dict(state)


@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_files_of_the_earlier_learned_gate_are_refused(tmp_path, prefix):
    gate = nn.ModuleDict(
        dict(gate=LearnedGate(4, norm_cfg=dict(type='TDBN'), act_cfg=dict(type='LIFNeuron')))
    )
    own = gate.state_dict()
    state = type(own)((prefix + key, value) for key, value in own.items())
    state._metadata = {prefix + key if key else '': {**v} for key, v in own._metadata.items()}
    torch.save(dict(state_dict=state), tmp_path / 'new.pth')
    load_weights(gate, tmp_path / 'new.pth')
    state._metadata[f'{prefix}gate']['version'] = 1
    torch.save(dict(state_dict=state), tmp_path / 'old.pth')
    with pytest.raises(CheckpointError, match='gate is a LearnedGate of an earlier mmsnn'):
        load_weights(gate, tmp_path / 'old.pth')


def test_weights_of_another_gate_are_no_earlier_ones():
    """A network of residual gates starts one of learned gates."""
    residual, learned = (
        nn.ModuleDict(dict(conv=nn.Conv2d(4, 4, 1), gate=gate))
        for gate in (ResidualGate(), learned_gate())
    )
    missing, unexpected = learned.load_state_dict(residual.state_dict(), strict=False)
    assert not unexpected
    assert all(key.startswith('gate.') for key in missing)
    assert torch.equal(learned['conv'].weight, residual['conv'].weight)

"""Windows one after the other are one long forward, bit for bit."""

import copy
import importlib

import pytest
import torch
from own_parts import forgotten
from torch import nn

from mmsnn import ops
from mmsnn.deploy import fuse
from mmsnn.models import ILIFNeuron, LIFNeuron, SGResNet, SpikingNeuron
from mmsnn.models.layers import Streaming

WINDOWS, T, B = 3, 2, 3
NEURONS = [
    dict(type='LIFNeuron'),
    dict(type='LIFNeuron', reset='soft', tau=1.5),
    dict(type='PLIFNeuron'),
    dict(type='ILIFNeuron'),
]


def network(act_cfg=NEURONS[0], **kwargs):
    """One that fires in every layer."""
    torch.manual_seed(0)
    options = {'num_stages': 2, 'strides': (1, 2), 'out_indices': (0, 1), **kwargs}
    net = SGResNet(
        10, time_steps=T, in_channels=2, base_channels=16, act_cfg=act_cfg, **options
    ).eval()
    for module in net.modules():
        if hasattr(module, 'running_var'):
            module.running_var.fill_(0.3)
    return net


@pytest.fixture
def frames():
    torch.manual_seed(1)
    return 4 * torch.rand(WINDOWS, T, B, 2, 32, 32)


def at_once(net, frames):
    net.time_steps = len(frames) * T
    found = net(frames.flatten(0, 1))
    net.time_steps = T
    return found


def one_by_one(streaming, frames):
    with streaming.carried():
        found = [streaming.model(window) for window in frames]
    return [torch.cat(levels) for levels in zip(*found)]


def same(ours, theirs):
    return all(torch.equal(a, b) and b.any() for a, b in zip(ours, theirs))


@pytest.mark.parametrize('precision', [None, 'fp32', 'bf16', 'int8', 'int16'])
@pytest.mark.parametrize('act_cfg', NEURONS, ids=lambda cfg: '-'.join(map(str, cfg.values())))
@pytest.mark.parametrize('backend', ['reference', 'c'])
@torch.no_grad()
def test_windows_equal_the_sequence(frames, backend, act_cfg, precision):
    with ops.use_backend(backend):
        net = network(act_cfg)
        if precision is not None:
            try:
                net = fuse(net, precision)
            except ValueError as error:
                pytest.skip(f'this machine: {error}')
        whole = at_once(net, frames)
        assert same(one_by_one(Streaming(net), frames), whole)
        # Without a stream, the second window differs: nothing is handed on.
        alone = net(frames[1])
        assert not torch.equal(alone[0], whole[0][T : 2 * T])


@pytest.mark.parametrize('block', ['plain', 'sew', 'ms', 'sg'])
@torch.no_grad()
def test_all_blocks(frames, block):
    gate = dict(gate_cfg=dict(type='LearnedGate')) if block == 'sg' else {}
    net = network(block=block, **gate)
    assert same(one_by_one(Streaming(net), frames), at_once(net, frames))


@torch.no_grad()
def test_windows_in_a_batch(frames):
    """All first windows first, and the neurons go on inside of one forward."""
    net = network()
    batch = frames.transpose(0, 1).flatten(1, 2)  # (T, windows * B, ...)
    with Streaming(net).carried(windows=WINDOWS):
        found = net(batch)
    whole = at_once(net, frames)
    expected = [level.unflatten(0, (WINDOWS, T)).transpose(0, 1).flatten(1, 2) for level in whole]
    assert same(found, expected)
    two = Streaming(net).carried(windows=2)
    with two, pytest.raises(ValueError, match='windows=2 does not divide a batch of 9'):
        net(batch)


@torch.no_grad()
def test_images_go_on_too():
    net = network()
    images = 4 * torch.rand(1, 2, 32, 32)
    net.time_steps = 2 * T
    whole = net(images)
    net.time_steps = T
    streaming = Streaming(net)
    with streaming.carried():
        found = [torch.cat(levels) for levels in zip(net(images), net(images))]
    assert same(found, whole)
    with Streaming(net).carried(windows=2):
        both = net(images.repeat(2, 1, 1, 1))
    assert torch.equal(both[0][:, 1:], whole[0][T:])


@torch.no_grad()
def test_states_survive_copies(frames):
    net = network()
    streaming = Streaming(net)
    first = one_by_one(streaming, frames[:1])
    copied = copy.deepcopy(streaming)
    assert copied.model is not net
    rest = one_by_one(streaming, frames[1:])
    assert same(one_by_one(copied, frames[1:]), rest)
    assert same([torch.cat(pair) for pair in zip(first, rest)], at_once(net, frames))


@torch.no_grad()
def test_the_model_stays_stateless(frames):
    net = network()
    before = net(frames[0])
    streaming = Streaming(net)
    one_by_one(streaming, frames)
    assert same(net(frames[0]), before)
    assert all(m.state is None for m in net.modules() if isinstance(m, SpikingNeuron))
    with pytest.raises(RuntimeError, match='stop'), streaming.carried(windows=2):
        raise RuntimeError('stop')
    assert net.windows == 1
    assert same(net(frames[0]), before)


@torch.no_grad()
def test_recordings_end_begin_and_change_places(frames):
    net = network()
    streaming = Streaming(net)
    one_by_one(streaming, frames[:1])
    order = [2, 0, 1]
    streaming.select([2, None, 1])
    found = one_by_one(streaming, frames[1:2, :, order])[0]
    goes_on, begins = at_once(net, frames[:2])[0][T:], net(frames[1])[0]
    assert torch.equal(found[:, 0], goes_on[:, 2])
    assert torch.equal(found[:, 1], begins[:, 0])
    assert torch.equal(found[:, 2], goes_on[:, 1])
    streaming.reset([0])
    again = one_by_one(streaming, frames[2:, :, order])[0]
    assert torch.equal(again[:, 0], net(frames[2])[0][:, 2])
    assert torch.equal(again[:, 2], at_once(net, frames)[0][2 * T :, 1])
    with pytest.raises(ValueError, match='recording 3 is none of the 3 that go on'):
        streaming.reset([3])


@torch.no_grad()
def test_another_batch_is_refused(frames):
    streaming = Streaming(network())
    one_by_one(streaming, frames)
    with pytest.raises(ValueError, match=r'\(3, 16, 16, 16\).*\(1, 16, 16, 16\).*Reset the state'):
        one_by_one(streaming, frames[:, :, :1])
    streaming.expect(3)
    with pytest.raises(ValueError, match='3 recordings go on side by side, and windows of 2 came'):
        streaming.expect(2)
    streaming.reset()
    streaming.expect(2)
    one_by_one(streaming, frames[:, :, :1])


def test_what_cannot_stream():
    with pytest.raises(ValueError, match='Linear has no spiking neuron'):
        Streaming(nn.Linear(2, 2))
    neuron = LIFNeuron()
    with pytest.raises(ValueError, match=r'b \(LIFNeuron\) cannot stream: it is a as well'):
        Streaming(nn.ModuleDict(dict(a=neuron, b=neuron)))

    class Hidden(LIFNeuron):
        def forward(self, x, time_steps=None):
            return super().forward(x, time_steps)

    class Own(SpikingNeuron):
        def fire(self, x):
            return ops.fire(x - 1)

    for kind in (Hidden, Own):
        with pytest.raises(ValueError, match=rf'a \({kind.__name__}\) cannot stream: .*fire_from'):
            Streaming(nn.ModuleDict(dict(a=kind())))
    net = nn.ModuleDict(dict(a=LIFNeuron()))
    streaming = Streaming(net)
    with pytest.raises(ValueError, match=r'ModuleDict has no backbone .* windows=2'):
        streaming.attach(2)
    with streaming.carried(), pytest.raises(ValueError, match='another stream is being carried'):
        Streaming(net).attach()
    net['b'] = LIFNeuron()
    with pytest.raises(ValueError, match='neurons of the model have changed'):
        streaming.attach()


def test_with_cp_is_refused_in_training(frames):
    net = network(with_cp=True).train()
    with pytest.raises(ValueError, match='with_cp=True of SGResNet computes blocks twice'):
        Streaming(net).attach()
    with Streaming(net.eval()).carried(), torch.no_grad():
        net(frames[0])


@pytest.mark.parametrize('backend', ['reference', 'c'])
@pytest.mark.parametrize('act_cfg', NEURONS, ids=lambda cfg: '-'.join(map(str, cfg.values())))
def test_gradients_run_through_the_windows_of_a_batch(frames, backend, act_cfg):
    """Those of windows 2 and 3 from the state behind 1 are those of a sequence cut there."""
    with ops.use_backend(backend):
        net = network(act_cfg)
        streaming = Streaming(net)
        with torch.no_grad():
            one_by_one(streaming, frames[:1])
        batch = frames[1:].transpose(0, 1).flatten(1, 2)
        with streaming.carried(windows=2):
            spikes = net(batch)
        with torch.no_grad():
            expected = [level[T:] for level in at_once(net, frames)]
        assert same(
            [s.unflatten(1, (2, B)).transpose(0, 1).flatten(0, 1) for s in spikes], expected
        )
        weights = [torch.randn_like(level) for level in spikes]
        sum((w * s).sum() for w, s in zip(weights, spikes)).backward()
        grads = [p.grad for p in net.parameters()]
        assert all(g is not None and g.isfinite().all() for g in grads)
        assert any(g.abs().sum() > 0 for g in grads)
        # What is handed on is where the whole sequence ends.
        fresh = Streaming(net)
        with torch.no_grad():
            one_by_one(fresh, frames)
        for name, state in streaming.states.items():
            for ours, theirs in zip(state.tensors, fresh.states[name].tensors):
                assert not ours.requires_grad
                assert torch.equal(ours, theirs)


@torch.no_grad()
def test_neurons_from_outside(frames):
    """One of two states that says how it goes on, and one that doesn't."""
    with forgotten('my_spikes'):
        importlib.import_module('my_spikes')
        net = network(dict(type='AdaptiveNeuron'))
        assert same(one_by_one(Streaming(net), frames), at_once(net, frames))
        with pytest.raises(ValueError, match=r'\(TernaryNeuron\) cannot stream'):
            Streaming(network(dict(type='TernaryNeuron'), block='plain'))


def test_training_mode_normalises_by_chunk(frames):
    """As always in training; what is handed on is what neurons had."""
    net = network().train()
    streaming = Streaming(net)
    with streaming.carried(windows=WINDOWS):
        net(frames.transpose(0, 1).flatten(1, 2))[0].sum().backward()
    assert all(len(state.tensors) == 1 for state in streaming.states.values())


def test_a_fire_of_its_own_does_not_go_on_as_its_ancestor():
    class Later(ILIFNeuron):
        def fire(self, x):
            return super().fire(x).clamp(max=1)

    class Both(Later):
        def fire_from(self, x, state):
            return super().fire_from(x, state).clamp(max=1)

    assert ILIFNeuron().hands_on
    assert Both().hands_on
    assert not Later().hands_on
    with pytest.raises(ValueError, match=r'a \(Later\) cannot stream'):
        Streaming(nn.ModuleDict(dict(a=Later())))

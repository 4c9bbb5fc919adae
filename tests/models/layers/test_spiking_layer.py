"""The fused layer is the modules it is made of, in values, gradients, statistics and hooks."""

import pytest
import torch
from torch import nn

from mmsnn import ops
from mmsnn.models import SGResNet
from mmsnn.models.layers import (
    IFNeuron,
    LIFNeuron,
    PLIFNeuron,
    SpikingNeuron,
    build_gate,
    spiking_layer,
)
from mmsnn.models.layers.pool import SpikeMaxPool2d
from mmsnn.models.layers.tdbn import TDBN, SyncTDBN

GATES = [None, 'ResidualGate', 'SEWAddGate', 'SEWAndGate', 'SEWIAndGate', 'LearnedGate']


def layers(norm=TDBN, neuron=LIFNeuron, gate=None, **neuron_options):
    torch.manual_seed(0)
    conv = nn.Conv2d(6, 8, 3, padding=1, bias=False)
    made = norm(8)
    if list(made.parameters()):
        nn.init.uniform_(made.weight, 0.5, 1.5)
        nn.init.uniform_(made.bias, -0.2, 0.6)
    act = dict(type='LIFNeuron', **neuron_options)
    gate = gate and build_gate(dict(type=gate), 8, dict(type='TDBN'), act)
    return conv, made, neuron(**neuron_options), gate


def run(parts, x, shortcut, shared=False, hooked=False, time_steps=3):
    conv, norm, neuron, gate = parts
    if hooked:
        for module in parts:
            if module is not None:
                module.register_forward_hook(lambda *_: None)
    x = x.clone().requires_grad_()
    shortcut = shortcut if gate is None else shortcut.clone().requires_grad_()
    out = spiking_layer(
        conv,
        norm,
        neuron,
        x,
        time_steps,
        gate,
        None if gate is None else shortcut,
        shared=shared,
        binary=not shared,
    )
    out.backward(torch.randn(out.shape, generator=torch.Generator().manual_seed(1)))
    params = [p for module in (conv, norm, neuron, gate) if module for p in module.parameters()]
    return out, [x.grad, *(p.grad for p in params)] + ([] if gate is None else [shortcut.grad])


def spikes(*shape):
    return (torch.rand(shape, generator=torch.Generator().manual_seed(2)) > 0.6).float()


@pytest.mark.parametrize('gate', GATES)
@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('shared', [True, False])
@pytest.mark.parametrize('norm', [TDBN, SyncTDBN, nn.BatchNorm2d])
def test_fused_equals_modules(norm, shared, training, gate):
    x = torch.randn(2, 6, 7, 9) if shared else spikes(6, 6, 7, 9)
    shortcut = spikes(6, 8, 7, 9)
    results = []
    for hooked in (False, True):
        parts = layers(norm, gate=gate)
        for module in parts:
            if module is not None:
                module.train(training)
        results.append((*run(parts, x, shortcut, shared, hooked), parts[1].state_dict()))
    (out, grads, state), (out2, grads2, state2) = results
    assert 0 < out.mean() < 1
    assert torch.equal(out, out2)
    for a, b in zip(grads, grads2):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    for name in state:
        torch.testing.assert_close(state[name], state2[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('neuron', [LIFNeuron, IFNeuron, PLIFNeuron])
@pytest.mark.parametrize('norm', [nn.Identity, lambda c: nn.GroupNorm(2, c)])
def test_other_norms_and_neurons(norm, neuron):
    x = spikes(6, 6, 7, 9)
    fused = run(layers(norm, neuron, 'ResidualGate'), x, spikes(6, 8, 7, 9))
    parts = run(layers(norm, neuron, 'ResidualGate'), x, spikes(6, 8, 7, 9), hooked=True)
    assert torch.equal(fused[0], parts[0])
    for a, b in zip(fused[1], parts[1]):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_a_neuron_of_the_users_own_is_called():
    class Silent(LIFNeuron):
        def forward(self, x, time_steps=None):
            return torch.zeros_like(x) * x

    conv, norm, _, _ = layers()
    assert spiking_layer(conv, norm, Silent(), spikes(6, 6, 7, 9), 3).sum() == 0


@pytest.mark.parametrize('watched', ['conv1', 'bn1', 'neuron2', 'gate', 'downsample_neuron'])
def test_hooks_see_what_they_ask_for(watched):
    torch.manual_seed(0)
    net = SGResNet(10, base_channels=8).eval()
    x = torch.rand(1, 3, 64, 64)
    before = net(x)
    seen = {}
    for name, module in net.named_modules():
        if name.endswith(watched):
            module.register_forward_hook(lambda m, i, out, name=name: seen.update({name: out}))
    after = net(x)
    assert len(seen) == (3 if watched == 'downsample_neuron' else 4)
    assert all(map(torch.equal, before, after))


def test_memory_of_a_training_step():
    # What backward keeps: of the stem one current, of every layer its conv's output, and spikes at
    # a bit a value. The modules one by one keep three times as much.
    torch.manual_seed(0)
    net = SGResNet(18, base_channels=16)
    x = torch.rand(1, 3, 64, 64)
    kept = []
    for hooked in (False, True):
        if hooked:
            for module in net.modules():
                if not list(module.children()):
                    module.register_forward_hook(lambda *_: None)
        stores = {}

        def note(t, stores=stores):
            stores[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
            return t

        params = {p.untyped_storage().data_ptr() for p in net.parameters()}
        with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
            outs = net(x)
        kept.append(sum(n for pointer, n in stores.items() if pointer not in params))
        del outs
    assert kept[0] < 0.45 * kept[1], kept


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('shared', [True, False])
def test_pooled_at_once_the_spikes_are_the_same(shared, dtype, monkeypatch):
    conv, norm, neuron, _ = layers(v_threshold=0.5)
    pool = SpikeMaxPool2d(3, 2, padding=1)
    seen = []
    plain = ops.norm_lif

    def norm_lif(*args, pool=None, **options):
        seen.append(pool)
        return plain(*args, pool=pool, **options)

    monkeypatch.setattr(ops, 'norm_lif', norm_lif)
    x = torch.randn(2, 6, 7, 9) if shared else spikes(6, 6, 7, 9)
    conv, norm, x = (v.to(dtype) for v in (conv, norm.eval(), x))

    def forward():
        return spiking_layer(conv, norm, neuron, x, 3, shared=shared, pool=pool)

    expected = forward()
    with torch.no_grad():
        out = forward()
        neuron.observer = lambda neuron, spikes: seen.append(spikes.dtype)
        observed = forward()
        neuron.observer = None
        pool.register_forward_hook(lambda *_: None)
        hooked = forward()
    assert seen == [(3, 2, 1), (3, 2, 1), None, dtype, None]
    assert out.dtype == dtype
    assert 0.05 < out.float().mean() < 0.95
    assert torch.equal(out, expected)
    assert torch.equal(observed, expected)
    assert torch.equal(hooked, expected)


def test_a_neuron_that_computes_nothing_is_named():
    class Nothing(SpikingNeuron):
        pass

    with pytest.raises(NotImplementedError, match=r'Nothing needs a fire\(x\) or a record\(\)'):
        spiking_layer(nn.Conv2d(3, 4, 1), nn.Identity(), Nothing(), torch.zeros(2, 3, 4, 4), 2)

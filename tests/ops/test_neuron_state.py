"""Potentials that are handed on: several calls are one, bit for bit, with the right gradients."""

import pytest
import torch

from mmsnn import ops
from mmsnn.ops import NeuronState, lif, norm_lif

STEPS = 6
GATES = [None, 'or', 'add', 'and', 'iand']


@pytest.fixture(params=['reference', 'c'])
def backend(request):
    with ops.use_backend(request.param):
        yield request.param


def draw(*shape, seed=0, layout=torch.contiguous_format):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return x.flatten(0, 1).contiguous(memory_format=layout).unflatten(0, shape[:2])


def in_parts(x, state=None, cuts=(1, 3), shortcut=None, **options):
    state, found = NeuronState() if state is None else state, []
    bounds = [0, *cuts, len(x)]
    for first, last in zip(bounds, bounds[1:]):
        part = None if shortcut is None else shortcut[first:last]
        found.append(lif(x[first:last], shortcut=part, state=state, **options))
    return torch.cat(found)


@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('gate', GATES)
@pytest.mark.parametrize('reset', ['hard', 'soft'])
@torch.no_grad()
def test_calls_equal_one_call(backend, reset, gate, layout):
    x = draw(STEPS, 2, 5, 7, 6, layout=layout)
    shortcut = (draw(STEPS, 2, 5, 7, 6, seed=1, layout=layout) > 0.5).float() if gate else None
    options = dict(decay=0.7, input_scale=1.5, v_threshold=0.6, reset=reset, gate=gate)
    options.update(scale=1 + draw(5, 1, seed=2).flatten().abs(), shift=draw(5, 1, seed=3).flatten())
    for dtype in (None, torch.uint8, torch.bfloat16):
        whole = lif(x, shortcut=shortcut, dtype=dtype, **options)
        assert torch.equal(in_parts(x, shortcut=shortcut, dtype=dtype, **options), whole)
        assert not torch.equal(lif(x[3:], dtype=dtype, **{**options, 'gate': None}), whole[3:])


@pytest.mark.parametrize('dtype', [torch.float64, torch.bfloat16, torch.float16])
@torch.no_grad()
def test_other_dtypes(backend, dtype):
    x = draw(STEPS, 2, 5, 4, 4).to(dtype)
    state = NeuronState()
    assert torch.equal(in_parts(x, state), lif(x))
    assert state.tensors[0].dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


@torch.no_grad()
def test_pools_outputs_and_shared_currents(backend):
    x = draw(STEPS, 2, 8, 6, 6, layout=torch.channels_last)
    pool = 3, 2, 1
    assert torch.equal(in_parts(x, pool=pool), lif(x, pool=pool))
    state, out = NeuronState(), torch.zeros_like(x)
    for i in range(STEPS):
        lif(x[i : i + 1], state=state, out=out[i : i + 1])
    assert torch.equal(out, lif(x))
    state = NeuronState()
    found = [lif(x[0] / 3, state=state, time_steps=n) for n in (1, 3)]
    assert torch.equal(torch.cat(found), lif(x[0] / 3, time_steps=4))


@torch.no_grad()
def test_currents_of_any_layout(backend):
    """Of a view, and of another layout in the next call."""
    x = draw(STEPS, 2, 8, 6, 6, layout=torch.channels_last)
    view = draw(STEPS, 2, 8, 6, 12)[..., ::2]
    state = NeuronState()
    found = [lif(x[:2], state=state), lif(view[2:4], state=state), lif(x[4:].clone(), state=state)]
    whole = torch.cat([x[:2], view[2:4], x[4:]])
    assert torch.equal(torch.cat(found), lif(whole))


@torch.no_grad()
def test_potentials_are_those_of_the_reference(backend):
    x, neuron = draw(STEPS, 2, 5, 4, 4), ops.LIF(0.8, 1.2, 0.7, 'soft')
    state = NeuronState()
    lif(x, *neuron, state=state)
    *_, h = ops.membrane_potentials(x, neuron)
    expected = h - 0.7 * (h - 0.7 >= 0).float()
    assert torch.equal(state.tensors[0], expected)


def recurrence(x, v, decay, input_scale, reset):
    """By hand, in float64 and by autograd, with the arctan surrogate."""
    spikes = []
    for current in x:
        h = decay * v + input_scale * current
        s = ops.fire(h - 0.6, 'arctan', 1.0)
        v = h * (1 - s) if reset == 'hard' else h - 0.6 * s
        spikes.append(s)
    return torch.stack(spikes)


@pytest.mark.parametrize('reset', ['hard', 'soft'])
def test_gradients_from_potentials_on(backend, reset):
    """Of the currents, the scale, the leak and the input scale; none of what was handed on."""
    x = draw(STEPS, 2, 5, 4, 4)
    v = draw(2, 5, 4, 4, seed=4) * 0.4
    weight = draw(STEPS, 2, 5, 4, 4, seed=5)
    results = {}
    for name, dtype in (('ours', torch.float32), ('by hand', torch.float64)):
        leaves = [
            value.to(dtype).detach().clone().requires_grad_()
            for value in (x, torch.tensor(0.7), torch.tensor(1.3), 1 + draw(5, 1, seed=6).flatten())
        ]
        currents, decay, input_scale, scale = leaves
        if name == 'ours':
            state = NeuronState((v.clone(),))
            options = dict(v_threshold=0.6, reset=reset, scale=scale, state=state)
            spikes = lif(currents, decay, input_scale, **options)
            assert not state.tensors[0].requires_grad
        else:
            y = currents * scale.view(5, 1, 1)
            spikes = recurrence(y, v.to(dtype), decay, input_scale, reset)
        (spikes * weight.to(dtype)).sum().backward()
        results[name] = [spikes, *(leaf.grad for leaf in leaves)]
    for ours, theirs in zip(*results.values()):
        torch.testing.assert_close(ours, theirs.float(), rtol=2e-4, atol=2e-4)


def test_gradients_through_gate_pool_and_norm(backend):
    """The same as those of the parts that follow where only the first one starts from a state."""
    x = draw(4, 2, 8, 6, 6, layout=torch.channels_last)
    shortcut = (draw(4, 2, 8, 6, 6, seed=1) > 0).float()
    for options in (dict(gate='or', shortcut=shortcut), dict(pool=(3, 2, 1))):
        grads = []
        for state in (None, NeuronState()):
            leaf = x.clone().requires_grad_()
            spikes = lif(leaf, **options, state=state)
            (spikes * draw(*spikes.shape, seed=2)).sum().backward()
            grads.append((spikes.detach(), leaf.grad))
        assert torch.equal(grads[0][0], grads[1][0])
        torch.testing.assert_close(*(g for _, g in grads))
    norm = torch.ones(8), torch.zeros(8)
    found = []
    for state in (None, NeuronState()):
        running = torch.zeros(8), torch.ones(8)
        leaf = x.clone().requires_grad_()
        spikes = norm_lif(leaf, *norm, *running, training=True, state=state)
        (spikes * draw(*spikes.shape, seed=2)).sum().backward()
        found.append((leaf.grad, *running))
    for pair in zip(*found):
        torch.testing.assert_close(*pair, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_select():
    state = NeuronState((torch.arange(3.0)[:, None], torch.arange(3, 6.0)[:, None]))
    state.select([2, None, 0, 1])
    assert [v.flatten().tolist() for v in state.tensors] == [[2, 0, 0, 1], [5, 0, 3, 4]]
    before = state.tensors
    state.select([0, 1, 2, 3])
    assert state.tensors is before
    NeuronState().select([None])


@torch.no_grad()
def test_what_is_refused(backend):
    state = NeuronState()
    lif(draw(2, 3, 4, 4, 4), state=state)
    with pytest.raises(
        ValueError, match=r'handed on are torch.float32 \(3, 4, 4, 4\) on cpu, and '
    ):
        lif(draw(2, 2, 4, 4, 4), state=state)
    with pytest.raises(ValueError, match=r'these currents are for torch\.float64'):
        lif(draw(2, 3, 4, 4, 4).double(), state=state)
    with pytest.raises(Exception, match='a compiler can not follow potentials'):
        torch.jit.trace(lambda x: lif(x, state=state), draw(2, 3, 4, 4, 4), check_trace=False)


@torch.no_grad()
def test_a_backend_that_does_not_hand_on_is_passed_by():
    class Loses(ops.named('c').__class__):
        name, hands_on = 'loses', False

    before = dict(ops.BACKENDS)
    ops.register_backend(Loses())
    try:
        with ops.use_backend('loses'):
            x = draw(STEPS, 2, 5, 4, 4)
            assert torch.equal(in_parts(x), lif(x))
    finally:
        for name in set(ops.BACKENDS) - set(before):
            del ops.BACKENDS[name]


def test_a_gradient_in_the_dtype_that_is_asked_for():
    x = draw(STEPS, 2, 5, 4, 4).requires_grad_()
    grads = [
        torch.autograd.grad(lif(x, dtype=dtype, state=NeuronState()).sum(), x)[0]
        for dtype in (None, x.dtype)
    ]
    assert grads[0].any()
    assert torch.equal(*grads)

"""Whole numbers of spikes on every backend, against the reference and by hand in float64."""

import math
import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsnn import ops
from mmsnn.ops import dispatch, operators

INTERPRETED = os.environ.get('TRITON_INTERPRET') == '1'
KERNELS = [name for name in dispatch.names() if not dispatch.why_not(name)]
every_kernel = pytest.mark.parametrize(
    'name',
    KERNELS
    or [
        pytest.param('none', marks=pytest.mark.skip(reason='needs a kernel backend: a C compiler'))
    ],
)


def run(name, x, grad, neuron):
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    with ops.use_backend(name):
        out = ops.ilif(x, *neuron)
        out.backward(grad)
    return out.detach(), x.grad


@st.composite
def cases(draw):
    shape = draw(st.lists(st.integers(1, 9 if INTERPRETED else 20), min_size=1, max_size=5))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    x = draw(st.sampled_from([1.0, 3.0])) * torch.randn(shape, generator=generator)
    grad = torch.randn(shape, generator=generator)
    if draw(st.booleans()):  # numbers at which rounding decides
        x = (2 * x).round() / 2
    layout = draw(st.sampled_from(['plain', 'last', 'sliced']))
    if layout == 'last' and len(shape) == 5:
        x = x.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    elif layout == 'sliced':
        x = torch.cat([x, x], -1)[..., : shape[-1]]
    neuron = (
        draw(st.integers(1, 7)),
        draw(st.sampled_from([0.0, 0.3, 0.5, 1.0])),
        draw(st.sampled_from([1.0, 0.3, 2.5])),
        draw(st.booleans()),
    )
    return x, grad, neuron


@every_kernel
@settings(deadline=None, max_examples=10 if INTERPRETED else 80)
@given(case=cases(), dtype=st.sampled_from([torch.float32, torch.bfloat16]))
def test_as_the_reference(name, case, dtype):
    x, grad, neuron = case
    x, grad = x.to(dtype), grad.to(dtype)
    ours, our_grad = run(name, x, grad, neuron)
    theirs, their_grad = run('reference', x, grad, neuron)
    assert torch.equal(ours, theirs)
    assert (ours.dtype, ours.stride()) == (x.dtype, theirs.stride())
    rtol = 1e-6 if dtype == torch.float32 else 8e-3
    torch.testing.assert_close(our_grad, their_grad, rtol=rtol, atol=rtol)


def by_hand(x, grad, levels, decay, v_threshold, detach):
    """Numbers and gradient of a neuron, in Python's own numbers."""
    u, potentials, spikes = 0.0, [], []
    for current in x:
        potentials.append(decay * u + current / v_threshold)
        spikes.append(min(max(math.floor(potentials[-1] + 0.5), 0), levels))
        u = potentials[-1] - spikes[-1]
    found, u_grad = [], 0.0
    for h, g in zip(potentials[::-1], grad[::-1]):
        h_grad = u_grad + (0 <= h <= levels) * (g if detach else g - u_grad)
        found.append(h_grad / v_threshold)
        u_grad = decay * h_grad
    return spikes, found[::-1]


@pytest.mark.parametrize('name', ['reference', *KERNELS])
@pytest.mark.parametrize('neuron', [(4, 0.5, 1.0, False), (2, 0.25, 0.7, True)])
def test_by_hand(name, neuron):
    generator = torch.Generator().manual_seed(0)
    x, grad = (2 * torch.randn(5, 300, generator=generator) for _ in range(2))
    out, x_grad = run(name, x, grad, neuron)
    expected = [by_hand(a, b, *neuron) for a, b in zip(x.T.tolist(), grad.T.tolist())]
    assert torch.equal(out.T, torch.tensor([spikes for spikes, _ in expected]))
    assert set(out.flatten().tolist()) == set(range(neuron[0] + 1))
    torch.testing.assert_close(x_grad.T, torch.tensor([grads for _, grads in expected]))
    # Some potentials are outside of the range that has a gradient, and some inside.
    assert 0.1 < (x_grad == 0).float().mean() < 0.9


@every_kernel
@pytest.mark.parametrize('dtype', [torch.uint8, torch.bfloat16, torch.float32, torch.float16])
def test_other_dtypes_of_spikes(name, dtype):
    x = 3 * torch.randn(3, 2, 5, 7, generator=torch.Generator().manual_seed(1))
    with ops.use_backend(name), torch.no_grad():
        spikes = ops.ilif(x, dtype=dtype)
        assert spikes.dtype == dtype
        assert torch.equal(spikes.float(), ops.ilif(x))


@pytest.mark.parametrize('name', ['reference', *KERNELS])
def test_what_is_no_number_gives_no_spike(name):
    x = torch.tensor([[math.nan, math.inf, -math.inf, 1e30, -1e30]])
    with ops.use_backend(name):
        assert ops.ilif(x).tolist() == [[0, 4, 0, 4, 0]]


@pytest.mark.parametrize('name', ['reference', *KERNELS])
@pytest.mark.parametrize(
    ('x', 'levels', 'match'),
    [
        (torch.ones(0, 3), 4, 'at least one time step'),
        (torch.ones(()), 4, 'at least one time step'),
        (torch.ones(2, 3), 0, 'from 1 to 255, got 0'),
        (torch.ones(2, 3), 256, 'from 1 to 255, got 256'),
    ],
)
def test_refusals(name, x, levels, match):
    with ops.use_backend(name), pytest.raises(ValueError, match=match):
        ops.ilif(x, levels)
    if x.dim():
        with ops.use_backend(name), pytest.raises(ValueError, match=match):
            operators.ilif.ilif_backward(x, x, levels, 0.5, 1.0, False)


def test_a_gradient_of_another_shape_is_refused():
    with pytest.raises(ValueError, match='the gradient needs the shape'):
        operators.ilif.ilif_backward(torch.ones(2, 3), torch.ones(2, 4), 4, 0.5, 1.0, False)


def test_no_elements():
    x = torch.ones(3, 0, 2, requires_grad=True)
    ops.ilif(x).sum().backward()
    assert x.grad.shape == x.shape


@pytest.mark.skipif(INTERPRETED, reason='the interpreter is not what is compiled')
def test_operators_as_torch_wants_them():
    x = 2 * torch.randn(3, 2, 4, 5, generator=torch.Generator().manual_seed(2))
    args = 4, 0.5, 0.8, False
    checked = 'test_schema', 'test_faketensor', 'test_autograd_registration'
    torch.library.opcheck(
        torch.ops.mmsnn.ilif.default, (x.requires_grad_(), *args), test_utils=checked
    )
    torch.library.opcheck(
        torch.ops.mmsnn.ilif_as.default, (x.detach(), *args, torch.uint8), test_utils=checked
    )
    torch.library.opcheck(
        torch.ops.mmsnn.ilif_backward.default, (x.detach(), x.detach(), *args), test_utils=checked
    )


@pytest.mark.skipif(INTERPRETED, reason='the interpreter has no threads')
def test_the_same_for_any_number_of_threads():
    generator = torch.Generator().manual_seed(3)
    x, grad = (torch.randn(2, 1, 8, 100, 90, generator=generator) for _ in range(2))
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(run('auto', x, grad, (4, 0.5, 1.0, False)))
    finally:
        torch.set_num_threads(before)
    for out, x_grad in found[1:]:
        assert torch.equal(out, found[0][0])
        assert torch.equal(x_grad, found[0][1])

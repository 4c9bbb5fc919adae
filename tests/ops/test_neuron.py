import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mmsnn.ops import lif

SURROGATES = ('arctan', 'rectangle', 'sigmoid', 'triangle')
every_surrogate = pytest.mark.parametrize('surrogate', SURROGATES)
every_reset = pytest.mark.parametrize('reset', ['hard', 'soft'])


def bump(u, surrogate, width):
    if surrogate == 'rectangle':
        return 1 / width if -width / 2 < u < width / 2 else 0.0
    if surrogate == 'triangle':
        return max(0.0, width - abs(u)) / width**2
    if surrogate == 'arctan':
        return width / (width**2 + math.pi**2 * u**2)
    return 1 / (width * math.cosh(2 * u / width) ** 2)


def reference(x, grad_s, decay, scale, v_th, reset, detach, surrogate, width):
    """Loops over scalars and the chain rule by hand.

    With G = dL/ds given, and primes for total derivatives:
    hard, v = h (1 - s): s' = G - h v' (G where detached); h' = (1 - s) v' + g(h - V_th) s'
    soft, v = h - V_th s: s' = G - V_th v' (G where detached); h' = v' + g(h - V_th) s'
    and v'[t - 1] = decay h'[t], x' = scale h', decay' = sum h' v[t - 1], scale' = sum h' x.
    """
    steps, n = x.shape
    s, grad_x = np.zeros_like(x), np.zeros_like(x)
    grad_decay = grad_scale = 0.0
    margin = math.inf
    for i in range(n):
        h, v = [0.0] * steps, [0.0] * (steps + 1)
        for t in range(steps):
            h[t] = decay * v[t] + scale * x[t, i]
            margin = min(margin, abs(h[t] - v_th))
            s[t, i] = 1.0 if h[t] >= v_th else 0.0
            v[t + 1] = h[t] * (1 - s[t, i]) if reset == 'hard' else h[t] - v_th * s[t, i]
        dv = 0.0
        for t in reversed(range(steps)):
            ds = grad_s[t, i]
            if not detach:
                ds -= dv * (h[t] if reset == 'hard' else v_th)
            through = (1 - s[t, i]) if reset == 'hard' else 1.0
            dh = dv * through + ds * bump(h[t] - v_th, surrogate, width)
            grad_x[t, i] = scale * dh
            grad_decay += dh * v[t]
            grad_scale += dh * x[t, i]
            dv = decay * dh
    return s, grad_x, grad_decay, grad_scale, margin


def random_case(shape, seed, v_th=1.0):
    rng = np.random.default_rng(seed)
    return v_th * (0.6 + rng.standard_normal(shape)), rng.standard_normal(shape)


def check_against_reference(shape, seed, decay, scale, v_th, reset, detach, surrogate, width):
    x, g = random_case(shape, seed, v_th)
    flat = (shape[0], -1)
    s, grad_x, grad_decay, grad_scale, margin = reference(
        x.reshape(flat), g.reshape(flat), decay, scale, v_th, reset, detach, surrogate, width
    )
    # A tie would turn the last bit of a sum into a spike.
    assume(margin > 1e-9)
    xt = torch.tensor(x, requires_grad=True)
    dt = torch.tensor(decay, dtype=torch.float64, requires_grad=True)
    it = torch.tensor(scale, dtype=torch.float64, requires_grad=True)
    out = lif(xt, dt, it, v_th, reset, detach, surrogate, width)
    assert out.shape == xt.shape
    assert np.array_equal(out.detach().numpy(), s.reshape(shape))
    assert torch.equal(out, lif(xt, decay, scale, v_th, reset, detach, surrogate, width))
    out.backward(torch.tensor(g))
    close = dict(rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(xt.grad.numpy(), grad_x.reshape(shape), **close)
    np.testing.assert_allclose(it.grad.item(), grad_scale, **close)
    if shape[0] > 1:
        np.testing.assert_allclose(dt.grad.item(), grad_decay, **close)
    return s


def test_hard_reset_by_hand():
    # decay 0.5, V_th 1
    # t  x     h                        s  v
    # 1  0.75  0.75                     0  0.75
    # 2  0.75  0.375 + 0.75  = 1.125    1  0
    # 3  0.5   0     + 0.5   = 0.5      0  0.5
    # 4  0.75  0.25  + 0.75  = 1        1  0      exactly at the threshold
    # 5  2.5   0     + 2.5   = 2.5      1  0
    # 6  0.25  0     + 0.25  = 0.25     0  0.25
    x = torch.tensor([0.75, 0.75, 0.5, 0.75, 2.5, 0.25])
    assert lif(x, decay=0.5).tolist() == [0, 1, 0, 1, 1, 0]


def test_soft_reset_by_hand():
    # decay 0.5, V_th 1
    # t  x     h                          s  v
    # 1  0.75  0.75                       0  0.75
    # 2  0.75  0.375   + 0.75  = 1.125    1  0.125
    # 3  0.5   0.0625  + 0.5   = 0.5625   0  0.5625
    # 4  0.75  0.28125 + 0.75  = 1.03125  1  0.03125
    # 5  2.5   0.015625 + 2.5  = 2.515625 1  1.515625
    # 6  0.25  0.7578125 + 0.25 = 1.0078  1  0.0078   silent under the hard reset
    x = torch.tensor([0.75, 0.75, 0.5, 0.75, 2.5, 0.25])
    assert lif(x, decay=0.5, reset='soft').tolist() == [0, 1, 0, 1, 1, 1]


def test_tau_form_by_hand():
    # tau 2, V_th 0.5, hard reset: h = v + (x - v) / 2
    # t  x     h                               s  v
    # 1  0.75  0 + 0.75 / 2          = 0.375   0  0.375
    # 2  0.75  0.375 + 0.375 / 2     = 0.5625  1  0
    # 3  0.5   0 + 0.5 / 2           = 0.25    0  0.25
    # 4  0.75  0.25 + 0.5 / 2        = 0.5     1  0
    x = torch.tensor([0.75, 0.75, 0.5, 0.75])
    assert lif(x, decay=0.5, input_scale=0.5, v_threshold=0.5).tolist() == [0, 1, 0, 1]


def test_gradient_by_hand():
    # decay 0.5, V_th 1, hard reset, rectangle of width 1 (g = 1 where |h - 1| < 0.5), L = s[2].
    # x = (0.75, 0.75): h = 0.75, 1.125; s = 0, 1; v[1] = h[1] (1 - s[1]) = 0.75
    # dL/dh[2] = g(0.125) = 1                                        -> dL/dx[2] = 1
    # dL/dv[1] = 0.5; dL/ds[1] = -h[1] * 0.5 = -0.375
    # dL/dh[1] = 0.5 (1 - 0) + g(-0.25) * (-0.375) = 0.125           -> dL/dx[1] = 0.125
    # with the reset detached, dL/dh[1] = 0.5
    for detach, expected in ((False, [0.125, 1.0]), (True, [0.5, 1.0])):
        x = torch.tensor([0.75, 0.75], requires_grad=True)
        lif(x, surrogate='rectangle', detach_reset=detach)[1].backward()
        assert x.grad.tolist() == expected


@every_reset
@pytest.mark.parametrize('detach', [False, True])
@every_surrogate
@pytest.mark.parametrize(
    ('decay', 'scale'),
    [(0.5, 1.0), (1 - 1 / 3, 1 / 3), (1.0, 1.0), (0.0, 1.0)],
    ids=['decay', 'tau', 'IF', 'no memory'],
)
def test_against_the_loop(reset, detach, surrogate, decay, scale):
    s = check_against_reference((6, 5, 4), 3, decay, scale, 1.0, reset, detach, surrogate, 0.8)
    assert 0 < s.mean() < 1


@given(
    steps=st.integers(1, 7),
    behind=st.lists(st.integers(1, 4), max_size=3),
    seed=st.integers(0, 2**32 - 1),
    decay=st.floats(0, 1),
    scale=st.floats(0.1, 2),
    v_th=st.floats(0.1, 3),
    reset=st.sampled_from(['hard', 'soft']),
    detach=st.booleans(),
    surrogate=st.sampled_from(SURROGATES),
    width=st.floats(0.3, 3),
)
@settings(max_examples=80, deadline=None)
def test_against_the_loop_on_anything(steps, behind, seed, **kwargs):
    check_against_reference((steps, *behind), seed, **kwargs)


@every_reset
def test_detach_reset_changes_the_gradient_only(reset):
    x, _ = random_case((5, 20), 0)
    spikes, grads = [], []
    for detach in (False, True):
        xt = torch.tensor(x, requires_grad=True)
        s = lif(xt, reset=reset, detach_reset=detach)
        s.sum().backward()
        spikes.append(s.detach())
        grads.append(xt.grad)
    assert torch.equal(*spikes)
    assert not torch.allclose(*grads, rtol=1e-2)


@every_reset
@every_surrogate
def test_float32_agrees_with_float64(reset, surrogate):
    x, g = random_case((6, 40), 8)
    s64, grad64, *_, margin = reference(x, g, 0.5, 1.0, 1.0, reset, False, surrogate, 1.0)
    assert margin > 1e-5
    xt = torch.tensor(x, dtype=torch.float32, requires_grad=True)
    s = lif(xt, reset=reset, surrogate=surrogate)
    assert s.dtype == torch.float32
    assert np.array_equal(s.detach().numpy(), s64)
    s.backward(torch.tensor(g, dtype=torch.float32))
    np.testing.assert_allclose(xt.grad.numpy(), grad64, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision_is_integrated_in_float32(dtype):
    # 1 - e and four times e / 4 add up to 1. e is the dtype's last bit below 1, so the quarters are
    # lost one by one in a sum that is kept in the dtype, and the neuron would never fire.
    e = torch.finfo(dtype).eps / 2
    x = torch.tensor([1 - e, e / 4, e / 4, e / 4, e / 4]).to(dtype)
    v = torch.zeros((), dtype=dtype)
    for current in x:
        v = v + current
    assert v < 1
    s = lif(x, decay=1.0)
    assert s.dtype == dtype
    assert s.tolist() == [0, 0, 0, 0, 1]
    assert torch.equal(s.float(), lif(x.float(), decay=1.0))


def test_bf16_gradient_is_that_of_float32():
    x = torch.randn(4, 50, generator=torch.Generator().manual_seed(0)).bfloat16()
    grads = []
    for xt in (x.clone().requires_grad_(), x.float().requires_grad_()):
        lif(xt).sum().backward()
        grads.append(xt.grad)
    assert grads[0].dtype == torch.bfloat16
    assert torch.equal(grads[0], grads[1].bfloat16())


@every_reset
def test_expanded_input_is_repeated_input(reset):
    x, g = random_case((7, 3), 1)
    g = torch.tensor(np.stack([g] * 5) * np.arange(1, 6)[:, None, None])
    outs, grads = [], []
    for repeat in (lambda x: x.expand(5, 7, 3), lambda x: x.repeat(5, 1, 1)):
        xt = torch.tensor(x, requires_grad=True)
        outs.append(lif(repeat(xt), reset=reset))
        outs[-1].backward(g)
        grads.append(xt.grad)
    assert 0 < outs[0].mean() < 1
    assert torch.equal(*outs)
    torch.testing.assert_close(*grads, rtol=1e-12, atol=1e-12)


def test_one_time_step_is_a_threshold():
    x = torch.tensor([[-1.0, 0.99, 1.0, 3.0]])
    for reset in ('hard', 'soft'):
        for decay in (0.0, 0.5, 1.0):
            assert lif(x, decay, reset=reset).tolist() == [[0, 0, 1, 1]]


def test_input_is_left_alone():
    x, _ = random_case((4, 6), 2)
    xt = torch.tensor(x)
    lif(xt, input_scale=0.5, reset='soft')
    assert np.array_equal(xt.numpy(), x)


@pytest.mark.parametrize(
    ('kwargs', 'match'),
    [
        (dict(reset='none'), r"unknown reset 'none': choose one of \['hard', 'soft'\]"),
        (dict(surrogate='step'), "unknown surrogate 'step'"),
        (dict(surrogate_width=0), 'surrogate_width must be a positive number, got 0'),
        (dict(v_threshold=0), 'v_threshold must be positive, got 0'),
        (dict(v_threshold=-1.0), 'got -1.0'),
        (dict(v_threshold=math.nan), 'got nan'),
        (dict(x=torch.zeros(0, 3)), r'at least one time step, got an input of shape \(0, 3\)'),
        (dict(x=torch.tensor(1.0)), r'at least one time step, got an input of shape \(\)'),
    ],
)
def test_refusals(kwargs, match):
    with pytest.raises(ValueError, match=match):
        lif(**{'x': torch.zeros(2, 3), **kwargs})

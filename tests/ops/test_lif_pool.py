"""The neuron with a max pool behind it, against the two one after the other."""

import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from saved_bytes import saved_bytes

from mmsnn import ops
from mmsnn.ops import dispatch

KERNELS = [] if dispatch.why_not('c') else ['c']
every_backend = pytest.mark.parametrize('name', ['reference', *KERNELS])
every_layout = pytest.mark.parametrize(
    'layout', [torch.contiguous_format, torch.channels_last], ids=['contiguous', 'channels_last']
)
POOL = (3, 2, 1)


def maps(*shape, seed=0, layout=torch.contiguous_format, dtype=torch.float32):
    """Currents (B, C, H, W), or (T, B, C, H, W) with every step in this layout."""
    x = 0.6 + torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    flat = x.flatten(0, -4).to(dtype).contiguous(memory_format=layout)
    return flat.unflatten(0, shape[:-3])


@st.composite
def cases(draw):
    steps, batch = draw(st.integers(1, 5)), draw(st.integers(1, 3))
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    pool = (
        kernel,
        draw(st.tuples(st.integers(1, 3), st.integers(1, 3))),
        tuple(draw(st.integers(0, k // 2)) for k in kernel),
    )
    size = (draw(st.integers(k, k + 15)) for k in kernel)
    shape = (batch, draw(st.sampled_from([1, 3, 8, 70])), *size)
    shared = draw(st.booleans())
    layout = draw(st.sampled_from([torch.contiguous_format, torch.channels_last]))
    seed = draw(st.integers(0, 2**31))
    x = maps(*(shape if shared else (steps, *shape)), seed=seed, layout=layout)
    if draw(st.booleans()):  # another order of axes
        x = x.transpose(-1, -3).contiguous().transpose(-1, -3)
    generator = torch.Generator().manual_seed(seed)
    inputs = dict(x=x)
    for key in ('scale', 'shift'):
        if draw(st.booleans()):
            inputs[key] = 0.5 + torch.rand(shape[1], generator=generator)
    if draw(st.booleans()):
        inputs['decay'] = torch.tensor(draw(st.floats(0, 1)))
    neuron = dict(
        v_threshold=draw(st.floats(0.2, 2)),
        reset=draw(st.sampled_from(sorted(ops.RESETS))),
        surrogate=draw(st.sampled_from(sorted(ops.SURROGATES))),
        time_steps=steps if shared else None,
    )
    return inputs, neuron, pool


def one_after_the_other(pool, neuron=ops.lif, **kwargs):
    spikes = neuron(**kwargs)
    return ops.spike_max_pool2d(spikes.flatten(0, 1), *pool).unflatten(0, spikes.shape[:2])


def differentiate(function, inputs, **kwargs):
    leaves = {
        key: v.detach().clone(memory_format=torch.preserve_format).requires_grad_()
        for key, v in inputs.items()
    }
    out = function(**leaves, **kwargs)
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(7)).to(out.dtype)
    out.backward(grad)
    return out.detach(), {key: leaf.grad for key, leaf in leaves.items()}


def check_equal(ours, theirs):
    assert torch.equal(ours[0], theirs[0])
    assert ours[0].stride() == theirs[0].stride()
    for key, grad in ours[1].items():
        expected = theirs[1][key]
        if expected is None:  # a decay that one time step has no use for
            assert grad is None or not grad.any()
        elif key == 'x':
            assert torch.equal(grad, expected)
        else:  # sums, which threads share in another way
            torch.testing.assert_close(grad, expected, rtol=1e-4, atol=1e-4)


@every_backend
@given(case=cases(), dtype=st.sampled_from([torch.float32, torch.bfloat16]))
@settings(max_examples=100, deadline=None)
def test_it_is_one_after_the_other(name, case, dtype):
    inputs, neuron, pool = case
    inputs['x'] = inputs['x'].to(dtype)
    with ops.use_backend(name):
        theirs = differentiate(one_after_the_other, inputs, pool=pool, **neuron)
        check_equal(differentiate(ops.lif, inputs, pool=pool, **neuron), theirs)
        with torch.no_grad():
            assert torch.equal(ops.lif(**inputs, pool=pool, **neuron), theirs[0])


@every_backend
@every_layout
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_behind_a_norm(name, layout, dtype):
    x = maps(2, 6, 11, 9, layout=layout, dtype=dtype)
    weight, bias = torch.linspace(0.5, 2, 6), torch.linspace(-0.5, 1, 6)
    inputs = dict(x=x, weight=weight, bias=bias)
    if dtype == torch.float64:
        inputs = {key: v.double() for key, v in inputs.items()}
    results = []
    for function in (one_after_the_other, ops.norm_lif):
        running = torch.zeros(6), torch.ones(6)
        kwargs = dict(running_mean=running[0], running_var=running[1], training=True, time_steps=3)
        if function is one_after_the_other:
            kwargs['neuron'] = ops.norm_lif
        with ops.use_backend(name):
            results.append(differentiate(function, inputs, pool=POOL, **kwargs))
            with torch.no_grad():
                out = function(**inputs, pool=POOL, **kwargs)
                assert torch.equal(out, results[-1][0])
                kwargs['training'] = False
                results[-1] += (function(**inputs, pool=POOL, **kwargs), *running)
    ours, theirs = results
    check_equal(theirs[:2], ours[:2])
    assert all(map(torch.equal, ours[2:], theirs[2:]))
    assert 0.05 < ours[0].float().mean() < 0.95


@every_backend
@every_layout
def test_many_bands(name, layout):
    # 2.4 MB of gradients an image in float32: what a thread holds of them is less.
    inputs = dict(x=maps(2, 64, 40, 60, layout=layout))
    kwargs = dict(pool=POOL, time_steps=4)
    before = torch.get_num_threads()
    try:
        with ops.use_backend(name):
            theirs = differentiate(one_after_the_other, inputs, **kwargs)
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                check_equal(differentiate(ops.lif, inputs, **kwargs), theirs)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize('name', KERNELS)
@every_layout
def test_it_keeps_its_input_and_bits(name, layout):
    x = maps(2, 8, 20, 20, layout=layout).requires_grad_()
    with ops.use_backend(name):
        kept, out = saved_bytes(lambda: ops.lif(x, time_steps=4, pool=POOL))
    assert kept <= x.nbytes + 4 * x.numel() / 8
    assert out.flatten(0, 1).is_contiguous(memory_format=layout)


@every_backend
def test_compile_without_a_graph_break(name):
    torch._dynamo.reset()
    compiled = torch.compile(ops.lif, fullgraph=True, backend='aot_eager')
    with ops.use_backend(name):
        for batch in (2, 3):
            inputs = dict(x=maps(batch, 5, 8, 7, layout=torch.channels_last))
            kwargs = dict(pool=POOL, time_steps=3)
            check_equal(
                differentiate(compiled, inputs, **kwargs), differentiate(ops.lif, inputs, **kwargs)
            )


@every_backend
@every_layout
@pytest.mark.parametrize('time_steps', [0, 3])
def test_operators_pass_pytorchs_own_checks(name, layout, time_steps):
    x = maps(*(() if time_steps else (3,)), 2, 5, 7, 6, layout=layout)
    scale, shift = torch.rand(5), torch.rand(5)
    neuron = (0.5, 1.0, 1.0, 'hard', False, 'arctan', 1.0, None, time_steps)
    windows = [3, 3], [2, 2], [1, 1]
    with ops.use_backend(name), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        inputs = [v.clone().requires_grad_() for v in (x, scale, shift)]
        rest = (None, None, None, None, None, *neuron)
        torch.library.opcheck(torch.ops.mmsnn.lif_pool.default, (*inputs, *rest, *windows))
        out, bits = torch.ops.mmsnn.lif_pool(x, scale, shift, *rest, *windows)
        needs = [True, True, True, False, False, False]
        torch.library.opcheck(
            torch.ops.mmsnn.lif_pool_backward.default,
            (torch.randn_like(out), x, scale, shift, *rest, bits, *windows, needs),
        )


@every_backend
def test_no_images(name):
    x = torch.zeros(0, 3, 5, 5, requires_grad=True)
    with ops.use_backend(name):
        out = ops.lif(x, time_steps=2, pool=POOL)
        assert out.shape == (2, 0, 3, 3, 3)
        out.sum().backward()
    assert x.grad.shape == x.shape


@pytest.mark.parametrize(
    ('options', 'match'),
    [
        (dict(pool=(0, 1, 0)), 'must be positive'),
        (dict(pool=(9, 1, 0)), 'too small for a window'),
        (dict(pool=POOL, out=torch.empty(2, 1, 3, 5, 5)), 'out takes spikes as they come'),
    ],
)
@pytest.mark.parametrize('learns', [True, False])
def test_refusals(options, match, learns):
    with pytest.raises(ValueError, match=match):
        ops.lif(torch.zeros(2, 1, 3, 5, 5, requires_grad=learns), **options)

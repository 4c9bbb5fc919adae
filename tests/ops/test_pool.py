"""Max pooling on every backend against PyTorch's."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsnn import ops
from mmsnn.ops import dispatch, operators

KERNELS = [] if dispatch.why_not('c') else ['c']
every_backend = pytest.mark.parametrize('name', ['reference', *KERNELS])
every_kernel = pytest.mark.parametrize(
    'name',
    KERNELS
    or [
        pytest.param('none', marks=pytest.mark.skip(reason='needs a kernel backend: a C compiler'))
    ],
)
every_layout = pytest.mark.parametrize(
    'layout', [torch.contiguous_format, torch.channels_last], ids=['contiguous', 'channels_last']
)


def spikes(*shape, seed=0, dtype=torch.float32, layout=torch.contiguous_format):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(*shape, generator=generator) > 0.7
    return x.to(dtype).contiguous(memory_format=layout)


def differentiate(function, x, grad, *windows):
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    out = function(x, *windows)
    out.backward(grad)
    return out.detach(), x.grad


@st.composite
def cases(draw, sizes=(1, 2, 3)):
    """Input without a dtype, its kind, and the windows."""
    kernel = draw(st.tuples(st.sampled_from(sizes), st.sampled_from(sizes)))
    stride = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    least = [max(1, k - 2 * p) for k, p in zip(kernel, padding)]
    shape = (
        draw(st.integers(1, 3)),
        draw(st.sampled_from([1, 2, 5, 17, 70])),
        *(draw(st.integers(n, n + 18)) for n in least),
    )
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    kind = draw(st.sampled_from(['spikes', 'counts', 'reals']))
    x = torch.randn(shape, generator=generator)
    if kind == 'spikes':
        x = (x > draw(st.sampled_from([-9, 0, 0.8, 9]))).float()
    elif kind == 'counts':
        x = (3 * x).round()
    layout = draw(st.sampled_from([torch.contiguous_format, torch.channels_last, None]))
    x = x.transpose(0, 3).contiguous().transpose(0, 3) if layout is None else x.contiguous(
        memory_format=layout
    )  # fmt: skip
    return x, kind, (kernel, stride, padding)


@every_backend
@given(case=cases(), dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.uint8]))
@settings(max_examples=150, deadline=None)
def test_maxima_are_pytorchs(name, case, dtype):
    x, _, windows = case
    x = (x * 20).abs().clamp_max(255).to(dtype) if dtype == torch.uint8 else x.to(dtype)
    with ops.use_backend(name):
        out = ops.spike_max_pool2d(x, *windows)
    expected = F.max_pool2d(x.float(), *windows).to(dtype)
    assert out.dtype == dtype
    assert torch.equal(out, expected)


@every_backend
@given(case=cases())
@settings(max_examples=100, deadline=None)
def test_gradients_are_pytorchs(name, case):
    # Equal bit for bit: the same windows add up in the same order.
    x, _, windows = case
    grad = torch.randn_like(F.max_pool2d(x, *windows))
    expected = differentiate(F.max_pool2d, x, grad, *windows)
    with ops.use_backend(name):
        out, x_grad = differentiate(ops.spike_max_pool2d, x, grad, *windows)
    assert torch.equal(out, expected[0])
    assert torch.equal(x_grad, expected[1])


@every_backend
@given(case=cases())
@settings(max_examples=60, deadline=None)
def test_bfloat16_gradients_are_rounded_once(name, case):
    x, _, windows = case
    x = x.bfloat16()
    grad = torch.randn_like(F.max_pool2d(x.float(), *windows)).bfloat16()
    _, wide = differentiate(F.max_pool2d, x.float(), grad.float(), *windows)
    with ops.use_backend(name):
        _, x_grad = differentiate(ops.spike_max_pool2d, x, grad, *windows)
    assert x_grad.dtype == torch.bfloat16
    assert torch.equal(x_grad, wide.bfloat16())


@every_kernel
@given(case=cases(sizes=(4, 5, 7)))
@settings(max_examples=60, deadline=None)
def test_wide_windows(name, case):
    x, _, windows = case
    grad = torch.randn_like(F.max_pool2d(x, *windows))
    expected = differentiate(F.max_pool2d, x, grad, *windows)
    with ops.use_backend(name):
        for ours, theirs in zip(differentiate(ops.spike_max_pool2d, x, grad, *windows), expected):
            assert torch.equal(ours, theirs)


@every_kernel
@every_layout
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_odd_numbers(name, layout, dtype):
    x = torch.randn(2, 40, 9, 11)
    for i, value in enumerate((torch.nan, -torch.nan, torch.inf, -torch.inf, 0.0, -0.0, 1e-45)):
        x.view(-1)[i::19] = value
    x = x.to(dtype).contiguous(memory_format=layout)
    with ops.use_backend(name):
        out = ops.spike_max_pool2d(x, 3, 2, 1)
    expected = F.max_pool2d(x, 3, 2, 1)
    assert torch.equal(out.isnan(), expected.isnan())
    assert torch.equal(out.nan_to_num(7), expected.nan_to_num(7))


@pytest.mark.parametrize('dtype', [torch.float16, torch.float64])
def test_other_dtypes_take_the_reference(dtype):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 7, 8).to(dtype)
    grad = torch.randn(2, 3, 4, 4).to(dtype)
    expected = differentiate(F.max_pool2d, x, grad, 3, 2, 1)
    out, x_grad = differentiate(ops.spike_max_pool2d, x, grad, 3, 2, 1)
    assert torch.equal(out, expected[0])
    # Sums of up to four gradients, in float32 here and in the dtype itself there.
    torch.testing.assert_close(x_grad, expected[1], rtol=4e-3, atol=4e-3)


@every_kernel
@every_layout
@pytest.mark.parametrize('windows', [(3, 2, 1), (2, 3, 0), ((3, 2), (1, 3), (1, 0))])
def test_results_do_not_depend_on_threads(name, layout, windows):
    before = torch.get_num_threads()
    x = spikes(3, 16, 31, 33, layout=layout)
    grad = torch.randn_like(F.max_pool2d(x, *windows))
    expected = differentiate(F.max_pool2d, x, grad, *windows)
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            with ops.use_backend(name):
                results = differentiate(ops.spike_max_pool2d, x, grad, *windows)
            assert all(torch.equal(*pair) for pair in zip(results, expected))
    finally:
        torch.set_num_threads(before)


@every_backend
@every_layout
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_spikes_are_kept_at_a_bit_a_value(name, layout, dtype):
    kept = []

    def pack(tensor):
        kept.append(tensor)
        return tensor

    x = spikes(2, 8, 20, 20, dtype=dtype, layout=layout).requires_grad_()
    with ops.use_backend(name), torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        out = ops.spike_max_pool2d(x, 3, 2, 1)
        assert [t.untyped_storage().nbytes() for t in kept] == [x.numel() // 8]
        assert out.is_contiguous(memory_format=layout)
        out.sum().backward()
        assert x.grad.is_contiguous(memory_format=layout)
        kept.clear()
        ops.spike_max_pool2d(x + 0.5, 3, 2, 1)
        assert kept[0].numel() == x.numel()


@every_backend
def test_under_autocast_the_dtype_stays(name):
    with ops.use_backend(name), torch.autocast('cpu', torch.bfloat16):
        assert ops.spike_max_pool2d(spikes(1, 2, 4, 4), 2).dtype == torch.float32


@every_backend
def test_no_images(name):
    with ops.use_backend(name):
        x = torch.zeros(0, 3, 5, 5, requires_grad=True)
        out = ops.spike_max_pool2d(x, 3, 2, 1)
        assert out.shape == (0, 3, 3, 3)
        out.sum().backward()
        assert x.grad.shape == x.shape


@every_backend
@every_layout
def test_compile_without_a_graph_break(name, layout):
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda x: ops.spike_max_pool2d(x, 3, 2, 1), fullgraph=True, backend='aot_eager'
    )
    with ops.use_backend(name):
        for batch in (2, 3):
            x = spikes(batch, 6, 8, 7, layout=layout)
            grad = torch.randn(batch, 6, 4, 4)
            expected = differentiate(F.max_pool2d, x, grad, 3, 2, 1)
            for ours, theirs in zip(differentiate(compiled, x, grad), expected):
                assert torch.equal(ours, theirs)
        with pytest.raises(ValueError, match='only zeros and ones fit in a bit'):
            compiled((x + 0.5).requires_grad_())


@every_backend
@every_layout
def test_operators_pass_pytorchs_own_checks(name, layout):
    x = spikes(2, 5, 7, 6, layout=layout)
    windows = [3, 3], [2, 2], [1, 1]
    last = layout == torch.channels_last
    with ops.use_backend(name), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        check = torch.library.opcheck
        check(torch.ops.mmsnn.max_pool.default, (x.clone().requires_grad_(), *windows))
        check(torch.ops.mmsnn.max_pool.default, (x.to(torch.uint8), *windows))
        for kept in (operators.pack_spikes(x, 1), x):
            check(
                torch.ops.mmsnn.max_pool_backward.default,
                (torch.randn(2, 5, 4, 3), kept, x.shape, last, *windows),
            )


@pytest.mark.parametrize(
    ('shape', 'windows', 'match'),
    [
        ((3, 5, 5), (3,), r'takes \(N, C, H, W\), got a tensor of shape \(3, 5, 5\)'),
        ((1, 3, 5, 5), (0,), r'must be positive, got \[0, 0\]'),
        ((1, 3, 5, 5), (3, 0), r'must be positive, got \[3, 3\] and \[0, 0\]'),
        ((1, 3, 5, 5), (3, 1, 2), 'between 0 and half of kernel_size'),
        ((1, 3, 5, 5), (3, 1, -1), 'between 0 and half of kernel_size'),
        ((1, 3, 5, 1), (3, 1), 'too small for a window'),
        ((1, 3, 0, 5), (2, 1, 1), 'too small for a window'),
    ],
)
def test_refusals(shape, windows, match):
    with pytest.raises(ValueError, match=match):
        ops.spike_max_pool2d(torch.zeros(shape), *windows)

"""The conv that keeps its spikes as bits, against PyTorch's and against float64."""

import pytest
import torch
import torch.nn.functional as F
from saved_bytes import saved_bytes
from torch.utils.flop_counter import FlopCounterMode

from mmsnn import ops
from mmsnn.ops import dispatch, spike_conv

KERNELS = [name for name in dispatch.names() if not dispatch.why_not(name)]


HALVES = [torch.bfloat16, torch.float16]


def leaf(values, dtype):
    return values.detach().clone().to(dtype).requires_grad_()


@pytest.mark.parametrize('name', ['reference', *KERNELS])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('last', [False, True], ids=['contiguous', 'channels_last'])
@pytest.mark.parametrize('options', [{}, dict(stride=2, padding=1), dict(padding=(1, 2), groups=2)])
def test_spike_conv_is_conv(monkeypatch, name, dtype, last, options):
    monkeypatch.setattr(spike_conv, 'SLOW_DTYPES', ())
    monkeypatch.setenv('MMSNN_EVENTS_BELOW', '0')  # the same sums in the same order
    g = torch.Generator().manual_seed(0)
    x = (torch.rand(3, 8, 9, 11, generator=g) > 0.7).to(dtype)
    if last:
        x = x.contiguous(memory_format=torch.channels_last)
    weight = torch.randn(6, 8 // options.get('groups', 1), 3, 3, generator=g).to(dtype)
    results = []
    with ops.use_backend(name):
        for conv in (ops.spike_conv2d, F.conv2d):
            leaves = [leaf(v, v.dtype) for v in (x, weight, torch.zeros(6))]
            leaves[2] = leaf(torch.zeros(6), dtype)
            out = conv(*leaves, **options)
            out.backward(torch.ones_like(out))
            results.append([out.detach(), *(v.grad for v in leaves)])
    for ours, theirs in zip(*results):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize('layout', ['contiguous', 'channels_last', 'every second', 'expanded'])
@pytest.mark.parametrize('stride', [2, (1, 3)])
@pytest.mark.parametrize('groups', [1, 2])
def test_a_strided_1x1_conv_reads_every_second_pixel(layout, stride, groups):
    x = (torch.rand(3, 4, 8, 18) > 0.6).float()
    if layout == 'channels_last':
        x = x.contiguous(memory_format=torch.channels_last)
    elif layout == 'every second':
        x = x[..., ::2]
    elif layout == 'expanded':
        x = x[:1].expand(3, -1, -1, -1)
    weight, bias = torch.randn(6, 4 // groups, 1, 1), torch.randn(6)
    leaves = [x.detach().requires_grad_(), leaf(weight, x.dtype), leaf(bias, x.dtype)]
    exact = [leaf(v, torch.float64) for v in (x, weight, bias)]
    out = ops.spike_conv2d(*leaves, stride, groups=groups)
    expected = F.conv2d(*exact, stride, groups=groups)
    grad = torch.randn(out.shape)
    if layout == 'channels_last':
        grad = grad.contiguous(memory_format=torch.channels_last)
    (out * grad).sum().backward()
    (expected * grad).sum().backward()
    for ours, theirs in [(out, expected), *((a.grad, b.grad) for a, b in zip(leaves, exact))]:
        assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()
    if layout in ('contiguous', 'channels_last'):
        assert leaves[0].grad.stride() == x.stride()
    leaves[0].requires_grad_(False)
    kept, _ = saved_bytes(lambda: ops.spike_conv2d(*leaves[:2], stride=stride, groups=groups))
    assert kept <= x.numel() / 8 / 2 + weight.nbytes + 64


def test_spike_conv_keeps_a_bit_a_value():
    x = (torch.rand(4, 16, 32, 32) > 0.8).float()
    weight = torch.randn(8, 16, 3, 3, requires_grad=True)
    ours, _ = saved_bytes(lambda: ops.spike_conv2d(x, weight))
    assert ours <= x.numel() / 8 + weight.nbytes + 64
    # Not spikes: kept as they are, and right.
    y = x + 0.5
    ours, out = saved_bytes(lambda: ops.spike_conv2d(y, weight))
    assert ours >= y.nbytes
    out.sum().backward()
    grad, weight.grad = weight.grad, None
    F.conv2d(y, weight).sum().backward()
    assert torch.equal(grad, weight.grad)


def test_real_values_are_kept_as_they_are():
    x = torch.rand(2, 3, 6, 6)
    weight = torch.randn(4, 3, 3, 3, requires_grad=True)
    results = []
    for compiled in (False, True):
        function = ops.spike_conv2d
        if compiled:  # where a binary input that isn't would be an error
            function = torch.compile(function, fullgraph=True, backend='aot_eager')
        kept, out = saved_bytes(lambda f=function: f(x, weight, padding=1, binary=False))
        weight.grad = None
        out.square().sum().backward()
        results.append((out, weight.grad))
        assert x.nbytes <= kept
    weight.grad = None
    expected = F.conv2d(x, weight, padding=1)
    expected.square().sum().backward()
    for out, grad in results:
        assert torch.equal(out, expected)
        assert torch.equal(grad, weight.grad)


def test_spike_conv_under_autocast():
    x, weight = (torch.rand(2, 4, 6, 6) > 0.5).float(), torch.randn(3, 4, 3, 3, requires_grad=True)
    grads = []
    for conv in (ops.spike_conv2d, F.conv2d):
        weight.grad = None
        with torch.autocast('cpu', torch.bfloat16):
            out = conv(x, weight)
        assert out.dtype == torch.bfloat16
        out.float().sum().backward()
        grads.append(weight.grad)
    assert torch.equal(*grads)


@pytest.mark.parametrize('slow', [True, False], ids=['in float32', 'in its own'])
@pytest.mark.parametrize('autocast', [True, False], ids=['autocast', 'given'])
@pytest.mark.parametrize('dtype', HALVES)
def test_spike_conv_in_half_precision(monkeypatch, dtype, autocast, slow):
    monkeypatch.setattr(spike_conv, 'SLOW_DTYPES', (dtype,) if slow else ())
    x = (torch.rand(2, 6, 9, 8) > 0.6).to(dtype)
    weight, bias = torch.randn(5, 6, 3, 3), torch.randn(5)
    if not autocast:
        weight, bias = weight.to(dtype), bias.to(dtype)
    grad = torch.randn(2, 5, 9, 8).to(dtype)
    inputs = [leaf(v, v.dtype) for v in (x, weight, bias)]
    with torch.autocast('cpu', dtype, enabled=autocast):
        out = ops.spike_conv2d(*inputs, padding=1)
        with torch.no_grad():
            assert torch.equal(ops.spike_conv2d(*inputs, padding=1), out)
    out.backward(grad)
    exact = [leaf(v, torch.float64) for v in (x, weight, bias)]
    expected = F.conv2d(*exact, padding=1)
    expected.backward(grad.double())
    assert out.dtype == dtype
    # Half a unit in the last place, and the weights' rounding where they are rounded.
    bound = torch.finfo(dtype).eps * (0.51 if slow else 4)
    assert (out - expected).abs().max() <= bound * expected.abs().max()
    for ours, theirs in zip(inputs, exact):
        assert ours.grad.dtype == ours.dtype
        bound = 1e-5 if slow and ours.dtype == torch.float32 else 4 * torch.finfo(dtype).eps
        assert (ours.grad - theirs.grad).abs().max() <= bound * theirs.grad.abs().max()


def test_spike_conv_compiles_under_autocast(monkeypatch):
    monkeypatch.setattr(spike_conv, 'SLOW_DTYPES', (torch.bfloat16,))
    x, weight = (torch.rand(2, 4, 6, 6) > 0.7).float(), torch.randn(3, 4, 3, 3, requires_grad=True)
    grads = []
    for conv in (ops.spike_conv2d, torch.compile(ops.spike_conv2d, fullgraph=True)):
        weight.grad = None
        with torch.autocast('cpu', torch.bfloat16):
            conv(x, weight).float().square().sum().backward()
        grads.append(weight.grad)
    torch.testing.assert_close(*grads)


def test_spike_conv_takes_one_dtype():
    x, weight = torch.ones(1, 2, 4, 4, dtype=torch.bfloat16), torch.randn(3, 2, 3, 3)
    with pytest.raises(RuntimeError, match='should be the same, got'):
        ops.spike_conv2d(x, weight)


XEON = dict(architecture='x86_64', cpu_name='Intel Xeon')
RYZEN = dict(architecture='x86_64', cpu_name='AMD Ryzen')


@pytest.mark.parametrize(
    ('has', 'slow'),
    [
        (dict(XEON, avx512_bf16=True), HALVES),
        (dict(XEON, avx512_bf16=True, amx_bf16=True), HALVES[1:]),
        (dict(XEON, avx512_bf16=True, amx_bf16=True, amx_fp16=True), []),
        (RYZEN, HALVES),
        (dict(RYZEN, avx512_bf16=True), HALVES[1:]),
        (dict(architecture='aarch64'), []),
        ({}, []),  # a PyTorch that can't tell
    ],
)
def test_half_precisions_that_a_cpu_has_no_units_for(has, slow):
    assert list(spike_conv._slow_dtypes(has)) == slow


@pytest.fixture
def by_events(monkeypatch):
    """Which operators by events are called."""
    called = []
    for name in ('bits_conv', 'bits_conv_weight_grad'):
        operator = getattr(spike_conv, name)
        spy = lambda *args, n=name, f=operator: (called.append(n), f(*args))[1]  # noqa: E731
        monkeypatch.setattr(spike_conv, name, spy)
    monkeypatch.setenv('MMSNN_EVENTS_BELOW', '0.5')
    return called


def maps(*size, rate=0.2, last=True):
    x = (torch.rand(size, generator=torch.Generator().manual_seed(0)) < rate).float()
    return x.contiguous(memory_format=torch.channels_last) if last else x


@pytest.mark.parametrize('needs', [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize('bias', [False, True])
@pytest.mark.parametrize('options', [{}, dict(stride=2, padding=1), dict(padding=(1, 2), groups=2)])
def test_few_spikes_go_by_events(by_events, options, bias, needs):
    weight = torch.randn(40, 12 // options.get('groups', 1), 3, 3)
    given = [maps(3, 12, 9, 11), weight, torch.randn(40) if bias else None]
    ours, exact = (
        [None if v is None else v.detach().clone().to(dtype) for v in given]
        for dtype in (torch.float32, torch.float64)
    )
    for leaves in (ours, exact):
        for leaf, need in zip(leaves, (*needs, bias)):
            if need:
                leaf.requires_grad_()
    out, expected = ops.spike_conv2d(*ours, **options), F.conv2d(*exact, **options)
    grad = torch.randn(out.shape)
    out.backward(grad)
    expected.backward(grad.double())
    assert by_events == ['bits_conv', *['bits_conv_weight_grad'] * needs[1]]
    grads = [(a.grad, b.grad) for a, b in zip(ours, exact) if b is not None]
    for a, b in [(out, expected), *grads]:
        assert (a is None) == (b is None)
        if b is not None:
            assert (a - b).abs().max() <= 1e-5 * b.abs().max()
    if needs[0]:
        assert ours[0].grad.stride() == ours[0].stride()
    by_events.clear()
    with torch.no_grad():  # the same numbers
        assert torch.equal(ops.spike_conv2d(*ours, **options), out)
    assert by_events == ['bits_conv']


CASES = 'many spikes', 'no spikes', 'contiguous', 'few outputs', 'float64', 'a mode', 'compiled'


@pytest.mark.parametrize('case', CASES)
def test_what_does_not_go_by_events(by_events, case):
    x = maps(2, 8, 9, 9, rate=0.7 if case == 'many spikes' else 0.2, last=case != 'contiguous')
    weight = torch.randn(15 if case == 'few outputs' else 16, 8, 3, 3)
    if case == 'no spikes':
        x = x * 2
    elif case == 'float64':
        x, weight = x.double(), weight.double()
    weight.requires_grad_()
    if case == 'a mode':
        with FlopCounterMode(display=False) as counter:
            out = ops.spike_conv2d(x, weight)
        assert counter.get_total_flops() == 2 * 2 * 16 * 7 * 7 * 8 * 9
    elif case == 'compiled':
        options = dict(fullgraph=True, backend='aot_eager', dynamic=False)
        out = torch.compile(ops.spike_conv2d, **options)(x, weight)
    else:
        out = ops.spike_conv2d(x, weight)
    out.sum().backward()
    assert not by_events
    exact = weight.detach().double().requires_grad_()
    expected = F.conv2d(x.double(), exact)
    expected.sum().backward()
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(weight.grad.double(), exact.grad, rtol=1e-5, atol=1e-5)


def test_half_precision_by_events(monkeypatch, by_events):
    monkeypatch.setattr(spike_conv, 'SLOW_DTYPES', (torch.bfloat16,))
    x, weight = maps(2, 8, 9, 9), torch.randn(16, 8, 3, 3, requires_grad=True)
    with torch.autocast('cpu', torch.bfloat16):
        out = ops.spike_conv2d(x, weight)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), F.conv2d(x, weight), rtol=2**-8, atol=1e-5)
    out.sum().backward()
    assert by_events == ['bits_conv', 'bits_conv_weight_grad']
    assert weight.grad.dtype == torch.float32


def test_another_default_dtype(by_events):
    x, weight = maps(2, 8, 9, 9), torch.randn(16, 8, 3, 3)
    expected = ops.spike_conv2d(x, weight)
    try:
        torch.set_default_dtype(torch.float64)
        assert torch.equal(ops.spike_conv2d(x, weight), expected)
    finally:
        torch.set_default_dtype(torch.float32)
    assert by_events == ['bits_conv'] * 2


def test_no_image(by_events):
    weight = torch.randn(16, 8, 3, 3, requires_grad=True)
    out = ops.spike_conv2d(maps(0, 8, 9, 9), weight)
    assert out.shape == (0, 16, 7, 7)
    assert not by_events


def test_twice_backward(by_events):
    # A gradient whose graph is kept is the dense one, which has a gradient itself.
    x, weight = maps(2, 8, 9, 9), torch.randn(16, 8, 3, 3, requires_grad=True)
    seconds = []
    for conv in (ops.spike_conv2d, F.conv2d):
        (grad,) = torch.autograd.grad(conv(x, weight).square().sum(), weight, create_graph=True)
        seconds.append(torch.autograd.grad(grad.square().sum(), weight)[0])
    torch.testing.assert_close(*seconds, rtol=1e-4, atol=1e-2)


def test_slices_of_channels_go_by_events(by_events):
    x, weight = maps(2, 16, 9, 9).chunk(2, 1)[1], torch.randn(16, 8, 3, 3)
    torch.testing.assert_close(ops.spike_conv2d(x, weight), F.conv2d(x, weight))
    assert by_events == ['bits_conv']


def test_stride_of_one_number_in_a_list(by_events):
    x, weight = maps(2, 8, 9, 9), torch.randn(16, 8, 3, 3)
    expected = F.conv2d(x, weight, stride=2)
    torch.testing.assert_close(ops.spike_conv2d(x, weight, stride=[2]), expected)


def test_bytes_that_are_no_bits(monkeypatch, by_events):
    monkeypatch.setattr(spike_conv, 'SLOW_DTYPES', (torch.bfloat16,))
    x = (2 * maps(2, 8, 9, 9)).to(torch.uint8)
    weight = torch.randn(16, 8, 3, 3)
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
        out = ops.spike_conv2d(x, weight)
    torch.testing.assert_close(out.float(), F.conv2d(x.float(), weight), rtol=2**-7, atol=1e-4)


@torch.no_grad()
def test_over_several_weights(by_events):
    x, weights = maps(2, 8, 9, 9), torch.randn(3, 16, 8, 3, 3)
    out = torch.vmap(lambda w: ops.spike_conv2d(x, w))(weights)
    expected = torch.stack([F.conv2d(x, w) for w in weights])
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('rows', [0, 1])
def test_eval_takes_the_way_of_training_behind_a_stride(by_events, rows):
    x = torch.zeros(2, 8, 10, 10).contiguous(memory_format=torch.channels_last)
    x[:, :, rows::2] = 1  # dense in the rows that the conv reads, or empty
    weight = torch.randn(16, 8, 1, 1, requires_grad=True)
    ops.spike_conv2d(x, weight, stride=2)
    training = list(by_events)
    by_events.clear()
    with torch.no_grad():
        ops.spike_conv2d(x, weight, stride=2)
    assert by_events == training == ['bits_conv'] * rows


def test_maps_without_values():
    x, weight = torch.empty(2, 8, 9, 9, device='meta'), torch.empty(16, 8, 3, 3, device='meta')
    assert ops.spike_conv2d(x, weight).shape == (2, 16, 7, 7)

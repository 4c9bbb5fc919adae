"""Convs by events against convs in float64, and with the neurons in them against one by one."""

import sys

import pytest
import torch
import torch.nn.functional as F
from guards import between_guards, check, maps
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsnn import ops
from mmsnn.ops import dispatch, event_conv, event_weights

C = dispatch.named('c')
WHY_NOT = dispatch.why_not('c')
needs_kernel = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or 'runs')
every_kernel = pytest.mark.parametrize(
    'backend', [dispatch.REFERENCE, pytest.param(C, marks=needs_kernel)], ids=lambda b: b.name
)
DTYPES = (torch.float32, torch.int8, torch.int16)
PLAIN = (1, 1), (1, 1), (1, 1)


def spikes(*shape, rate=0.3, most=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(1, most + 1, shape, generator=generator)
    return ((torch.rand(shape, generator=generator) < rate) * values).to(torch.uint8)


def parts_of(outputs, channels, kernel, dtype, parts=1, seed=0):
    """(q, scale) of each part, and the shift."""
    generator = torch.Generator().manual_seed(seed)
    shape, numbers = (outputs, channels, *kernel), []
    for _ in range(parts):
        if dtype == torch.float32:
            q = torch.randn(shape, generator=generator)
        else:
            limits = torch.iinfo(dtype)
            q = torch.randint(limits.min, limits.max + 1, shape, generator=generator).to(dtype)
        numbers.append((q, 0.02 * torch.rand(outputs, generator=generator)))
    return numbers, torch.randn(outputs, generator=generator)


def neuron_of(decay=0.5, input_scale=1.0, v_threshold=0.6, reset='hard'):
    return ops.LIF(decay, input_scale, v_threshold, reset)


def exact_sums(x, q, geometry, groups):
    return F.conv2d(x.flatten(0, 1).double(), q.double(), None, *geometry, groups)


def check_currents(y, x, numbers, shift, geometry, groups):
    """Sums of whole numbers are exact; those of float32 are as near as their rounding allows."""
    y = y.flatten(0, 1)
    assert y.dtype == torch.float32
    assert y.is_contiguous(memory_format=torch.channels_last)
    column = shift.view(-1, 1, 1)
    if numbers[0][0].dtype != torch.float32:
        expected = column
        for q, scale in numbers:
            sums = exact_sums(x, q, geometry, groups)
            expected = sums.float() * scale.view(-1, 1, 1) + expected
        assert torch.equal(y, expected)
        return
    exact, size = column.double(), column.double().abs()
    for q, scale in numbers:
        wide = scale.double().view(-1, 1, 1)
        exact = exact + wide * exact_sums(x, q, geometry, groups)
        size = size + wide * exact_sums(x, q.abs(), geometry, groups)
    window = numbers[0][0][0].numel() + 4
    assert ((y - exact).abs() <= window * 2.0**-24 * size + 1e-30).all()


@st.composite
def cases(draw):
    steps, batch, groups = draw(st.integers(1, 4)), draw(st.integers(1, 2)), draw(st.integers(1, 3))
    channels = groups * draw(st.sampled_from([1, 2, 3, 7, 8, 9, 16, 17]))
    outputs = groups * draw(st.sampled_from([1, 3, 31, 32, 33, 63, 64, 65, 130]))
    pair = lambda low, high: draw(st.tuples(st.integers(low, high), st.integers(low, high)))  # noqa: E731
    kernel, stride, padding, dilation = pair(1, 4), pair(1, 3), pair(0, 3), pair(1, 2)
    least = (max(1, d * (k - 1) + 1 - 2 * p) for k, p, d in zip(kernel, padding, dilation))
    size = [draw(st.integers(n, n + 8)) for n in least]
    seed = draw(st.integers(0, 2**31))
    most = draw(st.sampled_from([1, 1, 4, 255]))
    x = spikes(
        steps, batch, channels, *size, rate=draw(st.sampled_from([0, 0.1, 0.5, 1])), most=most,
        seed=seed,
    )  # fmt: skip
    layout = draw(st.sampled_from(['contiguous', 'last', 'apart', 'sliced']))
    if layout == 'last':
        x = x.movedim(2, -1).contiguous().movedim(-1, 2)
    elif layout == 'apart':  # steps that lie apart
        x = torch.stack([x, 1 - x], 1).movedim(3, -1).contiguous().movedim(-1, 3)[:, 0]
    elif layout == 'sliced':
        x = torch.stack([x, 1 - x], -1).flatten(-2)[..., ::2]
    dtype, parts = draw(st.sampled_from(DTYPES)), draw(st.integers(1, 2))
    numbers, shift = parts_of(outputs, channels // groups, kernel, dtype, parts, seed)
    return x, numbers, shift, (stride, padding, dilation), groups


@every_kernel
@settings(max_examples=150, deadline=None)
@given(case=cases())
def test_currents(backend, case):
    x, numbers, shift, geometry, groups = case
    weights = ops.pack_event_weights(numbers, shift, groups)
    before = x.clone()
    y = event_conv.event_conv2d(x, weights, geometry, backend)
    check_currents(y, *case)
    assert torch.equal(x, before)


@needs_kernel
@settings(max_examples=100, deadline=None)
@given(case=cases(), data=st.data())
def test_spikes_are_those_of_the_neuron_on_the_same_currents(case, data):
    x, numbers, shift, geometry, groups = case
    weights = ops.pack_event_weights(numbers, shift, groups)
    y = event_conv.event_conv2d(x, weights, geometry, C)
    neuron = neuron_of(
        data.draw(st.floats(0, 1)),
        data.draw(st.sampled_from([1.0, 0.3])),
        data.draw(st.floats(0.2, 2)),
        data.draw(st.sampled_from(sorted(ops.RESETS))),
    )
    gate = data.draw(st.sampled_from([None, 'or', 'add', 'and', 'iand']))
    shortcut = None if gate is None else spikes(*y.shape, most=1, seed=1)
    out = event_conv.event_conv_lif(x, weights, geometry, neuron, shortcut, gate, C)
    assert out.dtype == torch.uint8
    for name in ('reference', 'auto'):
        with ops.use_backend(name):
            options = dict(shortcut=shortcut, gate=gate, dtype=torch.uint8)
            assert torch.equal(out, ops.lif(y, *neuron, **options))


@every_kernel
def test_by_hand(backend):
    # One pixel of two channels; sums 3 and 7, currents 0.6 and 1.1; the first fires in step two.
    q = torch.tensor([[1, 2], [3, 4]], dtype=torch.int8).view(2, 2, 1, 1)
    shift = torch.tensor([0.0, 0.4])
    weights = ops.pack_event_weights([(q, torch.tensor([0.2, 0.1]))], shift)
    x = torch.ones(3, 1, 2, 1, 1, dtype=torch.uint8)
    geometry = (1, 1), (0, 0), (1, 1)
    y = event_conv.event_conv2d(x, weights, geometry, backend)
    torch.testing.assert_close(y[0].flatten(), torch.tensor([0.6, 1.1]))
    # 0.6, 0.75 * 0.6 + 0.6 = 1.05 (fires, reset), 0.6
    out = event_conv.event_conv_lif(
        x, weights, geometry, neuron_of(0.75, 1.0, 1.0), backend=backend
    )
    assert out.flatten(1).tolist() == [[0, 1], [1, 1], [0, 1]]


@every_kernel
@pytest.mark.parametrize('value', [1, 255])
@pytest.mark.parametrize('dtype', [torch.int8, torch.int16])
@pytest.mark.parametrize('sign', [-1, 1])
def test_the_largest_sums(backend, dtype, value, sign):
    # All weights at an end of their range, all inputs at the end of theirs, in a large window.
    limits = torch.iinfo(dtype)
    q = torch.full((66, 300, 3, 3), limits.max if sign > 0 else limits.min, dtype=dtype)
    weights = ops.pack_event_weights([(q, torch.ones(66))], torch.zeros(66))
    x = torch.full((1, 1, 300, 3, 3), value, dtype=torch.uint8)
    y = event_conv.event_conv2d(x, weights, ((1, 1), (0, 0), (1, 1)), backend)
    expected = torch.tensor(2700.0 * value * int(q[0, 0, 0, 0]), dtype=torch.float64).float()
    assert torch.equal(y.flatten(), expected.expand(66))


@needs_kernel
def test_the_longest_window_of_bytes():
    # 65536 values of 255 * -128 come to within 1 % of what 32 bits hold.
    q = torch.full((1, 65536, 1, 1), -128, dtype=torch.int8)
    weights = ops.pack_event_weights([(q, torch.ones(1))], torch.zeros(1))
    x = torch.full((1, 1, 65536, 1, 1), 255, dtype=torch.uint8)
    y = event_conv.event_conv2d(x, weights, ((1, 1), (0, 0), (1, 1)), C)
    assert y.item() == -65536.0 * 255 * 128


@needs_kernel
@pytest.mark.parametrize('dtype', DTYPES)
def test_it_does_not_depend_on_threads(dtype):
    before, results = torch.get_num_threads(), []
    numbers, shift = parts_of(130, 32, (3, 3), dtype)
    weights = ops.pack_event_weights(numbers, shift)
    x = spikes(4, 2, 32, 23, 19, most=2)
    assert x.numel() > 32768, 'a second thread should be worth it'
    try:
        for threads in (1, 2, 4, 7):
            torch.set_num_threads(threads)
            y = event_conv.event_conv2d(x, weights, PLAIN, C)
            neuron = neuron_of(v_threshold=y.std().item())
            results.append((y, event_conv.event_conv_lif(x, weights, PLAIN, neuron, backend=C)))
    finally:
        torch.set_num_threads(before)
    for y, out in results:
        assert torch.equal(y, results[0][0])
        assert torch.equal(out, results[0][1])
    assert 0.02 < results[0][1].float().mean() < 0.95


@needs_kernel
def test_the_order_of_a_sum():
    # 1 + 2^-24 is 1 in float32, twice: only a sum that begins with the small ones sees them. The
    # order is columns, then rows, then channels.
    x = torch.ones(1, 1, 3, 2, 2, dtype=torch.uint8)
    places = [(0, 0, 0), (0, 1, 2), (1, 0, 1)]  # column, row, channel
    for at, expected in ((0, 1.0), (2, 1.0 + 2.0**-23)):
        weight = torch.zeros(1, 3, 2, 2)
        for i, (column, row, channel) in enumerate(places):
            weight[0, channel, row, column] = 1.0 if i == at else 2.0**-24
        weights = ops.pack_event_weights([(weight, torch.ones(1))], torch.zeros(1))
        y = event_conv.event_conv2d(x, weights, ((1, 1), (0, 0), (1, 1)), C)
        assert y.item() == expected


def guarded():
    for dtype in (torch.float32, torch.int8, torch.int16):
        for outputs, channels, groups, kernel, size, stride, padding, dilation in (
            (64, 8, 1, 3, (5, 5), 1, 1, 1),
            (70, 5, 1, 3, (4, 7), 2, 1, 2),
            (3, 3, 3, 1, (1, 1), 1, 0, 1),
            (128, 20, 2, 5, (9, 8), 1, 3, 1),
        ):
            q = torch.randint(-128, 128, (outputs, channels // groups, kernel, kernel)).to(dtype)
            parts = [(q, torch.rand(outputs))]
            weights = ops.pack_event_weights(parts, torch.zeros(outputs), groups)
            geometry = ((stride,) * 2, (padding,) * 2, (dilation,) * 2)
            rest = geometry, ops.LIF()
            for most in (2, 4):
                x = torch.randint(0, most, (2, 1, channels, *size), dtype=torch.uint8)
                plain = event_conv.event_conv_lif(x, weights, *rest)
                for at_end in (False, True):
                    guarded = weights._replace(
                        **{
                            name: between_guards(getattr(weights, name), at_end)
                            for name in ('q', 'scale', 'shift')
                        }
                    )
                    x, shortcut = maps(x, at_end), maps(plain, at_end)
                    out = event_conv.event_conv_lif(x, guarded, *rest, shortcut, 'or')
                    assert torch.equal(out, plain)


@needs_kernel
@pytest.mark.skipif(sys.platform != 'linux', reason='guards memory by mprotect of Linux')
def test_nothing_else_is_read():
    check(__file__)


@pytest.mark.parametrize('dtype', DTYPES)
def test_packing_loses_nothing(dtype):
    numbers, shift = parts_of(70, 6, (2, 3), dtype, parts=2)
    weights = ops.pack_event_weights(numbers, shift, groups=2)
    assert (weights.channels, weights.kernel_size, weights.out_channels) == (12, (2, 3), 70)
    q = event_weights.UNPACK[weights.q.dtype](weights.q).permute(0, 1, 2, 6, 5, 4, 3).flatten(2, 3)
    for part, (expected, _) in zip(q, numbers):
        assert torch.equal(part[:, :35].flatten(0, 1), expected.to(part.dtype))
        assert not part[:, 35:].any()
    bits = {torch.float32: 32, torch.int8: 8, torch.int16: 16}[dtype]
    # 2 parts of 2 groups, whose 35 outputs take 64, and 36 weights of each.
    assert 8 * weights.q.numel() * weights.q.element_size() == 2 * 2 * 64 * 36 * bits


@every_kernel
def test_no_image(backend):
    weights = ops.pack_event_weights(*parts_of(5, 4, (1, 1), torch.float32))
    x, geometry = torch.zeros(3, 0, 4, 2, 2, dtype=torch.uint8), ((1, 1), (0, 0), (1, 1))
    out = event_conv.event_conv_lif(x, weights, geometry, neuron_of(), backend=backend)
    assert out.shape == (3, 0, 5, 2, 2)


@needs_kernel
def test_it_goes_by_the_backend():
    weights = ops.pack_event_weights(*parts_of(5, 4, (1, 1), torch.float32))
    x, geometry = spikes(1, 1, 4, 3, 3), ((1, 1), (0, 0), (1, 1))
    expected = event_conv.event_conv2d(x, weights, geometry, dispatch.REFERENCE)
    for name in ('auto', 'c', 'reference'):
        with ops.use_backend(name):
            torch.testing.assert_close(event_conv.event_conv2d(x, weights, geometry), expected)


@every_kernel
@pytest.mark.parametrize(
    ('x', 'shortcut', 'gate', 'message'),
    [
        (spikes(2, 1, 4, 5, 5), None, None, r'8 channels .* got torch.uint8 .*\(2, 1, 4, 5, 5\)'),
        (spikes(2, 1, 8, 2, 5), None, None, r'kernel size \(3, 3\) .* \(2, 1, 8, 2, 5\)'),
        (spikes(2, 8, 5, 5), None, None, r'got torch.uint8 of shape \(2, 8, 5, 5\)'),
        (spikes(2, 1, 8, 5, 5).float(), None, None, 'needs bytes .* got torch.float32'),
        (spikes(2, 1, 8, 5, 5), spikes(2, 1, 5, 5, 5), 'or', r'\(2, 1, 5, 3, 3\) of the spikes'),
        (spikes(2, 1, 8, 5, 5), spikes(2, 1, 5, 3, 3).bool(), 'or', 'shortcut needs bytes'),
        (spikes(2, 1, 8, 5, 5), None, 'or', "got gate='or' and no shortcut"),
    ],
)
def test_wrong_inputs(x, shortcut, gate, message, backend):
    weights = ops.pack_event_weights(*parts_of(5, 8, (3, 3), torch.float32))
    geometry = (1, 1), (0, 0), (1, 1)
    with pytest.raises(ValueError, match=message):
        event_conv.event_conv_lif(x, weights, geometry, neuron_of(), shortcut, gate, backend)


@every_kernel
@pytest.mark.parametrize('geometry', [((0, 1), (0, 0), (1, 1)), ((1, 1), (-1, 0), (1, 1))])
def test_no_geometry(geometry, backend):
    weights = ops.pack_event_weights(*parts_of(5, 8, (3, 3), torch.float32))
    with pytest.raises(ValueError, match='no conv has the stride, padding and dilation'):
        event_conv.event_conv2d(spikes(2, 1, 8, 5, 5), weights, geometry, backend)


@every_kernel
@pytest.mark.parametrize(
    'change',
    [
        dict(shift=torch.zeros(5)),
        dict(scale=torch.zeros(1, 32, dtype=torch.float64)),
        dict(q=torch.zeros(1, 1, 1, 3, 3, 8, 64)),
        dict(q=torch.zeros(1, 1, 1, 3, 3, 32)),
        dict(q=torch.zeros(1, 1, 1, 3, 3, 8, 32, dtype=torch.int64)),
        dict(q=torch.zeros(1, 1, 1, 0, 3, 8, 32)),
        dict(q=torch.zeros(1, 1, 1, 3, 3, 16, 32)[..., ::2, :]),
        dict(out_channels=33),
    ],
)
def test_weights_that_nobody_packed(change, backend):
    weights = ops.pack_event_weights(*parts_of(5, 8, (3, 3), torch.float32))
    with pytest.raises(ValueError, match='not as pack_event_weights makes them'):
        event_conv.event_conv2d(spikes(2, 1, 8, 5, 5), weights._replace(**change), PLAIN, backend)


def test_weights_that_cannot_be_packed():
    pack, q, scale, shift = (
        ops.pack_event_weights,
        torch.zeros(4, 2, 1, 1),
        torch.ones(4),
        torch.ones(4),
    )
    with pytest.raises(ValueError, match=r'dtypes .* got torch.int64'):
        pack([(q.long(), scale)], shift)
    with pytest.raises(ValueError, match='one dtype and shape'):
        pack([(q, scale), (q.char(), scale)], shift)
    with pytest.raises(ValueError, match=r'the shape \(4,\), got \(3,\) and \(4,\)'):
        pack([(q, scale[:3])], shift)
    with pytest.raises(ValueError, match='4 outputs are not shared evenly by 3 groups'):
        pack([(q, scale)], shift, groups=3)
    with pytest.raises(ValueError, match='windows of 65794 values may not fit'):
        pack([(torch.zeros(1, 65794, 1, 1, dtype=torch.int8), scale[:1])], shift[:1])


@every_kernel
def test_autocast_changes_nothing(backend):
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(16, 8, 3, 3, generator=generator)
    packed = ops.pack_event_weights([(q, torch.ones(16))], torch.zeros(16))
    x = (torch.rand(2, 1, 8, 9, 9, generator=generator) < 0.3).to(torch.uint8)
    args = x, packed, ((1, 1), (1, 1), (1, 1))
    plain = ops.event_conv2d(*args, backend=backend)
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(ops.event_conv2d(*args, backend=backend), plain)

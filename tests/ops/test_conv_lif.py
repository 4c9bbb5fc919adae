"""A conv on bytes with the neurons in it, against the one after the other in float64."""

import sys

import pytest
import torch
import torch.nn.functional as F
from guards import check, maps
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsnn import ops
from mmsnn.ops import conv_lif, dispatch, units

C = dispatch.named('c')
WHY_NOT = dispatch.why_not('c') or C.supports('conv_lif', torch.zeros(1, dtype=torch.uint8))
needs_kernel = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or 'runs')
every_kernel = pytest.mark.parametrize(
    'backend', [dispatch.REFERENCE, pytest.param(C, marks=needs_kernel)], ids=lambda b: b.name
)


def random(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def spikes(*shape, seed=0, rate=0.4):
    return (random(*shape, seed=seed) < rate).to(torch.uint8)


def weights(outputs, channels, kernel_size, parts=1, seed=0):
    """(q, scale) of each part, and the shift."""
    size = outputs, channels, *kernel_size
    numbers = [
        ((random(*size, seed=seed + i) * 256).floor() - 128, 0.02 * random(outputs, seed=seed + i))
        for i in range(parts)
    ]
    return numbers, random(outputs, seed=seed) - 0.3


def neuron_of(decay=0.5, input_scale=1.0, v_threshold=0.6, reset='hard'):
    return ops.LIF(decay, input_scale, v_threshold, reset)


def one_after_the_other(x, numbers, shift, geometry, neuron, shortcut=None, gate=None):
    currents = shift.view(-1, 1, 1)
    for q, scale in numbers:
        sums = F.conv2d(x.flatten(0, 1).double(), q.double(), None, *geometry)
        assert torch.equal(sums, sums.round())
        currents = sums.float() * scale.view(-1, 1, 1) + currents
    with ops.use_backend('reference'):
        options = dict(shortcut=shortcut, gate=gate, dtype=torch.uint8)
        return ops.lif(currents.unflatten(0, x.shape[:2]), *neuron, **options)


@st.composite
def cases(draw):
    steps, batch = draw(st.integers(1, 5)), draw(st.integers(1, 3))
    channels = 4 * draw(st.integers(1, 5))
    outputs = draw(st.sampled_from([1, 3, 16, 63, 64, 65, 128, 150]))
    pair = lambda low, high: draw(st.tuples(st.integers(low, high), st.integers(low, high)))  # noqa: E731
    kernel, stride, padding, dilation = pair(1, 4), pair(1, 3), pair(0, 3), pair(1, 2)
    least = (max(1, d * (k - 1) + 1 - 2 * p) for k, p, d in zip(kernel, padding, dilation))
    size = [draw(st.integers(n, n + 9)) for n in least]
    seed = draw(st.integers(0, 2**31))
    x = spikes(steps, batch, channels, *size, seed=seed)
    if draw(st.booleans()):  # counts, as behind SEW's add
        x = x * draw(st.integers(2, 255))
    if draw(st.booleans()):
        x = x.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        x = x.unflatten(0, (steps, batch))
    numbers, shift = weights(outputs, channels, kernel, draw(st.integers(1, 2)), seed)
    geometry = stride, padding, dilation
    neuron = neuron_of(
        draw(st.floats(0, 1)),
        draw(st.sampled_from([1.0, 0.3])),
        draw(st.floats(0.2, 2)),
        draw(st.sampled_from(sorted(ops.RESETS))),
    )
    gate = draw(st.sampled_from([None, 'or', 'add', 'and', 'iand']))
    out = conv_lif.output_size(size, kernel, geometry)
    shortcut = None if gate is None else spikes(steps, batch, outputs, *out, seed=seed + 1)
    return x, numbers, shift, geometry, neuron, shortcut, gate


@every_kernel
@settings(max_examples=150, deadline=None)
@given(case=cases())
def test_it_equals_one_after_the_other_bit_for_bit(backend, case):
    x, numbers, shift, *rest = case
    packed = conv_lif.pack_weights(numbers, shift)
    out = conv_lif.conv_lif(x, packed, *rest, backend=backend)
    assert out.dtype == torch.uint8
    assert torch.equal(out, one_after_the_other(*case))


@every_kernel
def test_by_hand(backend):
    # One pixel of four channels; sums 3 and 7, currents 0.6 and 1.1; the first fires in step two.
    q = torch.tensor([[1, 2, 3, 4], [3, 4, 5, 6]]).view(2, 4, 1, 1)
    packed = conv_lif.pack_weights([(q, torch.tensor([0.2, 0.1]))], torch.tensor([0.0, 0.4]))
    x = torch.tensor([1, 1, 0, 0], dtype=torch.uint8).view(1, 1, 4, 1, 1).repeat(3, 1, 1, 1, 1)
    geometry, neuron = ((1, 1), (0, 0), (1, 1)), neuron_of(0.75, 1.0, 1.0)
    # 0.6, 0.75 * 0.6 + 0.6 = 1.05 (fires, reset), 0.6
    out = conv_lif.conv_lif(x, packed, geometry, neuron, backend=backend)
    assert out.flatten(1).tolist() == [[0, 1], [1, 1], [0, 1]]


@needs_kernel
def test_it_does_not_depend_on_threads():
    before, results = torch.get_num_threads(), []
    numbers, shift = weights(130, 16, (3, 3))
    packed, x = conv_lif.pack_weights(numbers, shift), spikes(4, 2, 16, 23, 19)
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            geometry = (1, 1), (1, 1), (1, 1)
            results.append(conv_lif.conv_lif(x, packed, geometry, neuron_of(), backend=C))
    finally:
        torch.set_num_threads(before)
    for result in results:
        assert torch.equal(result, results[0])
    assert 0.05 < results[0].float().mean() < 0.95


def guarded():
    for outputs, kernel, size, stride, padding in (
        (64, 3, (5, 5), 1, 1), (70, 3, (4, 7), 2, 1), (3, 1, (1, 1), 1, 0), (64, 5, (9, 8), 1, 3)
    ):  # fmt: skip
        q = torch.randint(-128, 128, (outputs, 8, kernel, kernel))
        packed = conv_lif.pack_weights([(q, torch.rand(outputs))], torch.zeros(outputs))
        rest = packed, ((stride,) * 2, (padding,) * 2, (1, 1)), neuron_of()
        x = spikes(2, 1, 8, *size)
        plain = conv_lif.conv_lif(x, *rest, backend=C)
        for at_end in (False, True):
            out = conv_lif.conv_lif(maps(x, at_end), *rest, maps(plain, at_end), 'or', backend=C)
            assert torch.equal(out, plain)


@needs_kernel
@pytest.mark.skipif(sys.platform != 'linux', reason='guards memory by mprotect of Linux')
def test_nothing_but_the_maps_is_read():
    check(__file__)


@needs_kernel
def test_when_it_is_fast(monkeypatch):
    monkeypatch.setattr(units, 'has_amx', lambda: False)
    x = spikes(1, 1, 4, 2, 2)
    assert conv_lif.is_fast(x)
    assert not conv_lif.is_fast(x.float())
    with ops.use_backend('reference'):
        assert not conv_lif.is_fast(x)
    monkeypatch.setattr(units, 'has_amx', lambda: True)
    assert not conv_lif.is_fast(x), "oneDNN's convs are faster there"


@every_kernel
def test_no_image(backend):
    packed = conv_lif.pack_weights(*weights(5, 4, (1, 1)))
    x = torch.zeros(3, 0, 4, 2, 2, dtype=torch.uint8)
    out = conv_lif.conv_lif(x, packed, ((1, 1), (0, 0), (1, 1)), neuron_of(), backend=backend)
    assert out.shape == (3, 0, 5, 2, 2)


@every_kernel
@pytest.mark.parametrize(
    ('x', 'shortcut', 'message'),
    [
        (spikes(2, 1, 4, 5, 5), None, r'8 channels .* got torch.uint8 of shape \(2, 1, 4, 5, 5\)'),
        (spikes(2, 1, 8, 2, 5), None, r'kernel size \(3, 3\) .* \(2, 1, 8, 2, 5\)'),
        (spikes(2, 8, 5, 5), None, r'got torch.uint8 of shape \(2, 8, 5, 5\)'),
        (spikes(2, 1, 8, 5, 5).float(), None, 'needs bytes .* got torch.float32'),
        (spikes(2, 1, 8, 5, 5), spikes(2, 1, 5, 5, 5), r'shape \(2, 1, 5, 3, 3\) of the spikes'),
        (spikes(2, 1, 8, 5, 5), spikes(2, 1, 5, 3, 3).bool(), 'shortcut needs bytes'),
    ],
)
def test_wrong_inputs(x, shortcut, message, backend):
    packed, geometry = conv_lif.pack_weights(*weights(5, 8, (3, 3))), ((1, 1), (0, 0), (1, 1))
    gate = None if shortcut is None else 'or'
    with pytest.raises(ValueError, match=message):
        conv_lif.conv_lif(x, packed, geometry, neuron_of(), shortcut, gate, backend)


def test_channels_come_in_fours():
    with pytest.raises(ValueError, match='multiple of 4, got 6'):
        conv_lif.pack_weights(*weights(4, 6, (3, 3)))

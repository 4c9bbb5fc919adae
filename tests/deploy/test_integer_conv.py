"""Integer convs: exact sums of rounded weights."""

import copy
import timeit

import pytest
import torch
from torch import nn

from mmsnn import ops
from mmsnn.deploy import IntegerConv2d, integer_conv
from mmsnn.deploy.integer_conv import integer_convs, integer_operators
from mmsnn.ops import conv_lif
from mmsnn.ops.units import has_vnni

needs_integers = pytest.mark.skipif(bool(integer_operators()), reason=integer_operators() or 'runs')
needs_vnni = pytest.mark.skipif(
    not has_vnni(), reason='without VNNI a pair of products of bytes beyond 0 and 1 saturates'
)


def spikes(*shape):
    return (torch.rand(shape, generator=torch.Generator().manual_seed(0)) > 0.7).to(torch.uint8)


@needs_integers
@pytest.mark.parametrize('bits', [2, 8, 16])
@pytest.mark.parametrize('last', [False, True])
@pytest.mark.parametrize(
    'conv',
    [
        dict(in_channels=8, out_channels=16, kernel_size=3, padding=1),
        dict(in_channels=8, out_channels=16, kernel_size=3, stride=2, padding=1, bias=False),
        dict(in_channels=8, out_channels=4, kernel_size=1, stride=2, bias=False),
        dict(in_channels=8, out_channels=24, kernel_size=1, stride=(1, 3)),
        dict(in_channels=8, out_channels=8, kernel_size=1, padding=1),
        dict(in_channels=8, out_channels=8, kernel_size=1, groups=2),
        dict(in_channels=8, out_channels=8, kernel_size=3, groups=2, dilation=2),
        dict(in_channels=8, out_channels=3, kernel_size=(1, 3)),
        dict(in_channels=8, out_channels=36, kernel_size=3, padding=1),
        dict(in_channels=8, out_channels=72, kernel_size=3, stride=2, bias=False),
    ],
)
def test_only_weights_are_rounded(conv, last, bits):
    torch.manual_seed(0)
    conv = nn.Conv2d(**conv)
    with torch.no_grad():
        conv.weight[0] *= 100  # a scale for each channel: the others lose nothing by it
        conv.weight[1] = 0
    x = spikes(4, 8, 9, 11)
    if last:
        x = x.contiguous(memory_format=torch.channels_last)
    # The rounded weights in float64 are the oracle: the conv itself adds no error.
    exact = copy.deepcopy(conv).double()
    limit = {2: 1, 8: 127, 16: 127 * 256}[bits]
    step = (exact.weight.abs().amax((1, 2, 3), keepdim=True) / limit).clamp_min(1e-30)
    with torch.no_grad():
        rounded = (exact.weight / step).round() * step
        assert (rounded - exact.weight).abs().div(step).max() <= 0.5 + 1e-9
        exact.weight.copy_(rounded)
        out = IntegerConv2d(conv, bits)(x)
        expected = exact(x.double())
    assert out.dtype == torch.float32
    # A weight halfway between two steps may be rounded either way in float32.
    scale = expected.abs().amax((0, 2, 3), keepdim=True).clamp_min(1e-6)
    assert ((out - expected) / scale).abs().max() < (1e-6 if bits <= 8 else 1e-4)


@needs_integers
@pytest.mark.parametrize('bits', [8, 16])
@pytest.mark.parametrize('values', ['spikes', 'real'])
@pytest.mark.parametrize('last', [False, True])
@pytest.mark.parametrize('stride', [1, 2, (3, 1)])
@pytest.mark.parametrize('size', [(9, 11), (1, 6), (7, 1), (1, 1)])
def test_a_1x1_conv_is_a_matrix_product(size, stride, last, values, bits):
    torch.manual_seed(0)
    matrix = IntegerConv2d(nn.Conv2d(16, 24, 1, stride), bits, real=True)
    conv = copy.deepcopy(matrix)
    conv._is_matrix = False
    x = spikes(3, 16, *size) if values == 'spikes' else torch.randn(3, 16, *size)
    if last:
        x = x.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        out, expected = matrix(x), conv(x)
    if values == 'spikes':
        assert torch.equal(out, expected)
    else:  # sums times two scales: with AMX, oneDNN's product rounds them elsewhere
        torch.testing.assert_close(out, expected, rtol=1e-6, atol=1e-6)
    assert out.is_contiguous(memory_format=torch.channels_last)


@needs_integers
@pytest.mark.parametrize(
    ('channels', 'kernel', 'size'),
    [((512, 2048), 1, 10), ((2048, 512), 1, 10), ((256, 36), 3, 5), ((256, 720), 3, 16)],
)
def test_weights_are_not_packed_again_at_every_call(channels, kernel, size):
    # Where they are, it takes from ten to hundreds of times as long as in float32.
    conv = nn.Conv2d(*channels, kernel, padding=kernel // 2).to(memory_format=torch.channels_last)
    x = spikes(1, channels[0], size, size).contiguous(memory_format=torch.channels_last)
    real, integer = x.float(), IntegerConv2d(conv, 8)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # others wait for one another where tests run side by side
    try:
        with torch.no_grad():
            times = [
                min(timeit.repeat(call, number=1, repeat=7))
                for call in (lambda: integer(x), lambda: conv(real))
            ]
    finally:
        torch.set_num_threads(threads)
    assert times[0] < 3 * times[1]


@needs_integers
@pytest.mark.parametrize('bits', [8, 16])
@pytest.mark.parametrize('band', [1, 3000, 1 << 20])
@pytest.mark.parametrize(
    'conv',
    [
        dict(out_channels=16, kernel_size=3, padding=1),
        dict(out_channels=36, kernel_size=3, stride=2, padding=1, bias=False),
        dict(out_channels=16, kernel_size=1, stride=2),
        dict(out_channels=16, kernel_size=(5, 3), padding=(2, 0), dilation=(1, 2)),
        dict(out_channels=16, kernel_size=3, padding=1, dilation=2, groups=2),
        dict(out_channels=16, kernel_size=(3, 1), stride=(2, 1)),
    ],
)
def test_bands_are_the_whole_to_the_last_bit(conv, band, bits, monkeypatch):
    monkeypatch.setattr(integer_conv, 'BAND', band)
    conv = IntegerConv2d(nn.Conv2d(8, **conv), bits)
    x = spikes(6, 8, 17, 12).contiguous(memory_format=torch.channels_last)
    whole = conv(x).unflatten(0, (2, 3))
    parts = torch.full_like(whole, torch.nan)
    assert (whole.shape[0] * whole.shape[1], *conv.output_size(x)) == (6, *whole.shape[2:])
    count = 0
    for image, rows, currents in conv.bands(x.unflatten(0, (2, 3))):
        assert currents.nbytes <= band + currents[..., :1, :].nbytes  # whole rows
        parts[:, image : image + 1, :, rows] = currents
        count += 1
    assert torch.equal(parts, whole)
    assert count == {1: 3 * whole.shape[3], 1 << 20: 3}.get(band, count)


NEURON = ops.LIF(
    decay=0.5,
    input_scale=1.0,
    v_threshold=0.1,
    reset='hard',
    detach_reset=False,
    surrogate='arctan',
    surrogate_width=1.0,
)


def after(conv, x, neuron=NEURON, **options):
    """The neurons behind the conv, one after the other."""
    return ops.lif(conv(x.flatten(0, 1)).unflatten(0, x.shape[:2]), *neuron, **options)


@needs_integers
@torch.no_grad()
@pytest.mark.parametrize('bits', [8, 16])
@pytest.mark.parametrize('way', ['tiles', 'bands'])
@pytest.mark.parametrize('gate', [None, 'or'])
def test_neurons_in_the_conv_are_those_behind_it(gate, way, bits, monkeypatch):
    x = spikes(6, 8, 17, 12).unflatten(0, (2, 3))
    conv = IntegerConv2d(nn.Conv2d(8, 70, 3, stride=2, padding=1), bits)
    options = dict(dtype=torch.uint8)
    if gate:
        options.update(gate=gate, shortcut=spikes(6, 70, 9, 6).unflatten(0, (2, 3)))
    if way == 'bands':
        monkeypatch.setattr(conv_lif, 'is_fast', lambda x: False)
        assert conv.lif(x, NEURON, **options) is None, (
            'small maps are no slower one after the other'
        )
        monkeypatch.setattr(integer_conv, 'LARGE', 0)
        monkeypatch.setattr(integer_conv, 'BAND', 5000)
    elif not conv_lif.is_fast(x):
        pytest.skip('no kernel for neurons in a conv on this CPU, or faster convs')
    out = conv.lif(x, NEURON, **options)
    assert out.dtype == torch.uint8
    assert torch.equal(out, after(conv, x, **options))
    assert (conv._tiles is not None) == (way == 'tiles')


@needs_integers
@torch.no_grad()
@pytest.mark.parametrize(
    'why',
    ['few outputs', 'groups', 'odd channels', 'learnt leak', 'floats', 'real input', 'watched',
     'real shortcut'],
)  # fmt: skip
def test_what_does_not_fire_in_the_conv(why):
    shape = dict(in_channels=8, out_channels=64, kernel_size=3)
    shape.update(
        {'few outputs': dict(out_channels=32), 'groups': dict(groups=2),
         'odd channels': dict(in_channels=6)}.get(why, {})
    )  # fmt: skip
    conv = IntegerConv2d(nn.Conv2d(**shape), 8)
    x = spikes(2, 3, shape['in_channels'], 9, 7)
    options = dict(dtype=torch.uint8)
    neuron = NEURON
    if why == 'learnt leak':
        neuron = NEURON._replace(decay=torch.tensor(0.5))
    elif why == 'floats':
        options['dtype'] = torch.float32
    elif why == 'real input':
        x = x.float()
    elif why == 'real shortcut':
        options.update(gate='or', shortcut=torch.zeros(2, 3, 64, 7, 5))
    with torch.set_grad_enabled(why == 'watched'):
        assert conv.lif(x, neuron, **options) is None
    assert after(conv, x, neuron, **options).shape == (2, 3, shape['out_channels'], 7, 5)


@needs_integers
@torch.no_grad()
@pytest.mark.parametrize('bits', [8, 16])
def test_weights_that_are_loaded_later_count(bits):
    layer, other = (IntegerConv2d(nn.Conv2d(8, 70, 3), bits) for _ in range(2))
    x = spikes(2, 8, 9, 7)
    first, expected = layer(x), other(x)
    layer.load_state_dict(other.state_dict())
    assert torch.equal(layer(x), expected)
    assert not torch.equal(expected, first)


@needs_integers
def test_bands_are_for_large_maps_of_spikes():
    conv = IntegerConv2d(nn.Conv2d(8, 512, 1), 8)
    large = torch.zeros(4, 8, 65, 64, dtype=torch.uint8)
    assert conv.takes_bands(large)  # 34 MB
    assert not conv.takes_bands(large[:, :, :60])
    assert not conv.takes_bands(large.float())
    outside = IntegerConv2d(nn.Conv2d(8, 512, 1, padding=1), 8)
    assert not outside.takes_bands(large)


@needs_integers
@needs_vnni
def test_counts_are_exact_too():
    # SEW's add gives counts of spikes.
    conv = nn.Conv2d(4, 4, 3, bias=False)
    nn.init.constant_(conv.weight, 0.5)
    x = torch.full((1, 4, 3, 3), 200, dtype=torch.uint8)
    out = IntegerConv2d(conv, 8)(x)
    assert torch.equal(out, torch.full((1, 4, 1, 1), 0.5 * 200 * 36))


def test_real_values_meet_the_original_weights():
    conv = nn.Conv2d(4, 4, 3)
    x = torch.rand(1, 4, 5, 5)
    assert torch.equal(IntegerConv2d(conv, 8)(x), conv(x))


@needs_integers
@pytest.mark.parametrize('vnni', [False, pytest.param(True, marks=needs_vnni)])
@pytest.mark.parametrize('span', [(0, 1), (-3, 1), (2, 5), (-0.01, 0.02), (0, 0)])
def test_real_values_in_steps(span, vnni, monkeypatch):
    monkeypatch.setattr(integer_conv, 'has_vnni', lambda: vnni)
    most = 255 if vnni else 127
    low, high = span
    torch.manual_seed(0)
    x = low + (high - low) * torch.rand(2, 8, 6, 6)
    x.flatten()[:2] = torch.tensor(span)
    q, scale, zero = ops.to_bytes(x, most)
    assert q.dtype == torch.uint8
    assert q.max() <= most
    back = (q.float() - zero) * scale
    assert (back - x).abs().max() <= scale * 0.51 + 1e-7
    assert 0 <= zero <= most, 'padding is zero, and must be exact'
    conv = nn.Conv2d(8, 4, 3, padding=1)
    exact = copy.deepcopy(conv).double()
    step = exact.weight.detach().abs().amax((1, 2, 3), keepdim=True) / 127
    exact.weight.data = (exact.weight.data / step).round() * step
    out = IntegerConv2d(conv, 8, real=True)(x)
    expected = exact(back.double())
    torch.testing.assert_close(out.double(), expected, rtol=1e-3, atol=1e-4)


@needs_integers
@pytest.mark.parametrize('name', ['qconv2d_pointwise', 'qlinear_pointwise', 'qlinear_prepack'])
def test_a_pytorch_without_the_operators(name, monkeypatch):
    def missing(*_):
        raise AttributeError(f'no {name}')

    monkeypatch.setattr(torch.ops.onednn, name, missing)
    monkeypatch.setattr(integer_conv, 'has_vnni', lambda: True)
    integer_convs.cache_clear()
    integer_operators.cache_clear()
    try:
        assert integer_convs() == f'this PyTorch has no integer convs: no {name}'
    finally:
        integer_convs.cache_clear()
        integer_operators.cache_clear()


@needs_integers
def test_copies_and_checkpoints():
    conv = IntegerConv2d(nn.Conv2d(4, 4, 3), 8)
    x = spikes(1, 4, 5, 5)
    out = conv(x)
    with torch.no_grad():
        conv.lif(x.unsqueeze(0), NEURON, dtype=torch.uint8)
    copied = copy.deepcopy(conv)
    assert (copied._packed, copied._tiles) == (None, None), 'weights may be changed in a copy'
    assert torch.equal(copied(x), out)
    assert sorted(conv.state_dict()) == ['conv.bias', 'conv.weight']

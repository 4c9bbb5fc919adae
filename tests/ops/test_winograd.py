"""3x3 convs by Winograd's minimal filtering against float64, on every backend."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsnn import ops
from mmsnn.ops import dispatch, layout, winograd

KERNELS = [name for name in ('c',) if not dispatch.why_not(name)]
every_backend = pytest.mark.parametrize('name', ['reference', *KERNELS])


def error(x, weight, bias, padding):
    """Largest difference from float64, as a part of the largest sum of magnitudes."""
    ours = ops.winograd_conv2d(x, ops.pack_winograd_weights(weight, bias), padding)
    wide = [v if v is None else v.double() for v in (x, weight, bias)]
    theirs = F.conv2d(*wide, padding=padding)
    assert ours.shape == theirs.shape
    assert ours.is_contiguous(memory_format=torch.channels_last)
    most = F.conv2d(wide[0].abs(), wide[1].abs(), padding=padding).max().item()
    return (ours - theirs).abs().max().item() / max(most, 1e-3)


@every_backend
@settings(deadline=None, max_examples=60)
@given(
    size=st.tuples(st.integers(1, 3), st.integers(1, 70), st.integers(1, 18), st.integers(1, 18)),
    outputs=st.integers(1, 70),
    padding=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    bias=st.booleans(),
    layout=st.sampled_from(['plain', 'last', 'sliced', 'expanded']),
)
def test_against_float64(name, size, outputs, padding, bias, layout):
    generator = torch.Generator().manual_seed(sum(size))
    size = (*size[:2], *(max(n, 3 - 2 * pad) for n, pad in zip(size[2:], padding)))
    x = torch.randn(size, generator=generator)
    if layout == 'last':
        x = x.contiguous(memory_format=torch.channels_last)
    elif layout == 'sliced':
        x = torch.cat([x, x], 3)[..., ::2]
    elif layout == 'expanded':
        x = x[:1, :, :1].expand(size)
    weight = torch.randn(outputs, size[1], 3, 3, generator=generator)
    with ops.use_backend(name):
        given = torch.randn(outputs, generator=generator) if bias else None
        assert error(x, weight, given, padding) < 2e-6


@every_backend
def test_more_tiles_than_a_band(name):
    x = torch.randn(2, 5, 50, 61)
    assert 2 * math.prod(layout.tile_grid(x.shape[2:])) > winograd.BAND
    with ops.use_backend(name):
        assert error(x, torch.randn(6, 5, 3, 3), torch.randn(6), (1, 1)) < 2e-6


def test_the_matrices_are_those_of_a_convolution():
    """F(4, 3) in float64 on one row: four sums of three products, whatever the numbers."""
    generator = torch.Generator().manual_seed(0)
    d, g = (torch.randn(n, dtype=torch.float64, generator=generator) for n in (6, 3))
    to, of, back = (
        torch.tensor(matrix, dtype=torch.float64)
        for matrix in (ops.reference._TO_PLACES, winograd.G, ops.reference._FROM_PLACES)
    )
    torch.testing.assert_close(back @ ((of @ g) * (to @ d)), d.unfold(0, 3, 1) @ g)


@pytest.mark.skipif(not KERNELS, reason='needs the C kernels')
def test_the_same_for_any_number_of_threads():
    x, weight = torch.randn(1, 40, 33, 30), torch.randn(50, 40, 3, 3)
    before, found = torch.get_num_threads(), []
    packed = ops.pack_winograd_weights(weight)
    places = torch.empty(36, math.prod(layout.tile_grid((33, 30))), 40)
    x = x.contiguous(memory_format=torch.channels_last)
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            with ops.use_backend('c'):
                dispatch.choose('winograd_in', x).winograd_in(x, (1, 1), 0, places)
            found.append((places.clone(), ops.winograd_conv2d(x, packed)))
    finally:
        torch.set_num_threads(before)
    for places, _ in found[1:]:
        assert torch.equal(places, found[0][0])
    for _, maps in found[1:]:  # the products are the library's
        torch.testing.assert_close(maps, found[0][1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ('x', 'padding', 'match'),
    [
        (torch.ones(1, 4, 5, 5), (1, 1), 'a 3x3 conv of 3 channels'),
        (torch.ones(3, 5, 5), (1, 1), 'a 3x3 conv of 3 channels'),
        (torch.ones(1, 3, 2, 5), (0, 1), 'with padding'),
        (torch.ones(1, 3, 5, 5), (-1, 1), 'with padding'),
        (torch.ones(1, 3, 5, 5).double(), (1, 1), 'float32'),
        (torch.ones(1, 3, 0, 5), (1, 1), 'of shape'),
    ],
)
def test_refusals(x, padding, match):
    weights = ops.pack_winograd_weights(torch.ones(2, 3, 3, 3))
    with pytest.raises(ValueError, match=match):
        ops.winograd_conv2d(x, weights, padding)


def test_weights_of_another_making_are_refused():
    u, bias = ops.pack_winograd_weights(torch.ones(2, 3, 3, 3))
    x = torch.ones(1, 3, 8, 8)
    for wrong in ((u[:35], bias), (u, bias[:1]), (u.double(), bias), (u, bias.repeat(2)[::2])):
        with pytest.raises(ValueError, match='not as pack_winograd_weights makes them'):
            ops.winograd_conv2d(x, ops.WinogradWeights(*wrong))


@pytest.mark.parametrize(
    ('weight', 'bias'),
    [
        (torch.ones(2, 3, 5, 5), None),
        (torch.ones(2, 3, 3), None),
        (torch.ones(2, 3, 3, 3), torch.ones(3)),
    ],
)
def test_refused_weights(weight, bias):
    with pytest.raises(ValueError, match='shape'):
        ops.pack_winograd_weights(weight, bias)

"""3x3 convs of real values by Winograd's minimal filtering, with fewer products."""

import math
from collections.abc import Sequence
from typing import NamedTuple, Optional

import torch
from torch import Tensor

from .backends.base import Backend
from .checks import check_fits
from .defaults import without_autocast
from .dispatch import choose
from .layout import output_size, tile_grid

#: Products of a tile and of a channel of input and output.
PLACES = 36
#: Lavin and Gray 2016, section 4.1: G of F(4, 3), which brings three weights to six places.
G = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
#: Tiles that are computed at once: their values stay in the caches.
BAND = 256


class WinogradWeights(NamedTuple):
    """Weights of a 3x3 conv at the 36 places of a tile.

    Args:
        u: (36, C, C_out), float32.
        bias: (C_out,), float32.
    """

    u: Tensor
    bias: Tensor


def pack_winograd_weights(weight: Tensor, bias: Optional[Tensor] = None) -> WinogradWeights:
    r"""Weights for :func:`winograd_conv2d`.

    .. math::
        U = G g G^T

    Args:
        weight: g, (C_out, C, 3, 3).
        bias: (C_out,).

    Returns:
        WinogradWeights.

    Raises:
        ValueError: Weights of another size, or a bias that doesn't belong to them.
    """
    if weight.dim() != 4 or weight.shape[2:] != (3, 3):
        raise ValueError(f'weights need the shape (C_out, C, 3, 3), got {tuple(weight.shape)}')
    if bias is None:
        bias = weight.new_zeros(len(weight))
    check_fits('bias', bias, weight.shape[:1], weight)
    g = torch.tensor(G, dtype=torch.float64, device=weight.device)
    u = torch.einsum('ik,ockl,jl->ijco', g, weight.detach().double(), g)
    bias = bias.detach().float().resolve_neg().contiguous()
    return WinogradWeights(u.flatten(0, 1).float().contiguous(), bias)


def winograd_conv2d(
    x: Tensor,
    weights: WinogradWeights,
    padding: Sequence[int] = (1, 1),
    backend: Optional[Backend] = None,
) -> Tensor:
    r"""A 3x3 conv of stride 1 with a quarter of the products.

    .. math::
        Y = A^T \left[ \sum_c U_c \odot (B^T d_c B) \right] A

    for each tile Y of 4x4 outputs, which sees the 6x6 inputs d: 36 products for 16 outputs, where
    the sum of the conv has 144. Sums are rounded otherwise than in ``conv2d``, by some units in the
    last place of the largest terms. Source: Lavin and Gray 2016, "Fast Algorithms for
    Convolutional Neural Networks", section 4.1.

    Args:
        x: (N, C, H, W) in float32; channels last is the fastest.
        weights: Of :func:`pack_winograd_weights`.
        padding: Zeros at both ends of H and of W.
        backend: What computes; by default what :func:`mmsnn.ops.set_backend` says.

    Returns:
        (N, C_out, H + 2 p_H - 2, W + 2 p_W - 2), channels last.

    Raises:
        ValueError: An input of another rank, dtype or number of channels, or smaller than the
            window, or weights that :func:`pack_winograd_weights` doesn't make.

    Example:
        >>> import torch
        >>> from mmsnn.ops import pack_winograd_weights, winograd_conv2d
        >>> x, weight = torch.rand(1, 8, 9, 7), torch.rand(5, 8, 3, 3)
        >>> ours = winograd_conv2d(x, pack_winograd_weights(weight))
        >>> torch.allclose(ours, torch.nn.functional.conv2d(x, weight, padding=1), atol=1e-4)
        True
    """
    u, bias = weights
    _check_weights(weights, x)
    size = output_size(x.shape, (3, 3), ((1, 1), padding, (1, 1)))
    fits = x.dim() == 4 and x.dtype == torch.float32 and x.shape[1] == u.shape[1]
    if not fits or min(*size, *x.shape[2:]) < 1 or min(padding) < 0:
        raise ValueError(
            f'a 3x3 conv of {u.shape[1]} channels with padding {padding} needs float32 '
            f'(N, {u.shape[1]}, H, W), got {x.dtype} of shape {tuple(x.shape)}'
        )
    last = torch.channels_last
    x = x.resolve_neg().contiguous(memory_format=last)
    shape = x.shape[0], u.shape[2], *size
    out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=last)
    backend = backend or choose('winograd_in', x)
    tiles = x.shape[0] * math.prod(tile_grid(size))
    with without_autocast(x.device.type):  # the products, too, are in float32
        for first in range(0, tiles, BAND):
            places = x.new_empty(PLACES, min(BAND, tiles - first), x.shape[1])
            backend.winograd_in(x, padding, first, places)
            backend.winograd_out(torch.bmm(places, u), bias, first, out)
    return out


def _check_weights(weights: WinogradWeights, x: Tensor) -> None:
    u, bias = weights
    fits = (
        u.dim() == 3
        and len(u) == PLACES
        and bias.shape == u.shape[2:]
        and u.dtype == bias.dtype == torch.float32
        and u.device == bias.device == x.device
        and bias.is_contiguous()
    )
    if not fits:
        raise ValueError(
            f'weights are not as pack_winograd_weights makes them for {x.device}: {u.dtype} '
            f'{tuple(u.shape)} on {u.device}, {bias.dtype} {tuple(bias.shape)} on {bias.device}'
        )

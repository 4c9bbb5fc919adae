"""Convs of maps that are kept as bits, and the gradient of their weights, by way of the spikes."""

import math
from typing import Optional

import torch

from ..backends.base import Backend
from ..checks import check_bits, check_fits
from ..dispatch import choose
from ..spec import BitsConvCall
from .base import define

_OPTIONS = 'SymInt[] stride, SymInt[] padding, SymInt[] dilation, int groups'


def _size(size, weight_size, stride, padding, dilation) -> list:
    """(N, C_out, H', W')."""
    return [
        size[0],
        weight_size[0],
        *(
            (n + 2 * p - d * (k - 1) - 1) // s + 1
            for n, k, s, p, d in zip(size[2:], weight_size[2:], stride, padding, dilation)
        ),
    ]


def _check(bits, size, weight, stride, padding, dilation, groups) -> list:
    """Refuse what is no conv of such maps; (N, C_out, H', W')."""
    fits = (
        len(size) == weight.dim() == 4
        and min(*size, *weight.shape[1:]) > 0
        and groups > 0
        and weight.shape[0] % groups == 0
        and size[1] == weight.shape[1] * groups
        and [len(v) for v in (stride, padding, dilation)] == [2, 2, 2]
        and min(*stride, *dilation) > 0
        and min(padding) >= 0
    )
    expected = _size(size, weight.shape, stride, padding, dilation) if fits else [0]
    if min(expected) < 1:
        raise ValueError(
            f'no conv of {groups} groups, stride {stride}, padding {padding} and dilation '
            f'{dilation} takes maps of shape {tuple(size)} and weights of shape '
            f'{tuple(weight.shape)}'
        )
    if weight.dtype != torch.float32:
        raise ValueError(f'convs on bits are in float32, got weights in {weight.dtype}')
    check_bits(bits, 1, math.prod(size))
    check_fits('weight', weight, weight.shape, bits)
    return expected


def _geometry(options) -> tuple:
    """(stride, padding, dilation), and the groups."""
    return tuple(tuple(v) for v in options[:3]), options[3]


def _bits_conv(bits, size, weight, bias, *options, backend: Optional[Backend] = None):
    _check(bits, size, weight, *options)
    if bias is not None:
        check_fits('bias', bias, weight.shape[:1], weight)
        bias = bias.float()
    out = _bits_conv_fake(bits, size, weight, bias, *options)
    call = BitsConvCall(bits.contiguous(), tuple(size), weight, *_geometry(options))
    (backend or choose('bits_conv', weight)).bits_conv(call, bias, out)
    return out


def _bits_conv_fake(bits, size, weight, bias, stride, padding, dilation, groups):
    size = _size(size, weight.shape, stride, padding, dilation)
    layout = dict(dtype=weight.dtype, device=weight.device, memory_format=torch.channels_last)
    return torch.empty(size, **layout)


bits_conv = define(
    f'bits_conv(Tensor bits, SymInt[] size, Tensor weight, Tensor? bias, {_OPTIONS}) -> Tensor',
    _bits_conv,
    _bits_conv_fake,
)


def _weight_grad(grad, bits, size, weight, *options, backend: Optional[Backend] = None):
    check_fits('the gradient', grad, _check(bits, size, weight, *options), weight)
    if grad.dtype != torch.float32:
        raise ValueError(f'convs on bits are in float32, got a gradient in {grad.dtype}')
    call = BitsConvCall(bits.contiguous(), tuple(size), weight, *_geometry(options))
    grad = grad.contiguous(memory_format=torch.channels_last)
    out = _weight_grad_fake(grad, bits, size, weight)
    backend = backend or choose('bits_conv_weight_grad', grad)
    backend.bits_conv_weight_grad(grad, call, out)
    return out


def _weight_grad_fake(grad, bits, size, weight, *options):
    return weight.new_empty(weight.shape)


bits_conv_weight_grad = define(
    'bits_conv_weight_grad(Tensor grad, Tensor bits, SymInt[] size, Tensor weight, '
    f'{_OPTIONS}) -> Tensor',
    _weight_grad,
    _weight_grad_fake,
)

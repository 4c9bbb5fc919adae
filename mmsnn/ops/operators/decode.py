"""Decoding, and rounding to bytes: for inference, without a gradient."""

from typing import Optional

import torch
from torch import Tensor

from ..backends.base import Backend
from ..checks import check_spikes, expand_weights
from ..dispatch import REFERENCE, choose
from ..layout import inner_layout, input_laid_out, is_dense, step_format, steps_laid_out
from ..spec import compute_dtype
from .base import define


def _chosen(operation: str, spikes: Tensor) -> Backend:
    return choose(operation, spikes) if spikes.numel() else REFERENCE


def _attention_statistics(spikes, backend: Optional[Backend] = None):
    check_spikes(spikes, 5)
    out = _attention_statistics_fake(spikes)
    backend = backend or _chosen('attention_statistics', spikes)
    layout = step_format(spikes)
    spikes = steps_laid_out(spikes, layout)
    backend.attention_statistics(spikes, layout == torch.channels_last, out)
    return out


def _attention_statistics_fake(spikes):
    steps, batch, channels, height, width = spikes.shape
    shapes = (steps, batch, channels), *[(steps, batch, height, width)] * 2
    dtype = compute_dtype(spikes.dtype)
    return tuple(spikes.new_empty(shape, dtype=dtype) for shape in shapes)


attention_statistics = define(
    'attention_statistics(Tensor spikes) '
    '-> (Tensor channel_mean, Tensor spatial_mean, Tensor spatial_max)',
    _attention_statistics,
    _attention_statistics_fake,
)


def _attention_decode(spikes, weights, backend: Optional[Backend] = None):
    expanded = expand_weights(spikes, *weights)
    out = _attention_decode_fake(spikes, *weights)
    backend = backend or _chosen('attention_decode', spikes)
    if backend.supports('attention_decode', out):
        backend = REFERENCE
    layout = step_format(spikes)
    spikes = steps_laid_out(spikes, layout)
    backend.attention_decode(spikes, expanded, layout == torch.channels_last, out)
    return out


def _attention_decode_fake(spikes, temporal, *others):
    layout = step_format(spikes)
    return torch.empty_like(spikes[0], dtype=temporal.dtype, memory_format=layout)


attention_decode = define(
    'attention_decode(Tensor spikes, Tensor temporal, Tensor channel, Tensor spatial) -> Tensor',
    lambda spikes, *weights: _attention_decode(spikes, weights),
    _attention_decode_fake,
)


def _rate_decode(spikes, backend: Optional[Backend] = None):
    check_spikes(spikes, 1)
    out = _rate_decode_fake(spikes)
    backend = backend or _chosen('rate_decode', spikes)
    backend.rate_decode(input_laid_out(spikes, 0, (out.shape, out.stride())), out)
    return out


def _rate_decode_fake(spikes):
    shape, strides = inner_layout(spikes, 0)
    dtype = torch.float32 if spikes.dtype == torch.uint8 else spikes.dtype
    return spikes.new_empty_strided(shape, strides, dtype=dtype)


rate_decode = define('rate_decode(Tensor spikes) -> Tensor', _rate_decode, _rate_decode_fake)


def _to_bytes(x, scale, zero, backend: Optional[Backend] = None):
    out = _to_bytes_fake(x, scale, zero)
    backend = backend or choose('to_bytes', x)
    x = x if is_dense(x) else torch.empty_like(x).copy_(x)
    backend.to_bytes(x, scale, zero, out)
    return out


def _to_bytes_fake(x, scale, zero):
    return torch.empty_like(x, dtype=torch.uint8)


to_bytes = define('to_bytes(Tensor x, float scale, int zero) -> Tensor', _to_bytes, _to_bytes_fake)

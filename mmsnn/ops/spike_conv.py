"""Convolution on spikes that keeps them for its backward pass at one bit a value."""

from collections.abc import Sequence
from typing import Optional, Union

import torch
import torch.nn.functional as F
from torch import Tensor

from . import library

_Size = Union[int, Sequence[int]]


class _SpikeConv(torch.autograd.Function):
    """conv2d whose saved input is bits; its parts are operators that a compiler sees."""

    @staticmethod
    def forward(ctx, x, weight, bias, *options):
        # Values other than 0 and 1 are kept as they are: a plain conv then.
        kept = None
        if ctx.needs_input_grad[1]:
            x = x if library.is_dense(x) else x.contiguous()
            kept = library.pack_or_keep(x)
        ctx.save_for_backward(kept, weight)
        ctx.layout = x.shape, x.stride(), x.dtype
        ctx.options = options
        ctx.bias_sizes = None if bias is None else [bias.shape[0]]
        return F.conv2d(x, weight, bias, *options)

    @staticmethod
    def backward(ctx, grad):
        kept, weight = ctx.saved_tensors
        shape, strides, dtype = ctx.layout
        if kept is None:  # only its shape is asked for
            x = weight.new_empty(()).expand(shape)
        elif kept.dtype == torch.uint8:
            x = library.unpack_spikes(kept, shape, strides, dtype)
        else:
            x = kept
        stride, padding, dilation, groups = ctx.options
        grads = torch.ops.aten.convolution_backward(
            grad, x, weight, ctx.bias_sizes, stride, padding, dilation, False, [0, 0], groups,
            list(ctx.needs_input_grad[:3]),
        )  # fmt: skip
        return (*grads, None, None, None, None)


def spike_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Optional[Tensor] = None,
    stride: _Size = 1,
    padding: _Size = 0,
    dilation: _Size = 1,
    groups: int = 1,
) -> Tensor:
    """``torch.nn.functional.conv2d`` that remembers its input at one bit a value.

    The weight's gradient needs the input again. Where that is spikes, 0 and 1, they are kept as
    bits: a 32nd of the memory of float32, a 16th of bfloat16, and the same numbers. Any other input
    is kept as it is, except under torch.compile, where it is an error: a graph can't branch on
    values.

    Args:
        x: (N, C, H, W).
        weight: (C_out, C / groups, kH, kW).
        bias: (C_out,), or None.
        stride: As of conv2d.
        padding: As of conv2d, but numbers only.
        dilation: As of conv2d.
        groups: As of conv2d.

    Returns:
        Tensor (N, C_out, H', W').

    Raises:
        ValueError: Under torch.compile, an input that is not spikes.

    Example:
        >>> import torch
        >>> from mmsnn.ops import spike_conv2d
        >>> spikes = (torch.rand(2, 8, 5, 5) > 0.8).float()
        >>> spike_conv2d(spikes, torch.rand(4, 8, 3, 3), padding=1).shape
        torch.Size([2, 4, 5, 5])
    """
    device = x.device.type
    if torch.is_autocast_enabled(device):
        # What autocast does to conv2d, which it doesn't find inside an autograd function.
        dtype = torch.get_autocast_dtype(device)
        x, weight = x.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    options = [[v, v] if isinstance(v, int) else list(v) for v in (stride, padding, dilation)]
    if not (torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)):
        return F.conv2d(x, weight, bias, *options, groups)
    return _SpikeConv.apply(x, weight, bias, *options, groups)

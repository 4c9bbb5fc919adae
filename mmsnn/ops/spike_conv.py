"""Convolution on spikes for training: they are kept as bits; where few, it goes by them alone."""

from collections.abc import Sequence
from typing import NamedTuple, Optional, Union

import torch
import torch.nn.functional as F
from torch import Tensor

from . import units
from .defaults import autocast_dtype, without_autocast
from .layout import is_dense
from .operators import is_traced, pack_or_keep, unpack_spikes
from .operators.bits_conv import bits_conv, bits_conv_weight_grad
from .sparsity import crossover, density_of_bits

_Size = Union[int, Sequence[int]]


class _Subsample(torch.autograd.Function):
    """Every stride-th row and column; values and gradient keep the memory format."""

    @staticmethod
    def forward(ctx, x, rows, columns):
        # Of a tensor that fills its memory, whatever `x` is a view of.
        ctx.layout = x.shape, torch.empty_like(x, device='meta').stride()
        ctx.every = (..., slice(None, None, rows), slice(None, None, columns))
        return x[ctx.every].clone()

    @staticmethod
    def backward(ctx, grad):
        grad_x = grad.new_empty_strided(*ctx.layout).zero_()
        grad_x[ctx.every] = grad
        return grad_x, None, None


def subsample(x: Tensor, stride: _Size) -> Tensor:
    """Every stride-th row and column: all that a 1x1 conv of that stride reads.

    A 1x1 conv of stride 1 behind it is the same sum. It keeps fewer spikes for its backward pass,
    and is clear of a fault of oneDNN, whose weight gradient of a strided 1x1 conv in channels_last
    can write past its memory on CPUs without AVX-512 (docs/faults.md).

    Args:
        x: (..., H, W).
        stride: Of rows and columns.

    Returns:
        (..., ceil(H / rows), ceil(W / columns)) in the memory format of ``x``; ``x`` itself where
        the stride is 1.
    """
    rows, columns = (stride, stride) if isinstance(stride, int) else stride
    return x if rows == columns == 1 else _Subsample.apply(x, rows, columns)


#: Outputs of a group below which most lanes of the kernel by events would be unused.
FEWEST_OUTPUTS = 16


class _Maps(NamedTuple):
    """What a conv gets.

    Args:
        x: The values.
        kept: What the backward pass is to have of them: bits, or ``x`` itself.
        density: Of the spikes; None where the conv can't go by them.
    """

    x: Tensor
    kept: Optional[Tensor] = None
    density: Optional[float] = None

    def are_sparse(self, way: str) -> bool:
        """Whether convolving by events takes less time."""
        return self.density is not None and self.density < crossover(way)


def _maps(x: Tensor, weight: Tensor, groups: int, compute: torch.dtype, keep: bool) -> _Maps:
    by_events = (
        compute == torch.float32
        and x.is_cpu
        and x.numel() > 0
        and _has_channels_last(x)
        and weight.shape[0] >= FEWEST_OUTPUTS * groups
        and not (is_traced(x) or is_traced(weight.detach()))
    )
    if not (by_events or keep):
        return _Maps(x)
    if not is_dense(x):
        x = torch.empty_like(x).copy_(x)  # in the same order of axes
    kept = pack_or_keep(x)
    spikes = by_events and kept is not x
    return _Maps(x, kept, density_of_bits(kept) if spikes else None)


def _has_channels_last(x: Tensor) -> bool:
    """Whether the channels come last in memory; slices of some channels have it, too."""
    return x.is_contiguous(memory_format=torch.channels_last) or (
        not is_dense(x)
        and torch.empty_like(x, device='meta').is_contiguous(memory_format=torch.channels_last)
    )


def _conv(maps: _Maps, weight: Tensor, bias: Optional[Tensor], options: tuple) -> Tensor:
    """The conv in the dtype of the weight, by way of the spikes where they are few."""
    if maps.are_sparse('forward'):
        return bits_conv(maps.kept, maps.x.shape, weight, bias, *options)
    return F.conv2d(maps.x.to(weight.dtype), weight, bias, *options)


class _SpikeConv(torch.autograd.Function):
    """conv2d whose saved input is bits; its parts are operators that a compiler sees."""

    @staticmethod
    def forward(ctx, x, weight, bias, binary, compute, out, *options):
        needs_weight = ctx.needs_input_grad[1]
        # Values other than 0 and 1 are kept as they are: a plain conv then.
        maps = _maps(x, weight, options[-1], compute, needs_weight) if binary else _Maps(x, x)
        # The kernel sorts spikes by where they lie between the strides.
        few_kinds = all(step <= size + 1 for step, size in zip(options[0], weight.shape[2:]))
        ctx.sparse = needs_weight and few_kinds and maps.are_sparse('weight gradient')
        ctx.layout = maps.x.shape, maps.x.stride()
        ctx.dtypes = [None if v is None else v.dtype for v in (x, weight, bias)]
        ctx.bias_sizes = None if bias is None else [bias.shape[0]]
        ctx.options = options
        weight, bias = _cast(compute, weight, bias)
        ctx.save_for_backward(maps.kept if needs_weight else None, weight)
        return _conv(maps, weight, bias, options).to(out)

    @staticmethod
    def backward(ctx, grad):
        kept, weight = ctx.saved_tensors
        compute = weight.dtype
        grad = grad.to(compute)
        wanted = list(ctx.needs_input_grad[:3])
        by_events = None
        if ctx.sparse and not torch.is_grad_enabled():  # else this pass is differentiated, too
            size, wanted[1] = ctx.layout[0], False
            by_events = bits_conv_weight_grad(grad, kept, size, weight, *ctx.options)
        if kept is None or by_events is not None:  # only its shape and format are asked for
            x = weight.new_empty_strided(*ctx.layout)
        elif kept.dtype == torch.uint8:
            x = unpack_spikes(kept, *ctx.layout, compute)
        else:
            x = kept.to(compute)
        stride, padding, dilation, groups = ctx.options
        grads = torch.ops.aten.convolution_backward(
            grad, x, weight, ctx.bias_sizes, stride, padding, dilation, False, [0, 0], groups,
            wanted,
        )  # fmt: skip
        grads = grads[0], grads[1] if by_events is None else by_events, grads[2]
        grads = [None if g is None else g.to(dtype) for g, dtype in zip(grads, ctx.dtypes)]
        return (*grads, *[None] * 7)


def _cast(dtype: torch.dtype, *tensors: Optional[Tensor]) -> list:
    return [None if tensor is None else tensor.to(dtype) for tensor in tensors]


def _slow_dtypes(has: dict) -> tuple[torch.dtype, ...]:
    """Half precisions in which a CPU of these capabilities convolves more slowly than in float32.

    Without AMX, a conv in bfloat16 takes 1.9 times as long on Intel's CPUs, and in float16 the
    gradient of its weights a hundred times.
    """
    if has.get('architecture') != 'x86_64':
        return ()
    slow = []
    intel = 'Intel' in has.get('cpu_name', '')
    if not has.get('amx_bf16') and (intel or not has.get('avx512_bf16')):
        slow.append(torch.bfloat16)
    if not has.get('amx_fp16'):
        slow.append(torch.float16)
    return tuple(slow)


#: Those of this machine's CPU.
SLOW_DTYPES = _slow_dtypes(units.capabilities())


def spike_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Optional[Tensor] = None,
    stride: _Size = 1,
    padding: _Size = 0,
    dilation: _Size = 1,
    groups: int = 1,
    binary: bool = True,
) -> Tensor:
    """``torch.nn.functional.conv2d`` that remembers its input at one bit a value.

    The weight's gradient needs the input again. Where that is spikes, 0 and 1, they are kept as
    bits: a 32nd of the memory of float32, a 16th of bfloat16, and the same numbers. Any other input
    is kept as it is, except under torch.compile, where it is an error: a graph can't branch on
    values.

    In float32 on a CPU, with channels last in memory, the conv and the gradient of its weight go
    by way of the spikes alone where those are few (:func:`mmsnn.ops.crossover`): the same sums in
    another order.

    Half precision, given or asked for by autocast, is that of what comes in and out. On a CPU that
    has no units for it the sums are computed in float32, from the weights as they are, which is
    faster there and not less exact.

    Args:
        x: (N, C, H, W).
        weight: (C_out, C / groups, kH, kW).
        bias: (C_out,), or None.
        stride: As of conv2d.
        padding: As of conv2d, but numbers only.
        dilation: As of conv2d.
        groups: As of conv2d.
        binary: Whether ``x`` may be spikes. If not, as with an image, it is kept as it is.

    Returns:
        Tensor (N, C_out, H', W').

    Raises:
        ValueError: Under torch.compile, a ``binary`` input that is not spikes.
        RuntimeError: Without autocast, input and weight of different dtypes.

    Example:
        >>> import torch
        >>> from mmsnn.ops import spike_conv2d
        >>> spikes = (torch.rand(2, 8, 5, 5) > 0.8).float()
        >>> spike_conv2d(spikes, torch.rand(4, 8, 3, 3), padding=1).shape
        torch.Size([2, 4, 5, 5])
    """
    device = x.device.type
    steps, around, dilate = (
        [v, v] if isinstance(v, int) else list(v) * (2 // len(v))
        for v in (stride, padding, dilation)
    )
    autocast = autocast_dtype(device)
    if not autocast and x.dtype != weight.dtype:
        raise RuntimeError(
            f'dtypes of input and weight should be the same, got {x.dtype} and {weight.dtype}'
        )
    out = autocast or x.dtype
    compute = torch.float32 if device == 'cpu' and out in SLOW_DTYPES else out
    # Autocast would cast the operands again, to another dtype than is chosen here.
    with without_autocast(device):
        # Without gradients, too, so that the same spikes are counted and go the same way.
        if tuple(weight.shape[2:]) == (1, 1) and not any(around) and max(steps) > 1:
            x, steps = subsample(x, steps), [1, 1]
        if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
            options = steps, around, dilate, groups
            return _SpikeConv.apply(x, weight, bias, binary, compute, out, *options)
        maps = _maps(x, weight, groups, compute, keep=False) if binary else _Maps(x)
        options = steps, around, dilate, groups
        weight, bias = _cast(compute, weight, bias)
        return _conv(maps, weight, bias, options).to(out)

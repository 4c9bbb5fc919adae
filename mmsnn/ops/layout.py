"""How tensors lie in memory, and laying them out as kernels read them."""

from collections.abc import Sequence
from typing import Optional

import torch
from torch import Tensor

from .spec import LIFCall

#: Outputs along an axis of a tile of :func:`mmsnn.ops.winograd_conv2d`.
TILE = 4


def output_size(size: Sequence[int], kernel_size: Sequence[int], geometry: tuple) -> tuple:
    """(H', W') of a conv on an input (..., H, W) of this size."""
    return tuple(
        (n + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
        for n, kernel, stride, padding, dilation in zip(size[-2:], kernel_size, *geometry)
    )


def tiles_of_conv(x: Tensor, padding: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of tiles of what a 3x3 conv of stride 1 gives of maps (N, C, H, W)."""
    size = output_size(x.shape, (3, 3), ((1, 1), padding, (1, 1)))
    return tile_grid(size)


def tile_grid(size: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of tiles of a map of outputs (H', W')."""
    rows, columns = (-(-n // TILE) for n in size)
    return rows, columns


def span(x: Tensor) -> tuple[int, int]:
    """Where the elements of `x` begin and end in memory."""
    first = x.data_ptr()
    last = sum((n - 1) * stride for n, stride in zip(x.shape, x.stride()))
    return first, first + (last + 1) * x.element_size() if x.numel() else first


def is_dense(x: Tensor) -> bool:
    """Whether the elements fill a stretch of memory, each once, in any order of axes."""
    if x.is_contiguous():
        return True
    expected = 1
    for stride, size in sorted((s, n) for s, n in zip(x.stride(), x.shape) if n != 1):
        if stride != expected:
            return False
        expected *= size
    return True


def inner_layout(x: Tensor, time_steps: int) -> tuple:
    """Shape and dense strides of one time step; those of `x` where they are dense."""
    inner = x if time_steps else x[0]
    return inner.shape, (inner if is_dense(inner) else torch.empty_like(inner)).stride()


def empty_steps(x: Tensor, steps: int, layout: tuple, dtype=None) -> Tensor:
    """(T, ...) whose steps have this layout, on the device of `x`, in its dtype or another."""
    shape, strides = layout
    n = 1
    for size in shape:
        n = n * size
    return x.new_empty_strided((steps, *shape), (n, *strides), dtype=dtype or x.dtype)


def same_strides(shape, strides, others) -> bool:
    """Whether both lay out this shape alike: an axis of one element may have any stride."""
    return all(a == b for n, a, b in zip(shape, strides, others) if n != 1)


def laid_out(tensor: Tensor, like: Tensor, layout: tuple) -> Tensor:
    """(T, ...) in the dtype of `like` and with steps in this layout, copied if they aren't."""
    shape, strides = layout
    if tensor.dtype == like.dtype and same_strides(shape, tensor.stride()[1:], strides):
        return tensor
    return empty_steps(like, tensor.shape[0], layout).copy_(tensor)


def input_laid_out(x: Tensor, time_steps: int, layout: tuple) -> Tensor:
    """`x` with its steps in this layout, copied if they aren't."""
    if same_strides(layout[0], x.stride() if time_steps else x.stride()[1:], layout[1]):
        return x
    return torch.empty_like(x).copy_(x) if time_steps else laid_out(x, x, layout)


def memory_format(x: Tensor) -> torch.memory_format:
    """What maps (N, C, H, W) are laid out in: contiguous, or channels_last where `x` is."""
    last = torch.channels_last
    if not x.is_contiguous() and x.is_contiguous(memory_format=last):
        return last
    return torch.contiguous_format


def step_format(spikes: Tensor) -> torch.memory_format:
    """The :func:`memory_format` of a time step of maps (T, B, C, H, W)."""
    return memory_format(spikes[0])


def steps_laid_out(spikes: Tensor, layout: torch.memory_format) -> Tensor:
    """Every step in this layout, any distance apart."""
    if spikes[0].is_contiguous(memory_format=layout):
        return spikes
    return spikes.flatten(0, 1).contiguous(memory_format=layout).unflatten(0, spikes.shape[:2])


def maps_laid_out(x: Tensor, time_steps: int) -> Tensor:
    """Maps (T, B, C, H, W), or (B, C, H, W) with time_steps, in a memory format of maps."""
    if time_steps:
        return x.contiguous(memory_format=memory_format(x))
    return steps_laid_out(x, step_format(x))


def lif_layout(call: LIFCall, dtype: Optional[torch.dtype]) -> tuple[LIFCall, Tensor]:
    """Input and shortcut in one layout, copied where they aren't in it, and the empty output."""
    x, shortcut = call.x, call.shortcut
    layout = inner_layout(x, call.time_steps)
    out = empty_steps(x, call.steps, layout, dtype)
    return call._replace(
        x=input_laid_out(x, call.time_steps, layout),
        shortcut=None if shortcut is None else laid_out(shortcut, out, layout),
    ), out

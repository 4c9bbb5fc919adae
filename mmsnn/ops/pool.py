"""Max pooling that keeps spikes for its backward pass at one bit a value, and no indices."""

from collections.abc import Sequence
from typing import Optional, Union

from torch import Tensor

from . import checks
from .operators import pool

_Size = Union[int, Sequence[int]]


def spike_max_pool2d(
    x: Tensor,
    kernel_size: _Size,
    stride: Optional[_Size] = None,
    padding: _Size = 0,
) -> Tensor:
    r"""``torch.nn.functional.max_pool2d`` that remembers its input at one bit a value.

    .. math::
        y[n, c, i, j] = \max_{0 \le k < k_H,\, 0 \le l < k_W}
        x[n, c, s_H i - p_H + k, s_W j - p_W + l]

    over the positions inside `x`. The gradient of a window goes to its first maximum in scan order,
    as PyTorch's does. PyTorch keeps that place as an index of 8 bytes for every output; here it is
    found again from the input, which is kept as bits where it is spikes, 0 and 1: a 32nd of its own
    memory in float32. Any other input is kept as it is, except under torch.compile, where it is an
    error: a graph can't branch on values.

    Overlapping windows add up in float32: a bfloat16 gradient is off by its own rounding alone, a
    relative 2^-9.

    Args:
        x: (N, C, H, W), of a floating dtype, or bytes (uint8), which have no gradient.
        kernel_size: k, one number or (k_H, k_W).
        stride: s, likewise; None is the kernel's size.
        padding: p, likewise; at most half the kernel's size.

    Returns:
        Tensor (N, C, H', W') with H' = floor((H + 2 p_H - k_H) / s_H) + 1, in the dtype and memory
        layout of `x`.

    Raises:
        ValueError: An input of another rank, a kernel size or stride below 1, a padding that is
            negative or more than half the kernel, an input too small for one window, or, under
            torch.compile and with a gradient, an input that is not spikes.

    Example:
        >>> import torch
        >>> from mmsnn.ops import spike_max_pool2d
        >>> spikes = (torch.rand(2, 8, 6, 6) > 0.8).float()
        >>> spike_max_pool2d(spikes, 3, stride=2, padding=1).shape
        torch.Size([2, 8, 3, 3])
    """
    windows = check_windows(x, kernel_size, stride, padding)
    return pool.max_pool(x, *windows)


def check_windows(x: Tensor, kernel_size: _Size, stride: Optional[_Size], padding: _Size) -> list:
    """[kernel size, stride, padding] in pairs, for maps (N, C, H, W).

    Raises:
        ValueError: As of :func:`spike_max_pool2d`.
    """
    kernel, stride, padding = (
        [v, v] if isinstance(v, int) else list(v)
        for v in (kernel_size, kernel_size if stride is None else stride, padding)
    )
    checks.check_windows(x, kernel, stride, padding)
    return [kernel, stride, padding]

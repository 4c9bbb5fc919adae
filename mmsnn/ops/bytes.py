"""Real values in bytes, for integer convolutions."""

import math

from torch import Tensor

from .layout import is_dense
from .operators import decode


def to_bytes(x: Tensor, most: int = 255) -> tuple[Tensor, float, int]:
    r"""Round to as many steps between the extremes of ``x``, such that 0 is one of them.

    .. math::
        q = round(x / \Delta) + zero, \qquad
        \Delta = (\max(x, 0) - \min(x, 0)) / most, \qquad zero = round(-\min(x, 0) / \Delta)

    Args:
        x: Any finite values of a floating dtype.
        most: The largest byte, 1 to 255.

    Returns:
        q (uint8, in the memory layout of ``x``), :math:`\Delta`, and the byte that stands for 0.

    Raises:
        ValueError: A value is infinite or not a number.

    Example:
        >>> import torch
        >>> from mmsnn.ops import to_bytes
        >>> levels, scale, zero = to_bytes(torch.tensor([-1.0, 0.0, 1.55]))
        >>> levels, round(scale, 4), zero
        (tensor([  0, 100, 255], dtype=torch.uint8), 0.01, 100)
    """
    x = x.detach()
    # In memory order: otherwise aminmax would copy channels_last first.
    values = x.as_strided((x.numel(),), (1,)) if is_dense(x) else x
    low, high = (v.item() for v in values.aminmax())
    low, high = min(low, 0.0), max(high, 0.0)
    if not math.isfinite(high - low):
        raise ValueError(f'bytes are for finite values, got some from {low} to {high}')
    scale = max((high - low) / most, 1e-30)
    zero = round(-low / scale)
    return decode.to_bytes(x, scale, zero), scale, zero

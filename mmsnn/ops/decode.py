"""From spikes over time to one real-valued map.

Where no gradient is asked for, one pass over the spikes computes, without temporary copies of them;
elsewhere PyTorch's operations do, and autograd with them.
"""

import torch
from torch import Tensor

from . import reference
from .checks import expand_weights
from .operators import decode


def _differentiable(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(t.requires_grad for t in tensors)


def rate_decode(spikes: Tensor) -> Tensor:
    """Rate coding D = mean over t of s[t].

    Args:
        spikes: (T, ...).

    Returns:
        Tensor (...) in the dtype of `spikes`, float32 for uint8.

    Example:
        >>> import torch
        >>> from mmsnn.ops import rate_decode
        >>> rate_decode(torch.tensor([[1, 0], [1, 0], [1, 1], [0, 0]], dtype=torch.uint8))
        tensor([0.7500, 0.2500])
    """
    if _differentiable(spikes):
        return reference.rate_decode(spikes)
    return decode.rate_decode(spikes)


def last_decode(spikes: Tensor) -> Tensor:
    """The last time step alone, D = s[T - 1].

    Args:
        spikes: (T, ...).

    Returns:
        Tensor (...) in the dtype of `spikes`, float32 for uint8.
    """
    last = spikes[-1]
    return last.float() if last.dtype == torch.uint8 else last


def attention_statistics(spikes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""What the weights of :func:`attention_decode` are made from.

    .. math::
        mean_C[t, b, c] = \frac{1}{HW} \sum_{h, w} s[t, b, c, h, w] \qquad
        mean_S[t, b, h, w] = \frac{1}{C} \sum_c s[t, b, c, h, w] \qquad
        max_S[t, b, h, w] = \max_c s[t, b, c, h, w]

    Args:
        spikes: (T, B, C, H, W), bytes (uint8) or of a floating dtype.

    Returns:
        mean_C (T, B, C), mean_S (T, B, H, W) and max_S (T, B, H, W), in float32 for half precision
        and bytes, else in the dtype of `spikes`.

    Example:
        >>> import torch
        >>> from mmsnn.ops import attention_statistics
        >>> [tuple(v.shape) for v in attention_statistics(torch.ones(4, 2, 8, 5, 6))]
        [(4, 2, 8), (4, 2, 5, 6), (4, 2, 5, 6)]
    """
    if _differentiable(spikes):
        return reference.attention_statistics(spikes)
    return decode.attention_statistics(spikes)


def attention_decode(spikes: Tensor, temporal: Tensor, channel: Tensor, spatial: Tensor) -> Tensor:
    """Attention spike decoding D = sum_t a_T[t] * a_C[t] * a_S[t] * s[t].

    Source: Zhang et al. 2023, ASD; the formula is our reading (docs/method.md).

    Args:
        spikes: (T, B, C, H, W), bytes (uint8) or of a floating dtype.
        temporal: a_T, (T, B), adding up to 1 over t.
        channel: a_C, (T, B, C).
        spatial: a_S, (T, B, H, W).

    Returns:
        Tensor (B, C, H, W) in the dtype of `temporal`, with the memory layout of a time step.

    Raises:
        ValueError: Spikes of another rank or without a time step, or weights of other shapes; a
            size of 1 stands for any.
    """
    if _differentiable(spikes, temporal, channel, spatial):
        weights = expand_weights(spikes, temporal, channel, spatial)
        return reference.attention_decode(spikes, *weights)
    return decode.attention_decode(spikes, temporal, channel, spatial)

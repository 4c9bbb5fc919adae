"""From spikes over time to one real-valued map."""

from torch import Tensor


def rate_decode(spikes: Tensor) -> Tensor:
    """Rate coding D = mean over t of s[t].

    Args:
        spikes: (T, ...).

    Returns:
        Tensor (...).
    """
    return spikes.mean(0)


def last_decode(spikes: Tensor) -> Tensor:
    """The last time step alone, D = s[T - 1].

    Args:
        spikes: (T, ...).

    Returns:
        Tensor (...).
    """
    return spikes[-1]


def attention_decode(spikes: Tensor, temporal: Tensor, channel: Tensor, spatial: Tensor) -> Tensor:
    """Attention spike decoding D = sum_t a_T[t] * a_C[t] * a_S[t] * s[t].

    Source: Zhang et al. 2023, ASD; the formula is our reading (docs/method.md).

    Args:
        spikes: (T, B, C, H, W).
        temporal: a_T, (T, B), adding up to 1 over t.
        channel: a_C, (T, B, C).
        spatial: a_S, (T, B, H, W).

    Returns:
        Tensor (B, C, H, W).
    """
    by_channel = (temporal[..., None] * channel)[..., None, None]
    return (by_channel * (spatial[:, :, None] * spikes)).sum(0)

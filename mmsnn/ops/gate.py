"""Elementwise ways to join two spike tensors."""

from torch import Tensor


def select(gate: Tensor, residual: Tensor, shortcut: Tensor) -> Tensor:
    """Binary selection O = G * R + (1 - G) * S.

    Source: Zhang et al. 2023, SG ResNet; the formula is our reading (docs/method.md).

    Args:
        gate: Gate spikes G, any shape.
        residual: Residual branch's spikes R, same shape.
        shortcut: Shortcut's spikes S, same shape.

    Returns:
        Spikes; binary whenever the three inputs are.
    """
    return gate * residual + (1 - gate) * shortcut


def spike_or(residual: Tensor, shortcut: Tensor) -> Tensor:
    """:func:`select` with G = R, that is R OR S = R + (1 - R) * S.

    For spikes R * R = R, and it is this form that is differentiated: dO/dS = 1 - R and
    dO/dR = 1 - S.

    Args:
        residual: Residual branch's spikes R, any shape.
        shortcut: Shortcut's spikes S, same shape.

    Returns:
        Spikes; binary whenever the inputs are.
    """
    return residual + (1 - residual) * shortcut


def iand(residual: Tensor, shortcut: Tensor) -> Tensor:
    """SEW's (NOT R) AND S = (1 - R) * S (Fang et al. 2021, SEW ResNet).

    Args:
        residual: Residual branch's spikes R, any shape.
        shortcut: Shortcut's spikes S, same shape.

    Returns:
        Spikes; binary whenever the inputs are.
    """
    return (1 - residual) * shortcut

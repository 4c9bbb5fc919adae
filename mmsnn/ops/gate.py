"""Elementwise ways to join two spike tensors."""

import torch
from torch import Tensor

from .spec import Gate


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


def count_or(residual: Tensor, shortcut: Tensor) -> Tensor:
    """:func:`spike_or` of whole numbers of spikes, max(R, S).

    A count stands for virtual steps of which the first n spike (:func:`mmsnn.ops.ilif_steps`), and
    R OR S at each of them is the larger count. dO/dS = [S >= R], which is 1 wherever R is silent,
    and dO/dR = [R >= S]: where both are equal, one spike more of either is one more of O.

    Args:
        residual: Residual branch's counts R, any shape.
        shortcut: Shortcut's counts S, same shape.

    Returns:
        Counts.
    """
    if not torch.is_grad_enabled() or not residual.is_floating_point():
        return residual.maximum(shortcut)
    larger = residual.where(residual > shortcut, shortcut)
    # 0, whose gradient is the residual's share where both are equal.
    return larger + (residual == shortcut) * (residual - residual.detach())


#: Gates that the pass of a neuron can do, by name; the codes are those of the kernels. The
#: derivatives are those of the forms above.
GATES: dict[str, Gate] = {
    gate.name: gate
    for gate in (
        Gate('or', 1, spike_or, lambda g, s, other: (g * (1 - other), g * (1 - s))),
        Gate('add', 2, torch.add, lambda g, s, other: (g, g), needs_shortcut=False),
        Gate('and', 3, torch.mul, lambda g, s, other: (g * other, g * s)),
        Gate('iand', 4, iand, lambda g, s, other: (-g * other, g * (1 - s))),
    )
}

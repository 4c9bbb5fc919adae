"""Integer leaky integrate-and-fire: spikes as whole numbers, or virtual steps of them."""

from typing import Optional, Union

import torch
from torch import Tensor

from .reference import compute_dtype


def _whole(u: Tensor, levels: int) -> Tensor:
    """How many spikes a potential in units of the threshold holds, 0 to `levels`, in bytes."""
    # From 1/4 on, u - 1/2 is exact, and u + 1/2 is not; below it is negative. What is not a number
    # is no spike.
    return (u - 0.5).floor_().clamp_(-1, levels - 1).add_(1).to(torch.uint8)


class _Spikes(torch.autograd.Function):
    """:func:`_whole`, with 1 for its derivative inside the range and 0 outside."""

    @staticmethod
    def forward(ctx, u: Tensor, levels: int) -> Tensor:
        ctx.save_for_backward((u >= 0) & (u <= levels))
        return _whole(u, levels).to(u.dtype)

    @staticmethod
    def backward(ctx, grad: Tensor):
        (inside,) = ctx.saved_tensors
        return grad * inside, None


def ilif(
    x: Tensor,
    levels: int = 4,
    decay: Union[float, Tensor] = 0.5,
    v_threshold: float = 1.0,
    detach_reset: bool = False,
    dtype: Optional[torch.dtype] = None,
) -> Tensor:
    r"""Integer leaky integrate-and-fire over all time steps, starting from u = 0.

    .. math::
        h[t] &= decay \cdot u[t-1] + x[t] / V_{th} \\
        s[t] &= \min(\max(\lfloor h[t] + 1/2 \rfloor, 0), D) \\
        u[t] &= h[t] - s[t]

    Potentials are in units of the threshold, so that the reset is by a whole number, and exact.
    The derivative of s is taken as 1 for h in [0, D], and 0 elsewhere. A spike train of 0 and 1
    with the same numbers is :func:`ilif_steps`. Source: Luo et al. 2024, SpikeYOLO; our reading,
    docs/method.md.

    Half-precision inputs are integrated in float32, as in :func:`mmsnn.ops.lif`.

    Args:
        x: Input currents, (T, ...): time first, anything behind it.
        levels: D, the most spikes of one time step.
        decay: Leak factor, in [0, 1]; a tensor with one element is learnable.
        v_threshold: Firing threshold V_th, in units of the current.
        detach_reset: Whether the gradient ignores the spikes in the reset.
        dtype: Dtype of the spikes where it isn't that of ``x``, for inference.

    Returns:
        Whole numbers 0 to D of the shape of ``x``.

    Example:
        >>> import torch
        >>> from mmsnn.ops import ilif
        >>> ilif(torch.tensor([[0.4], [1.5], [9.0]]), levels=4).flatten()
        tensor([0., 2., 4.])
    """
    learns = torch.is_grad_enabled()
    u, spikes = None, []
    for frame in _currents(x, v_threshold):
        h = frame if u is None else decay * u + frame
        s = _Spikes.apply(h, levels) if learns else _whole(h, levels)
        spikes.append(s.to(dtype or x.dtype))
        if len(spikes) < len(x):
            u = h - (s.detach() if detach_reset else s)
    return spikes[0].unsqueeze(0) if len(x) == 1 else torch.stack(spikes)


def ilif_steps(
    x: Tensor, levels: int = 4, decay: Union[float, Tensor] = 0.5, v_threshold: float = 1.0
) -> Tensor:
    r"""The spikes of :func:`ilif` one by one, at D virtual steps of each time step.

    .. math::
        n_0 = 0, \qquad s[t, d] = [h[t] - n_{d-1} \ge 1/2], \qquad n_d = n_{d-1} + s[t, d]

    It is an integrate-and-fire neuron with soft reset that gets its current at the first of D
    steps, has no leak between them, and fires from half a threshold on. So the spikes of a time
    step come first and the silence after them, and their sum over d is what :func:`ilif` gives.

    Args:
        x: As of :func:`ilif`.
        levels: Likewise.
        decay: Likewise.
        v_threshold: Likewise.

    Returns:
        0 and 1, (T, D, ...) in the dtype of ``x``; there is no gradient.

    Example:
        >>> import torch
        >>> from mmsnn.ops import ilif_steps
        >>> ilif_steps(torch.tensor([[1.6]]), levels=4).flatten()
        tensor([1., 1., 0., 0.])
    """
    u, spikes = None, []
    for frame in _currents(x.detach(), v_threshold):
        h = frame if u is None else decay * u + frame
        count, steps = torch.zeros_like(h), []
        for _ in range(levels):
            steps.append((h - count >= 0.5).to(h.dtype))
            count = count + steps[-1]
        u = h - count
        spikes.append(torch.stack(steps).to(x.dtype))
    return torch.stack(spikes)


def _currents(x: Tensor, v_threshold: float):
    """Each time step's, in units of the threshold and in the dtype of the potentials."""
    x = x.to(compute_dtype(x.dtype))
    return (x if v_threshold == 1 else x / v_threshold).unbind(0)

"""The multi-step leaky integrate-and-fire neuron."""

from typing import Union

import torch
from torch import Tensor

from .surrogate import check_surrogate, fire

RESETS = ('hard', 'soft')


def lif(
    x: Tensor,
    decay: Union[float, Tensor] = 0.5,
    input_scale: Union[float, Tensor] = 1.0,
    v_threshold: float = 1.0,
    reset: str = 'hard',
    detach_reset: bool = False,
    surrogate: str = 'arctan',
    surrogate_width: float = 1.0,
) -> Tensor:
    r"""Iterative leaky integrate-and-fire over all time steps, starting from v = 0.

    .. math::
        h[t] &= decay \cdot v[t-1] + input\_scale \cdot x[t] \\
        s[t] &= [h[t] \ge V_{th}] \\
        v[t] &= h[t] (1 - s[t]) \quad\text{(hard reset)} \qquad
        v[t] = h[t] - V_{th} s[t] \quad\text{(soft reset)}

    decay = 1 is the IF neuron; decay = 1 - 1/tau with input_scale = 1/tau is the tau form
    h = v + (x - v) / tau. Source: STBP (Wu et al. 2018); Zheng et al. 2021, section 3.

    Half-precision inputs are integrated in float32: eight bits of mantissa are enough for a
    spike, not for a sum that is compared with a threshold.

    Args:
        x: Input currents, (T, ...): time first, anything behind it.
        decay: Leak factor, in [0, 1]; a tensor with one element is learnable.
        input_scale: Factor on the input; a tensor with one element is learnable.
        v_threshold: Firing threshold V_th, in units of the membrane potential.
        reset: ``'hard'`` (to 0) or ``'soft'`` (subtract V_th).
        detach_reset: Whether the gradient ignores the spike in the reset.
        surrogate: A key of ``SURROGATES``.
        surrogate_width: Its width.

    Returns:
        Spikes (T, ...), 0 or 1 in the dtype of ``x``.

    Raises:
        ValueError: Unknown reset or surrogate, a threshold or width that is not positive, or no
            time step.

    Example:
        >>> lif(torch.tensor([[0.6], [0.8], [0.2]])).flatten()
        tensor([0., 1., 0.])
    """
    check_surrogate(surrogate, surrogate_width)
    if reset not in RESETS:
        raise ValueError(f'unknown reset {reset!r}: choose one of {list(RESETS)}')
    if not v_threshold > 0:
        raise ValueError(f'v_threshold must be positive, got {v_threshold!r}')
    if x.dim() == 0 or x.shape[0] == 0:
        raise ValueError(f'lif needs at least one time step, got input of shape {tuple(x.shape)}')

    half = x.dtype in (torch.float16, torch.bfloat16)
    v = None
    spikes = []
    for current in x.unbind(0):
        h = current.float() if half else current
        if isinstance(input_scale, Tensor) or input_scale != 1:
            h = input_scale * h
        if v is not None:
            h = decay * v + h
        s = fire(h - v_threshold, surrogate, surrogate_width)
        r = s.detach() if detach_reset else s
        v = h * (1 - r) if reset == 'hard' else h - v_threshold * r
        spikes.append(s.to(x.dtype))
    return torch.stack(spikes)

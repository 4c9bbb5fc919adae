"""Everything in PyTorch operations: what every other backend has to equal.

:func:`lif` and the decoders are differentiated by autograd and are the oracle. The functions called
backward are derivatives by hand, for where an operator has to run without a kernel.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, Optional, Union

import torch
import torch.nn.functional as F
from torch import Tensor

from .gate import iand, spike_or
from .spec import LIF
from .surrogate import SURROGATES, fire

GATES = {
    'or': spike_or,
    'add': lambda residual, shortcut: residual + shortcut,
    'and': lambda residual, shortcut: residual * shortcut,
    'iand': iand,
}


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """What is computed in: float32 for half precision and bytes, else the input's own dtype."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16, torch.uint8) else dtype


def _by_channel(values: Optional[Tensor], x: Tensor, shared: bool) -> Optional[Tensor]:
    """(C,) so that it broadcasts over one time step (B, C, ...)."""
    if values is None:
        return None
    behind = x.dim() - (2 if shared else 3)
    return values.to(compute_dtype(x.dtype)).view(-1, *[1] * behind)


def _current(
    x: Tensor,
    scale: Optional[Tensor],
    shift: Optional[Tensor],
    input_scale: Union[float, Tensor],
) -> Tensor:
    y = x.to(compute_dtype(x.dtype))
    if scale is not None:
        y = y * scale
    if shift is not None:
        y = y + shift
    if isinstance(input_scale, Tensor) or input_scale != 1:
        y = input_scale * y
    return y


class Step(NamedTuple):
    """One time step of a neuron: v[t - 1] (None for the 0 that it starts from), h[t] and s[t]."""

    v: Optional[Tensor]
    h: Tensor
    s: Tensor


def integrate(
    currents: Iterable[Tensor], neuron: LIF, fires: Callable[[Tensor], Tensor]
) -> Iterator[Step]:
    """The recurrence of :func:`mmsnn.ops.lif`, on what :func:`_current` gives.

    Args:
        currents: input_scale * y[t] for each time step.
        neuron: Its constants.
        fires: Spikes by the distance to the threshold, h - V_th.

    Yields:
        The time steps.
    """
    v = None
    for current in currents:
        h = current if v is None else neuron.decay * v + current
        s = fires(h - neuron.v_threshold)
        yield Step(v, h, s)
        r = s.detach() if neuron.detach_reset else s
        v = h * (1 - r) if neuron.reset == 'hard' else h - neuron.v_threshold * r


def heaviside(u: Tensor) -> Tensor:
    """Spikes without a derivative: 1 from 0 on."""
    return (u >= 0).to(u.dtype)


def lif(
    x: Tensor,
    decay: Union[float, Tensor],
    input_scale: Union[float, Tensor],
    v_threshold: float,
    reset: str,
    detach_reset: bool,
    surrogate: str,
    surrogate_width: float,
    scale: Optional[Tensor] = None,
    shift: Optional[Tensor] = None,
    shortcut: Optional[Tensor] = None,
    gate: Optional[str] = None,
    time_steps: Optional[int] = None,
    dtype: Optional[torch.dtype] = None,
) -> Tensor:
    """:func:`mmsnn.ops.lif` on checked arguments."""
    neuron = LIF(decay, input_scale, v_threshold, reset, detach_reset, surrogate, surrogate_width)
    scale, shift = (_by_channel(values, x, bool(time_steps)) for values in (scale, shift))
    frames = [x] if time_steps else x.unbind(0)
    currents = [_current(frame, scale, shift, input_scale) for frame in frames]
    spikes = []

    def fires(u: Tensor) -> Tensor:
        return fire(u, surrogate, surrogate_width)

    for t, (_, _, s) in enumerate(integrate(currents * (time_steps or 1), neuron, fires)):
        if gate is not None and shortcut is not None:
            s = GATES[gate](s, shortcut[t].to(s.dtype))
        spikes.append(s.to(dtype or x.dtype))
    return torch.stack(spikes)


def lif_backward(
    grad: Tensor,
    x: Tensor,
    decay: float,
    input_scale: float,
    v_threshold: float,
    reset: str,
    detach_reset: bool,
    surrogate: str,
    surrogate_width: float,
    scale: Optional[Tensor],
    shift: Optional[Tensor],
    shortcut: Optional[Tensor],
    gate: Optional[str],
    time_steps: Optional[int],
    by_grad: Optional[Tensor],
    by_x: Optional[Tensor],
    by_one: Optional[Tensor],
) -> tuple[Tensor, Optional[Tensor], Optional[Tensor], Tensor]:
    r"""Gradients of :func:`lif`, with :math:`y = scale \cdot x + shift`.

    With primes for total derivatives: r' from the gate; s' = r' - h v' (hard) or r' - V_th v'
    (soft), or r' alone where the reset is detached; h' = (1 - s) v' + g(h - V_th) s' (hard) or
    v' + g s' (soft); v[t - 1]' = decay h'; y' = input_scale h'.

    Returns:
        by_grad y' + by_x x + by_one; dL/d shortcut; sums of y' and y' x by channel (2, C); sums
        h' v[t - 1] and h' y, the gradients of decay and input_scale.
    """
    shared = bool(time_steps)
    scale, shift, by_grad, by_x, by_one = (
        _by_channel(values, x, shared) for values in (scale, shift, by_grad, by_x, by_one)
    )
    dtype = compute_dtype(x.dtype)
    frames = [x] if time_steps else x.unbind(0)
    ys = [_current(frame, scale, shift, 1.0) for frame in frames] * (time_steps or 1)
    neuron = LIF(decay, input_scale, v_threshold, reset, detach_reset, surrogate, surrogate_width)
    steps = list(integrate((input_scale * y for y in ys), neuron, heaviside))

    v_grad = torch.zeros_like(ys[0])
    y_grads, shortcut_grads = [], []
    leak_sums = torch.zeros(2, dtype=torch.float64, device=x.device)
    for t in reversed(range(len(steps))):
        (v, h, s), g = steps[t], grad[t].to(dtype)
        if gate in ('or', 'and', 'iand') and shortcut is not None:
            other = shortcut[t].to(dtype)
            shortcut_grads.append(g * s if gate == 'and' else g * (1 - s))
            g = {'or': g * (1 - other), 'and': g * other, 'iand': -g * other}[gate]
        elif gate == 'add':
            shortcut_grads.append(g)
        if not detach_reset:
            g = g - (h if reset == 'hard' else v_threshold) * v_grad
        slope = SURROGATES[surrogate](h - v_threshold, surrogate_width)
        h_grad = (v_grad * (1 - s) if reset == 'hard' else v_grad) + slope * g
        if v is not None:
            leak_sums[0] += (h_grad * v).sum(dtype=torch.float64)
        leak_sums[1] += (h_grad * ys[t]).sum(dtype=torch.float64)
        y_grads.append(input_scale * h_grad)
        v_grad = decay * h_grad

    y_grad = sum(y_grads[1:], y_grads[0]) if shared else torch.stack(y_grads[::-1])
    channel_sums = None
    axis = 1 if shared else 2
    if x.dim() > axis:
        others = [i for i in range(x.dim()) if i != axis]
        products = (y_grad, y_grad * x)
        channel_sums = torch.stack([p.sum(others, dtype=torch.float64) for p in products])
    if by_grad is not None:
        y_grad = by_grad * y_grad
    if by_x is not None and by_one is not None:
        y_grad = y_grad + (by_x * x + by_one)
    shortcut_grad = torch.stack(shortcut_grads[::-1]).to(x.dtype) if shortcut_grads else None
    return y_grad.to(x.dtype), shortcut_grad, channel_sums, leak_sums


def channel_stats(x: Tensor, channel_axis: int) -> tuple[Tensor, Tensor]:
    """Mean and biased variance by channel, over all other axes, in at least float32."""
    others = [i for i in range(x.dim()) if i != channel_axis]
    var, mean = torch.var_mean(x.to(compute_dtype(x.dtype)), others, correction=0)
    return mean, var


def pack(values: Tensor) -> Optional[Tensor]:
    """(rows, n) of zeros and ones to bits (rows, ceil(n / 8)), lowest first; None for others."""
    if not ((values == 0) | (values == 1)).all():
        return None
    rows, n = values.shape
    padded = values.new_zeros(rows, (n + 7) // 8 * 8, dtype=torch.uint8)
    padded[:, :n] = values
    weights = 2 ** torch.arange(8, device=values.device)
    return (padded.view(rows, -1, 8) * weights).sum(2).to(torch.uint8)


def unpack(bits: Tensor, n: int, dtype: torch.dtype) -> Tensor:
    """Inverse of :func:`pack`: (rows, ceil(n / 8)) to (rows, n)."""
    values = (bits[..., None] >> torch.arange(8, device=bits.device, dtype=torch.uint8)) & 1
    return values.flatten(1)[:, :n].to(dtype)


def max_pool2d(x: Tensor, kernel_size: list, stride: list, padding: list) -> Tensor:
    """PyTorch's; bytes, which it doesn't take on every device, are exact in float32."""
    wide = x.float() if x.dtype == torch.uint8 else x
    return F.max_pool2d(wide, kernel_size, stride, padding).to(x.dtype)


def max_pool2d_backward(
    grad: Tensor, x: Tensor, kernel_size: list, stride: list, padding: list
) -> Tensor:
    """Gradient of :func:`max_pool2d`; overlapping windows add up in the compute dtype."""
    dtype = compute_dtype(x.dtype)
    wide = x.to(dtype)
    options = kernel_size, stride, padding, [1, 1], False
    indices = torch.ops.aten.max_pool2d_with_indices(wide, *options)[1]
    back = torch.ops.aten.max_pool2d_with_indices_backward
    return back(grad.to(dtype), wide, *options, indices).to(grad.dtype)


def rate_decode(spikes: Tensor) -> Tensor:
    """:func:`mmsnn.ops.rate_decode`."""
    return spikes.mean(0, dtype=torch.float32 if spikes.dtype == torch.uint8 else None)


def attention_statistics(spikes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """:func:`mmsnn.ops.attention_statistics`."""
    dtype = compute_dtype(spikes.dtype)
    means = spikes.mean((3, 4), dtype=dtype), spikes.mean(2, dtype=dtype)
    return (*means, spikes.amax(2).to(dtype))


def attention_decode(spikes: Tensor, temporal: Tensor, channel: Tensor, spatial: Tensor) -> Tensor:
    """:func:`mmsnn.ops.attention_decode`."""
    by_channel = (temporal[..., None] * channel)[..., None, None]
    return (by_channel * (spatial[:, :, None] * spikes)).sum(0).to(temporal.dtype)


def to_bytes(x: Tensor, scale: float, zero: int) -> Tensor:
    """round(x / scale + zero), clipped to a byte."""
    return (x * (1 / scale)).add_(zero).round_().clamp_(0, 255).to(torch.uint8)

"""Everything in PyTorch operations: what every other backend has to equal.

:func:`lif` and the decoders are differentiated by autograd and are the oracle. The functions called
backward are derivatives by hand, for where an operator has to run without a kernel.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, Optional, Union

import torch
import torch.nn.functional as F
from torch import Tensor

from .defaults import without_autocast
from .event_weights import UNPACK
from .gate import GATES
from .layout import TILE, tile_grid, tiles_of_conv
from .spec import ILIF, LIF, BitsConvCall, ConvCall, LIFCall, compute_dtype
from .surrogate import SURROGATES, fire


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
    currents: Iterable[Tensor],
    neuron: LIF,
    fires: Callable[[Tensor], Tensor],
    v: Optional[Tensor] = None,
) -> Iterator[Step]:
    """The recurrence of :func:`mmsnn.ops.lif`, on what :func:`_current` gives.

    Args:
        currents: input_scale * y[t] for each time step.
        neuron: Its constants.
        fires: Spikes by the distance to the threshold, h - V_th.
        v: Potentials that it starts from; default 0.

    Yields:
        The time steps.
    """
    for current in currents:
        h = current if v is None else neuron.decay * v + current
        s = fires(h - neuron.v_threshold)
        yield Step(v, h, s)
        v = after_reset(h, s.detach() if neuron.detach_reset else s, neuron)


def after_reset(h: Tensor, s: Tensor, neuron: LIF) -> Tensor:
    """v[t] of h[t] and the spikes s[t]."""
    return h * (1 - s) if neuron.reset == 'hard' else h - neuron.v_threshold * s


def heaviside(u: Tensor) -> Tensor:
    """Spikes without a derivative: 1 from 0 on."""
    return (u >= 0).to(u.dtype)


def currents_of(call: LIFCall) -> Tensor:
    """input_scale * y, of the shape of ``x`` and in the dtype of potentials."""
    scale, shift = (_by_channel(v, call.x, call.time_steps > 0) for v in (call.scale, call.shift))
    return _current(call.x, scale, shift, call.neuron.input_scale)


def lif(call: LIFCall, dtype: Optional[torch.dtype] = None) -> Tensor:
    """:func:`mmsnn.ops.lif` on checked arguments; with potentials in ``v``, without a gradient."""
    x, neuron, _, _, shortcut, gate, time_steps, v = call
    spikes = []

    def fires(u: Tensor) -> Tensor:
        return fire(u, neuron.surrogate, neuron.surrogate_width)

    currents, step = currents_of(call), None
    frames = [currents] * time_steps if time_steps else currents.unbind(0)
    for t, step in enumerate(integrate(frames, neuron, fires, v)):
        s = step.s
        if gate is not None and shortcut is not None:
            s = GATES[gate].join(s, shortcut[t].to(s.dtype))
        spikes.append(s.to(dtype or x.dtype))
    if v is not None and step is not None:
        v.copy_(after_reset(step.h, step.s, neuron))
    return torch.stack(spikes)


class Gradients(NamedTuple):
    """Of :func:`lif`: dL/dcurrent, dL/dshortcut, and the sums of :class:`mmsnn.ops.LIFGrads`."""

    current: Tensor
    shortcut: Optional[Tensor]
    channel_sums: Optional[Tensor]
    leak_sums: Tensor


def lif_backward(grad: Tensor, call: LIFCall) -> Gradients:
    r"""Gradients of :func:`lif`, with :math:`y = scale \cdot x + shift`.

    With primes for total derivatives: r' from the gate; s' = r' - h v' (hard) or r' - V_th v'
    (soft), or r' alone where the reset is detached; h' = (1 - s) v' + g(h - V_th) s' (hard) or
    v' + g s' (soft); v[t - 1]' = decay h'; y' = input_scale h'.

    Args:
        grad: Gradient of the spikes behind the gate.
        call: What they were made from.

    Returns:
        y', summed over time where all steps share ``x``; dL/d shortcut; sums of y' and y' x by
        channel (2, C); sums h' v[t - 1] and h' y, the gradients of decay and input_scale.
    """
    x, neuron, scale, shift, shortcut, gate, time_steps, _ = call
    hard = neuron.reset == 'hard'
    scale, shift = (_by_channel(values, x, bool(time_steps)) for values in (scale, shift))
    dtype = compute_dtype(x.dtype)
    frames = [x] if time_steps else x.unbind(0)
    ys = [_current(frame, scale, shift, 1.0) for frame in frames] * (time_steps or 1)
    steps = list(integrate((neuron.input_scale * y for y in ys), neuron, heaviside))
    slope_of = SURROGATES[neuron.surrogate].derivative

    v_grad = torch.zeros_like(ys[0])
    y_grads, shortcut_grads = [], []
    leak_sums = torch.zeros(2, dtype=torch.float64, device=x.device)
    for t in reversed(range(len(steps))):
        (v, h, s), g = steps[t], grad[t].to(dtype)
        if gate is not None:
            # One that doesn't read the shortcut may have been given none.
            other = s if shortcut is None else shortcut[t].to(dtype)
            g, other_grad = GATES[gate].derivative(g, s, other)
            shortcut_grads.append(other_grad)
        if not neuron.detach_reset:
            g = g - (h if hard else neuron.v_threshold) * v_grad
        slope = slope_of(h - neuron.v_threshold, neuron.surrogate_width)
        h_grad = (v_grad * (1 - s) if hard else v_grad) + slope * g
        if v is not None:
            leak_sums[0] += (h_grad * v).sum(dtype=torch.float64)
        leak_sums[1] += (h_grad * ys[t]).sum(dtype=torch.float64)
        y_grads.append(neuron.input_scale * h_grad)
        v_grad = neuron.decay * h_grad

    y_grad = sum(y_grads[1:], y_grads[0]) if time_steps else torch.stack(y_grads[::-1])
    channel_sums = None
    axis = call.channel_axis
    if x.dim() > axis:
        others = [i for i in range(x.dim()) if i != axis]
        products = (y_grad, y_grad * x)
        channel_sums = torch.stack([p.sum(others, dtype=torch.float64) for p in products])
    shortcut_grad = torch.stack(shortcut_grads[::-1]).to(x.dtype) if shortcut_grads else None
    return Gradients(y_grad, shortcut_grad, channel_sums, leak_sums)


def in_thresholds(x: Tensor, neuron: ILIF) -> Tensor:
    """Currents in units of the threshold and in the dtype that potentials have."""
    x = x.to(compute_dtype(x.dtype))
    # A tensor: on GPUs torch multiplies by the inverse of a number, which rounds otherwise.
    return x if neuron.v_threshold == 1 else x / x.new_full((), neuron.v_threshold)


def integrate_whole(
    x: Tensor,
    neuron: ILIF,
    count: Callable[[Tensor], Tensor],
    u: Optional[Tensor] = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """The recurrence of :func:`mmsnn.ops.ilif`.

    Args:
        x: Currents, (T, ...).
        neuron: Its constants.
        count: Spikes by the potential in units of the threshold.
        u: Potentials that it starts from; default 0.

    Yields:
        h[t] and s[t].
    """
    for current in in_thresholds(x, neuron).unbind(0):
        h = current if u is None else neuron.decay * u + current
        s = count(h)
        yield h, s
        u = h - s


def whole_spikes(h: Tensor, levels: int) -> Tensor:
    """How many spikes a potential in units of the threshold holds, 0 to `levels`."""
    # From 1/4 on, h - 1/2 is exact, and h + 1/2 is not; below it is negative. What is not a number
    # is no spike.
    return (h - 0.5).floor_().add_(1).clamp_(0, levels).nan_to_num_(0.0)


def ilif(x: Tensor, neuron: ILIF, u: Optional[Tensor] = None) -> Tensor:
    """:func:`mmsnn.ops.ilif` in the dtype of potentials, without a gradient; ``u`` is handed on."""

    def count(h: Tensor) -> Tensor:
        return whole_spikes(h, neuron.levels)

    steps = list(integrate_whole(x, neuron, count, u))
    if u is not None:
        h, s = steps[-1]
        u.copy_(h - s)
    return torch.stack([s for _, s in steps])


def ilif_backward(grad: Tensor, x: Tensor, neuron: ILIF) -> Tensor:
    """dL/dx of :func:`ilif`.

    With primes for total derivatives: h' = u' + [0 <= h <= D] (s' - u'), or h' = u' + [...] s'
    where the reset is detached; x' = h' / V_th; u[t - 1]' = decay h'.
    """
    potentials = [
        h for h, _ in integrate_whole(x, neuron, lambda h: whole_spikes(h, neuron.levels))
    ]
    v_threshold = potentials[0].new_full((), neuron.v_threshold)
    u_grad = torch.zeros_like(potentials[0])
    grads = []
    for h, g in zip(reversed(potentials), reversed(grad.unbind(0))):
        g = g.to(h.dtype) if neuron.detach_reset else g.to(h.dtype) - u_grad
        h_grad = u_grad + torch.where((h >= 0) & (h <= neuron.levels), g, 0.0)
        grads.append(h_grad / v_threshold)
        u_grad = neuron.decay * h_grad
    return torch.stack(grads[::-1])


def input_grad(y_grad: Tensor, x: Tensor, channel_axis: int, by: tuple) -> Tensor:
    """by[0] * y_grad + by[1] * x + by[2], the coefficients by channel."""
    behind = x.dim() - channel_axis - 1
    a, b, c = (values.view(-1, *[1] * behind) for values in by)
    return a * y_grad + (b * x + c)


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


def conv(call: ConvCall) -> Tensor:
    """Currents of :func:`mmsnn.ops.conv_lif.conv_lif`."""
    weights = call.weights
    q = weights.q.permute(0, 1, 5, 4, 6, 2, 3).flatten(3, 4).flatten(1, 2)
    there = slice(weights.out_channels)
    scale, shift = weights.scale[:, there], weights.shift[there]
    # Sums of whole numbers are exact in float64.
    return _sum_of_convs(call, q[:, there].double(), scale, shift)


def event_conv(call: ConvCall) -> Tensor:
    """:func:`mmsnn.ops.event_conv2d`."""
    weights = call.weights
    groups = weights.q.shape[1]
    there = weights.out_channels // groups
    q = UNPACK[weights.q.dtype](weights.q).permute(0, 1, 2, 6, 5, 4, 3).flatten(2, 3)
    scale, shift = (
        v.unflatten(-1, (groups, -1))[..., :there].flatten(-2)
        for v in (weights.scale, weights.shift)
    )
    exact = weights.q.dtype != torch.float32
    q = q[:, :, :there].flatten(1, 2).to(torch.float64 if exact else torch.float32)
    return _sum_of_convs(call, q, scale, shift, groups)


def _sum_of_convs(
    call: ConvCall, parts: Tensor, scales: Tensor, shift: Tensor, groups: int = 1
) -> Tensor:
    """Shift + the sum of scale * conv of each part, in the dtype of the parts and then float32."""
    images = call.x.flatten(0, 1).to(parts.dtype)
    y = shift.view(-1, 1, 1)
    for part, scale in zip(parts, scales):
        sums = _conv2d(images, part, None, call.geometry, groups)
        y = sums.float() * scale.view(-1, 1, 1) + y
    return y.unflatten(0, call.x.shape[:2])


def _conv2d(
    x: Tensor, weight: Tensor, bias: Optional[Tensor], geometry: Sequence, groups: int
) -> Tensor:
    """Of these dtypes, as a kernel's: autocast would round to others."""
    stride, padding, dilation = geometry
    with without_autocast(x.device.type):
        return F.conv2d(x, weight, bias, stride, padding, dilation, groups)


def bits_conv(call: BitsConvCall, bias: Optional[Tensor]) -> Tensor:
    """The conv of maps that are bits."""
    return _conv2d(_maps(call, call.weight.dtype), call.weight, bias, call.geometry, call.groups)


def bits_conv_weight_grad(grad: Tensor, call: BitsConvCall) -> Tensor:
    """Of the same conv."""
    stride, padding, dilation = (list(v) for v in call.geometry)
    return torch.ops.aten.convolution_backward(
        grad, _maps(call, grad.dtype), call.weight.to(grad.dtype), None, stride, padding, dilation,
        False, [0, 0], call.groups, [False, True, False],
    )[1]  # fmt: skip


def _maps(call: BitsConvCall, dtype: torch.dtype) -> Tensor:
    images, channels, height, width = call.size
    x = unpack(call.bits, images * channels * height * width, dtype)
    # In PyTorch's own order: docs/faults.md names a fault of strided convs in the other.
    return x.view(images, height, width, channels).movedim(3, 1).contiguous()


#: Lavin and Gray 2016, section 4.1: B^T and A^T of F(4, 3).
_TO_PLACES = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
_FROM_PLACES = (
    (1, 1, 1, 1, 1, 0),
    (0, 1, -1, 2, -2, 0),
    (0, 1, 1, 4, 4, 0),
    (0, 1, -1, 8, -8, 1),
)


def winograd_in(x: Tensor, padding: Sequence[int], first: int, tiles: int) -> Tensor:
    """B^T d B of the tiles, (36, tiles, C); 6x6 inputs of tiles of 4x4 outputs."""
    height, width = (n * TILE + 2 for n in tiles_of_conv(x, padding))
    below = height - padding[0] - x.shape[2]
    right = width - padding[1] - x.shape[3]
    x = F.pad(x, (padding[1], right, padding[0], below))
    for axis in (2, 3):
        x = x.unfold(axis, TILE + 2, TILE)
    d = x.permute(0, 2, 3, 1, 4, 5).flatten(0, 2)[first : first + tiles]  # (tiles, C, 6, 6)
    b = x.new_tensor(_TO_PLACES)
    return torch.einsum('ik,tckl,jl->ijtc', b, d, b).flatten(0, 1)


def winograd_out(places: Tensor, bias: Tensor, first: int, out: Tensor) -> None:
    """A^T m A + bias of the tiles, to where they belong in the maps."""
    a = places.new_tensor(_FROM_PLACES)
    tiles = torch.einsum('ik,kltc,jl->tcij', a, places.unflatten(0, (6, 6)), a)
    tiles = tiles + bias.view(-1, 1, 1)
    rows, columns = tile_grid(out.shape[2:])
    for i, tile in enumerate(tiles, first):
        image, row, column = i // columns // rows, i // columns % rows * TILE, i % columns * TILE
        to = out[image, :, row : row + TILE, column : column + TILE]
        to.copy_(tile[:, : to.shape[1], : to.shape[2]])

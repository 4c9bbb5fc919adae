"""Convs on spikes that take time in proportion to how many there are: for inference on any CPU."""

from collections.abc import Sequence
from typing import Optional

import torch
from torch import Tensor

from .backends.base import Backend
from .checks import check_gate, check_steps
from .conv_lif import output_size
from .dispatch import choose
from .event_weights import EventWeights, check_event_weights
from .layout import steps_laid_out
from .spec import LIF


def event_conv2d(
    x: Tensor, weights: EventWeights, geometry: tuple, backend: Optional[Backend] = None
) -> Tensor:
    r"""Spikes in bytes to currents, by way of the spikes alone.

    .. math::
        y[t] = shift + \sum_p scale_p \, (q_p * x[t])

    The kernel lists the spikes and adds up their weights, and never sees what is 0: it takes time
    in proportion to the firing rate. Sums of whole numbers are exact. Those of float32 are added
    up, whatever the number of threads, in the order of the window's columns, in a column of its
    rows, and there of the channels.

    Args:
        x: (T, B, C, H, W) in ``torch.uint8``. A value of v counts as v spikes.
        weights: Of :func:`pack_event_weights`.
        geometry: Stride, padding and dilation, in pairs.
        backend: What computes; by default what :func:`mmsnn.ops.set_backend` says.

    Returns:
        (T, B, C_out, H', W') in float32, channels last.

    Raises:
        ValueError: An input of another shape or dtype, a geometry of no conv, or weights that
            :func:`pack_event_weights` doesn't make.

    Example:
        >>> import torch
        >>> from mmsnn.ops import event_conv2d, pack_event_weights
        >>> weights = pack_event_weights([(torch.ones(2, 3, 3, 3), torch.ones(2))], torch.zeros(2))
        >>> spikes = torch.zeros(4, 1, 3, 5, 5, dtype=torch.uint8)
        >>> spikes[:, :, 0, 2, 2] = 1
        >>> event_conv2d(spikes, weights, ((1, 1), (1, 1), (1, 1)))[0, 0, 0, 1]
        tensor([0., 1., 1., 1., 0.])
    """
    size = _check(x, weights, geometry)
    out = _maps(size, torch.float32)
    if out.numel():
        x = steps_laid_out(x, torch.channels_last)
        (backend or choose('event_conv', x)).event_conv(x, weights, geometry, out)
    return out


def event_conv_lif(
    x: Tensor,
    weights: EventWeights,
    geometry: tuple,
    neuron: LIF,
    shortcut: Optional[Tensor] = None,
    gate: Optional[str] = None,
    backend: Optional[Backend] = None,
) -> Tensor:
    r"""Spikes in bytes to spikes in bytes: :func:`event_conv2d`, neuron and gate.

    .. math::
        o[t] = gate(neuron(y)[t], shortcut[t])

    The spikes are those of :func:`mmsnn.ops.lif` on the same currents, bit for bit, but no map of
    currents is ever there: a few pixels fire at once for all time steps.

    Args:
        x: As of :func:`event_conv2d`.
        weights: Likewise.
        geometry: Likewise.
        neuron: Its constants, checked.
        shortcut: (T, B, C_out, H', W') in ``torch.uint8``, for the gate.
        gate: As of :func:`mmsnn.ops.lif`.
        backend: As of :func:`event_conv2d`.

    Returns:
        (T, B, C_out, H', W') in ``torch.uint8``, channels last.

    Raises:
        ValueError: As of :func:`event_conv2d`; a shortcut of another shape or dtype, or a gate
            without a shortcut or the other way round.
    """
    size = _check(x, weights, geometry)
    if shortcut is not None and (shortcut.dtype, shortcut.shape) != (torch.uint8, size):
        raise ValueError(
            f'shortcut needs bytes of the shape {tuple(size)} of the spikes, got {shortcut.dtype} '
            f'of shape {tuple(shortcut.shape)}'
        )
    check_steps(x, None)
    check_gate(gate, shortcut)
    neuron = LIF(*neuron[:5])  # spikes are the same with any surrogate
    out = _maps(size, torch.uint8)
    if out.numel():
        x = steps_laid_out(x, torch.channels_last)
        if shortcut is not None:
            shortcut = steps_laid_out(shortcut, torch.channels_last)
        backend = backend or choose('event_conv_lif', x)
        backend.event_conv_lif(x, weights, geometry, neuron, shortcut, gate, out)
    return out


def _maps(size: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Empty maps (T, B, C, H, W) with channels last."""
    maps = torch.empty(
        (size[0] * size[1], *size[2:]), dtype=dtype, memory_format=torch.channels_last
    )
    return maps.unflatten(0, size[:2])


def _check(x: Tensor, weights: EventWeights, geometry: tuple) -> torch.Size:
    """The size of what comes out."""
    check_event_weights(weights, x)
    stride, padding, dilation = geometry
    if min(*stride, *dilation) < 1 or min(padding) < 0:
        raise ValueError(f'no conv has the stride, padding and dilation {geometry}')
    channels, kernel_size = weights.channels, weights.kernel_size
    fits = x.dtype == torch.uint8 and x.dim() == 5 and x.shape[2] == channels
    size = output_size(x.shape, kernel_size, geometry) if fits else (0, 0)
    if not fits or min(*size, *x.shape[3:]) < 1:
        raise ValueError(
            f'a conv of {channels} channels and kernel size {kernel_size} needs bytes '
            f'(T, B, {channels}, H, W), got {x.dtype} of shape {tuple(x.shape)}'
        )
    return torch.Size((*x.shape[:2], weights.out_channels, *size))

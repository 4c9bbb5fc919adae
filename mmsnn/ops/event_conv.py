"""Convs on spikes that take time in proportion to how many there are: for inference on any CPU."""

from typing import Optional

import torch
from torch import Tensor

from .backends.base import Backend
from .byte_conv import check_call, from_state, run
from .event_weights import EventWeights, check_event_weights
from .spec import LIF, ConvCall, NeuronState


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
    check_event_weights(weights, x)
    call = ConvCall(x, weights, geometry)
    size = check_call(call, weights.channels, weights.kernel_size)
    return run('event_conv', call, size, torch.float32, backend)


def event_conv_lif(
    x: Tensor,
    weights: EventWeights,
    geometry: tuple,
    neuron: LIF,
    shortcut: Optional[Tensor] = None,
    gate: Optional[str] = None,
    backend: Optional[Backend] = None,
    state: Optional[NeuronState] = None,
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
        state: As of :func:`mmsnn.ops.lif`.

    Returns:
        (T, B, C_out, H', W') in ``torch.uint8``, channels last.

    Raises:
        ValueError: As of :func:`event_conv2d`; a shortcut of another shape or dtype, or a gate
            without a shortcut or the other way round.
    """
    check_event_weights(weights, x)
    call = ConvCall(x, weights, geometry, neuron, shortcut, gate)
    size = check_call(call, weights.channels, weights.kernel_size)
    call = from_state(call, size, state)
    return run('event_conv_lif', call, size, torch.uint8, backend)

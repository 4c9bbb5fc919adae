"""A conv on bytes and the neuron behind it as one: for inference on CPUs with VNNI."""

from collections.abc import Sequence
from typing import NamedTuple, Optional

import torch
import torch.nn.functional as F
from torch import Tensor

from . import units
from .backends.base import Backend
from .byte_conv import check_call, from_state, run
from .dispatch import REFERENCE, choose
from .layout import output_size
from .spec import LIF, ConvCall, NeuronState

__all__ = ['OUTPUTS', 'ConvWeights', 'conv_lif', 'is_fast', 'output_size', 'pack_weights']

#: Outputs in a block of weights, as in the C kernels.
OUTPUTS = 64


class ConvWeights(NamedTuple):
    r"""Weights :math:`\sum_p scale_p \, q_p` in whole numbers, in the order the kernel reads them.

    Args:
        q: (parts, blocks, kH, kW, C / 4, 64, 4) int8; outputs that a block lacks are zeros.
        scale: (parts, blocks * 64).
        shift: (blocks * 64), what is added to the sums.
        out_channels: Outputs that there are.
    """

    q: Tensor
    scale: Tensor
    shift: Tensor
    out_channels: int


def pack_weights(parts: Sequence[tuple[Tensor, Tensor]], shift: Tensor) -> ConvWeights:
    """Weights for :func:`conv_lif`.

    Args:
        parts: q (C_out, C, kH, kW), whole numbers from -128 to 127, and its scale (C_out,): the
            weights are the sum of all q * scale.
        shift: (C_out,), what the sums get added.

    Returns:
        ConvWeights.

    Raises:
        ValueError: C is not a multiple of 4.
    """
    outputs, channels = parts[0][0].shape[:2]
    if channels % 4:
        raise ValueError(f'the channels of the input must be a multiple of 4, got {channels}')
    missing = -outputs % OUTPUTS
    q = torch.stack([F.pad(q.to(torch.int8), (0,) * 7 + (missing,)) for q, _ in parts])
    q = q.unflatten(2, (-1, 4)).unflatten(1, (-1, OUTPUTS)).permute(0, 1, 5, 6, 3, 2, 4)
    scale = torch.stack([F.pad(scale.float(), (0, missing)) for _, scale in parts])
    # Of its own: a view would keep what it was made of, and might not begin where vectors do.
    q = q.clone(memory_format=torch.contiguous_format)
    return ConvWeights(q, scale, F.pad(shift.float(), (0, missing)), outputs)


def conv_lif(
    x: Tensor,
    weights: ConvWeights,
    geometry: tuple,
    neuron: LIF,
    shortcut: Optional[Tensor] = None,
    gate: Optional[str] = None,
    backend: Optional[Backend] = None,
    state: Optional[NeuronState] = None,
) -> Tensor:
    r"""Spikes in bytes to spikes in bytes: conv, neuron and gate.

    .. math::
        y[t] = shift + \sum_p scale_p \, (q_p * x[t]), \qquad
        o[t] = gate(neuron(y)[t], shortcut[t])

    The sums are exact, and the spikes those of :func:`mmsnn.ops.lif` on the same currents, bit for
    bit. Currents take four times the memory of such spikes, and here none is ever there: a tile of
    them is summed up in registers and fires at once.

    Args:
        x: (T, B, C, H, W) in ``torch.uint8``.
        weights: Of :func:`pack_weights`.
        geometry: Stride, padding and dilation, in pairs.
        neuron: Its constants, checked.
        shortcut: (T, B, C_out, H', W') in ``torch.uint8``, for the gate.
        gate: As of :func:`mmsnn.ops.lif`.
        backend: What computes; by default what :func:`mmsnn.ops.set_backend` says.
        state: As of :func:`mmsnn.ops.lif`.

    Returns:
        (T, B, C_out, H', W') in ``torch.uint8``, channels last.

    Raises:
        ValueError: An input or a shortcut of another shape or dtype, a gate without a shortcut or
            the other way round, a geometry of no conv, or weights that :func:`pack_weights` doesn't
            make.
        BackendError: A backend was named that this machine hasn't.
    """
    _check_weights(weights, x)
    call = ConvCall(x, weights, geometry, neuron, shortcut, gate)
    kernel_size = weights.q.shape[2], weights.q.shape[3]
    size = check_call(call, 4 * weights.q.shape[4], kernel_size)
    call = from_state(call, size, state)
    return run('conv_lif', call, size, torch.uint8, backend)


def _check_weights(weights: ConvWeights, x: Tensor) -> None:
    q, scale, shift, outputs = weights
    blocks = q.shape[1] if q.dim() == 7 else 0
    fits = (
        q.shape[5:] == (OUTPUTS, 4)
        and scale.shape == (len(q), blocks * OUTPUTS)
        and shift.shape == (blocks * OUTPUTS,)
        and (blocks - 1) * OUTPUTS < outputs <= blocks * OUTPUTS
        and (q.dtype, scale.dtype, shift.dtype) == (torch.int8, torch.float32, torch.float32)
        and all(v.device == x.device and v.is_contiguous() for v in (q, scale, shift))
    )
    if not fits:
        raise ValueError(
            f'weights of {outputs} outputs are not as pack_weights makes them: {q.dtype} '
            f'{tuple(q.shape)}, {scale.dtype} {tuple(scale.shape)}, {shift.dtype} '
            f'{tuple(shift.shape)} on {q.device}'
        )


def is_fast(x: Tensor) -> bool:
    """Whether there is a kernel for this input, and nothing faster."""
    # With AMX, oneDNN's convs do eight times the products in the time, and neurons may come behind.
    return not units.has_amx() and choose('conv_lif', x) is not REFERENCE

"""Convs on spikes that take time in proportion to how many there are: for inference on any CPU."""

import math
from collections.abc import Sequence
from typing import NamedTuple, Optional

import torch
import torch.nn.functional as F
from torch import Tensor

from . import backend, library, reference
from .conv_lif import output_size
from .spec import LIF

#: Numbers in a row of a block of weights: an output each, or two where they lie in pairs.
ROW = 32
#: Values in a window beyond which sums of 8-bit weights and bytes might not fit into 32 bits.
LONGEST = (2**31 - 1) // (255 * 128)


class EventWeights(NamedTuple):
    r"""Weights :math:`\sum_p scale_p \, q_p` in the order in which the kernel adds them up.

    Whole numbers lie in pairs of outputs, as :math:`2^{bits} second + first + 2^{bits - 1}` in a
    number of twice the bits, so that they are added up without being widened first.

    Args:
        q: (parts, groups, blocks, kW, kH, C / groups, 32) in float32, or pairs: in int16 of weights
            of 8 bits, in int32 of 16 bits. Outputs that a block lacks are zeros.
        scale: (parts, groups * blocks * outputs of a block, 32 or 64).
        shift: (groups * blocks * outputs of a block), what is added to the sums.
        out_channels: Outputs that there are, of all groups.
    """

    q: Tensor
    scale: Tensor
    shift: Tensor
    out_channels: int

    @property
    def channels(self) -> int:
        """Channels of the input."""
        return self.q.shape[1] * self.q.shape[5]

    @property
    def kernel_size(self) -> tuple[int, int]:
        """(kH, kW)."""
        return self.q.shape[4], self.q.shape[3]


def pack_event_weights(
    parts: Sequence[tuple[Tensor, Tensor]], shift: Tensor, groups: int = 1
) -> EventWeights:
    r"""Weights for :func:`event_conv2d` and :func:`event_conv_lif`.

    Args:
        parts: q (C_out, C / groups, kH, kW), in float32, or whole numbers in ``torch.int8`` or
            ``torch.int16``, and its scale (C_out,): the weights are the sum of all q * scale.
        shift: (C_out,), what the sums get added.
        groups: As of conv2d.

    Returns:
        EventWeights.

    Raises:
        ValueError: q of several dtypes or of another one, scale or shift of another shape, outputs
            that the groups don't share evenly, or 8-bit weights of windows of more than 65793
            values.

    Example:
        >>> import torch
        >>> from mmsnn.ops.event_conv import pack_event_weights
        >>> weight = torch.rand(70, 16, 3, 3)
        >>> pack_event_weights([(weight, torch.ones(70))], torch.zeros(70)).q.shape
        torch.Size([1, 1, 3, 3, 3, 16, 32])
    """
    first = parts[0][0]
    outputs, window = first.shape[0], math.prod(first.shape[1:])
    for q, scale in parts:
        if (q.dtype, q.shape) != (first.dtype, first.shape) or q.dim() != 4:
            raise ValueError(
                'parts of weights need one dtype and shape (C_out, C / groups, kH, kW), got '
                f'{first.dtype} {tuple(first.shape)} and {q.dtype} {tuple(q.shape)}'
            )
        if scale.shape != (outputs,) or shift.shape != (outputs,):
            raise ValueError(
                f'scale and shift need the shape ({outputs},), got {tuple(scale.shape)} and '
                f'{tuple(shift.shape)}'
            )
    if first.dtype not in _PACK:
        raise ValueError(f'weights need one of the dtypes {list(_PACK)}, got {first.dtype}')
    if groups < 1 or outputs % groups:
        raise ValueError(f'{outputs} outputs are not shared evenly by {groups} groups')
    if first.dtype == torch.int8 and window > LONGEST:
        raise ValueError(
            f'sums over windows of {window} values may not fit into 32 bits; at most {LONGEST} do: '
            'give the weights as torch.int16'
        )
    q = torch.stack([q for q, _ in parts]).unflatten(1, (groups, -1))
    block = ROW if first.dtype == torch.float32 else 2 * ROW
    missing = -q.shape[2] % block
    q = F.pad(q, (0,) * 7 + (missing,)).unflatten(2, (-1, block)).permute(0, 1, 2, 6, 5, 4, 3)
    scales = torch.stack([_by_group(scale, groups, missing) for _, scale in parts])
    # Of its own: a view would keep what it was made of, and might not begin where vectors do.
    q = _PACK[first.dtype](q).clone(memory_format=torch.contiguous_format)
    return EventWeights(q, scales, _by_group(shift, groups, missing), outputs)


def _by_group(values: Tensor, groups: int, missing: int) -> Tensor:
    return F.pad(values.float().unflatten(0, (groups, -1)), (0, missing)).flatten()


def _pair(q: Tensor, bits: int) -> Tensor:
    """(..., first and second) to whole numbers of twice the bits."""
    first, second = q.long().unbind(-1)
    return (second << bits) + first + (1 << bits - 1)


def _unpair(pairs: Tensor, bits: int) -> Tensor:
    """Inverse of :func:`_pair`."""
    pairs = pairs.long()
    return torch.stack([(pairs & (1 << bits) - 1) - (1 << bits - 1), pairs >> bits], -1)


# Where the kernel splits sums of 16 bits up, it takes every other one first: of the 64 outputs, in
# (2, 2, 2, 8), the second axis is first and second, and the third the two halves of an int32.


def _pack_8(q: Tensor) -> Tensor:
    split = q.unflatten(-1, (2, 2, 2, 8)).movedim((-1, -2, -3), (-3, -2, -1))
    return _pair(split, 8).flatten(-3).to(torch.int16)


def _unpack_8(q: Tensor) -> Tensor:
    split = _unpair(q.unflatten(-1, (2, 8, 2)), 8)
    return split.movedim((-1, -2, -3), (-3, -2, -1)).flatten(-4)


def _pack_16(q: Tensor) -> Tensor:
    return _pair(q.unflatten(-1, (4, 2, 8)).transpose(-1, -2), 16).flatten(-2).to(torch.int32)


def _unpack_16(q: Tensor) -> Tensor:
    return _unpair(q.unflatten(-1, (4, 8)), 16).transpose(-1, -2).flatten(-3)


#: By the dtype of weights.
_PACK = {torch.float32: lambda q: q, torch.int8: _pack_8, torch.int16: _pack_16}
#: By the dtype that they are packed in.
_UNPACK = {torch.float32: lambda q: q, torch.int16: _unpack_8, torch.int32: _unpack_16}


def event_conv2d(
    x: Tensor, weights: EventWeights, geometry: tuple, kernel: Optional[str] = ''
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
        kernel: ``'c'``, or None for the reference; default what the backend at hand has.

    Returns:
        (T, B, C_out, H', W') in float32, channels last.

    Raises:
        ValueError: An input of another shape or dtype, a geometry of no conv, or weights that
            :func:`pack_event_weights` doesn't make.

    Example:
        >>> import torch
        >>> from mmsnn.ops.event_conv import event_conv2d, pack_event_weights
        >>> weights = pack_event_weights([(torch.ones(2, 3, 3, 3), torch.ones(2))], torch.zeros(2))
        >>> spikes = torch.zeros(4, 1, 3, 5, 5, dtype=torch.uint8)
        >>> spikes[:, :, 0, 2, 2] = 1
        >>> event_conv2d(spikes, weights, ((1, 1), (1, 1), (1, 1)))[0, 0, 0, 1]
        tensor([0., 1., 1., 1., 0.])
    """
    size = _check(x, weights, geometry)
    kernel = _kernel(x) if kernel == '' else kernel
    out = _maps(size, torch.float32)
    if kernel is None:
        return out.copy_(_reference(x, weights, geometry))
    if out.numel():
        x = library.steps_laid_out(x, torch.channels_last)
        library.engine(kernel).event_conv(x, weights, geometry, out)
    return out


def event_conv_lif(
    x: Tensor,
    weights: EventWeights,
    geometry: tuple,
    neuron: tuple,
    shortcut: Optional[Tensor] = None,
    gate: Optional[str] = None,
    kernel: Optional[str] = '',
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
        neuron: decay, input_scale, v_threshold, reset, detach_reset, surrogate and surrogate_width,
            checked, as of :func:`mmsnn.ops.lif`.
        shortcut: (T, B, C_out, H', W') in ``torch.uint8``, for the gate.
        gate: As of :func:`mmsnn.ops.lif`.
        kernel: As of :func:`event_conv2d`.

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
    library.check_lif(x, None, None, None, None, None)
    library.check_gate(gate, shortcut)
    neuron = LIF(*neuron[:5])  # spikes are the same with any surrogate
    kernel = _kernel(x) if kernel == '' else kernel
    out = _maps(size, torch.uint8)
    if kernel is None:
        currents = _reference(x, weights, geometry)
        return out.copy_(reference.lif(currents, *neuron, shortcut=shortcut, gate=gate))
    if out.numel():
        x = library.steps_laid_out(x, torch.channels_last)
        if shortcut is not None:
            shortcut = library.steps_laid_out(shortcut, torch.channels_last)
        library.engine(kernel).event_conv_lif(x, weights, geometry, neuron, shortcut, gate, out)
    return out


def _kernel(x: Tensor) -> Optional[str]:
    """The backend that has these convs for this input, or None."""
    return 'c' if backend.ready_kernel_for(x, backend.MAP_KERNELS) == 'c' else None


def _maps(size: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Empty maps (T, B, C, H, W) with channels last."""
    maps = torch.empty(
        (size[0] * size[1], *size[2:]), dtype=dtype, memory_format=torch.channels_last
    )
    return maps.unflatten(0, size[:2])


def _check(x: Tensor, weights: EventWeights, geometry: tuple) -> torch.Size:
    """The size of what comes out."""
    _check_weights(weights, x)
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


def _check_weights(weights: EventWeights, x: Tensor) -> None:
    q, scale, shift, outputs = weights
    groups, blocks = q.shape[1:3] if q.dim() == 7 else (0, 0)
    block = ROW if q.dtype == torch.float32 else 2 * ROW
    room = groups * blocks * block
    fits = (
        min(q.shape) > 0
        and q.dtype in _UNPACK
        and q.shape[6:] == (ROW,)
        and scale.shape == (len(q), room)
        and shift.shape == (room,)
        and room - groups * block < outputs <= room
        and outputs % groups == 0
        and (scale.dtype, shift.dtype) == (torch.float32, torch.float32)
        and all(v.device == x.device and v.is_contiguous() for v in (q, scale, shift))
    )
    if not fits:
        raise ValueError(
            f'weights of {outputs} outputs are not as pack_event_weights makes them: {q.dtype} '
            f'{tuple(q.shape)}, {scale.dtype} {tuple(scale.shape)}, {shift.dtype} '
            f'{tuple(shift.shape)} on {q.device}'
        )


def _reference(x: Tensor, weights: EventWeights, geometry: tuple) -> Tensor:
    """Currents, in PyTorch operations."""
    groups = weights.q.shape[1]
    stride, padding, dilation = geometry
    q = _UNPACK[weights.q.dtype](weights.q).permute(0, 1, 2, 6, 5, 4, 3).flatten(2, 3)
    there = weights.out_channels // groups
    exact = weights.q.dtype != torch.float32  # sums of whole numbers are, in float64
    images = x.flatten(0, 1).to(torch.float64 if exact else torch.float32)
    scales, shift = (
        v.unflatten(-1, (groups, -1))[..., :there].flatten(-2)[..., None, None]
        for v in (weights.scale, weights.shift)
    )
    y = shift
    for part, scale in zip(q[:, :, :there].flatten(1, 2).to(images.dtype), scales):
        sums = F.conv2d(images, part, None, stride, padding, dilation, groups)
        y = sums.float() * scale + y
    return y.unflatten(0, x.shape[:2])

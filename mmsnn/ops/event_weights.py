"""Weights as convs by events add them up."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

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
    def block(self) -> int:
        """Outputs of a block."""
        return ROW if self.q.dtype == torch.float32 else 2 * ROW

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
        >>> from mmsnn.ops import pack_event_weights
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
    if first.dtype not in PACK:
        raise ValueError(f'weights need one of the dtypes {list(PACK)}, got {first.dtype}')
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
    q = PACK[first.dtype](q).clone(memory_format=torch.contiguous_format)
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
PACK = {torch.float32: lambda q: q, torch.int8: _pack_8, torch.int16: _pack_16}
#: By the dtype that they are packed in.
UNPACK = {torch.float32: lambda q: q, torch.int16: _unpack_8, torch.int32: _unpack_16}


def check_event_weights(weights: EventWeights, x: Tensor) -> None:
    """Refuse weights that :func:`pack_event_weights` doesn't make, or elsewhere than the input.

    Raises:
        ValueError: Says what they are.
    """
    q, scale, shift, outputs = weights
    groups, blocks = q.shape[1:3] if q.dim() == 7 else (0, 0)
    block = weights.block
    room = groups * blocks * block
    fits = (
        min(q.shape) > 0
        and q.dtype in UNPACK
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

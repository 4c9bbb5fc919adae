"""Integer convolution."""

import math
from collections.abc import Iterator
from functools import cache
from typing import Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import ops
from ..ops import LIF, conv_lif, has_vnni

#: Bits of a weight in whole numbers, by precision.
WEIGHT_BITS = dict(int16=16, int8=8, int4=4, int2=2)
#: Bytes of currents from which on bands are faster than one piece: the C library gives larger
#: pieces back to the system, which clears every page of them when they are asked for again.
LARGE = 32 << 20
#: Bytes of currents in a band: few enough for the caches, enough for the threads.
BAND = 6 << 20


class IntegerConv2d(nn.Module):
    r"""A conv with weights of at most 8 bits, or of 16, for spikes in bytes.

    .. math::
        w \approx \Delta_k q, \qquad
        y = \Delta_k \sum q s + b

    with q and its steps by :func:`mmsnn.deploy.integer_conv.round_weights`. A spike is exact in a
    byte, so that only the weights are rounded, to within :math:`\Delta_k / 2` for output channel k,
    and the sum over whole numbers is exact. 16 bits are two sums of 8-bit products, q = 256 high +
    low. A CPU with VNNI or AMX does at least four such products in the time of one in float32.

    oneDNN's integer convs order their packed weights anew at every call, in many times the time of
    the conv, where the input at hand wants other blocks of channels than the one that was guessed
    when they were packed. So a 1x1 conv is computed as the matrix product that it is, and any other
    gets outputs of zeros up to a multiple of 64 channels: neither was found to depend on the
    input's size, and the sums are the same.

    Neurons that stand behind the conv may be in it (:meth:`lif`): no currents are then in memory.

    Args:
        conv: The conv to replace; it is kept.
        bits: Of a weight, 2 to 8 or 16. Fewer than 8 take as long as 8.
        real: What becomes of an input that isn't ``torch.uint8``: the original weights (False), or,
            True, it is rounded to bytes itself, between its extremes, those of this call: in 255
            steps with VNNI, else in 127, so that no pair of products saturates.
    """

    def __init__(self, conv: nn.Conv2d, bits: int, real: bool = False):
        super().__init__()
        self.conv = conv
        self.bits = bits
        self.real = real
        assert not isinstance(conv.padding, str)  # only plain convs are replaced
        self._geometry = conv.stride, conv.padding, conv.dilation, conv.groups
        self._is_matrix = conv.kernel_size == (1, 1) and conv.padding == (0, 0) and conv.groups == 1
        odd = conv.groups == 1 and conv.out_channels > 32 and not self._is_matrix
        self._zeros = -conv.out_channels % 64 if odd else 0
        # Bytes of currents for each byte of spikes, but for the borders.
        self._growth = 4 * conv.out_channels / conv.in_channels / math.prod(conv.stride)
        self._fits_bands = conv.padding[0] <= conv.kernel_size[0] // 2
        # Less than half a block of outputs is mostly zeros to add up.
        enough = conv.out_channels > conv_lif.OUTPUTS // 2
        self._fits_tiles = enough and conv.groups == 1 and conv.in_channels % 4 == 0
        self._packed: Optional[tuple[tuple, tuple[list, Tensor, Tensor]]] = None
        self._tiles: Optional[tuple[tuple, conv_lif.ConvWeights]] = None

    def _round(self, zeros: int = 0) -> tuple[list, Tensor]:
        """(q, scale) of each byte, and bias, with outputs of zeros behind."""
        q, scale, bias = rounded(self.conv, self.bits, zeros)
        if self.bits <= 8:
            return [(q, scale)], bias
        high = ((q + 128) / 256).floor()
        return [(q - 256 * high, scale), (high, 256 * scale)], bias

    def _pack(self) -> tuple[list, Tensor, Tensor]:
        """(packed weights, scale, zero point) of each byte of q; bias; sums of the weights."""
        parts, bias = self._round(self._zeros)
        zero = torch.zeros(len(bias), dtype=torch.int32)
        packed = [(self._pack_bytes(q.to(torch.int8), scale), scale, zero) for q, scale in parts]
        return packed, bias, sum(q.sum((1, 2, 3)) * scale for q, scale in parts)

    def _pack_bytes(self, weight: Tensor, scale: Tensor) -> Tensor:
        if self._is_matrix:
            return torch.ops.onednn.qlinear_prepack(weight.flatten(1), None)
        return torch.ops.onednn.qconv_prepack(weight, scale, 1.0, 0, *self._geometry)

    def lif(
        self,
        x: Tensor,
        neuron: LIF,
        *,
        shortcut: Optional[Tensor] = None,
        gate: Optional[str] = None,
        dtype: Optional[torch.dtype] = None,
        state: Optional[ops.NeuronState] = None,
    ) -> Optional[Tensor]:
        """The spikes of neurons behind the conv, where that takes less than one after the other.

        Args:
            x: Spikes (T, B, C, H, W).
            neuron: Its constants.
            shortcut: As of :func:`mmsnn.ops.lif`.
            gate: Likewise.
            dtype: Likewise.
            state: Likewise.

        Returns:
            Spikes (T, B, C_out, H', W'), or None: call the conv, and then the neurons.
        """
        if x.dtype != torch.uint8 or ops.is_watched(x):
            return None
        in_bytes = dtype == torch.uint8 and (shortcut is None or shortcut.dtype == torch.uint8)
        if self._fits_tiles and in_bytes and not neuron.learns and conv_lif.is_fast(x):
            weights = weights_state(self.conv)
            if self._tiles is None or self._tiles[0] != weights:
                self._tiles = weights, conv_lif.pack_weights(*self._round())
            geometry = self._geometry[:3]
            call = x, self._tiles[1], geometry, neuron, shortcut, gate
            return conv_lif.conv_lif(*call, state=state)
        if not self.takes_bands(x):
            return None
        size = (*x.shape[:2], *self.output_size(x))
        spikes = torch.empty(
            (math.prod(size[:2]), *size[2:]),
            dtype=dtype or torch.float32,
            memory_format=torch.channels_last,
        ).unflatten(0, size[:2])
        v = None if state is None else state.begin(x, size[1:], spikes[0].stride())
        for image, rows, currents in self.bands(x):
            here = (slice(None), slice(image, image + 1), slice(None), rows)
            part = None if shortcut is None else shortcut[here]
            kept = None if v is None else ops.NeuronState((v[here[1:]].clone(),))
            ops.lif(currents, *neuron, shortcut=part, gate=gate, out=spikes[here], state=kept)
            if v is not None and kept is not None:
                v[here[1:]] = kept.tensors[0]
        return spikes

    def takes_bands(self, x: Tensor) -> bool:
        """Whether the currents of these spikes (..., C, H, W) are so many that bands are faster."""
        return x.numel() * self._growth > LARGE and x.dtype == torch.uint8 and self._fits_bands

    def output_size(self, x: Tensor) -> tuple[int, int, int]:
        """(C_out, H', W') of an input (..., C, H, W)."""
        size = conv_lif.output_size(x.shape, self.conv.kernel_size, self._geometry[:3])
        return self.conv.out_channels, *size

    def bands(self, x: Tensor) -> Iterator[tuple[int, slice, Tensor]]:
        """Convolve a few rows of an image at a time, all time steps of them.

        No tensor of all currents is made, which are four times the size of spikes. The numbers are
        those of :meth:`forward` to the last bit.

        Args:
            x: Spikes (T, B, C, H, W) in ``torch.uint8``.

        Yields:
            Index of the image, its output rows, and their currents (T, 1, C_out, rows, W').
        """
        steps, batch, _, height, _ = x.shape
        (stride, _), (padding, columns), (dilation, _), _ = self._geometry
        reach = dilation * (self.conv.kernel_size[0] - 1) + 1
        size = self.output_size(x)
        all_rows = size[1]
        count = min(all_rows, math.ceil(4 * steps * math.prod(size) / BAND))
        for image in range(batch):
            for i in range(count):
                rows = slice(all_rows * i // count, all_rows * (i + 1) // count)
                top = rows.start * stride - padding
                bottom = (rows.stop - 1) * stride - padding + reach
                band = x[:, image, :, max(top, 0) : min(bottom, height)]
                if top < 0 or bottom > height:
                    band = F.pad(band, (0, 0, max(-top, 0), max(bottom - height, 0)))
                yield image, rows, self._convolve(band, (0, columns)).unsqueeze(1)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve.

        Args:
            x: Spikes (N, C, H, W) in ``torch.uint8``, or any values in the dtype of the weights.

        Returns:
            Currents (N, C_out, H', W') in float32, or of the dtype of the weights.
        """
        scale, zero = 1.0, 0
        if x.dtype != torch.uint8:
            if not self.real:
                return self.conv(x)
            x, scale, zero = ops.to_bytes(x, 255 if has_vnni() else 127)
        padding = self._geometry[1]
        if zero:
            # oneDNN would sum up the weights anew at every call, which takes longer than a conv of
            # a small map. Its padding is the byte 0, ours the byte that stands for 0.
            rows, columns = padding
            x = F.pad(x, (columns, columns, rows, rows), value=zero)
            padding = (0, 0)
        return self._convolve(x, padding, scale, zero)

    def _convolve(
        self, x: Tensor, padding: tuple[int, ...], scale: float = 1.0, zero: int = 0
    ) -> Tensor:
        """Bytes to currents: ``zero`` is the byte that stands for 0, ``scale`` a byte's step."""
        state = weights_state(self.conv)
        if self._packed is None or self._packed[0] != state:  # can be neither copied nor saved
            self._packed = state, self._pack()
        parts, bias, weight_sums = self._packed[1]
        shift: Optional[Tensor] = bias - scale * zero * weight_sums if zero else bias
        stride, _, *rest = self._geometry
        geometry: tuple[object, ...] = ()
        if self._is_matrix:
            rows, columns = stride
            if rows * columns > 1:
                x = x[:, :, ::rows, ::columns]
            x = x.permute(0, 2, 3, 1)
            multiply = torch.ops.onednn.qlinear_pointwise
        else:
            multiply, geometry = torch.ops.onednn.qconv2d_pointwise, (stride, padding, *rest)
        out: Optional[Tensor] = None
        for part in parts:
            y = multiply(
                x, scale, 0, *part, shift, *geometry, 1.0, 0, torch.float32, 'none', [], ''
            )
            out, shift = y if out is None else out.add_(y), None
        assert out is not None  # there is a part for every byte of the weights
        if self._is_matrix:
            return out.permute(0, 3, 1, 2)
        if self._zeros:
            return out[:, : -self._zeros].contiguous(memory_format=torch.channels_last)
        return out

    def __getstate__(self) -> dict:
        return {**self.__dict__, '_packed': None, '_tiles': None}

    def extra_repr(self) -> str:
        """What `print(module)` shows."""
        return f'bits={self.bits}, real={self.real}'


def weights_state(conv: nn.Conv2d) -> tuple:
    """What changes where the weights of a conv do: their place, and how often they were written."""
    values = conv.weight, conv.bias
    return tuple(
        None if v is None else (v.data_ptr(), 0 if v.is_inference() else v._version) for v in values
    )


def round_weights(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    r"""Weights as whole numbers, and the step between them.

    .. math::
        q_{max} = 2^{bits - 1} - 1 \; (16 \text{ bits}: 127 \cdot 256), \qquad
        \Delta_k = \max |w_k| / q_{max}, \qquad
        q_k = round(w_k / \Delta_k)

    A factor on a channel, as that of a norm that is folded in, is one on its step alone: the whole
    numbers stay, but for those of weights that lie between two, which it may round either way.

    Args:
        weight: Of a conv, (C_out, C, kH, kW).
        bits: 2 to 8, or 16.

    Returns:
        q of the weight's shape and dtype, and the steps, (C_out,).
    """
    limit = 2 ** (bits - 1) - 1 if bits <= 8 else 127 * 256
    scale = weight.abs().amax((1, 2, 3)).clamp_min(1e-30) / limit
    return (weight / scale.view(-1, 1, 1, 1)).round(), scale


class _RoundStraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight: Tensor, bits: int) -> Tensor:
        q, scale = round_weights(weight, bits)
        return q * scale.view(-1, 1, 1, 1)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


def round_straight_through(weight: Tensor, bits: int) -> Tensor:
    r"""Weights with the values that whole numbers give them, for training.

    .. math::
        \hat w = \Delta_k q_k, \qquad
        \frac{\partial L}{\partial w} = \frac{\partial L}{\partial \hat w}

    with those of :func:`round_weights`. No weight is beyond the largest whole number, so that none
    is clipped. Source: the straight-through estimator of Bengio et al. 2013, for weights as in
    Jacob et al. 2018, section 3.

    Args:
        weight: Of a conv, (C_out, C, kH, kW).
        bits: 2 to 8, or 16.

    Returns:
        Rounded weights, of the same shape and dtype.
    """
    return _RoundStraightThrough.apply(weight, bits)


def rounded(conv: nn.Conv2d, bits: int, zeros: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """The weights of an integer conv.

    Args:
        conv: The conv.
        bits: 2 to 8, or 16.
        zeros: How many outputs of zeros to put behind.

    Returns:
        q, scale and bias of :class:`IntegerConv2d`, in float32.
    """
    q, scale = round_weights(F.pad(conv.weight.detach().float(), (0,) * 7 + (zeros,)), bits)
    bias = torch.zeros_like(scale)
    if conv.bias is not None:
        bias[: conv.out_channels] = conv.bias.detach()
    return q, scale, bias


@cache
def integer_convs() -> str:
    """Why this CPU has no fast convs on bytes, or '' if it has."""
    return integer_operators() if has_vnni() else 'this CPU has no VNNI, or MMSNN_CPU_ISA hides it'


@cache
def integer_operators() -> str:
    """Why this PyTorch computes no convs on spikes in bytes, or '' if it does, however slowly.

    Without VNNI a pair of products saturates at 32767: spikes, 0 and 1, can't, but counts and
    rounded values can.
    """
    torch_rng = torch.random.get_rng_state()
    convs = nn.Conv2d(4, 8, 3, padding=1), nn.Conv2d(4, 8, 1)
    torch.random.set_rng_state(torch_rng)
    try:
        x = torch.ones(1, 4, 5, 5, dtype=torch.uint8)
        with torch.no_grad():
            error = max(
                (IntegerConv2d(conv, 16)(x) - conv(x.float())).abs().max() for conv in convs
            )
    except (AttributeError, RuntimeError, NotImplementedError) as reason:
        return f'this PyTorch has no integer convs: {reason}'.split('\n')[0]
    return '' if error < 1e-3 else f'integer convs gave wrong numbers (off by {error:.1e})'

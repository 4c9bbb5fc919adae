"""The reference as a backend: everything on any device and dtype, in PyTorch operations."""

from collections.abc import Sequence
from typing import Optional

import torch
from torch import Tensor

from .. import reference
from ..layout import empty_steps, inner_layout
from ..spec import ILIF, BitsConvCall, ConvCall, LIFCall, LIFGrads
from .base import OPERATIONS, Backend


class Reference(Backend):
    """:mod:`mmsnn.ops.reference`, method by method."""

    name = 'reference'
    takes_any_layout = True
    hands_on = True

    def supports(self, operation: str, x: Tensor) -> str:
        """'' for all but ``'pooled_lif_backward'``, which is two operations here."""
        fine = operation in OPERATIONS and operation != 'pooled_lif_backward'
        return '' if fine else f'reference has no {operation}'

    def gives(self, dtype: torch.dtype, shortcut: Optional[Tensor], gate: Optional[str]) -> bool:
        """Always."""
        return True

    def lif(self, call: LIFCall, out: Tensor) -> None:
        """See the base."""
        out.copy_(reference.lif(call, out.dtype))

    def lif_backward(self, grad: Tensor, call: LIFCall, grads: LIFGrads) -> None:
        """See the base."""
        shortcut = call.shortcut
        if call.gate is not None and shortcut is not None and shortcut.dtype == torch.uint8:
            layout = inner_layout(call.x, call.time_steps)
            spikes = empty_steps(call.x, call.steps, layout)
            n = spikes[0].numel()
            flat = spikes.as_strided((call.steps, n), (n, 1))
            flat.copy_(reference.unpack(shortcut, n, call.x.dtype))
            call = call._replace(shortcut=spikes)
        current, *others = reference.lif_backward(grad, call)
        if grads.x is not None:
            if grads.grad_coef is not None:
                behind = call.x.dim() - call.channel_axis - 1
                current = grads.grad_coef.to(current.dtype).view(-1, *[1] * behind) * current
            grads.x.copy_(current)
        for out, value in zip((grads.shortcut, grads.channel_sums, grads.leak_sums), others):
            if out is not None and value is not None:
                out.copy_(value)

    def ilif(self, x: Tensor, neuron: ILIF, out: Tensor, u: Optional[Tensor] = None) -> None:
        """See the base."""
        out.copy_(reference.ilif(x, neuron, u))

    def ilif_backward(self, grad: Tensor, x: Tensor, neuron: ILIF, grad_x: Tensor) -> None:
        """See the base."""
        grad_x.copy_(reference.ilif_backward(grad, x, neuron))

    def input_grad(self, y_grad: Tensor, call: LIFCall, by: tuple, grad_x: Tensor) -> None:
        """See the base."""
        grad_x.copy_(reference.input_grad(y_grad, call.x, call.channel_axis, by))

    def channel_stats(self, x: Tensor, time_steps: int) -> tuple[Tensor, Tensor]:
        """See the base."""
        return reference.channel_stats(x, 1 if time_steps else 2)

    def pack(self, x: Tensor, rows: int, bits: Tensor) -> bool:
        """See the base."""
        n = x.numel() // rows
        packed = reference.pack(x.as_strided((rows, n), (n, 1)))
        if packed is None:
            return False
        bits.copy_(packed)
        return True

    def unpack(self, bits: Tensor, x: Tensor) -> None:
        """See the base."""
        n = x.numel()
        x.as_strided((1, n), (n, 1)).copy_(reference.unpack(bits, n, x.dtype))

    def max_pool(self, x: Tensor, windows: Sequence, channels_last: bool, out: Tensor) -> None:
        """See the base."""
        out.copy_(reference.max_pool2d(x, *windows))

    def max_pool_backward(
        self, grad: Tensor, kept: Tensor, windows: Sequence, channels_last: bool, grad_x: Tensor
    ) -> None:
        """See the base."""
        if kept.dtype == torch.uint8:
            x = torch.empty_like(grad_x)
            self.unpack(kept, x)
            kept = x
        grad_x.copy_(reference.max_pool2d_backward(grad, kept, *windows))

    def attention_decode(
        self, spikes: Tensor, weights: Sequence[Tensor], channels_last: bool, out: Tensor
    ) -> None:
        """See the base."""
        out.copy_(reference.attention_decode(spikes, *weights))

    def attention_statistics(
        self, spikes: Tensor, channels_last: bool, out: Sequence[Tensor]
    ) -> None:
        """See the base."""
        for place, value in zip(out, reference.attention_statistics(spikes)):
            place.copy_(value)

    def rate_decode(self, spikes: Tensor, out: Tensor) -> None:
        """See the base."""
        out.copy_(reference.rate_decode(spikes))

    def to_bytes(self, x: Tensor, scale: float, zero: int, out: Tensor) -> None:
        """See the base."""
        out.copy_(reference.to_bytes(x, scale, zero))

    def conv_lif(self, call: ConvCall, out: Tensor) -> None:
        """See the base."""
        _fire(reference.conv(call), call, out)

    def event_conv(self, call: ConvCall, out: Tensor) -> None:
        """See the base."""
        out.copy_(reference.event_conv(call))

    def event_conv_lif(self, call: ConvCall, out: Tensor) -> None:
        """See the base."""
        _fire(reference.event_conv(call), call, out)

    def bits_conv(self, call: BitsConvCall, bias: Optional[Tensor], out: Tensor) -> None:
        """See the base."""
        out.copy_(reference.bits_conv(call, bias))

    def bits_conv_weight_grad(self, grad: Tensor, call: BitsConvCall, out: Tensor) -> None:
        """See the base."""
        out.copy_(reference.bits_conv_weight_grad(grad, call))

    def winograd_in(self, x: Tensor, padding: Sequence[int], first: int, places: Tensor) -> None:
        """See the base."""
        places.copy_(reference.winograd_in(x, padding, first, places.shape[1]))

    def winograd_out(self, places: Tensor, bias: Tensor, first: int, out: Tensor) -> None:
        """See the base."""
        reference.winograd_out(places, bias, first, out)


def _fire(currents: Tensor, call: ConvCall, out: Tensor) -> None:
    """The neurons of a conv on its currents."""
    behind = LIFCall(currents, call.neuron, shortcut=call.shortcut, gate=call.gate, v=call.v)
    out.copy_(reference.lif(behind, torch.uint8))

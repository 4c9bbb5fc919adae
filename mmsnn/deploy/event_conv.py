"""Convolution by way of the spikes alone, where they are few."""

from typing import Any, Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import ops
from ..ops import LIF
from .integer_conv import rounded
from .packed_conv import PackedConv2d


class EventConv2d(PackedConv2d):
    r"""A conv whose time is in proportion to the spikes that it gets.

    .. math::
        y[k] = b_k + \sum_{s[i] = 1} w_{k, i}

    Spikes come in bytes, and neurons that stand behind the conv may be in it (:meth:`lif`), so that
    no currents are in memory. Where more than a part of the values are spikes
    (:func:`mmsnn.ops.crossover`) the dense conv is faster, and is taken: the same currents but for
    the order of the sums.

    Args:
        conv: The conv to replace, whose weights it takes.
        bits: 2 to 8, or 16, for weights in whole numbers (:class:`IntegerConv2d` says which), whose
            sums are exact, and which no dense conv here is for; default float32, as they are.
    """

    def __init__(self, conv: nn.Conv2d, bits: Optional[int] = None):
        super().__init__(conv)
        self.bits = bits

    def _pack(self) -> ops.EventWeights:
        if self.bits is None:
            weight = self.weight.detach().float()
            parts = [(weight, torch.ones(len(weight)))]
            bias = torch.zeros(len(weight)) if self.bias is None else self.bias.detach()
        else:
            q, scale, bias = rounded(self, self.bits)
            parts = [(q.to(torch.int8 if self.bits <= 8 else torch.int16), scale)]
        return ops.pack_event_weights(parts, bias.float(), self.groups)

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
        """The spikes of neurons behind the conv.

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
        in_bytes = dtype == torch.uint8 and (shortcut is None or shortcut.dtype == torch.uint8)
        if not in_bytes or neuron.learns or not _can(x):
            return None
        if self._is_sparse(x):
            call = x, self._weights, self._geometry, neuron, shortcut, gate
            return ops.event_conv_lif(*call, state=state)
        currents = self._dense(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        options: dict[str, Any] = dict(shortcut=shortcut, gate=gate, dtype=dtype, state=state)
        return ops.lif(currents, *neuron, **options)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve.

        Args:
            x: Spikes (N, C, H, W) in ``torch.uint8``, or any values in the dtype of the weights.

        Returns:
            Currents (N, C_out, H', W') in float32, or of the dtype of the weights.
        """
        if _can(x) and self._is_sparse(x):
            return ops.event_conv2d(x.unsqueeze(0), self._weights, self._geometry)[0]
        if self.bits is not None and x.dtype == torch.uint8:  # autograd or a profiler watches
            q, scale, bias = rounded(self, self.bits)
            sums = F.conv2d(x.float(), q, None, *self._geometry, self.groups)
            return sums * scale.view(-1, 1, 1) + bias.view(-1, 1, 1)
        return self._dense(x)

    def _is_sparse(self, x: Tensor) -> bool:
        return self.bits is not None or ops.density(x) < ops.crossover('inference')

    def _dense(self, x: Tensor) -> Tensor:
        return super().forward(x.to(self.weight.dtype) if x.dtype == torch.uint8 else x)

    def extra_repr(self) -> str:
        """What `print(module)` shows."""
        return super().extra_repr() + ('' if self.bits is None else f', bits={self.bits}')


def _can(x: Tensor) -> bool:
    """Whether these values may go by events."""
    return x.dtype == torch.uint8 and x.is_cpu and not ops.is_watched(x)

"""Convolution by way of the spikes alone, where they are few."""

import logging
import os
import statistics
import time
from functools import cache
from typing import Any, Optional

import torch
from torch import Tensor, nn

from .. import ops
from ..ops import LIF
from .integer_conv import rounded, weights_state

logger = logging.getLogger('mmsnn')

#: One value in so many is looked at to tell how many spikes there are. A prime, so that all
#: channels are.
EVERY = 13


class EventConv2d(nn.Conv2d):
    r"""A conv whose time is in proportion to the spikes that it gets.

    .. math::
        y[k] = b_k + \sum_{s[i] = 1} w_{k, i}

    Spikes come in bytes, and neurons that stand behind the conv may be in it (:meth:`lif`), so that
    no currents are in memory. Where more than a part of the values are spikes the dense conv is
    faster, and is taken (:func:`crossover`): the same currents but for the order of the sums.

    Args:
        conv: The conv to replace, whose weights it takes.
        bits: 8 or 16 for weights in whole numbers (:class:`IntegerConv2d` says which), whose sums
            are exact, and which no dense conv here is for; default float32, as they are.
    """

    def __init__(self, conv: nn.Conv2d, bits: Optional[int] = None):
        assert not isinstance(conv.padding, str)  # only plain convs are replaced
        # PyTorch annotates the pairs of a conv as tuples of any length.
        geometry: dict[str, Any] = {
            name: getattr(conv, name)
            for name in ('kernel_size', 'stride', 'padding', 'dilation', 'groups')
        }
        has_bias = conv.bias is not None
        super().__init__(
            conv.in_channels, conv.out_channels, bias=has_bias, device='meta', **geometry
        )
        self.weight, self.bias = conv.weight, conv.bias
        self.bits = bits
        self._geometry = conv.stride, conv.padding, conv.dilation
        self._packed: Optional[tuple[tuple, ops.EventWeights]] = None

    @property
    def _weights(self) -> ops.EventWeights:
        state = weights_state(self)
        if self._packed is None or self._packed[0] != state:
            if self.bits is None:
                weight = self.weight.detach().float()
                parts = [(weight, torch.ones(len(weight)))]
                bias = torch.zeros(len(weight)) if self.bias is None else self.bias.detach()
            else:
                q, scale, bias = rounded(self, self.bits)
                parts = [(q.to(torch.int8 if self.bits == 8 else torch.int16), scale)]
            self._packed = state, ops.pack_event_weights(parts, bias.float(), self.groups)
        return self._packed[1]

    def lif(
        self,
        x: Tensor,
        neuron: LIF,
        *,
        shortcut: Optional[Tensor] = None,
        gate: Optional[str] = None,
        dtype: Optional[torch.dtype] = None,
    ) -> Optional[Tensor]:
        """The spikes of neurons behind the conv.

        Args:
            x: Spikes (T, B, C, H, W).
            neuron: Its constants.
            shortcut: As of :func:`mmsnn.ops.lif`.
            gate: Likewise.
            dtype: Likewise.

        Returns:
            Spikes (T, B, C_out, H', W'), or None: call the conv, and then the neurons.
        """
        in_bytes = dtype == torch.uint8 and (shortcut is None or shortcut.dtype == torch.uint8)
        if not in_bytes or neuron.learns or not _can(x):
            return None
        if self._is_sparse(x):
            return ops.event_conv_lif(x, self._weights, self._geometry, neuron, shortcut, gate)
        currents = self._dense(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        return ops.lif(currents, *neuron, shortcut=shortcut, gate=gate, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve.

        Args:
            x: Spikes (N, C, H, W) in ``torch.uint8``, or any values in the dtype of the weights.

        Returns:
            Currents (N, C_out, H', W') in float32, or of the dtype of the weights.
        """
        if _can(x) and self._is_sparse(x):
            return ops.event_conv2d(x.unsqueeze(0), self._weights, self._geometry)[0]
        return self._dense(x)

    def _is_sparse(self, x: Tensor) -> bool:
        return self.bits is not None or density(x) <= crossover()

    def _dense(self, x: Tensor) -> Tensor:
        return super().forward(x.to(self.weight.dtype) if x.dtype == torch.uint8 else x)

    def __getstate__(self) -> dict:
        return {**self.__dict__, '_packed': None}

    def extra_repr(self) -> str:
        """What `print(module)` shows."""
        return super().extra_repr() + ('' if self.bits is None else f', bits={self.bits}')


def _can(x: Tensor) -> bool:
    """Whether these values may go by events."""
    return x.dtype == torch.uint8 and x.is_cpu and not ops.is_watched(x)


def density(x: Tensor) -> float:
    """About which part of the values of ``x`` isn't 0.

    Args:
        x: Spikes in bytes.

    Returns:
        0 to 1, from every 13th value in memory.
    """
    if not x.numel():
        return 0.0
    values = x.as_strided((x.numel(),), (1,)) if ops.is_dense(x) else x.flatten()
    sample = values[::EVERY]
    return sample.count_nonzero().item() / len(sample)


@cache
def crossover() -> float:
    """Density of spikes from which on a dense conv in float32 takes less time than one by events.

    It is measured once in a process, on a conv of 128 channels and its neurons, and said in the
    log; MMSNN_EVENTS_BELOW sets it.

    Returns:
        0 to 1.

    Raises:
        ValueError: MMSNN_EVENTS_BELOW is no number from 0 to 1.
    """
    named = os.environ.get('MMSNN_EVENTS_BELOW', '')
    if named:
        try:
            value = float(named)
        except ValueError:
            value = -1.0
        if not 0 <= value <= 1:
            raise ValueError(f'MMSNN_EVENTS_BELOW is a density from 0 to 1, got {named!r}')
        return value
    value = _measure()
    logger.info(
        'convs go by events below a density of %.2f here; MMSNN_EVENTS_BELOW=%.2f skips the '
        'measurement',
        value,
        value,
    )
    return value


@torch.no_grad()
def _measure(low: float = 0.1, high: float = 0.3) -> float:
    """Where the times meet: that by events is a line over the density, the dense one a constant."""
    generator = torch.Generator().manual_seed(0)
    last = torch.channels_last
    weight = torch.randn(128, 128, 3, 3, generator=generator).contiguous(memory_format=last)
    packed = ops.pack_event_weights([(weight, torch.ones(128))], torch.zeros(128))
    size = (4, 128, 24, 24)

    def spikes(rate: float) -> Tensor:
        values = torch.rand(size, generator=generator) < rate
        return values.to(torch.uint8).contiguous(memory_format=last).unsqueeze(1)

    few, many = spikes(low), spikes(high)

    def by_events(x: Tensor) -> None:
        ops.event_conv_lif(x, packed, ((1, 1), (1, 1), (1, 1)), LIF())

    def dense() -> None:
        x = many.flatten(0, 1).float()
        currents = torch.nn.functional.conv2d(x, weight, padding=1).unsqueeze(1)
        ops.lif(currents, dtype=torch.uint8)

    runs = (lambda: by_events(few), lambda: by_events(many), dense)
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(7):
        for run, found in zip(runs, times):
            start = time.perf_counter()
            run()
            found.append(time.perf_counter() - start)
    at_low, at_high, constant = (statistics.median(found[1:]) for found in times)
    slope = (at_high - at_low) / (high - low)
    if slope <= 0:  # noise
        return 1.0 if at_high < constant else 0.0
    return min(max(low + (constant - at_low) / slope, 0.0), 1.0)

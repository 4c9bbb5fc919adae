"""Counts of spikes, operations and words of memory, while a profiler looks on."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional, Union

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from ..models.layers import SpikingNeuron
from ..ops import membrane_potentials
from .measured import POTENTIAL_EDGES
from .memory import (
    Access,
    MemoryModel,
    add_up,
    dense_accesses,
    event_accesses,
    neuron_accesses,
    use_of,
)


def fan_out(conv: _ConvNd, size: Sequence[int]) -> Tensor:
    """How many output positions of a conv each input position reaches.

    Along one axis, output o reads the padded input at o * stride + k * dilation for each tap k of
    the kernel; counting is a sum over outputs and taps, and the axes multiply. Taps that fall on
    zero padding count nowhere. With another ``padding_mode`` a padded place is the copy of an input
    position, which reaches what the copy reaches.

    Args:
        conv: Conv1d, Conv2d or Conv3d.
        size: Height and width of the input, or as many axes as the conv has.

    Returns:
        Whole numbers of shape ``size``.

    Example:
        >>> from torch import nn
        >>> from mmsnn.analysis import fan_out
        >>> fan_out(nn.Conv2d(1, 1, 3, stride=2, padding=1), (1, 4))
        tensor([[1, 2, 1, 1]])
    """
    # torch lists the last axis first.
    ends = list(conv._reversed_padding_repeated_twice)
    pads = [ends[i : i + 2] for i in range(0, len(ends), 2)][::-1]
    reached = torch.ones((), dtype=torch.int64)
    for n, kernel, stride, dilation, (before, after) in zip(
        size, conv.kernel_size, conv.stride, conv.dilation, pads
    ):
        outputs = (n + before + after - dilation * (kernel - 1) - 1) // stride + 1
        taps = torch.arange(outputs)[:, None] * stride + torch.arange(kernel) * dilation
        # The input position, counted from 1, that stands at each padded place; 0 is zero padding.
        source = torch.arange(1.0, n + 1)[None, None]
        mode = 'constant' if conv.padding_mode == 'zeros' else conv.padding_mode
        source = F.pad(source, (before, after), mode=mode)[0, 0].long()
        along = torch.bincount(source[taps].flatten(), minlength=n + 1)[1:]
        reached = reached[..., None] * along
    return reached


def macs_of(module: Union[_ConvNd, nn.Linear], x: Tensor, output: Tensor) -> int:
    """Multiply-accumulates of a call of a layer, zero padding included.

    Args:
        module: A conv, of either direction, or a linear layer.
        x: Its input, with a batch.
        output: Its output.

    Returns:
        Their number.
    """
    if isinstance(module, nn.Linear):
        return output.numel() * module.in_features
    taps = math.prod(module.kernel_size)
    if isinstance(module, _ConvTransposeNd):
        return x.numel() * taps * module.out_channels // module.groups
    return output.numel() * taps * module.in_channels // module.groups


class NeuronCount:
    """Running counts of one layer of neurons."""

    def __init__(self, name: str, levels: int):
        self.name = name
        self.levels = levels
        self.shape: tuple = ()
        #: Spikes by time step and channel (T, C), and places that a channel had at each step.
        self.spikes: Optional[Tensor] = None
        #: Places and steps with a spike, where one may have several.
        self.active = 0
        self.places = 0
        self.accesses: list[Access] = []
        self.potentials: Optional[Tensor] = None

    def add(self, spikes: Tensor) -> None:
        """Count spikes (T, B, C, ...) or (T, C)."""
        if spikes.dim() < 3:
            spikes = spikes.reshape(len(spikes), 1, -1)
        self.shape = tuple(spikes.shape[2:])
        batch, _, *size = spikes.shape[1:]
        sums = spikes
        if size:
            sums = spikes.sum(list(range(3, spikes.dim())), dtype=torch.float32)
        # float32 counts exactly up to 2**24 places of a map.
        sums = sums.double().sum(1)
        if self.spikes is not None and self.spikes.shape != sums.shape:
            raise ValueError(
                f'neuron {self.name!r} ran at (T, C) = {tuple(self.spikes.shape)} and then at '
                f'{tuple(sums.shape)}: profile data of different time steps apart'
            )
        self.spikes = sums if self.spikes is None else self.spikes + sums
        if self.levels > 1:
            self.active += int(spikes.count_nonzero())
        self.places += batch * math.prod(size)
        new = neuron_accesses(math.prod(self.shape), math.prod(spikes.shape), float(sums.sum()))
        self.accesses = add_up([*self.accesses, *new])

    def add_potentials(self, neuron: SpikingNeuron, currents: Tensor) -> None:
        """Count membrane potentials h, from currents (T, ...)."""
        # The record is what runs: a neuron of another class may have no attributes of these names.
        record = neuron.known_record()
        v_threshold = record.v_threshold
        bins = len(POTENTIAL_EDGES) - 1
        scale = 1 / float(POTENTIAL_EDGES[1] - POTENTIAL_EDGES[0]) / v_threshold
        last = round(float(POTENTIAL_EDGES[-1] - 1) * scale * v_threshold) - 1
        first = last + 1 - bins
        counts = torch.zeros(bins, dtype=torch.float64)
        for h in membrane_potentials(currents, record):
            # Bins are numbered from the threshold: below it h - V_th is negative, however small.
            bin_ = ((h - v_threshold) * scale).floor_().clamp_(first, last)
            counts += torch.histc(bin_, bins, first - 0.5, last + 0.5).double().cpu()
        self.potentials = counts if self.potentials is None else self.potentials + counts

    def measured(self, images: int, saturated_above: float, model: MemoryModel) -> dict:
        """Arguments of :class:`~mmsnn.analysis.LayerProfile`."""
        assert self.spikes is not None  # a count is made for spikes that are there
        spikes = self.spikes.cpu().numpy()
        steps, channels = spikes.shape
        places = max(self.places, 1)
        by_channel = spikes.sum(0) / (steps * places)
        rate = float(spikes.sum() / (steps * channels * places))
        measured = dict(
            kind='neuron',
            input_shape=self.shape,
            output_shape=self.shape,
            time_steps=steps,
            firing_rate=rate,
            active=self.active / (steps * channels * places) if self.levels > 1 else rate,
            rate_by_step=spikes.sum(1) / (channels * places),
            rate_by_channel=by_channel,
            dead=float((by_channel == 0).mean()),
            saturated=float((by_channel >= saturated_above * self.levels).mean()),
            spikes=float(spikes.sum() / images),
            neurons=channels * self.places / images,
            levels=self.levels,
            memory=use_of(self.accesses, images, model),
        )
        if self.potentials is not None:
            measured['potentials'] = (self.potentials / self.potentials.sum()).numpy()
        return measured


@dataclass
class Call:
    """A call of a conv or linear layer: what can be counted before T is known.

    Attributes:
        module: The layer.
        input_shape: With a batch.
        output_shape: Likewise.
        macs: Multiply-accumulates.
        sops: Synaptic operations (N,) of the entries of the first axis; None where the input isn't
            spikes.
        spikes: Spikes at the input.
    """

    module: Union[_ConvNd, nn.Linear]
    input_shape: torch.Size
    output_shape: torch.Size
    macs: int
    sops: Optional[Tensor]
    spikes: float

    def dense(self, axes: int, share: float = 1.0) -> list[Access]:
        """Accesses where every input is read.

        Args:
            axes: How many axes come before those of one image at one time step.
            share: Which share of the call counts.
        """
        inputs, outputs = math.prod(self.input_shape), math.prod(self.output_shape)
        reads = inputs if isinstance(self.module, nn.Linear) else self.macs
        return dense_accesses(
            math.prod(self.input_shape[axes:]),
            share * reads,
            share * self.macs,
            self.module.weight.numel(),
            math.prod(self.output_shape[axes:]),
            share * outputs,
        )

    def by_events(self, axes: int, sops: float) -> list[Access]:
        """Accesses where every spike is an event, with the sum of the synaptic operations."""
        outputs = math.prod(self.output_shape[axes:])
        return event_accesses(self.spikes, sops, self.module.weight.numel(), outputs)


class WeightCount:
    """Running counts of one conv or linear layer."""

    def __init__(self, in_twin: bool, real: bool):
        self.in_twin = in_twin
        self.real = real
        #: Whether it ran without a time axis although the network has one.
        self.decoded = False
        self.shapes: tuple = ((), ())
        self.steps = 1
        self.sops: Optional[Tensor] = None
        self.macs = 0
        self.ann_macs = 0
        #: Accesses of memory: if its inputs are all spikes, if they aren't, and in the ANN twin.
        self.by_events: list[Access] = []
        self.dense: list[Access] = []
        self.ann: list[Access] = []

    def add(self, steps: int, axes: int, call: Call) -> None:
        """Count a call of so many time steps; the first axes are batch and time."""
        self.steps = max(self.steps, steps)
        self.macs += call.macs
        self.dense = add_up([*self.dense, *call.dense(axes)])
        if self.in_twin:
            self.ann_macs += call.macs // steps
            self.ann = add_up([*self.ann, *call.dense(axes, 1 / steps)])
        if call.sops is None:
            return
        by_step = torch.zeros(self.steps, dtype=torch.float64)
        by_step[:steps] = call.sops.view(steps, -1).sum(1).cpu()
        new = call.by_events(axes, float(by_step.sum()))
        self.by_events = add_up([*self.by_events, *new])
        if self.sops is not None:
            by_step[: len(self.sops)] += self.sops
        self.sops = by_step

    def measured(self, images: int, saturated_above: float, model: MemoryModel) -> dict:
        """Arguments of :class:`~mmsnn.analysis.LayerProfile`."""
        by_step = np.zeros(self.steps)
        real, sops = self.real, 0.0
        if not real:
            assert self.sops is not None  # every call saw spikes, and counted them
            # Zeros alone, behind the decoder of a silent network, are no spikes.
            real = self.decoded and not self.sops.any()
            if not real:
                by_step[: len(self.sops)] = self.sops.numpy() / images
                sops = float(self.sops.sum()) / images
        return dict(
            kind='real' if real else 'spikes',
            input_shape=self.shapes[0],
            output_shape=self.shapes[1],
            time_steps=self.steps,
            sops=sops,
            sops_by_step=by_step,
            macs=self.macs / images if real else 0.0,
            ann_macs=self.ann_macs / images,
            memory=use_of(self.dense if real else self.by_events, images, model),
            ann_memory=use_of(self.ann, images, model),
        )

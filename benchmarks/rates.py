"""Firing rates by calibration: an untrained network fires at any rate, and time depends on it."""

import argparse
import contextlib

import torch
from torch import Tensor, nn

from mmsnn.models.layers import SpikingNeuron

#: Halvings of the interval of a bias.
HALVINGS = 9


def rate(text: str) -> float:
    """A firing rate of a command line, between 0 and 1."""
    with contextlib.suppress(ValueError):
        if 0 < float(text) < 1:
            return float(text)
    raise argparse.ArgumentTypeError(f'{text!r} is no rate between 0 and 1')


class _Seen(Exception):
    """The rate that was looked for is known."""


@torch.no_grad()
def set_rates(net: nn.Module, x: Tensor, rate: float) -> None:
    """Let every neuron fire near a rate, by the bias of the norm in front of it.

    Of the stem's, it is the rate of what the first block gets: on noise, a max pool of 3x3 makes
    0.68 of 0.12, which no trained network does, whose spikes lie together.

    Args:
        net: A spiking backbone in eval mode.
        x: The image to set it on.
        rate: Firing rate.
    """
    modules = dict(net.named_modules())
    rates = {}
    neurons = {name: m for name, m in modules.items() if isinstance(m, SpikingNeuron)}

    last = [name for name in neurons if name.startswith('stem')][-1]
    wanted = ''

    def see(name: str, spikes: Tensor) -> None:
        rates[name] = spikes.float().mean().item()
        if name == wanted:
            raise _Seen  # the layers behind it take no part

    for name, neuron in neurons.items():
        if name != last:
            neuron.observer = lambda neuron, spikes, name=name: see(name, spikes)
    pooled = net.layer1[0].register_forward_pre_hook(lambda block, args: see(last, args[0]))
    for wanted in neurons:
        norm = modules.get(wanted.replace('neuron', 'bn'))
        if norm is None:  # of the stem and of downsampling, which come last in their blocks
            parent = modules[wanted.rpartition('.')[0]]
            norm = [m for m in parent.modules() if isinstance(m, nn.BatchNorm2d)][-1]
        low, high = -4.0, 4.0
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            nn.init.constant_(norm.bias, middle)
            with contextlib.suppress(_Seen):
                net(x)
            low, high = (low, middle) if rates[wanted] > rate else (middle, high)
    pooled.remove()
    for neuron in neurons.values():
        neuron.observer = None

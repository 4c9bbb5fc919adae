"""The spikes and attention maps of a forward pass, to look at."""

import difflib
from collections.abc import Sequence
from typing import NamedTuple, Optional, Union

import torch
from torch import Tensor, nn

from ..models.layers import AttentionSpikeDecoder, SpikingNeuron
from .observe import (
    check_no_bytes,
    check_no_observer,
    check_values,
    neuron_layers,
    unfold_time,
)


class Attention(NamedTuple):
    """What an :class:`~mmsnn.models.layers.AttentionSpikeDecoder` weighed its spikes with.

    Attributes:
        temporal: a_T (T, B), shares of the time steps: they sum to 1 over t.
        channel: a_C (T, B, C), in (0, 2); 1 leaves a channel as it is.
        spatial: a_S (T, B, H, W), in (0, 2); 1 leaves a place as it is.
    """

    temporal: Tensor
    channel: Tensor
    spatial: Tensor


class SpikeRecorder:
    """Keeps the spikes and the attention of the last forward pass inside its ``with`` block.

    Built as :class:`SpikeProfiler`: the model and its outputs stay as they are, to the last bit,
    at the end, error or not, everything that was put into the model is taken out again, and
    nothing is global. A model has one profiler or recorder at a time.

    Spikes are one byte each on the CPU: a backbone at the size of COCO makes hundreds of millions
    an image, so choose ``layers`` there.

    Args:
        model: A backbone, a classifier or a detector. Its forward passes are calls of itself, as
            by ``model(x)`` or ``model.test_step(batch)``.
        layers: Names of the neuron layers to keep; None for all but those of learned gates.

    Attributes:
        spikes: (T, B, C, H, W), uint8 on the CPU, by the name of the layer, in the order in which
            they ran; of the neuron itself, before any gate. A layer that ran several times has its
            last spikes. They are 0 and 1, or of the neuron's ``values``; signed ones are int8.
        attention: Maps of every attention spike decoder by its name, float32 on the CPU.

    Raises:
        ValueError: A model without spiking neurons, or of :func:`mmsnn.deploy.fuse` with integer
            convs; a name that is no layer of neurons; in a forward pass, spikes that a neuron does
            not say that it gives.

    Example:
        >>> import torch
        >>> from mmsnn.analysis import SpikeRecorder
        >>> from mmsnn.models import SGResNet
        >>> net = SGResNet(18, base_channels=8).eval()
        >>> with SpikeRecorder(net, ['layer1.0.neuron1']) as recorder, torch.no_grad():
        ...     _ = net(torch.rand(2, 3, 32, 32))
        >>> recorder.spikes['layer1.0.neuron1'].shape
        torch.Size([4, 2, 8, 8, 8])
    """

    def __init__(self, model: nn.Module, layers: Optional[Sequence[str]] = None):
        check_no_bytes(model)
        self.model = model
        self.spikes: dict[str, Tensor] = {}
        self.attention: dict[str, Attention] = {}
        neurons = {n: m for n, m in model.named_modules() if isinstance(m, SpikingNeuron)}
        if not neurons:
            raise ValueError(f'{type(model).__name__} has no spiking neurons to record')
        if layers is None:
            chosen = neuron_layers(model)
        else:
            chosen = {name: neurons[name] for name in _check_names(layers, list(neurons))}
        decoders = {n: m for n, m in model.named_modules() if isinstance(m, AttentionSpikeDecoder)}
        self._names: dict[nn.Module, str] = {m: n for n, m in {**chosen, **decoders}.items()}
        self._handles: list = []
        self._observed: list[Union[SpikingNeuron, AttentionSpikeDecoder]] = []

    def __enter__(self):
        if self._handles:
            raise RuntimeError('this recorder is at work already')
        check_no_observer(self._names)
        self._handles.append(self.model.register_forward_pre_hook(self._begin))
        for module in self._names:
            if isinstance(module, AttentionSpikeDecoder):
                module.observer = self._see_attention
                self._observed.append(module)
            elif module.shows_all:
                module.observer = self._see_spikes
                self._observed.append(module)
            else:
                self._handles.append(
                    module.register_forward_hook(self._see_neuron, with_kwargs=True)
                )
        return self

    def __exit__(self, *error) -> None:
        for handle in self._handles:
            handle.remove()
        for module in self._observed:
            module.observer = None
        self._handles, self._observed = [], []

    def _begin(self, model, args) -> None:
        self.spikes.clear()
        self.attention.clear()

    def _see_spikes(self, neuron: SpikingNeuron, spikes: Tensor) -> None:
        name, spikes = self._names[neuron], spikes.detach()
        check_values(neuron, name, spikes)
        dtype = torch.int8 if neuron.values == 'signed' else torch.uint8
        self.spikes[name] = spikes.to(dtype).cpu()

    def _see_neuron(self, neuron, args, kwargs, output) -> None:
        self._see_spikes(neuron, unfold_time(neuron, args, kwargs, output)[1])

    def _see_attention(self, decoder: AttentionSpikeDecoder, maps: tuple[Tensor, ...]) -> None:
        copies = (v.detach().to('cpu', torch.float32, copy=True) for v in maps)
        self.attention[self._names[decoder]] = Attention(*copies)


def _check_names(layers: Sequence[str], names: list[str]) -> Sequence[str]:
    if isinstance(layers, str):
        raise ValueError(f'layers must be a list of names, got {layers!r}: write [{layers!r}]')
    for name in layers:
        if name not in names:
            near = difflib.get_close_matches(str(name), names, n=3, cutoff=0) or names
            raise ValueError(
                f'no layer of spiking neurons is named {name!r}; the nearest of the '
                f'{len(names)} there are: {", ".join(near)}'
            )
    return layers

"""A spiking backbone as a list of nodes, for files that other programs run."""

from collections.abc import Callable
from typing import Any, NamedTuple, Optional

import torch
from torch import Tensor, nn

from ..models.backbones.sg_resnet import (
    AddBlock,
    GateBlock,
    MSBlock,
    SEWBlock,
    SGResNet,
    SpikingBlock,
    TDBNBlock,
)
from ..models.layers import Gate, SpikeMaxPool2d, SpikingNeuron
from ..models.layers.spike_conv import is_hooked, is_plain_conv
from .fuse import folded_copy

#: Name of what a graph takes.
INPUT = 'input'


class Node(NamedTuple):
    """A step of the network, done at every time step.

    Args:
        name: The path of its module in the backbone.
        kind: ``'conv'``, ``'neuron'``, ``'pool'``, ``'add'``, or of the gates of two spikes
            ``'or'``, ``'and'``, ``'iand'``, ``'add'``.
        inputs: Names of the nodes that it reads, or ``INPUT``.
        spikes: Whether it gives whole numbers of spikes; else it gives currents.
        module: The conv, neuron or pool.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    spikes: bool
    module: Optional[nn.Module] = None


class SpikingGraph(NamedTuple):
    """A backbone with its norms folded, in the order in which it runs.

    Args:
        nodes: Each after those that it reads.
        outputs: Names of the nodes that are the backbone's levels.
        time_steps: T, of one forward pass.
        in_channels: Channels of the input.
    """

    nodes: list[Node]
    outputs: tuple[str, ...]
    time_steps: int
    in_channels: int


def spiking_graph(model: nn.Module) -> SpikingGraph:
    """What a backbone computes, as nodes.

    Args:
        model: An :class:`~mmsnn.models.backbones.SGResNet`, or a detector or classifier whose
            backbone is one; it isn't changed.

    Returns:
        The graph, of copies of the modules in eval mode.

    Raises:
        ValueError: A backbone, or a part of it, whose formula isn't known here; the message names
            it.

    Example:
        >>> from mmsnn.deploy.spiking_graph import spiking_graph
        >>> from mmsnn.models import SGResNet
        >>> graph = spiking_graph(SGResNet(10, base_channels=8, num_stages=1, strides=(1,),
        ...                                out_indices=(0,), stem='cifar'))
        >>> [node.name for node in graph.nodes][:3], graph.outputs
        (['stem.0.conv', 'stem.0.neuron', 'layer1.0.conv1'], ('layer1.0.gate',))
    """
    backbone = getattr(model, 'backbone', model)
    if type(backbone) is not SGResNet:
        raise ValueError(
            f'only a backbone SGResNet can be exported as a spiking graph, not a '
            f'{type(backbone).__name__}'
        )
    backbone = folded_copy(backbone).cpu()
    assert isinstance(backbone, SGResNet)  # a copy of it
    graph = _Walk(backbone)
    return SpikingGraph(graph.nodes, graph.outputs, backbone.time_steps, backbone.in_channels)


@torch.no_grad()
def record(backbone: nn.Module, x: Tensor, graph: SpikingGraph) -> dict[str, Tensor]:
    """What a backbone, fused or not, gives at the nodes of its graph.

    Args:
        backbone: The backbone that the graph was made of, or a copy of it that computes otherwise.
        x: Its input, images (B, C, H, W).
        graph: Of :func:`spiking_graph`.

    Returns:
        By the node's name spikes (T, B, C, H, W), and of the first conv, which sees the images, its
        currents (1, B, C, H, W), the same at all time steps.
    """
    values: dict[str, Tensor] = {}
    modules = dict(backbone.named_modules())
    handles, neurons = [], []

    def see(node: Node) -> Callable:
        steps = graph.time_steps if node.spikes else 1

        def hook(module: nn.Module, *seen: Any) -> None:
            value = seen[-1]
            values[node.name] = value if value.dim() == 5 else value.unflatten(0, (steps, -1))

        return hook

    for node in graph.nodes:
        if not (node.spikes or INPUT in node.inputs):
            continue
        module = modules[node.name]
        if isinstance(module, SpikingNeuron):
            module.observer = see(node)
            neurons.append(module)
        else:
            handles.append(module.register_forward_hook(see(node)))
    try:
        backbone(x)
    finally:
        for neuron in neurons:
            neuron.observer = None
        for handle in handles:
            handle.remove()
    return values


#: By class, for blocks whose ``forward`` is the one that is written down here.
_BLOCKS = (GateBlock, SEWBlock, AddBlock, TDBNBlock, MSBlock)


class _Walk:
    """Collects the nodes of a folded backbone."""

    def __init__(self, backbone: SGResNet):
        self.nodes: list[Node] = []
        self._names = {module: name for name, module in backbone.named_modules()}
        self._spikes = {INPUT: False}
        x = INPUT
        for layer in backbone.stem:
            x = self._current(layer['conv'], layer['norm'], x)
            x = self._neuron(layer['neuron'], x) if 'neuron' in layer else x
        pool = backbone.maxpool
        if not isinstance(pool, nn.Identity):
            if type(pool) not in (SpikeMaxPool2d, nn.MaxPool2d):
                raise self._unknown(pool)
            x = self._add(pool, 'pool', (x,), self._spikes[x])
        outputs = []
        for i, stage in enumerate(backbone.res_layers):
            for block in getattr(backbone, stage):
                x = self._block(block, x)
            if i in backbone.out_indices:
                out = x
                if backbone.membrane_shortcut:
                    out = self._neuron(backbone.out_neurons[backbone.out_indices.index(i)], x)
                outputs.append(out)
        self.outputs = tuple(outputs)

    def _unknown(self, module: nn.Module) -> ValueError:
        return ValueError(
            f'{self._names[module]} ({type(module).__name__}) cannot be exported as a part of a '
            'spiking graph: its formula is not known there'
        )

    def _add(
        self, module: nn.Module, kind: str, inputs: tuple[str, ...], spikes: bool, name: str = ''
    ) -> str:
        if is_hooked(module):
            raise ValueError(
                f'{self._names[module]} ({type(module).__name__}) has a hook, which may change '
                'what it gives: remove it before the export'
            )
        name = name or self._names[module]
        self.nodes.append(Node(name, kind, inputs, spikes, module))
        self._spikes[name] = spikes
        return name

    def _current(self, conv: nn.Module, norm: nn.Module, x: str) -> str:
        if not is_plain_conv(conv):
            raise self._unknown(conv)
        if not isinstance(norm, nn.Identity):
            raise self._unknown(norm)
        return self._add(conv, 'conv', (x,), False)

    def _neuron(self, neuron: nn.Module, current: str) -> str:
        return self._add(neuron, 'neuron', (current,), True)

    def _layer(self, layer: tuple[nn.Module, nn.Module, nn.Module], x: str) -> str:
        conv, norm, neuron = layer
        return self._neuron(neuron, self._current(conv, norm, x))

    def _block(self, block: nn.Module, x: str) -> str:
        if type(block) not in _BLOCKS:
            raise self._unknown(block)
        assert isinstance(block, SpikingBlock)
        if isinstance(block, MSBlock):
            return self._membrane_block(block, x)
        shortcut = x
        if block.downsample is not None:
            shortcut = self._current(block.downsample[0], block.downsample[1], x)
        if isinstance(block, GateBlock) and block.downsample is not None:
            shortcut = self._neuron(block.downsample_neuron, shortcut)
        branch = x
        for i in range(1, block.num_convs):
            branch = self._layer(block.layer(i), branch)
        if isinstance(block, GateBlock):
            branch = self._layer(block.layer(block.num_convs), branch)
            return self._gate(block.gate, branch, shortcut)
        conv, norm, neuron = block.layer(block.num_convs)
        branch = self._current(conv, norm, branch)
        both = self._add(block, 'add', (branch, shortcut), False, f'{self._names[block]}.add')
        return self._neuron(neuron, both)

    def _membrane_block(self, block: MSBlock, x: str) -> str:
        branch = x
        for i in range(1, block.num_convs + 1):
            conv, norm, neuron = block.layer(i)
            branch = self._current(conv, norm, self._neuron(neuron, branch))
        shortcut = x
        if block.downsample is not None:
            shortcut = self._current(block.downsample[0], block.downsample[1], x)
        return self._add(block, 'add', (branch, shortcut), False, f'{self._names[block]}.add')

    def _gate(self, gate: Gate, branch: str, shortcut: str) -> str:
        # A gate's own forward is what `fused` names, as the kernels take it to be.
        if gate.fused is None:
            raise self._unknown(gate)
        return self._add(gate, gate.fused, (branch, shortcut), True)

"""A spiking backbone as whole numbers in a file."""

import json
from typing import Any, Optional, Union

import torch
from torch import Tensor, nn

from ..models.layers import ILIFNeuron, SpikingNeuron
from ..version import __version__
from .fuse import why_no_bytes
from .integer_conv import rounded
from .packages import needed
from .read_integers import FORMAT, VERSION
from .spiking_graph import Node, SpikingGraph, spiking_graph


def export_integers(
    model: nn.Module, path: str, about: Optional[dict[str, Any]] = None, bits: int = 8
) -> SpikingGraph:
    """Write what ``fuse(model, 'int8')`` computes up to the decoder, as whole numbers.

    The file is of safetensors' format, with the network as JSON in its metadata;
    docs/deploy-integers.md says what stands in it. :mod:`mmsnn.deploy.read_integers` runs it in
    NumPy.

    Args:
        model: An :class:`~mmsnn.models.backbones.SGResNet`, or a detector or classifier whose
            backbone is one; it isn't changed.
        path: The file; one that is there is overwritten.
        about: What the file says of the model beside, as JSON can hold it.
        bits: Of a weight, 2 to 8, each in a byte: fewer than 8 are those of ``fuse(model, 'int4')``
            and ``'int2'``.

    Returns:
        The graph that was written.

    Raises:
        ValueError: The model has a part that such a file can't say, or spikes that no byte holds.
        ImportError: The package safetensors isn't installed.

    Example:
        >>> import tempfile
        >>> from mmsnn.deploy import export_integers
        >>> from mmsnn.deploy.read_integers import read
        >>> from mmsnn.models import SGResNet
        >>> path = f'{tempfile.mkdtemp()}/net.safetensors'
        >>> _ = export_integers(SGResNet(10, base_channels=8), path)
        >>> network, tensors = read(path)
        >>> tensors['layer1.0.conv1.q'].dtype, network['time_steps']
        (dtype('int8'), 4)
    """
    save_file = needed('safetensors.torch', 'int8').save_file

    graph = _graph_in_bytes(model)
    whole = set(_on_spikes(graph))
    tensors: dict[str, Tensor] = {}
    nodes = []
    for node in graph.nodes:
        words = dict(name=node.name, op=node.kind, inputs=list(node.inputs))
        if isinstance(node.module, nn.Conv2d) and node.kind == 'conv':
            words.update(_geometry(node.module))
            tensors.update(_weights(node, bits if node.name in whole else None))
        elif isinstance(node.module, SpikingNeuron):
            words.update(_neuron(node))
        elif node.kind == 'pool':
            sizes = {key: getattr(node.module, key) for key in ('kernel_size', 'stride', 'padding')}
            words.update(sizes)
        nodes.append(words)
    network = dict(
        made_by=f'mmsnn {__version__}',
        time_steps=graph.time_steps,
        weight_bits=bits,
        in_channels=graph.in_channels,
        nodes=nodes,
        outputs=list(graph.outputs),
        **(about or {}),
    )
    save_file(
        tensors,
        path,
        dict(format=FORMAT, version=VERSION, network=json.dumps(network, ensure_ascii=False)),
    )
    return graph


def convs_in_integers(model: nn.Module) -> list[str]:
    """The convs whose weights an integer file has as whole numbers: those that read spikes.

    Args:
        model: As of :func:`export_integers`.

    Returns:
        Their paths in the backbone.

    Raises:
        ValueError: As of :func:`export_integers`.

    Example:
        >>> from mmsnn.deploy.integer_file import convs_in_integers
        >>> from mmsnn.models import SGResNet
        >>> convs_in_integers(SGResNet(10, base_channels=8))[:2]
        ['layer1.0.conv1', 'layer1.0.conv2']
    """
    graph = _graph_in_bytes(model)
    for node in graph.nodes:
        if node.kind == 'neuron':
            _neuron(node)  # raises
    return _on_spikes(graph)


def _graph_in_bytes(model: nn.Module) -> SpikingGraph:
    reason = why_no_bytes(getattr(model, 'backbone', model))
    if reason:
        raise ValueError(f'an integer file needs spikes in bytes: {reason}')
    return spiking_graph(model)


def _on_spikes(graph: SpikingGraph) -> list[str]:
    spikes = {node.name for node in graph.nodes if node.spikes}
    return [node.name for node in graph.nodes if node.kind == 'conv' and node.inputs[0] in spikes]


def _geometry(conv: nn.Conv2d) -> dict[str, Any]:
    pairs = {key: list(getattr(conv, key)) for key in ('stride', 'padding', 'dilation')}
    return dict(pairs, groups=conv.groups)


def _weights(node: Node, bits: Optional[int]) -> dict[str, Tensor]:
    conv = node.module
    assert isinstance(conv, nn.Conv2d)
    q, scale, bias = rounded(conv, bits or 8)
    own = dict(q=q.to(torch.int8), scale=scale) if bits else dict(weight=conv.weight.float())
    return {
        f'{node.name}.{key}': value.contiguous() for key, value in {**own, 'bias': bias}.items()
    }


def _neuron(node: Node) -> dict[str, Any]:
    neuron = node.module
    assert isinstance(neuron, SpikingNeuron)
    if type(neuron) is ILIFNeuron:
        values = dict(decay=neuron.decay, v_threshold=neuron.v_threshold)
        return dict(op='ilif', levels=neuron.levels, **{k: _number(v) for k, v in values.items()})
    record = neuron.record() if neuron.runs_by_record else None
    if record is None:
        raise ValueError(
            f'{node.name} ({type(neuron).__name__}) cannot be exported: an integer file has LIF, '
            'IF, PLIF and ILIF neurons'
        )
    values = {key: _number(getattr(record, key)) for key in ('decay', 'input_scale', 'v_threshold')}
    return dict(op='lif', reset=record.reset, **values)


def _number(value: Union[float, Tensor]) -> Union[int, float]:
    """The float32 that is computed with; without a point where it is whole."""
    number = torch.as_tensor(value, dtype=torch.float32).item()
    return int(number) if number == int(number) else number

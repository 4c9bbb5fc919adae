"""Which programs read the NIR graphs of mmsnn, and give the same spikes.

The graphs are parts of a small SG ResNet with random weights, from the neurons of a conv to a whole
backbone; mmsnn.deploy.run_nir says what comes out. `make nir-readers` installs the readers.
"""

import argparse
import contextlib
import io
import logging
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any, NamedTuple, Optional

# First: without mmcv's compiled ops, MMDetection's models import only behind it.
import mmsnn  # noqa: F401  isort: skip

import nir
import numpy as np
import torch
from terminaltables import AsciiTable
from torch import Tensor

from mmsnn.deploy import export_nir, run_nir
from mmsnn.deploy.nir_graph import DT
from mmsnn.models import SGResNet
from mmsnn.models.layers import TDBN

SIZE = 32


class Part(NamedTuple):
    """A part of a network as a graph of its own.

    Args:
        graph: The graph.
        x: What goes in, (T, B, C, H, W).
        spikes: What comes out.
    """

    graph: nir.NIRGraph
    x: Tensor
    spikes: Tensor


def firing_net(**kwargs: Any) -> SGResNet:
    """A network whose norms have seen noise, so that all layers fire."""
    torch.manual_seed(0)
    net = SGResNet(
        10, base_channels=16, num_stages=3, strides=(1, 2, 2), out_indices=(2,), **kwargs
    )
    for module in net.modules():
        if isinstance(module, TDBN):
            torch.nn.init.constant_(module.bias, 0.2)
    with torch.no_grad():
        for _ in range(12):
            net.train()(torch.randn(4, 3, SIZE, SIZE))
    return net.eval()


def cut(graph: nir.NIRGraph, x: Tensor, source: str, target: str) -> Part:
    """The nodes between two of a graph.

    Args:
        graph: The graph.
        x: Its input.
        source: Name of the node that is taken for the input.
        target: Name of the node whose spikes come out.

    Returns:
        The part; all that ``target`` needs must come by ``source``.
    """
    values = run_nir(graph, x)
    needed = {target}
    while True:
        before = {a for a, b in graph.edges if b in needed and a != source and b != source}
        if before <= needed:
            break
        needed |= before
    nodes = {name: node for name, node in graph.nodes.items() if name in needed}
    edges = [(a, b) for a, b in graph.edges if b in needed and (a in needed or a == source)]
    edges = [('input' if a == source else a, b) for a, b in edges] + [(target, 'output')]
    shapes = [np.array(values[name].shape[2:]) for name in (source, target)]
    nodes = {'input': nir.Input({'input': shapes[0]}), **nodes}
    nodes['output'] = nir.Output({'output': shapes[1]})
    return Part(nir.NIRGraph(nodes, edges, dict(graph.metadata)), values[source], values[target])


def parts(folder: str, dtype: torch.dtype = torch.float32) -> dict[str, Part]:
    """What readers are tried on, by what the table calls it."""
    noise = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, SIZE, SIZE, generator=noise).to(dtype)
    graphs = {}
    for name, kwargs in (
        ('sg', dict(stem='cifar')),
        ('pooled', dict(stem='imagenet')),
        ('if', dict(stem='cifar', act_cfg=dict(type='IFNeuron'))),
        ('plain', dict(stem='cifar', block='tdbn')),
    ):
        path = f'{folder}/{name}.nir'
        export_nir(firing_net(**kwargs).to(dtype), path, (SIZE, SIZE))
        graphs[name] = nir.read(path)
    asked = {
        'conv, LIF': ('sg', 'input', 'stem_0_neuron'),
        'conv, IF': ('if', 'input', 'stem_0_neuron'),
        'conv, LIF, conv, LIF': ('sg', 'stem_0_neuron', 'layer1_0_neuron2'),
        'block with OR': ('sg', 'stem_0_neuron', 'layer1_0_gate'),
        'block with OR and conv in the shortcut': ('sg', 'layer1_0_gate', 'layer2_0_gate'),
        'max pool of spikes': ('pooled', 'stem_0_neuron', 'maxpool'),
        'SG ResNet-10, stem of 3x3': ('sg', 'input', 'layer3_0_gate'),
        'SG ResNet-10, stem of 7x7 and pool': ('pooled', 'input', 'layer3_0_gate'),
        'tdBN ResNet-10, stem of 3x3': ('plain', 'input', 'layer3_0_neuron2'),
    }
    return {label: cut(graphs[name], x, a, b) for label, (name, a, b) in asked.items()}


def step_by_step(net: Callable, x: Tensor) -> Tensor:
    """What a network that is called once a time step gives of all steps."""
    outs, state = [], None
    for frame in x:
        out, state = net(frame, state)
        outs.append(out)
    return torch.stack(outs)


def by_snntorch(part: Part) -> Tensor:
    """Its steps are fixed at 1e-4 s, its numbers are float32."""
    from snntorch.import_nir import import_from_nir

    net = import_from_nir(part.graph)
    return step_by_step(net, part.x.float())


def by_norse(part: Part) -> Tensor:
    """Its numbers are float32."""
    import norse.torch

    net = norse.torch.from_nir(part.graph, dt=DT)
    return step_by_step(net, part.x.float())


def by_spikingjelly(part: Part) -> Tensor:
    """In the dtype of the part."""
    from spikingjelly.activation_based.nir_exchange import import_from_nir

    net = import_from_nir(part.graph, dt=DT, dtype=part.x.dtype)
    return step_by_step(net, part.x)


def by_sinabs(part: Part) -> Tensor:
    """Its neurons take batch and time in one axis, a sample after the other."""
    from sinabs.nir import from_nir

    steps, batch = part.x.shape[:2]
    net = from_nir(part.graph, batch_size=batch, num_timesteps=steps)
    out = net(part.x.float().transpose(0, 1).flatten(0, 1))
    out = out[0] if isinstance(out, tuple) else out
    return out.unflatten(0, (batch, steps)).transpose(0, 1)


READERS: dict[str, Callable[[Part], Tensor]] = {
    'spikingjelly': by_spikingjelly,
    'snntorch': by_snntorch,
    'norse': by_norse,
    'sinabs': by_sinabs,
}


def same(reader: str, part: Part) -> float:
    """The share of values that a reader gives as :func:`mmsnn.deploy.run_nir` does.

    Args:
        reader: A key of ``READERS``.
        part: What to run.

    Raises:
        Exception: Whatever the reader says of a graph that it can't run.
    """
    noise = io.StringIO()
    with torch.no_grad(), contextlib.redirect_stdout(noise):
        found = READERS[reader](part)
    if found.shape != part.spikes.shape:
        raise ValueError(f'gives {tuple(found.shape)}, not {tuple(part.spikes.shape)}')
    return float((found.to(part.spikes.dtype) == part.spikes).double().mean())


def words(reader: str, part: Part) -> str:
    """A cell of the table."""
    try:
        return f'{100 * same(reader, part):.2f} %'
    except Exception as error:  # each reader has its own
        lines = str(error).strip().split('\n') or ['']
        return f'no: {lines[0][:60] or type(error).__name__}'


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Print a table of each reader."""
    import tempfile

    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.parse_args(argv)
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        tried = parts(folder)
    for reader in READERS:
        try:
            name = f'{reader} {metadata.version(reader)}'
        except metadata.PackageNotFoundError:
            print(f'{reader} is not installed: make nir-readers')
            continue
        rows = [['part', 'the same spikes']]
        rows += [[label, words(reader, part)] for label, part in tried.items()]
        print(AsciiTable(rows, name).table)


if __name__ == '__main__':
    main()

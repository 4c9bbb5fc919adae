"""A spiking backbone in NIR, the neuromorphic intermediate representation."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Optional, Union

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models.layers import SpikingNeuron
from ..ops.layout import output_size
from ..version import __version__
from .packages import needed
from .spiking_graph import INPUT, Node, SpikingGraph, spiking_graph

if TYPE_CHECKING:
    import nir

#: What says in a graph's metadata that :func:`run_nir` reads it.
DIALECT = 'mmsnn 1'
#: Seconds of a time step, which readers of NIR take where a graph can't say it.
DT = 1e-4


def export_nir(
    model: nn.Module,
    path: str,
    size: Sequence[int],
    about: Optional[dict[str, Any]] = None,
) -> 'nir.NIRGraph':
    """Write a spiking backbone as a NIR graph, up to the decoder.

    Norms are folded into convs. NIR's neurons are equations in continuous time, and a time step of
    ``dt`` seconds makes of them, by Euler's method, those of :func:`mmsnn.ops.lif`:

    ============ =====================================================================
    here         in NIR
    ============ =====================================================================
    LIF          ``LIF``, tau = dt / (1 - decay), r = 1, v_leak = v_reset = 0, and
                 v_threshold = V_th (1 - decay) / input_scale
    IF           ``IF``, r = 1 / dt, v_threshold = V_th / input_scale, v_reset = 0
    OR           both edges into an ``IF`` of threshold 1/2, which resets to 0: it keeps nothing
    AND, IAND    both edges, one by ``Scale`` -1, into a ``LIF`` with tau = dt: it keeps nothing
    SEW's add    both edges into whatever reads it
    max pool     ``SumPool2d`` into the ``IF`` of OR
    ============ =====================================================================

    With r = 1 a potential in NIR is (1 - decay) / input_scale of the model's own: that is the form
    which all known readers take. Where two edges end in a node, it gets the sum.

    Args:
        model: An :class:`~mmsnn.models.backbones.SGResNet`, or a detector or classifier whose
            backbone is one; it isn't changed.
        path: The file; one that is there is overwritten.
        size: Height and width of the input: every neuron in NIR has its own parameters.
        about: What the metadata say beside, as JSON can hold it; each value is a JSON text.

    Returns:
        The graph that was written.

    Raises:
        ValueError: The model has a part that NIR can't say; the message names it.
        ImportError: The package nir isn't installed.
    """
    nir = needed('nir', 'nir')

    graph = _Writer(spiking_graph(model), size).graph(about or {})
    nir.write(path, graph)
    return graph


def nir_name(name: str) -> str:
    """What a node is called in NIR: readers make attributes of the names."""
    return name.replace('.', '_')


class _Writer:
    """Nodes and edges of a graph.

    Args:
        graph: What to write.
        size: Height and width of the input.
    """

    def __init__(self, graph: SpikingGraph, size: Sequence[int]):
        import nir

        if len(size) != 2 or min(size) < 1:
            raise ValueError(f'the size of the input is its height and width, got {tuple(size)}')
        self.source = graph
        shape = (graph.in_channels, *size)
        self.nodes: dict[str, Any] = {INPUT: nir.Input({'input': np.array(shape)})}
        self.edges: list[tuple[str, str]] = []
        #: By the model's names, the nodes whose sum it is, and their shape.
        self.sources: dict[str, tuple[str, ...]] = {INPUT: (INPUT,)}
        self.shapes: dict[str, tuple[int, ...]] = {INPUT: shape}
        for node in graph.nodes:
            getattr(self, f'_{node.kind}')(node)
        many = len(graph.outputs) > 1
        for i, name in enumerate(graph.outputs):
            output = nir.Output({'output': np.array(self.shapes[name])})
            self._put(f'output_{i}' if many else 'output', output, self.sources[name])

    def graph(self, about: dict[str, Any]) -> 'nir.NIRGraph':
        """The whole, with its metadata."""
        import nir

        levels = [nir_name(name) for name in self.source.outputs]
        metadata = dict(
            dialect=DIALECT,
            made_by=f'mmsnn {__version__}',
            dt=DT,
            time_steps=self.source.time_steps,
            fires='where v >= v_threshold',
            decoder_reads=json.dumps(levels),
            **{key: json.dumps(value) for key, value in about.items()},
        )
        return nir.NIRGraph(self.nodes, self.edges, metadata)

    def _put(self, name: str, node: Any, sources: Sequence[str]) -> str:
        if len(set(sources)) < len(sources):
            raise ValueError(f'{name} cannot be said in NIR: it reads a node twice')
        self.nodes[name] = node
        self.edges += [(source, name) for source in sources]
        return name

    def _done(self, node: Node, sources: Sequence[str], shape: Sequence[int]) -> None:
        self.sources[node.name], self.shapes[node.name] = tuple(sources), tuple(shape)

    def _inputs(self, node: Node) -> list[str]:
        """All nodes that it reads, as where a sum is read."""
        return [source for name in node.inputs for source in self.sources[name]]

    def _conv(self, node: Node) -> None:
        import nir

        conv = node.module
        assert isinstance(conv, nn.Conv2d)
        geometry = conv.stride, conv.padding, conv.dilation
        _, *size = self.shapes[node.inputs[0]]
        shape = (conv.out_channels, *output_size(size, conv.kernel_size, geometry))
        if min(shape) < 1:
            raise ValueError(f'an input of {self.shapes[INPUT]} is too small for {node.name}')
        bias = torch.zeros(conv.out_channels) if conv.bias is None else conv.bias
        pairs = {key: tuple(getattr(conv, key)) for key in ('stride', 'padding', 'dilation')}
        written = nir.Conv2d(
            input_shape=tuple(size),
            weight=conv.weight.detach().contiguous().numpy(),
            groups=conv.groups,
            bias=bias.detach().to(conv.weight.dtype).numpy(),
            **pairs,
        )
        self._done(node, [self._put(nir_name(node.name), written, self._inputs(node))], shape)

    def _neuron(self, node: Node) -> None:
        neuron = node.module
        assert isinstance(neuron, SpikingNeuron)
        record = neuron.record() if neuron.runs_by_record else None
        if record is None or record.reset != 'hard':
            why = 'a reset to 0 and one by the threshold are not told apart there'
            if record is None:
                why = 'it has LIF and IF neurons, which give 0 and 1'
            raise ValueError(f'{node.name} ({type(neuron).__name__}) cannot be said in NIR: {why}')
        decay, scale = (float(torch.as_tensor(v)) for v in (record.decay, record.input_scale))
        shape = self.shapes[node.inputs[0]]
        if decay == 1:
            written = _if(shape, record.v_threshold / scale)
        else:
            threshold = record.v_threshold * (1 - decay) / scale
            written = _lif(shape, DT / (1 - decay), threshold)
        self._done(node, [self._put(nir_name(node.name), written, self._inputs(node))], shape)

    def _pool(self, node: Node) -> None:
        import nir

        pool = node.module
        if not node.spikes or pool is None:
            raise ValueError(
                f'{node.name} ({type(pool).__name__}) cannot be said in NIR, which has no max pool '
                'of currents: only one of spikes can be a sum and a threshold'
            )
        pairs = {
            key: (int(getattr(pool, key)),) * 2 for key in ('kernel_size', 'stride', 'padding')
        }
        channels, *size = self.shapes[node.inputs[0]]
        geometry = pairs['stride'], pairs['padding'], (1, 1)
        shape = (channels, *output_size(size, pairs['kernel_size'], geometry))
        name = nir_name(node.name)
        arrays = {key: np.array(value) for key, value in pairs.items()}
        sums = self._put(f'{name}_sum', nir.SumPool2d(**arrays), self._inputs(node))
        self._done(node, [self._put(name, _if(shape, 0.5), [sums])], shape)

    def _or(self, node: Node) -> None:
        shape = self.shapes[node.inputs[0]]
        name = self._put(nir_name(node.name), _if(shape, 0.5), self._inputs(node))
        self._done(node, [name], shape)

    def _and(self, node: Node) -> None:
        shape = self.shapes[node.inputs[0]]
        name = self._put(nir_name(node.name), _at_once(shape, 1.5), self._inputs(node))
        self._done(node, [name], shape)

    def _iand(self, node: Node) -> None:
        import nir

        branch, shortcut = node.inputs
        name, shape = nir_name(node.name), self.shapes[shortcut]
        negative = nir.Scale(np.full(shape, -1.0))
        minus = self._put(f'{name}_minus', negative, self.sources[branch])
        both = [*self.sources[shortcut], minus]
        self._done(node, [self._put(name, _at_once(shape, 0.5), both)], shape)

    def _add(self, node: Node) -> None:
        self._done(node, self._inputs(node), self.shapes[node.inputs[0]])


def _if(shape: Sequence[int], threshold: float) -> 'nir.IF':
    import nir

    values = dict(r=1 / DT, v_threshold=threshold, v_reset=0.0)
    return nir.IF(**{key: np.full(shape, value) for key, value in values.items()})


def _lif(shape: Sequence[int], tau: float, threshold: float) -> 'nir.LIF':
    import nir

    values = dict(tau=tau, r=1.0, v_leak=0.0, v_threshold=threshold, v_reset=0.0)
    return nir.LIF(**{key: np.full(shape, value) for key, value in values.items()})


def _at_once(shape: Sequence[int], threshold: float) -> 'nir.LIF':
    """Fires by the input of this step alone."""
    return _lif(shape, DT, threshold)


@torch.no_grad()
def run_nir(graph: 'Union[nir.NIRGraph, str]', x: Tensor) -> dict[str, Tensor]:
    """Run a NIR graph that mmsnn has written, in plain PyTorch: the reference for other readers.

    A node sees the sum of all edges that end in it. With v = 0 before the first time step,

    ====== ===============================================
    LIF    v += dt / tau ((v_leak - v) + r x)
    IF     v += dt r x
    both   s = [v >= v_threshold], and v = v_reset where s
    ====== ===============================================

    Args:
        graph: The graph, or the path of its file.
        x: Images (B, C, H, W), which every time step sees, or frames (T, B, C, H, W); their dtype
            is what is computed in.

    Returns:
        What each node gives, (T, B, ...), by its name.

    Raises:
        ValueError: No NIR file, a graph of another dialect, or an input of another shape.
        ImportError: The package nir isn't installed.

    Example:
        >>> import tempfile, torch
        >>> from mmsnn.deploy import export_nir, run_nir
        >>> from mmsnn.models import SGResNet
        >>> path = f'{tempfile.mkdtemp()}/net.nir'
        >>> _ = export_nir(SGResNet(10, base_channels=8, stem='cifar'), path, (32, 32))
        >>> run_nir(path, torch.rand(2, 3, 32, 32))['layer1_0_gate'].shape
        torch.Size([4, 2, 8, 32, 32])
    """
    nir = needed('nir', 'nir')
    if isinstance(graph, str):
        graph = read_nir(graph)
    if not isinstance(graph, nir.NIRGraph):
        raise ValueError(f'run_nir takes a NIRGraph, got a {type(graph).__name__}')
    dialect = graph.metadata.get('dialect')
    if dialect != DIALECT:
        raise ValueError(
            f'this NIR graph is not of the dialect {DIALECT!r} that `mmsnn export nir` writes '
            f'(its metadata say {dialect!r}): run it by the program that made it'
        )
    dt, steps = float(graph.metadata['dt']), int(graph.metadata['time_steps'])
    expected = tuple(int(n) for n in graph.nodes[INPUT].input_type['input'])
    if x.shape[-3:] != expected or x.dim() not in (4, 5) or (x.dim() == 5 and len(x) != steps):
        sizes = ', '.join(str(n) for n in expected)
        raise ValueError(
            f'the graph takes images (B, {sizes}) or frames ({steps}, B, {sizes}), got '
            f'{tuple(x.shape)}'
        )
    values = {INPUT: x.expand(steps, *x.shape) if x.dim() == 4 else x}
    for name in _in_order(graph):
        if name in values:
            continue
        first, *others = (values[source] for source, target in graph.edges if target == name)
        values[name] = _run_node(name, graph.nodes[name], sum(others, first), dt)
    return values


def read_nir(path: str) -> 'nir.NIRGraph':
    """A graph from its file.

    Args:
        path: The file.

    Returns:
        The graph.

    Raises:
        ValueError: The file is no NIR graph, or is cut off.
        FileNotFoundError: There is no such file.
    """
    nir = needed('nir', 'nir')
    try:
        return nir.read(path)
    except FileNotFoundError:
        raise
    except Exception as error:  # HDF5 and nir have many words for a file that isn't theirs
        reason = str(error).split('\n')[0] or type(error).__name__
        raise ValueError(f'{path} cannot be read as a NIR graph: {reason}') from error


def _in_order(graph: 'nir.NIRGraph') -> list[str]:
    """Names so that each node comes after all that it reads."""
    waits = {name: {a for a, b in graph.edges if b == name} for name in graph.nodes}
    order: list[str] = []
    while waits:
        ready = [name for name, sources in waits.items() if not sources - set(order)]
        if not ready:
            raise ValueError(
                f'the NIR graph has a loop through {sorted(waits)[0]}, which mmsnn never writes'
            )
        order += ready
        waits = {name: sources for name, sources in waits.items() if name not in ready}
    return order


def _run_node(name: str, node: Any, x: Tensor, dt: float) -> Tensor:
    kind = type(node).__name__

    def tensor(values: np.ndarray) -> Tensor:
        return torch.as_tensor(np.asarray(values)).to(x.dtype)

    def pair(key: str) -> tuple[int, ...]:
        return tuple(int(n) for n in np.broadcast_to(getattr(node, key), 2))

    if kind == 'Output':
        return x
    if kind == 'Scale':
        return x * tensor(node.scale)
    if kind == 'Conv2d':
        geometry = pair('stride'), pair('padding'), pair('dilation')
        weight, bias = tensor(node.weight), tensor(node.bias)
        y = F.conv2d(x.flatten(0, 1), weight, bias, *geometry, int(node.groups))
        return y.unflatten(0, x.shape[:2])
    if kind == 'SumPool2d':
        kernel, stride, padding = pair('kernel_size'), pair('stride'), pair('padding')
        y = F.avg_pool2d(x.flatten(0, 1), kernel, stride, padding, divisor_override=1)
        return y.unflatten(0, x.shape[:2])
    if kind not in ('IF', 'LIF'):
        raise ValueError(f'node {name} of the NIR graph is a {kind}, which mmsnn never writes')
    threshold, reset = tensor(node.v_threshold), tensor(node.v_reset)
    v = torch.zeros_like(x[0])
    spikes = []
    for current in x:
        if kind == 'IF':
            v = v + tensor(dt * node.r) * current
        else:
            v = v + tensor(dt / node.tau) * ((tensor(node.v_leak) - v) + tensor(node.r) * current)
        fires = v >= threshold
        v = torch.where(fires, reset, v)
        spikes.append(fires.to(x.dtype))
    return torch.stack(spikes)

"""What a profiler measured on a network."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Optional, TypeVar

import numpy as np
from terminaltables import AsciiTable

from .memory import MemoryModel, MemoryUse, energy_of, sum_of

#: Energy of a 32-bit floating-point multiply and add at 45 nm, in joules: 3.7 pJ + 0.9 pJ.
MAC_ENERGY = 4.6e-12
#: Energy of a 32-bit floating-point add at 45 nm, in joules.
AC_ENERGY = 0.9e-12
#: Edges of the bins of membrane potentials, in units of the threshold; the last bin of each end
#: also holds what lies beyond. A neuron fires from 1 on, which is an edge.
POTENTIAL_EDGES = np.linspace(-2, 2, 33)

Number = TypeVar('Number')


@dataclass
class LayerProfile:
    """What was measured on one layer.

    Attributes:
        name: Path of the module in the model.
        type: Its class.
        kind: ``'neuron'``; ``'spikes'`` for weights whose input was spikes in every forward pass:
            0 and 1, or whole numbers behind neurons that give these; ``'real'`` for weights with
            any other input.
        input_shape: Of one image at one time step, without batch; of the last forward pass.
        output_shape: Likewise.
        time_steps: How many times the layer computes an image: T, or 1 where it runs once.
        parameters: Number of its own parameters.
        firing_rate: Spikes a neuron and time step, in [0, 1], or up to the neuron's ``levels``,
            whatever their sign; None for weights, as are the next eight.
        active: Share of neurons and time steps with a spike: the firing rate, unless a neuron gives
            several at once.
        rate_by_step: The same at each time step, (T,).
        rate_by_channel: The same of each channel, (C,).
        dead: Share of channels that never fired.
        saturated: Share of channels whose rate reaches ``saturated_above`` times ``levels``.
        spikes: Spikes an image.
        neurons: Neurons; a mean over images where their sizes differ.
        potentials: Share of membrane potentials in each bin of :data:`POTENTIAL_EDGES`, where they
            were asked for, of a neuron that computes what its record says.
        sops: Synaptic operations an image, over all time steps.
        sops_by_step: The same at each time step, (T,).
        macs: Multiply-accumulates an image.
        ann_macs: Multiply-accumulates an image of the same layer in the ANN twin.
        energy: Joules an image, of the arithmetic.
        memory: What an image reads from memory and writes to it, by the kind of memory: of a layer
            on spikes ``'spikes'``, ``'weights'`` and ``'potentials'``, of one on real values
            ``'activations'`` and ``'weights'``, of neurons ``'potentials'`` and ``'spikes'``.
        ann_memory: The same of the same layer in the ANN twin; nothing of neurons.
        memory_energy: Joules an image, of ``memory``.
        ann_memory_energy: Joules an image, of ``ann_memory``.
        levels: The most spikes of a neuron at one time step.
    """

    name: str
    type: str
    kind: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    time_steps: int = 1
    parameters: int = 0
    firing_rate: Optional[float] = None
    active: Optional[float] = None
    rate_by_step: Optional[np.ndarray] = None
    rate_by_channel: Optional[np.ndarray] = None
    dead: Optional[float] = None
    saturated: Optional[float] = None
    spikes: Optional[float] = None
    neurons: Optional[float] = None
    potentials: Optional[np.ndarray] = None
    sops: float = 0.0
    sops_by_step: Optional[np.ndarray] = None
    macs: float = 0.0
    ann_macs: float = 0.0
    energy: float = 0.0
    memory: dict[str, MemoryUse] = field(default_factory=dict)
    ann_memory: dict[str, MemoryUse] = field(default_factory=dict)
    memory_energy: float = 0.0
    ann_memory_energy: float = 0.0
    levels: int = 1


@dataclass
class SpikeProfile:
    """What was measured on a network; operations and energy are those of one image.

    Attributes:
        layers: Neurons and layers with weights, in the order in which they ran first.
        images: Images measured.
        parameters: Parameters of the whole model.
        mac_energy: Joules a multiply-accumulate.
        ac_energy: Joules an accumulate.
        saturated_above: Rate from which on a channel counts as saturated.
        not_counted: Names of modules with weights of their own that ran and are neither
            convs, linear layers nor norms: their operations are missing.
        memory_model: The constants of the energy of memory.
    """

    layers: list[LayerProfile]
    images: int
    parameters: int
    mac_energy: float = MAC_ENERGY
    ac_energy: float = AC_ENERGY
    saturated_above: float = 0.95
    not_counted: list[str] = field(default_factory=list)
    memory_model: MemoryModel = field(default_factory=MemoryModel)

    def __getitem__(self, name: str) -> LayerProfile:
        """The layer of that name.

        Raises:
            KeyError: There is none.
        """
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise KeyError(f'no layer {name!r} was measured; there are {[x.name for x in self.layers]}')

    @property
    def neuron_layers(self) -> list[LayerProfile]:
        """The layers of neurons."""
        return [layer for layer in self.layers if layer.kind == 'neuron']

    @property
    def firing_rate(self) -> Optional[float]:
        """Spikes a neuron and time step over all neurons; None without any."""
        return self._by_neurons(lambda layer: layer.firing_rate)

    @property
    def active(self) -> Optional[float]:
        """Share of neurons and time steps with a spike, over all neurons; None without any."""
        return self._by_neurons(lambda layer: layer.active)

    def _by_neurons(self, rate: Callable[[LayerProfile], Optional[float]]) -> Optional[float]:
        """Mean over all neurons and time steps."""
        layers = self.neuron_layers
        places = [of_neurons(layer.neurons) * layer.time_steps for layer in layers]
        total = sum(of_neurons(rate(layer)) * n for layer, n in zip(layers, places))
        return total / sum(places) if sum(places) else None

    @property
    def on_spikes(self) -> tuple[float, float]:
        """Joules an image of the layers that spikes enter, and of these in the ANN twin."""
        layers = [layer for layer in self.layers if layer.kind == 'spikes']
        twin = sum(layer.ann_macs for layer in layers) * self.mac_energy
        return sum(layer.energy for layer in layers), twin

    @property
    def memory_on_spikes(self) -> tuple[float, float]:
        """The same of the memory traffic; that of the neurons is in the first."""
        spiking = [layer for layer in self.layers if layer.kind in ('spikes', 'neuron')]
        ours = sum(layer.memory_energy for layer in spiking)
        return ours, sum(layer.ann_memory_energy for layer in spiking)

    @property
    def sops(self) -> float:
        """Synaptic operations an image."""
        return sum(layer.sops for layer in self.layers)

    @property
    def macs(self) -> float:
        """Multiply-accumulates an image."""
        return sum(layer.macs for layer in self.layers)

    @property
    def ann_macs(self) -> float:
        """Multiply-accumulates an image of the ANN twin."""
        return sum(layer.ann_macs for layer in self.layers)

    @property
    def energy(self) -> float:
        """Joules an image of the arithmetic, for SOPs as accumulates and for MACs."""
        return sum(layer.energy for layer in self.layers)

    @property
    def ann_energy(self) -> float:
        """Joules an image of the arithmetic of the ANN twin."""
        return self.ann_macs * self.mac_energy

    @property
    def memory(self) -> dict[str, MemoryUse]:
        """What an image reads and writes in all layers, by the kind of memory."""
        return sum_of(layer.memory for layer in self.layers)

    @property
    def ann_memory(self) -> dict[str, MemoryUse]:
        """The same in the ANN twin."""
        return sum_of(layer.ann_memory for layer in self.layers)

    @property
    def memory_energy(self) -> float:
        """Joules an image, for reading and writing memory."""
        return energy_of(self.memory)

    @property
    def ann_memory_energy(self) -> float:
        """Joules an image, for the memory of the ANN twin."""
        return energy_of(self.ann_memory)

    def to_dict(self) -> dict:
        """Lists, strings and finite numbers, for JSON.

        Returns:
            The attributes, and the sums over layers.
        """
        sums = (
            'firing_rate', 'active', 'sops', 'macs', 'ann_macs', 'energy', 'ann_energy',
            'memory_energy', 'ann_memory_energy',
        )  # fmt: skip
        uses = dict(memory=self.memory, ann_memory=self.ann_memory)
        by_kind = {
            name: {memory: asdict(use) for memory, use in of_all.items()}
            for name, of_all in uses.items()
        }
        numbers = {name: getattr(self, name) for name in sums}
        return plain_numbers({**numbers, **by_kind, **asdict(self)})

    def table(self) -> str:
        """A text table: neurons first, then layers with weights, then the sums.

        Returns:
            Several lines.
        """
        neurons: list[list[object]] = [
            ['neurons', 'shape', 'T', 'rate', 'by step', 'dead', 'saturated', 'memory uJ']
        ]
        for x in self.neuron_layers:
            by_step = ' '.join(f'{rate:.3f}' for rate in of_neurons(x.rate_by_step))
            shape = 'x'.join(map(str, x.output_shape))
            shares = (f'{100 * of_neurons(share):.1f} %' for share in (x.dead, x.saturated))
            memory = f'{x.memory_energy * 1e6:.3f}'
            rate = f'{x.firing_rate:.4f}'
            neurons.append([x.name, shape, x.time_steps, rate, by_step, *shares, memory])
        weights: list[list[object]] = [
            ['weights', 'input', 'T', 'parameters', 'MSOPs', 'MMACs', 'ANN MMACs', 'uJ',
             'memory uJ', 'ANN memory uJ']
        ]  # fmt: skip
        for x in self.layers:
            if x.kind == 'neuron':
                continue
            counts = (f'{count / 1e6:.3f}' for count in (x.sops, x.macs, x.ann_macs))
            energies = (
                f'{energy * 1e6:.3f}' for energy in (x.energy, x.memory_energy, x.ann_memory_energy)
            )
            weights.append([x.name, x.kind, x.time_steps, x.parameters, *counts, *energies])
        rate = '' if self.firing_rate is None else f'mean firing rate {self.firing_rate:.4f}; '
        lines = [
            AsciiTable(rows).table for rows in (neurons, weights) if len(rows) > 1
        ] + [
            f'{self.images} images; {self.parameters / 1e6:.2f} M parameters; {rate}'
            f'{self.sops / 1e6:.2f} M SOPs and {self.macs / 1e6:.2f} M MACs an image',
            f'arithmetic {self.energy * 1e6:.2f} uJ an image; the ANN twin '
            f'{self.ann_macs / 1e6:.2f} M MACs, {self.ann_energy * 1e6:.2f} uJ'
            f'{_of_it(self.energy, self.ann_energy)}'
            f' ({self.mac_energy * 1e12:g} pJ a MAC, {self.ac_energy * 1e12:g} pJ an accumulate; '
            "without memory traffic and the neurons' own updates)",
            f'memory traffic {_by_kind(self.memory)} an image; the ANN twin '
            f'{_by_kind(self.ann_memory)}{_of_it(self.memory_energy, self.ann_memory_energy)}'
            f' ({self.memory_model.name}; every use of a word is an access; '
            'without reuse, biases and addressing)',
        ]  # fmt: skip
        if self.not_counted:
            lines.append(f'not counted: {", ".join(self.not_counted)}')
        return '\n'.join(lines)


def _of_it(part: float, whole: float) -> str:
    return f', {part / whole:.2f} of it' if whole else ''


def _by_kind(uses: dict[str, MemoryUse]) -> str:
    """The energy in words, as ``'3.00 uJ (weights 2.00, activations 1.00)'``."""
    parts = [f'{memory} {1e6 * use.energy:.2f}' for memory, use in uses.items() if use.energy]
    return f'{1e6 * energy_of(uses):.2f} uJ ({", ".join(parts) or "none"})'


def of_neurons(value: Optional[Number]) -> Number:
    """What a layer of neurons, or a network with some, always has.

    Args:
        value: An attribute of a profile that is None for weights alone.

    Returns:
        The same.
    """
    assert value is not None
    return value


def plain_numbers(value: Any) -> Any:
    """Numpy to lists, and None for what JSON cannot say.

    Args:
        value: Numbers, strings and arrays, in lists and dicts.

    Returns:
        The same without arrays, infinities and NaN.
    """
    if isinstance(value, dict):
        return {key: plain_numbers(v) for key, v in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain_numbers(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value

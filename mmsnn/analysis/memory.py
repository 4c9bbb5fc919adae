"""Words that a network reads from memory and writes to it, and an estimate of their energy.

The counts are those of Lemaire et al., *An Analytical Estimation of Spiking Neural Networks Energy
Efficiency*, ICONIP 2022 (arXiv 2210.13107), with its equations numbered as in its authors' code
(``EnergyEstimationMetric`` of qualia-plugin-snn). They are of a machine where each layer has a
memory of its own for weights, for potentials and for activations, and a queue of spikes, and where
**every use of a word is an access**: nothing is kept in registers. Layers on spikes work by events,
all others are dense.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

#: What is held apart: each layer has a memory of each.
MEMORIES = ('weights', 'potentials', 'spikes', 'activations')


@dataclass(frozen=True)
class MemoryModel:
    """Constants of the energy of memory.

    The defaults are the caches of 45 nm in Horowitz, *Computing's energy problem (and what we can
    do about it)*, ISSCC 2014: 10, 20 and 100 pJ an access of 64 bits to 8 KiB, 32 KiB and 1 MiB,
    and 1.3 to 2.6 nJ to DRAM, of which the least is taken. As in Lemaire et al., each word is an
    access of its own and costs a whole one, however narrow it is: fewer bits make a memory smaller,
    and only by that cheaper. Words of 32 bits and a queue of 1000 spikes are those of the authors'
    configs.

    Attributes:
        name: What tables and reports call the model.
        levels: Size in bytes, and joules an access of a memory of that size; sizes ascend.
        dram: Joules an access of external memory, the most that any costs; infinity for none.
        weight_bits: Bits of a weight.
        potential_bits: Bits of a membrane potential, or of a sum that is to become one.
        activation_bits: Bits of a value that is no spike.
        message_bits: Bits of a spike in the queue: the address of the neuron that sent it.
        messages: Spikes that a queue holds.

    Raises:
        ValueError: Levels that don't ascend, or a number out of range.

    Example:
        >>> from mmsnn.analysis import MemoryModel
        >>> MemoryModel(name='a chip with 8-bit weights', weight_bits=8).weight_bits
        8
    """

    name: str = 'Lemaire et al. 2022, SRAM of 45 nm'
    levels: tuple[tuple[float, float], ...] = (
        (8 * 2**10, 10e-12),
        (32 * 2**10, 20e-12),
        (2**20, 100e-12),
    )
    dram: float = 1300e-12
    weight_bits: int = 32
    potential_bits: int = 32
    activation_bits: int = 32
    message_bits: int = 32
    messages: int = 1000

    def __post_init__(self):
        sizes = [size for size, _ in self.levels]
        if not sizes or sizes[0] < 0 or any(a >= b for a, b in zip(sizes, sizes[1:])):
            raise ValueError(
                f'levels must be (bytes, joules) of ascending bytes, got {self.levels}'
            )
        for energy in (*(energy for _, energy in self.levels), self.dram):
            if not energy >= 0:
                raise ValueError(f'an access must cost at least 0 joules, got {energy}')
        for name in (
            'weight_bits',
            'potential_bits',
            'activation_bits',
            'message_bits',
            'messages',
        ):
            if getattr(self, name) < 1:
                raise ValueError(f'{name} must be at least 1, got {getattr(self, name)}')


class Access(NamedTuple):
    """Words read from one memory and written to it.

    - ``memory``: one of :data:`MEMORIES`.
    - ``words``: how many the memory holds; of spikes the model says it.
    - ``reads``: words read.
    - ``writes``: words written.
    """

    memory: str
    words: int
    reads: float
    writes: float


@dataclass
class MemoryUse:
    """What one image asks of memories of a kind.

    Attributes:
        reads: Words read.
        writes: Words written.
        energy: Joules of both.
    """

    reads: float = 0.0
    writes: float = 0.0
    energy: float = 0.0


def event_accesses(spikes: float, sops: float, weights: int, outputs: int) -> list[Access]:
    r"""Accesses of a conv or linear layer that spikes enter, one event after the other.

    Each spike is read once from the queue (equation 5). For each output that it reaches, a weight
    is read (7, 8), and the sum or potential there is read and written back (first terms of 9, 10,
    14 and 15). The paper has :math:`\theta \, C_{out} k_H k_W` for these, with :math:`\theta` the
    spikes; we take the synaptic operations, which are the same without borders, strides and groups
    (our reading). A bias is not counted.

    Args:
        spikes: Spikes at the input; a count of n is n of them.
        sops: Synaptic operations, as :class:`~mmsnn.analysis.SpikeProfiler` counts them.
        weights: Weights of the layer.
        outputs: Outputs of one image at one time step.

    Returns:
        The accesses.

    Example:
        >>> from mmsnn.analysis.memory import event_accesses
        >>> [access.reads for access in event_accesses(2, 18, 9, 16)]
        [2, 18, 18]
    """
    return [
        Access('spikes', 0, spikes, 0),
        Access('weights', weights, sops, 0),
        Access('potentials', outputs, sops, sops),
    ]


def neuron_accesses(neurons: int, updates: float, spikes: float) -> list[Access]:
    """Accesses of spiking neurons: their updates, and their spikes.

    At each time step each potential is read, leaks, is compared with the threshold and written back
    (second terms of equations 9, 10, 14 and 15, times T), and each spike goes into the queue (13).

    Args:
        neurons: Neurons of one image.
        updates: Neurons, times time steps, times images.
        spikes: Their spikes.

    Returns:
        The accesses.
    """
    return [Access('potentials', neurons, updates, updates), Access('spikes', 0, 0, spikes)]


def dense_accesses(
    inputs: int, input_reads: float, macs: float, weights: int, outputs: int, written: float
) -> list[Access]:
    """Accesses of a conv or linear layer that reads real values, as every layer of an ANN.

    A weight is read for each multiply-accumulate (equation 6). A conv reads an input for each as
    well (3), zero padding included; a linear layer reads each input once (4). Each output is
    written once (11, 12). A bias is not counted. A transposed conv is counted as a conv (our
    reading).

    Args:
        inputs: Inputs of one image at one time step.
        input_reads: How many inputs are read, over all images and time steps.
        macs: Multiply-accumulates, likewise.
        weights: Weights of the layer.
        outputs: Outputs of one image at one time step.
        written: How many outputs are written, over all images and time steps.

    Returns:
        The accesses.
    """
    return [
        Access('activations', inputs, input_reads, 0),
        Access('weights', weights, macs, 0),
        Access('activations', outputs, 0, written),
    ]


def add_up(accesses: Iterable[Access]) -> list[Access]:
    """Join accesses to memories of one kind and size.

    Args:
        accesses: Any.

    Returns:
        One for each kind and size.
    """
    sums: dict[tuple[str, int], tuple[float, float]] = {}
    for memory, words, reads, writes in accesses:
        before = sums.get((memory, words), (0, 0))
        sums[memory, words] = before[0] + reads, before[1] + writes
    return [Access(*key, *counts) for key, counts in sums.items()]


def access_energy(size: float, model: MemoryModel) -> float:
    """Energy of one access, by the size of the memory.

    A straight line joins two levels, as in SpikingJelly's implementation of the paper; its authors'
    code fits a single line to all three. The rest is our reading: a memory below the smallest level
    costs as much as that level, above the largest the last line goes on, and nothing costs more
    than DRAM.

    Args:
        size: Bytes.
        model: The constants.

    Returns:
        Joules.

    Example:
        >>> from mmsnn.analysis import MemoryModel, access_energy
        >>> [round(1e12 * access_energy(2**10 * k, MemoryModel())) for k in (1, 8, 20, 1024, 2016)]
        [10, 10, 15, 100, 180]
    """
    sizes, energies = zip(*model.levels)
    energy = float(np.interp(size, sizes, energies))
    if size > sizes[-1] and len(sizes) > 1:
        slope = (energies[-1] - energies[-2]) / (sizes[-1] - sizes[-2])
        energy += max(slope, 0.0) * (size - sizes[-1])
    return min(energy, model.dram)


def memory_size(memory: str, words: int, model: MemoryModel) -> float:
    """Bytes of a memory.

    Args:
        memory: One of :data:`MEMORIES`.
        words: Words that it holds; the queue of spikes holds as many as the model says.
        model: The constants.

    Returns:
        Bytes.
    """
    if memory == 'spikes':
        return model.messages * model.message_bits / 8
    bits = dict(
        weights=model.weight_bits,
        potentials=model.potential_bits,
        activations=model.activation_bits,
    )
    return words * bits[memory] / 8


def use_of(accesses: Iterable[Access], images: int, model: MemoryModel) -> dict[str, MemoryUse]:
    """What accesses come to.

    Args:
        accesses: Of all images.
        images: How many these are.
        model: The constants.

    Returns:
        Of each of :data:`MEMORIES`, what one image takes; those without accesses are left out.
    """
    uses: dict[str, MemoryUse] = {}
    for memory, words, reads, writes in accesses:
        use = uses.setdefault(memory, MemoryUse())
        use.reads += reads / images
        use.writes += writes / images
        each = access_energy(memory_size(memory, words, model), model)
        use.energy += (reads + writes) * each / images
    return uses


def sum_of(uses: Iterable[dict[str, MemoryUse]]) -> dict[str, MemoryUse]:
    """The sums over layers.

    Args:
        uses: Of each layer, as of :func:`use_of`.

    Returns:
        The same for all together, in the order of :data:`MEMORIES`.
    """
    sums = {memory: MemoryUse() for memory in MEMORIES}
    for of_layer in uses:
        for memory, use in of_layer.items():
            for name in ('reads', 'writes', 'energy'):
                setattr(sums[memory], name, getattr(sums[memory], name) + getattr(use, name))
    return sums


def energy_of(uses: dict[str, MemoryUse]) -> float:
    """Joules of all memories together.

    Args:
        uses: As of :func:`use_of`.

    Returns:
        Joules an image.
    """
    return math.fsum(use.energy for use in uses.values())

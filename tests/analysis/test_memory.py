"""Words read and written, and their energy, against counts by hand and SpikingJelly."""

import dataclasses
import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_nets import backbone, images
from torch import nn

from mmsnn.analysis import MEMORIES, MemoryModel, access_energy, profile
from mmsnn.analysis.memory import (
    Access,
    add_up,
    energy_of,
    event_accesses,
    memory_size,
    neuron_accesses,
    use_of,
)
from mmsnn.models.layers import IFNeuron, ILIFNeuron, LIFNeuron

#: Levels of a few bytes, so that memories of a small network lie on all of them.
TINY = MemoryModel(
    name='tiny',
    levels=((32, 1.0), (64, 2.0), (128, 6.0)),
    dram=50.0,
    potential_bits=16,
    messages=8,
)


class ThreeLayers(nn.Module):
    """A conv on an image, neurons, and a conv on their spikes: the image comes at every step."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 2, 1, bias=False)
        self.neuron = LIFNeuron(decay=0.0)
        self.second = nn.Conv2d(2, 3, 3, padding=1, bias=False)
        nn.init.constant_(self.first.weight, 1)

    def forward(self, x):
        current = self.first(x)
        spikes = self.neuron(torch.stack([current, current]))
        return self.second(spikes.flatten(0, 1))


def one_image():
    x = torch.full((1, 1, 4, 4), 0.5)
    x[0, 0, 0, 0] = 2  # at a corner, and
    x[0, 0, 1, 1] = 3  # inside: both channels fire there, at both steps
    return x


def uses(memory):
    return {kind: (use.reads, use.writes, use.energy) for kind, use in memory.items()}


def test_a_small_network_by_hand():
    result = profile(ThreeLayers(), [one_image()], memory_model=TINY)
    # 16 pixels, 1 input channel, 2 outputs: 32 products. Inputs take 64 bytes and outputs 128, at
    # 2 J and 6 J an access; the 2 weights take 8 bytes, which costs as much as 32.
    first = result['first']
    assert (first.kind, first.time_steps) == ('real', 1)
    assert uses(first.memory) == {
        'activations': (32, 32, 32 * 2 + 32 * 6),
        'weights': (32, 0, 32 * 1),
    }
    assert uses(first.ann_memory) == uses(first.memory)
    # 2 channels x 16 places, twice: 64 updates of potentials in 64 bytes, as each has 16 bits.
    # 2 places x 2 channels x 2 steps are 8 spikes into a queue of 8 x 32 bits.
    neuron = result['neuron']
    assert neuron.spikes == 8
    assert uses(neuron.memory) == {'potentials': (64, 64, 128 * 2), 'spikes': (0, 8, 8 * 1)}
    assert neuron.ann_memory == {}
    assert neuron.ann_memory_energy == 0
    # A spike at the corner reaches 2 x 2 places, one inside 3 x 3, of 3 channels each, from both
    # channels at both steps: 4 x (12 + 27). 54 weights take 216 bytes: the line from (64, 2) to
    # (128, 6) goes on to 6 + 88 x 4 / 64. The 48 outputs take 96 bytes of 16 bits each.
    second = result['second']
    sops = 4 * (12 + 27)
    assert second.kind == 'spikes'
    assert second.sops == sops
    assert uses(second.memory) == {
        'spikes': (8, 0, 8 * 1),
        'weights': (sops, 0, sops * 11.5),
        'potentials': (sops, sops, 2 * sops * 4),
    }
    # The twin multiplies all of 48 outputs x 18 taps; its 32 inputs take 128 bytes and its 48
    # outputs 192.
    macs = 48 * 18
    assert second.ann_macs == macs
    assert uses(second.ann_memory) == {
        'activations': (macs, 48, macs * 6 + 48 * 10),
        'weights': (macs, 0, macs * 11.5),
    }
    assert first.memory_energy == 32 * 9
    assert result.memory_energy == pytest.approx(
        32 * 9 + 256 + 8 + (8 + sops * 11.5 + 2 * sops * 4)
    )
    assert result.ann_memory_energy == pytest.approx(32 * 9 + macs * 17.5 + 480)
    ours, twin = result.memory_on_spikes
    assert ours == pytest.approx(result.memory_energy - 32 * 9)
    assert twin == pytest.approx(result.ann_memory_energy - 32 * 9)
    assert uses(result.memory)['weights'] == (32 + sops, 0, 32 + sops * 11.5)
    assert list(result.memory) == list(MEMORIES)
    # The arithmetic is what it was, and not in it.
    assert result.energy == pytest.approx(sops * 0.9e-12 + 32 * 4.6e-12)


def test_a_linear_layer_by_hand():
    # Time and batch are axes of their own, and of the memory neither is part.
    net = nn.Sequential(LIFNeuron(decay=0.0), nn.Linear(3, 2))
    x = torch.zeros(2, 4, 3)  # T, B, C
    x[0, 0, 0] = x[1, 3, 2] = 2
    result = profile(net, [x], memory_model=TINY)
    layer = result['1']
    # Two spikes of four images, each to two outputs, of 2 x 2 bytes; 6 weights of 24 bytes.
    assert uses(layer.memory) == {
        'spikes': (0.5, 0, 0.5), 'weights': (1, 0, 1), 'potentials': (1, 1, 2),
    }  # fmt: skip
    # Each of 3 inputs is read once, not once a product, and T = 1.
    assert uses(layer.ann_memory) == {'activations': (3, 2, 5), 'weights': (6, 0, 6)}
    assert result['0'].memory['potentials'].reads == 2 * 3


def test_access_energy_of_the_levels():
    model = MemoryModel()
    kib = [access_energy(2**10 * size, model) * 1e12 for size in (0.1, 8, 20, 32, 528, 1024)]
    assert kib == pytest.approx([10, 10, 15, 20, 60, 100])
    # The line goes on, to where DRAM costs less.
    assert access_energy(2**20 + 992 * 2**10, model) == pytest.approx(180e-12)
    assert access_energy(2**34, model) == 1300e-12
    assert access_energy(2**34, dataclasses.replace(model, dram=math.inf)) > 1e-6
    flat = MemoryModel(levels=((1024, 5e-12),))
    assert [access_energy(size, flat) for size in (1, 2**30)] == [5e-12, 5e-12]


def test_narrow_words_make_memories_smaller():
    wide, narrow = MemoryModel(), MemoryModel(weight_bits=8, potential_bits=12, messages=2)
    assert [memory_size('weights', 100, model) for model in (wide, narrow)] == [400, 100]
    assert memory_size('potentials', 100, narrow) == 150
    assert memory_size('activations', 100, narrow) == 400
    assert memory_size('spikes', 0, narrow) == 8
    access = [Access('weights', 8 * 2**10, 7, 0)]
    energies = [energy_of(use_of(access, 1, model)) for model in (wide, narrow)]
    assert energies == pytest.approx([7 * 20e-12, 7 * 10e-12])


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(levels=()), 'levels must be'),
        (dict(levels=((64, 1e-12), (64, 2e-12))), 'ascending'),
        (dict(levels=((64, -1e-12),)), 'at least 0 joules, got -1e-12'),
        (dict(dram=math.nan), 'at least 0 joules, got nan'),
        (dict(weight_bits=0), 'weight_bits must be at least 1, got 0'),
        (dict(messages=0), 'messages must be at least 1, got 0'),
    ],
)
def test_constants_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        MemoryModel(**options)


def test_an_ann_is_its_own_twin():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5))
    result = profile(net, [torch.rand(2, 3, 8, 8)])
    assert result.memory == result.ann_memory
    assert result.memory_energy == result.ann_memory_energy > 0
    assert result.memory['potentials'].reads == result.memory['spikes'].writes == 0
    macs, linear = 4 * 36 * 27, 4 * 36
    assert result.memory['weights'].reads == macs + linear * 5
    assert result.memory['activations'].reads == macs + linear
    assert result.memory['activations'].writes == 4 * 36 + 5


def test_several_images_of_several_sizes():
    # The memory of each size costs what it costs; the mean is over images.
    net = ThreeLayers()
    small, large = one_image(), torch.rand(1, 1, 8, 8) + 1.5
    apart = [profile(net, [x], memory_model=TINY).memory_energy for x in (small, large)]
    together = profile(net, [small, large], memory_model=TINY)
    assert together.memory_energy == pytest.approx(sum(apart) / 2)


def test_counts_are_so_many_spikes():
    net = nn.Sequential(ILIFNeuron(D=4, decay=0.0), nn.Conv2d(1, 1, 1, bias=False))
    x = torch.zeros(1, 1, 1, 2, 2)
    x[0, 0, 0, 0, 0] = 3.2

    class Folded(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            return net[1](net[0](x).flatten(0, 1))

    result = profile(Folded(), [x])
    assert result['net.1'].sops == 3
    assert result['net.1'].memory['spikes'].reads == result['net.0'].memory['spikes'].writes == 3


# SpikingJelly


#: As its reading of Lemaire et al.: nothing for no memory, and no more than 100 pJ.
JELLY = MemoryModel(
    levels=((0, 0.0), *MemoryModel().levels, (2**30, 100e-12)),
)


class TwoConvs(nn.Module):
    """Spikes (T, B, C, H, W) into a conv, neurons, and a conv on their spikes."""

    def __init__(self, kernel, stride):
        super().__init__()
        options = dict(padding=kernel // 2, bias=False)
        self.first = nn.Conv2d(3, 4, kernel, stride, **options)
        self.neuron = IFNeuron()
        self.second = nn.Conv2d(4, 6, kernel, groups=2, **options)
        with torch.no_grad():
            self.first.weight.abs_()

    def forward(self, x):
        currents = self.first(x.flatten(0, 1)).unflatten(0, (len(x), -1))
        return self.second(self.neuron(currents).flatten(0, 1))


def both(kernel, stride=1, batch=1):
    """Profiles of a network by us, and the same network of SpikingJelly's layers with an input."""
    layers = pytest.importorskip(
        'spikingjelly.activation_based.layer', reason='SpikingJelly is not installed'
    )
    neurons = pytest.importorskip('spikingjelly.activation_based.neuron')
    ours = TwoConvs(kernel, stride)
    x = (torch.rand(3, batch, 3, 6, 6) < 0.3).float()
    options = dict(padding=kernel // 2, bias=False, step_mode='m')
    theirs = nn.Sequential(
        layers.Conv2d(3, 4, kernel, stride, **options),
        neurons.IFNode(step_mode='m'),
        layers.Conv2d(4, 6, kernel, groups=2, **options),
    )
    theirs[0].weight.data, theirs[2].weight.data = ours.first.weight, ours.second.weight
    result = profile(ours, [x], memory_model=JELLY)
    assert result['second'].kind == 'spikes'
    assert result['neuron'].spikes > 0
    return result, theirs.eval(), x


@pytest.mark.parametrize(('kernel', 'stride'), [(1, 1), (3, 1), (3, 2)])
def test_reads_of_weights_and_updates_of_potentials_are_spikingjellys(kernel, stride):
    """Its neuromorphic counter is exact at borders and strides, as ours; it has no energies."""
    counters = pytest.importorskip('spikingjelly.activation_based.op_counter')
    result, theirs, x = both(kernel, stride, batch=2)
    counter = counters.NeuromorphicMemoryAccessCounter()
    with torch.no_grad(), counters.base.ModuleCounterMode([counter], model=theirs):
        theirs(x)
    theirs = {name: count / 4 / 2 for name, count in counter.get_counts()['Global'].items()}
    reads = [result[name].memory['weights'].reads for name in ('first', 'second')]
    assert theirs['weight_read_bytes'] == sum(reads) > 0
    updates = result['neuron'].memory['potentials']
    assert theirs['neuron_state_read_bytes'] == updates.reads == updates.writes
    assert theirs['neuron_state_write_bytes'] == updates.writes


def lemaire(model, x):
    """SpikingJelly's account: counts in words, and picojoules."""
    counters = pytest.importorskip(
        'spikingjelly.activation_based.op_counter', reason='SpikingJelly is not installed'
    )
    report = counters.analytical_energy.estimate_lemaire_energy(model, x)
    counts = {name: value / 4 for name, value in report.counts.items() if name.endswith('bytes')}
    return counts, report.breakdown_pj


def test_the_energy_of_spikes_is_spikingjellys():
    """All of its reading of Lemaire et al., where it counts the same: without borders."""
    result, theirs, x = both(kernel=1)
    counts, energies = lemaire(theirs, x)
    spikes, weights, potentials = (
        result.memory[kind] for kind in ('spikes', 'weights', 'potentials')
    )
    assert counts == {
        'read_in_bytes': spikes.reads,
        'write_out_bytes': spikes.writes,
        'read_params_bytes': weights.reads,
        'read_potential_bytes': potentials.reads,
        'write_potential_bytes': potentials.writes,
    }
    for name, use in (('inout', spikes), ('params', weights), ('potential', potentials)):
        assert energies[f'{name}_pj'] == pytest.approx(use.energy * 1e12)
        assert use.energy > 0
    assert energies['memory_pj'] == pytest.approx(result.memory_energy * 1e12)


def test_at_borders_spikingjelly_reads_weights_that_no_output_needs():
    """There it has the paper's kernel for each spike, and we the outputs that there are."""
    result, theirs, x = both(kernel=3, stride=2)
    counts, _ = lemaire(theirs, x)
    assert counts['read_in_bytes'] == result.memory['spikes'].reads
    first, second = (result[name].memory['spikes'].reads for name in ('first', 'second'))
    assert counts['read_params_bytes'] == 9 * (4 * first + 3 * second)
    assert counts['read_params_bytes'] > result.memory['weights'].reads


@pytest.mark.parametrize('layer', ['conv', 'linear'])
def test_the_energy_of_an_ann_is_spikingjellys(layer):
    if layer == 'conv':
        x = torch.rand(1, 3, 9, 9)
        net = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.Conv2d(8, 4, 3, 2, bias=False)
        )
    else:
        x, net = torch.rand(1, 40), nn.Sequential(nn.Linear(40, 30, bias=False))
    counts, energies = lemaire(net, x)
    result = profile(net, [x], memory_model=JELLY)
    for memory, energy in (
        (result.memory, result.memory_energy),
        (result.ann_memory, result.ann_memory_energy),
    ):
        assert memory['activations'].reads == counts['read_in_bytes']
        assert memory['activations'].writes == counts['write_out_bytes']
        assert memory['weights'].reads == counts['read_params_bytes']
        assert energy * 1e12 == pytest.approx(energies['memory_pj'])


@given(st.floats(0, 2**21))
def test_the_energy_of_an_access_is_spikingjellys(size):
    counters = pytest.importorskip(
        'spikingjelly.activation_based.op_counter', reason='SpikingJelly is not installed'
    )
    costs = counters.analytical_energy.LemaireEnergyCostConfig()
    assert access_energy(size, JELLY) * 1e12 == pytest.approx(4 * costs.memory_cost_pj(size))


# What holds for all


COUNTS = st.integers(0, 10**9)
WORDS = st.integers(1, 10**9)


@given(spikes=COUNTS, fan_out=st.integers(1, 500), factor=COUNTS, weights=WORDS, outputs=WORDS)
def test_a_layer_on_spikes_pays_for_each_of_them(spikes, fan_out, factor, weights, outputs):
    def energy(spikes):
        return energy_of(
            use_of(event_accesses(spikes, spikes * fan_out, weights, outputs), 1, MemoryModel())
        )

    assert energy(0) == 0
    assert energy(factor * spikes) == pytest.approx(factor * energy(spikes))
    assert energy(spikes) >= 10e-12 * spikes * (1 + 3 * fan_out) * (1 - 1e-12)


@given(st.lists(st.builds(Access, st.sampled_from(MEMORIES), WORDS, COUNTS, COUNTS)), WORDS)
def test_joined_accesses_cost_the_same(accesses, images):
    joined = add_up(accesses)
    assert len({access[:2] for access in joined}) == len(joined)
    a, b = (use_of(each, images, MemoryModel()) for each in (accesses, joined))
    assert set(a) == set(b)
    for memory, use in a.items():
        assert dataclasses.astuple(use) == pytest.approx(dataclasses.astuple(b[memory]))
        assert min(dataclasses.astuple(use)) >= 0


@given(st.floats(0, 1e12), st.floats(0, 1e12))
def test_larger_memories_cost_no_less(a, b):
    a, b = (access_energy(size, MemoryModel()) for size in sorted((a, b)))
    assert 10e-12 <= a <= b * (1 + 1e-12) <= 1300e-12 * (1 + 1e-9)


def test_silence_still_costs_the_updates_of_the_potentials():
    result = profile(ThreeLayers(), [torch.zeros(1, 1, 4, 4)], memory_model=TINY)
    assert result['second'].memory_energy == 0
    assert uses(result['neuron'].memory) == {'potentials': (64, 64, 256), 'spikes': (0, 0, 0)}
    # Of a queue and of memories that are there, the accesses are the neurons'.
    assert neuron_accesses(32, 64, 0)[0] == Access('potentials', 32, 64, 64)


# Where it is shown


def test_table_and_json_show_both():
    result = profile(backbone(), [images()])
    table = result.table()
    assert 'arithmetic ' in table
    assert f'memory traffic {1e6 * result.memory_energy:.2f} uJ (weights ' in table
    assert 'Lemaire et al. 2022' in table
    assert 'ANN memory uJ' in table
    numbers = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert numbers['memory_energy'] == pytest.approx(
        sum(layer['memory_energy'] for layer in numbers['layers'])
    )
    assert numbers['memory']['potentials']['writes'] == pytest.approx(
        sum(
            layer['memory'].get('potentials', {'writes': 0})['writes']
            for layer in numbers['layers']
        )
    )
    assert numbers['ann_memory_energy'] == pytest.approx(
        sum(use['energy'] for use in numbers['ann_memory'].values())
    )
    assert numbers['memory_model']['levels'][0] == [8192, 10e-12]
    # Endless memory is no number of JSON's.
    endless = MemoryModel(dram=math.inf)
    numbers = profile(backbone(), [images()], memory_model=endless).to_dict()
    assert numbers['memory_model']['dram'] is None


def test_more_time_steps_update_more_potentials():
    net = backbone()
    reads = []
    for net.time_steps in (2, 4):
        result = profile(net, [images()])
        reads.append(sum(x.memory['potentials'].reads for x in result.neuron_layers))
        twin = result.ann_memory_energy
    assert reads[1] == 2 * reads[0]
    net.time_steps = 1
    assert profile(net, [images()]).ann_memory_energy == pytest.approx(twin)

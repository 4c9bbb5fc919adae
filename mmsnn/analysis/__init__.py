"""What a spiking network does: spikes, rates, operations, energy; gradients by depth."""

from .counts import fan_out
from .isometry import (
    ISOMETRIC_PHI,
    SOUND_GRADIENT,
    BlockIsometry,
    Isometry,
    jacobian_moment,
    measure_isometry,
    residual_blocks,
)
from .measured import AC_ENERGY, MAC_ENERGY, POTENTIAL_EDGES, LayerProfile, SpikeProfile
from .memory import MEMORIES, MemoryModel, MemoryUse, access_energy
from .observe import eval_mode, neuron_layers, some_layers
from .profile import SpikeProfiler, profile
from .record import Attention, SpikeRecorder

__all__ = [
    'AC_ENERGY',
    'ISOMETRIC_PHI',
    'MAC_ENERGY',
    'MEMORIES',
    'POTENTIAL_EDGES',
    'SOUND_GRADIENT',
    'Attention',
    'BlockIsometry',
    'Isometry',
    'LayerProfile',
    'MemoryModel',
    'MemoryUse',
    'SpikeProfile',
    'SpikeProfiler',
    'SpikeRecorder',
    'access_energy',
    'eval_mode',
    'fan_out',
    'jacobian_moment',
    'measure_isometry',
    'neuron_layers',
    'profile',
    'residual_blocks',
    'some_layers',
]

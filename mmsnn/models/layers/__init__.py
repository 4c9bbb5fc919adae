"""Neurons, norm, gates and decoders, usable by config and by hand."""

from .builder import build_neuron, build_norm
from .decoders import (
    AttentionSpikeDecoder,
    LastDecoder,
    LevelsDecoder,
    MembraneDecoder,
    RateDecoder,
    SpikeDecoder,
    build_decoder,
)
from .gates import (
    Gate,
    LearnedGate,
    ResidualGate,
    SEWAddGate,
    SEWAndGate,
    SEWIAndGate,
    build_gate,
)
from .neurons import (
    IFNeuron,
    ILIFNeuron,
    LIFNeuron,
    PLIFNeuron,
    SpikingNeuron,
    check_time_steps,
)
from .pool import SpikeMaxPool2d
from .spike_conv import SpikeConv2d, build_conv, conv_of_spikes
from .spiking_layer import spiking_layer
from .streaming import Streaming
from .tdbn import TDBN, SyncTDBN
from .time_axis import (
    Spikes,
    fold_frames,
    in_a_row,
    mark_spikes,
    side_by_side,
    unfold_frames,
    why_a_decoder,
)

__all__ = [
    'TDBN',
    'AttentionSpikeDecoder',
    'Gate',
    'IFNeuron',
    'ILIFNeuron',
    'LIFNeuron',
    'LastDecoder',
    'LearnedGate',
    'LevelsDecoder',
    'MembraneDecoder',
    'PLIFNeuron',
    'RateDecoder',
    'ResidualGate',
    'SEWAddGate',
    'SEWAndGate',
    'SEWIAndGate',
    'SpikeConv2d',
    'SpikeDecoder',
    'SpikeMaxPool2d',
    'Spikes',
    'SpikingNeuron',
    'Streaming',
    'SyncTDBN',
    'build_conv',
    'build_decoder',
    'build_gate',
    'build_neuron',
    'build_norm',
    'check_time_steps',
    'conv_of_spikes',
    'fold_frames',
    'in_a_row',
    'mark_spikes',
    'side_by_side',
    'spiking_layer',
    'unfold_frames',
    'why_a_decoder',
]

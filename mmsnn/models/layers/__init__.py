"""Neurons, norm, gates and decoders, usable by config and by hand."""

from .builder import build_decoder, build_gate, build_neuron, build_norm
from .decoders import (
    AttentionSpikeDecoder,
    LastDecoder,
    MembraneDecoder,
    RateDecoder,
    SpikeDecoder,
)
from .gates import Gate, LearnedGate, ResidualGate, SEWAddGate, SEWAndGate, SEWIAndGate
from .neurons import IFNeuron, LIFNeuron, PLIFNeuron, check_time_steps
from .pool import SpikeMaxPool2d
from .spike_conv import SpikeConv2d, build_conv, conv_of_spikes
from .spiking_layer import spiking_layer
from .tdbn import TDBN, SyncTDBN
from .time_axis import Spikes, fold_frames, mark_spikes, unfold_frames, why_a_decoder

__all__ = [
    'TDBN',
    'AttentionSpikeDecoder',
    'Gate',
    'IFNeuron',
    'LIFNeuron',
    'LastDecoder',
    'LearnedGate',
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
    'SyncTDBN',
    'build_conv',
    'build_decoder',
    'build_gate',
    'build_neuron',
    'build_norm',
    'check_time_steps',
    'conv_of_spikes',
    'fold_frames',
    'mark_spikes',
    'spiking_layer',
    'unfold_frames',
    'why_a_decoder',
]

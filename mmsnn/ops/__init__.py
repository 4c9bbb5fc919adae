"""Spiking mathematics: tensors in, tensors out.

Nothing here knows a config, a registry or MMDetection; torch is all it needs. These functions are
the boundary behind which faster kernels may stand: whoever calls them sees the same numbers.
"""

from .decode import attention_decode, last_decode, rate_decode
from .gate import iand, select, spike_or
from .neuron import RESETS, lif
from .surrogate import SURROGATES, fire, surrogate_gradient

__all__ = [
    'RESETS',
    'SURROGATES',
    'attention_decode',
    'fire',
    'iand',
    'last_decode',
    'lif',
    'rate_decode',
    'select',
    'spike_or',
    'surrogate_gradient',
]

"""Spiking mathematics: tensors in, tensors out.

Nothing here knows a config, a registry or MMDetection; torch is all it needs. These functions are
the boundary behind which faster kernels may stand: whoever calls them sees the same numbers.
"""

from .backend import BACKENDS, BackendError, get_backend, set_backend, use_backend
from .bytes import to_bytes
from .decode import attention_decode, attention_statistics, last_decode, rate_decode
from .gate import count_or, iand, select, spike_or
from .ilif import ilif, ilif_steps
from .neuron import lif, membrane_potentials, norm_lif
from .pool import spike_max_pool2d
from .spec import LIF, RESETS
from .spike_conv import spike_conv2d, subsample
from .surrogate import SURROGATES, fire, register_surrogate, surrogate_gradient

__all__ = [
    'BACKENDS',
    'LIF',
    'RESETS',
    'SURROGATES',
    'BackendError',
    'attention_decode',
    'attention_statistics',
    'count_or',
    'fire',
    'get_backend',
    'iand',
    'ilif',
    'ilif_steps',
    'last_decode',
    'lif',
    'membrane_potentials',
    'norm_lif',
    'rate_decode',
    'register_surrogate',
    'select',
    'set_backend',
    'spike_conv2d',
    'spike_max_pool2d',
    'spike_or',
    'subsample',
    'surrogate_gradient',
    'to_bytes',
    'use_backend',
]

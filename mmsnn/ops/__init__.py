"""Spiking mathematics: tensors in, tensors out.

Nothing here knows a config, a registry or MMDetection; torch is all it needs. These functions are
the boundary behind which faster kernels may stand: all backends match the reference. Importing this
is what a program with operators of mmsnn's needs (:func:`mmsnn.deploy.export_pt2`), and for that
alone the suppression of boxes is here too.
"""

from . import conv_lif
from .backends.base import OPERATIONS, Backend
from .backends.c.build import cache_folder
from .bytes import to_bytes
from .decode import attention_decode, attention_statistics, last_decode, rate_decode
from .dispatch import (
    BACKENDS,
    BackendError,
    choose,
    get_backend,
    named,
    set_backend,
    use_backend,
    why_not,
)
from .event_conv import event_conv2d, event_conv_lif
from .event_weights import EventWeights, pack_event_weights
from .gate import GATES, count_or, iand, select, spike_or
from .ilif import ilif, ilif_steps
from .layout import is_dense
from .lif import lif, membrane_potentials, norm_lif
from .operators import is_watched
from .pool import spike_max_pool2d
from .reference import channel_stats
from .registration import register_backend
from .sparsity import crossover, density
from .spec import (
    ILIF,
    LIF,
    RESETS,
    BitsConvCall,
    ConvCall,
    Gate,
    LIFCall,
    LIFGrads,
    NeuronState,
    Surrogate,
    compute_dtype,
)
from .spike_conv import SLOW_DTYPES, spike_conv2d, subsample
from .surrogate import (
    SURROGATES,
    check_surrogate,
    fire,
    register_surrogate,
    surrogate_gradient,
)
from .units import SettingError, capabilities, has_amx, has_vnni
from .winograd import WinogradWeights, pack_winograd_weights, winograd_conv2d

__all__ = [
    'BACKENDS',
    'GATES',
    'ILIF',
    'LIF',
    'OPERATIONS',
    'RESETS',
    'SLOW_DTYPES',
    'SURROGATES',
    'Backend',
    'BackendError',
    'BitsConvCall',
    'ConvCall',
    'EventWeights',
    'Gate',
    'LIFCall',
    'LIFGrads',
    'NeuronState',
    'SettingError',
    'Surrogate',
    'WinogradWeights',
    'attention_decode',
    'attention_statistics',
    'cache_folder',
    'capabilities',
    'channel_stats',
    'check_surrogate',
    'choose',
    'compute_dtype',
    'conv_lif',
    'count_or',
    'crossover',
    'density',
    'event_conv2d',
    'event_conv_lif',
    'fire',
    'get_backend',
    'has_amx',
    'has_vnni',
    'iand',
    'ilif',
    'ilif_steps',
    'is_dense',
    'is_watched',
    'last_decode',
    'lif',
    'membrane_potentials',
    'named',
    'norm_lif',
    'pack_event_weights',
    'pack_winograd_weights',
    'rate_decode',
    'register_backend',
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
    'why_not',
    'winograd_conv2d',
]

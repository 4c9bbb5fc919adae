"""What a neuron of the kernels is, as one record."""

from typing import NamedTuple, Union

from torch import Tensor

RESETS = ('hard', 'soft')


class LIF(NamedTuple):
    """The constants of :func:`mmsnn.ops.lif`, in the order of its arguments."""

    decay: Union[float, Tensor] = 0.5
    input_scale: Union[float, Tensor] = 1.0
    v_threshold: float = 1.0
    reset: str = 'hard'
    detach_reset: bool = False
    surrogate: str = 'arctan'
    surrogate_width: float = 1.0

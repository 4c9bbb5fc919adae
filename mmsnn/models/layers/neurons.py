"""Spiking neurons as mmcv activation layers."""

import math
from collections.abc import Callable
from typing import Optional

import torch
from mmdet.registry import MODELS
from torch import Tensor, nn

from ... import ops

#: What a neuron can give: 0 and 1; whole numbers from 0 on; or whole numbers of either sign.
VALUES = ('binary', 'counts', 'signed')


class SpikingNeuron(nn.Module):
    """Base of the neurons, over all time steps.

    Stateless: every forward starts from v = 0, so there is nothing to reset between batches. Only
    where a ``state`` is given to it, as a stream does (:class:`mmsnn.models.layers.Streaming`),
    does a forward go on where the one before ended.

    A neuron says what it computes in one of two ways. One of :func:`mmsnn.ops.lif`'s gives its
    constants by :meth:`record`, and then fuses with its norm, gate and conv. Any other has
    :meth:`fire`, and is called between them.

    ``values`` and ``levels`` are kept to by all that handles spikes: 0 and 1 are kept at one bit a
    value, bytes are for what isn't negative, and a firing rate counts spikes whatever their sign.

    Args:
        v_threshold: Firing threshold, for the tdBN in front of it.
        time_steps: Set it where the layer gets time folded into the batch, as inside an mmcv
            ``ConvModule``; None where the first axis is time or the caller says T.
        inplace: Taken because mmcv passes it to every activation; spikes never overwrite currents.

    Raises:
        ValueError: A threshold or a number of time steps out of range; ``values`` or ``levels``
            that no neuron can have.

    Example:
        >>> import torch
        >>> from mmsnn.models.layers import SpikingNeuron
        >>> class Sign(SpikingNeuron):
        ...     values = 'signed'
        ...
        ...     def fire(self, x):
        ...         return torch.where(x.abs() >= self.v_threshold, x.sign(), 0.0)
        >>> Sign()(torch.tensor([[0.4, 1.2, -3.0]]))
        tensor([[ 0.,  1., -1.]])
    """

    #: One of :data:`VALUES`.
    values = 'binary'
    #: The most spikes that a neuron gives at one time step, whatever their sign, from 1 to 255, so
    #: that a byte holds them, or to 127 with a sign.
    levels = 1

    def __init__(
        self, v_threshold: float = 1.0, time_steps: Optional[int] = None, inplace: bool = False
    ):
        super().__init__()
        if time_steps is not None:
            check_time_steps(time_steps)
        if not 0 < v_threshold < math.inf:
            raise ValueError(f'v_threshold must be positive and finite, got {v_threshold!r}')
        if self.values not in VALUES:
            raise ValueError(
                f'{type(self).__name__}.values is {self.values!r}: choose one of {list(VALUES)}'
            )
        self._check_levels(self.levels)
        self.v_threshold = v_threshold
        self.time_steps = time_steps
        #: Dtype of the spikes where it isn't that of the currents (mmsnn.deploy).
        self.spike_dtype: Optional[torch.dtype] = None
        #: What is handed on from forward to forward; None where each starts from rest.
        self.state: Optional[ops.NeuronState] = None
        #: Called as ``observer(neuron, spikes)`` with the spikes (T, ...) of every forward, before
        #: any gate. Unlike a forward hook it leaves norm and neuron fused (mmsnn.analysis).
        self.observer: Optional[Callable[[nn.Module, Tensor], None]] = None

    def _check_levels(self, levels: int, name: str = 'levels') -> None:
        most = 127 if self.values == 'signed' else 255
        if not isinstance(levels, int) or isinstance(levels, bool) or not 1 <= levels <= most:
            raise ValueError(
                f'{name} must be a whole number of spikes from 1 to {most}, got {levels!r}'
            )

    def record(self) -> Optional[ops.LIF]:
        """The constants of :func:`mmsnn.ops.lif`, or None where the neuron is none of its."""
        return None

    def fire(self, x: Tensor) -> Tensor:
        """Currents to spikes, by default those of the :meth:`record`.

        Args:
            x: (T, ...).

        Returns:
            Spikes of the same shape; whole numbers as ``values`` and ``levels`` say.
        """
        return ops.lif(x, *self.known_record(), dtype=self.spike_dtype)

    def fire_from(self, x: Tensor, state: ops.NeuronState) -> Tensor:
        """:meth:`fire` from a state on, by default that of the :meth:`record`.

        Args:
            x: (T, ...).
            state: Where the call before ended, without tensors at first; what the next one starts
                from is left there, without a gradient.

        Returns:
            Spikes, as of :meth:`fire`.
        """
        return ops.lif(x, *self.known_record(), dtype=self.spike_dtype, state=state)

    @property
    def hands_on(self) -> bool:
        """Whether it goes on from a state, by its record or by a :meth:`fire_from` of its own."""
        kinds = type(self).__mro__
        fire, fire_from = (
            next(kind for kind in kinds if name in vars(kind)) for name in ('fire', 'fire_from')
        )
        # That of an ancestor says nothing of a fire that came later.
        agree = issubclass(fire_from, fire)
        known = fire_from is not SpikingNeuron or self.record() is not None
        return self.shows_all and agree and known

    def known_record(self) -> ops.LIF:
        """The :meth:`record` of a neuron that has no :meth:`fire` of its own.

        Raises:
            NotImplementedError: It has neither.
        """
        record = self.record()
        if record is None:
            raise NotImplementedError(f'{type(self).__name__} needs a fire(x) or a record()')
        return record

    @property
    def runs_by_record(self) -> bool:
        """Whether :meth:`record` says all that it does, so that it can be part of another pass."""
        own = type(self).fire is not SpikingNeuron.fire
        return self.shows_all and not own and self.values == 'binary'

    @property
    def shows_all(self) -> bool:
        """Whether the observer sees what the neuron gives; a forward of its own may hide it."""
        return type(self).forward is SpikingNeuron.forward

    def learns_at(self, potential: float) -> bool:
        """Whether there is a gradient at a membrane potential below the threshold.

        Args:
            potential: h; 0 is rest.

        Returns:
            True where nothing is known.
        """
        return True

    @property
    def surrogate_words(self) -> str:
        """What to call its surrogate in a message."""
        record = self.record()
        if record is None:
            return 'surrogate of its own'
        return f'{record.surrogate!r} surrogate of width {record.surrogate_width}'

    def forward(self, x: Tensor, time_steps: Optional[int] = None) -> Tensor:
        """Turn currents into spikes.

        Args:
            x: (T, ...) or, where T is given here or at construction, (T*B, ...), time-major.
            time_steps: T of an input that has time folded into the batch.

        Returns:
            Spikes of the shape and dtype of ``x``.

        Raises:
            ValueError: A batch that T doesn't divide; spikes that no byte holds, where bytes are
                asked for.
        """
        time_steps = time_steps or self.time_steps
        if time_steps is None:
            return self.observed(self._fire(x))
        if x.shape[0] % time_steps:
            raise ValueError(
                f'time_steps={time_steps} does not divide the first axis of an input '
                f'of shape {tuple(x.shape)}: it should be time_steps * batch'
            )
        x = x.unflatten(0, (time_steps, -1))
        return self.observed(self._fire(x)).flatten(0, 1)

    def _fire(self, x: Tensor) -> Tensor:
        spikes = self.fire(x) if self.state is None else self.fire_from(x, self.state)
        if self.spike_dtype in (None, spikes.dtype):
            return spikes
        converted = spikes.to(self.spike_dtype)
        if not torch.equal(converted.to(spikes.dtype), spikes):
            raise ValueError(
                f'{type(self).__name__} says values={self.values!r}, and gave some that '
                f'{self.spike_dtype} does not hold'
            )
        return converted

    def observed(self, spikes: Tensor) -> Tensor:
        """Show the spikes (T, ...) to the observer, if there is one, and return them."""
        if self.observer is not None:
            self.observer(self, spikes)
        return spikes


@MODELS.register_module()
class LIFNeuron(SpikingNeuron):
    """Leaky integrate-and-fire neuron over all time steps (:func:`mmsnn.ops.lif`).

    As an mmcv activation layer: ``act_cfg=dict(type='LIFNeuron', time_steps=4)``.

    Args:
        decay: Leak factor in [0, 1] of h = decay * v + x. Default 0.5 where ``tau`` isn't given.
        tau: The other spelling, h = v + (x - v) / tau, that is decay = 1 - 1/tau and the input
            scaled by 1/tau. Give one of the two.
        v_threshold: Firing threshold.
        reset: ``'hard'`` or ``'soft'``.
        detach_reset: Whether the gradient ignores the spike in the reset.
        surrogate: ``'arctan'``, ``'rectangle'``, ``'sigmoid'`` or ``'triangle'``.
        surrogate_width: Width of the surrogate, in units of the membrane potential.
        time_steps: Set it where the layer gets time folded into the batch, as inside an mmcv
            ``ConvModule``; None where the first axis is time or the caller says T.
        inplace: Taken because mmcv passes it to every activation; spikes never overwrite currents.

    Raises:
        ValueError: A value out of range, an unknown reset or surrogate, both decay and tau, or a
            batch that ``time_steps`` doesn't divide.

    Example:
        >>> import torch
        >>> from mmsnn.models import LIFNeuron
        >>> LIFNeuron(decay=0.25, v_threshold=0.5, surrogate='rectangle')(torch.rand(4, 1, 8)).shape
        torch.Size([4, 1, 8])
    """

    def __init__(
        self,
        decay: Optional[float] = None,
        tau: Optional[float] = None,
        v_threshold: float = 1.0,
        reset: str = 'hard',
        detach_reset: bool = False,
        surrogate: str = 'arctan',
        surrogate_width: float = 1.0,
        time_steps: Optional[int] = None,
        inplace: bool = False,
    ):
        super().__init__(v_threshold, time_steps, inplace)
        if decay is not None and tau is not None:
            raise ValueError(f'give decay or tau, not both: got decay={decay!r} and tau={tau!r}')
        if tau is not None and not 1 <= tau < math.inf:
            raise ValueError(f'tau must be at least 1 time step, got {tau!r}')
        if decay is not None and not 0 <= decay <= 1:
            raise ValueError(f'decay must lie in [0, 1], got {decay!r}')
        if reset not in ops.RESETS:
            raise ValueError(f'unknown reset {reset!r}: choose one of {list(ops.RESETS)}')
        ops.check_surrogate(surrogate, surrogate_width)
        if tau is not None:
            self._leak = (1 - 1 / tau, 1 / tau)
        else:
            self._leak = (0.5 if decay is None else decay, 1.0)
        self.reset = reset
        self.detach_reset = detach_reset
        self.surrogate = surrogate
        self.surrogate_width = surrogate_width

    @property
    def decay(self):
        """Leak factor of h = decay * v + input_scale * x."""
        return self._leak[0]

    @property
    def input_scale(self):
        """Factor on the input."""
        return self._leak[1]

    def learns_at(self, potential: float) -> bool:
        """Whether the surrogate has a gradient at a membrane potential below the threshold.

        Args:
            potential: h; 0 is rest.

        Returns:
            True unless the surrogate ends before it.
        """
        reach = ops.SURROGATES[self.surrogate].reach
        return reach * self.surrogate_width > self.v_threshold - potential

    def record(self) -> ops.LIF:
        """The constants of :func:`mmsnn.ops.lif`."""
        return ops.LIF(
            decay=self.decay,
            input_scale=self.input_scale,
            v_threshold=self.v_threshold,
            reset=self.reset,
            detach_reset=self.detach_reset,
            surrogate=self.surrogate,
            surrogate_width=self.surrogate_width,
        )

    def extra_repr(self) -> str:
        """What `print(module)` shows."""
        return (
            f'decay={self.decay}, v_threshold={self.v_threshold}, reset={self.reset!r}, '
            f'surrogate={self.surrogate!r}'
        )


@MODELS.register_module()
class IFNeuron(LIFNeuron):
    """Integrate-and-fire: :class:`LIFNeuron` without a leak (decay = 1).

    Args:
        **kwargs: As of :class:`LIFNeuron`, without decay and tau.

    Example:
        >>> import torch
        >>> from mmsnn.models import IFNeuron
        >>> IFNeuron(v_threshold=1.0, reset='soft')(torch.full((4, 1), 0.5)).flatten()
        tensor([0., 1., 0., 1.])
    """

    def __init__(self, **kwargs):
        super().__init__(decay=1.0, **kwargs)


@MODELS.register_module()
class PLIFNeuron(LIFNeuron):
    """LIF with a learnable leak, one a layer (Fang et al. 2021, PLIF).

    The parameter ``w`` is unbounded; in the ``decay`` spelling decay = sigmoid(w), in the ``tau``
    spelling 1/tau = sigmoid(w), which is SpikingJelly's ``ParametricLIFNode``.

    Args:
        decay: Initial decay, strictly between 0 and 1.
        tau: Initial tau, greater than 1.
        **kwargs: As of :class:`LIFNeuron`.

    Raises:
        ValueError: An initial value at or beyond the ends of the range.

    Example:
        >>> import torch
        >>> from mmsnn.models import PLIFNeuron
        >>> neuron = PLIFNeuron(decay=0.5)
        >>> neuron(torch.rand(4, 1, 8)).sum().backward()
        >>> neuron.w.grad is not None
        True
    """

    def __init__(self, decay: Optional[float] = None, tau: Optional[float] = None, **kwargs):
        super().__init__(decay=decay, tau=tau, **kwargs)
        initial = self._leak[0] if tau is None else 1 / tau
        if not 0 < initial < 1:
            raise ValueError(
                'PLIFNeuron starts strictly inside its range: got '
                + (
                    f'tau={tau!r}, needs more than 1'
                    if tau is not None
                    else f'decay={decay!r}, needs more than 0 and less than 1'
                )
            )
        self.tau_form = tau is not None
        self.w = nn.Parameter(torch.tensor(math.log(initial / (1 - initial))))

    @property
    def decay(self) -> Tensor:
        """Current leak factor, a tensor with one element."""
        p = self.w.sigmoid()
        return 1 - p if self.tau_form else p

    @property
    def input_scale(self):
        """Current factor on the input."""
        return self.w.sigmoid() if self.tau_form else 1.0

    def extra_repr(self) -> str:
        """What `print(module)` shows."""
        return f'decay={self.decay.item():.3f} (learnable), v_threshold={self.v_threshold}'


@MODELS.register_module()
class ILIFNeuron(SpikingNeuron):
    """Integer leaky integrate-and-fire: 0 to D spikes a time step (:func:`mmsnn.ops.ilif`).

    It is trained on whole numbers, and each of them stands for D virtual steps of 0 and 1
    (:meth:`virtual_steps`), so that T = 1 and D = 4 has the resolution of 4 time steps in one pass.
    Convs take the numbers as they are: a conv of the sum is the sum of the convs. Source: Luo et
    al. 2024, SpikeYOLO; our reading, docs/method.md.

    Args:
        D: The most spikes of one time step, 1 to 255.
        decay: Leak factor in [0, 1] from one time step to the next.
        v_threshold: Firing threshold.
        detach_reset: Whether the gradient ignores the spikes in the reset.
        **kwargs: As of :class:`SpikingNeuron`.

    Raises:
        ValueError: A value out of range.

    Example:
        >>> import torch
        >>> from mmsnn.models import ILIFNeuron
        >>> neuron = ILIFNeuron(D=4)
        >>> neuron(torch.tensor([[0.4], [1.5], [9.0]])).flatten()
        tensor([0., 2., 4.])
        >>> neuron.virtual_steps(torch.tensor([[1.6]])).flatten()
        tensor([1., 1., 0., 0.])
    """

    values = 'counts'

    def __init__(
        self,
        D: int = 4,
        decay: float = 0.5,
        v_threshold: float = 1.0,
        detach_reset: bool = False,
        **kwargs,
    ):
        super().__init__(v_threshold, **kwargs)
        self._check_levels(D, 'D')
        if not 0 <= decay <= 1:
            raise ValueError(f'decay must lie in [0, 1], got {decay!r}')
        self.levels = D
        self.decay = decay
        self.detach_reset = detach_reset

    def fire(self, x: Tensor) -> Tensor:
        """Currents (T, ...) to whole numbers of spikes."""
        return self._integrate(x, None)

    def fire_from(self, x: Tensor, state: ops.NeuronState) -> Tensor:
        """See the base."""
        return self._integrate(x, state)

    def _integrate(self, x: Tensor, state: Optional[ops.NeuronState]) -> Tensor:
        options = self.levels, self.decay, self.v_threshold, self.detach_reset, self.spike_dtype
        return ops.ilif(x, *options, state)

    def virtual_steps(self, x: Tensor) -> Tensor:
        """The same spikes one by one.

        Args:
            x: Currents (T, ...).

        Returns:
            0 and 1, (T, D, ...), whose sum over D is what :meth:`fire` gives, bit for bit.
        """
        return ops.ilif_steps(x, self.levels, self.decay, self.v_threshold)

    def learns_at(self, potential: float) -> bool:
        """Whether there is a gradient at a membrane potential: from rest to D thresholds."""
        return 0 <= potential <= self.levels * self.v_threshold

    def extra_repr(self) -> str:
        """What `print(module)` shows."""
        return f'D={self.levels}, decay={self.decay}, v_threshold={self.v_threshold}'


def check_time_steps(time_steps: int) -> None:
    """Refuse a number of time steps that is not a positive whole number.

    Raises:
        ValueError: Names the value.
    """
    if not isinstance(time_steps, int) or isinstance(time_steps, bool) or time_steps < 1:
        raise ValueError(f'time_steps must be a whole number of at least 1, got {time_steps!r}')

"""Gates: how a residual branch's spikes R and a shortcut's spikes S become the block's output."""

import torch
from mmdet.registry import MODELS
from torch import Tensor, nn

from ... import ops
from ...compat.checkpoint import CheckpointError
from ...config_types import arguments
from .builder import build_neuron, build_norm, lookup
from .gate import Gate
from .neurons import VALUES, LIFNeuron, SpikingNeuron
from .spike_conv import conv_of_spikes
from .tdbn import TDBN

#: Standard deviation of a learned gate's currents at the start, in thresholds.
START = 0.5


@MODELS.register_module()
class ResidualGate(Gate):
    """SG ResNet's first gate signal, G = R: O = R OR S, binary.

    With R silent the block is the identity and dO/dS = 1 - R = 1 exactly, so that gradients neither
    vanish nor explode with depth. Of counts it is the larger, which is OR at each of the virtual
    steps that a count stands for (:func:`mmsnn.ops.count_or`). Source: Zhang et al. 2023, SG
    ResNet; our reading, docs/method.md.

    Example:
        >>> import torch
        >>> from mmsnn.models import ResidualGate
        >>> residual, shortcut = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 1.0, 0.0, 1.0]])
        >>> ResidualGate()(residual, shortcut, time_steps=1)
        tensor([0., 1., 1., 1.])
    """

    fused = 'or'
    takes = ('binary', 'counts')
    takes_bytes = True

    def forward(self, residual: Tensor, shortcut: Tensor, time_steps: int) -> Tensor:
        """Return R OR S."""
        join = ops.count_or if self.values == 'counts' else ops.spike_or
        return join(residual, shortcut)


@MODELS.register_module()
class LearnedGate(Gate):
    r"""SG ResNet's second gate signal: G = R, but where the gate has learnt otherwise.

    A neuron integrates tdBN(1x1 conv of R) and the negative of it. P is 1 where the first fires, N
    where the second does, which is never both:

    .. math::
        G = P + (1 - P)(1 - N) R \qquad O = G R + (1 - G) S

    P opens the gate, so that a silent branch may take away the shortcut's spike, N closes it. The
    norm starts with currents of half a threshold, so that few of either fire and the block is near
    that of :class:`ResidualGate`. As there, O is differentiated with R R = R, as (1 - N) R OR
    (1 - P) S. Of counts OR is the larger, and a signed spike of the branch goes before the
    shortcut's. Source: Zhang et al. 2023, SG ResNet; our reading, chosen by measuring,
    docs/method.md.

    Args:
        channels: Channels of the joined spikes.
        norm_cfg: Norm layer behind the 1x1 conv.
        act_cfg: The gate's neuron, which gives 0 and 1; those of the network may give others.

    Raises:
        ValueError: A neuron that gives others.

    Example:
        >>> import torch
        >>> from mmsnn.models import LearnedGate, ResidualGate
        >>> residual, shortcut = (torch.rand(2, 4 * 2, 8, 5, 5) > 0.5).float()
        >>> gate = LearnedGate(8, norm_cfg=dict(type='TDBN'), act_cfg=dict(type='LIFNeuron'))
        >>> same = gate(residual, shortcut, 4) == ResidualGate()(residual, shortcut, 4)
        >>> bool(0.8 < same.float().mean() < 1)  # at initialisation
        True
    """

    takes = VALUES
    takes_bytes = True
    #: In the metadata of checkpoints; the first integrated the shortcut, with the same parameters.
    _version = 2

    def __init__(self, channels: int, norm_cfg: dict, act_cfg: dict):
        super().__init__()
        self.neuron = build_neuron(act_cfg)
        if self.neuron.values != 'binary':
            raise ValueError(
                f'LearnedGate selects by a signal of 0 and 1, and {type(self.neuron).__name__} '
                f'gives {self.neuron.values}: give it a neuron of its own, '
                "gate_cfg=dict(type='LearnedGate', act_cfg=dict(type='LIFNeuron'))"
            )
        self.conv = nn.Conv2d(channels, channels, 1, bias=False)
        # A frozen norm would keep the gate as it starts for ever.
        norm_cfg = dict(norm_cfg, requires_grad=True)
        self.norm = build_norm(norm_cfg, channels, v_threshold=self.neuron.v_threshold)[1]
        self.init_weights()

    def init_weights(self) -> None:
        """Start near the residual gate; the parent's initialisation comes before this."""
        weight, bias = self.norm.weight, self.norm.bias
        assert isinstance(weight, Tensor)
        assert isinstance(bias, Tensor)
        # A tdBN's lambda is in thresholds.
        threshold = 1.0 if isinstance(self.norm, TDBN) else self.neuron.v_threshold
        nn.init.constant_(weight, START * threshold)
        nn.init.zeros_(bias)

    def _load_from_state_dict(
        self, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
    ):
        # A network with another gate has a version there, and no weights of this one.
        own = f'{prefix}conv.weight' in state_dict
        if own and local_metadata.get('version', self._version) != self._version:
            # Not among the error_msgs: loading that isn't strict would go on with them.
            raise CheckpointError(
                f'{prefix[:-1]} is a LearnedGate of an earlier mmsnn, whose weights mean something '
                'else: train the checkpoint anew'
            )
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )

    def forward(self, residual: Tensor, shortcut: Tensor, time_steps: int) -> Tensor:
        """Select by the learned gate signal."""
        current = self.norm(conv_of_spikes(self.conv, residual))
        signals = self.neuron(torch.cat((current, -current), 1), time_steps)
        opens, closes = signals.chunk(2, 1)
        residual, shortcut = (1 - closes) * residual, (1 - opens) * shortcut
        if self.values == 'signed':
            return residual + (1 - residual.abs()) * shortcut
        join = ops.count_or if self.values == 'counts' else ops.spike_or
        return join(residual, shortcut)


@MODELS.register_module()
class SEWAddGate(Gate):
    """SEW ResNet's add, O = R + S: not binary (Fang et al. 2021).

    Example:
        >>> import torch
        >>> from mmsnn.models import SEWAddGate
        >>> residual, shortcut = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 1.0, 0.0, 1.0]])
        >>> SEWAddGate()(residual, shortcut, time_steps=1)
        tensor([0., 1., 1., 2.])
    """

    fused = 'add'
    binary = False
    takes = VALUES
    takes_bytes = True

    def forward(self, residual: Tensor, shortcut: Tensor, time_steps: int) -> Tensor:
        """Return R + S."""
        return residual + shortcut


@MODELS.register_module()
class SEWAndGate(Gate):
    """SEW ResNet's and, O = R S (Fang et al. 2021).

    Example:
        >>> import torch
        >>> from mmsnn.models import SEWAndGate
        >>> residual, shortcut = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 1.0, 0.0, 1.0]])
        >>> SEWAndGate()(residual, shortcut, time_steps=1)
        tensor([0., 0., 0., 1.])
    """

    fused = 'and'
    takes_bytes = True

    def forward(self, residual: Tensor, shortcut: Tensor, time_steps: int) -> Tensor:
        """Return R AND S."""
        return residual * shortcut


@MODELS.register_module()
class SEWIAndGate(Gate):
    """SEW ResNet's iand, O = (1 - R) S (Fang et al. 2021).

    Example:
        >>> import torch
        >>> from mmsnn.models import SEWIAndGate
        >>> residual, shortcut = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 1.0, 0.0, 1.0]])
        >>> SEWIAndGate()(residual, shortcut, time_steps=1)
        tensor([0., 1., 0., 0.])
    """

    fused = 'iand'
    takes_bytes = True

    def forward(self, residual: Tensor, shortcut: Tensor, time_steps: int) -> Tensor:
        """Return (NOT R) AND S."""
        return ops.iand(residual, shortcut)


def build_gate(gate_cfg: dict, channels: int, norm_cfg: dict, act_cfg: dict) -> Gate:
    """Build the gate that joins a residual branch and a shortcut.

    Args:
        gate_cfg: Config with the ``type`` of a registered gate and its arguments.
        channels: Channels of the joined spikes.
        norm_cfg: Norm layer of a gate that has weights.
        act_cfg: Neuron of the network, and of a gate that has weights: keys in the gate's own
            ``act_cfg`` win, and where that names a neuron that takes other arguments, it is all.

    Returns:
        The gate.

    Raises:
        ValueError: Unknown type, where the message lists the known ones; or neurons that give what
            the gate can't join.
    """
    cls = lookup(gate_cfg, 'gate', Gate)
    neuron = lookup(act_cfg, 'neuron', SpikingNeuron)
    if neuron.values not in cls.takes:
        known = sorted(
            name
            for name, gate in MODELS.module_dict.items()
            if isinstance(gate, type) and issubclass(gate, Gate) and neuron.values in gate.takes
        )
        raise ValueError(
            f'{cls.__name__} joins spikes that are {" or ".join(cls.takes)}, and '
            f'{neuron.__name__} gives {neuron.values}: choose one of {known}, or let '
            f'{cls.__name__}.takes name {neuron.values!r} if its formula holds for them'
        )
    kwargs = arguments(gate_cfg)
    own = kwargs.get('act_cfg', {})
    of_one_family = (
        issubclass(neuron, LIFNeuron)
        or lookup({**act_cfg, **own}, 'neuron', SpikingNeuron) is neuron
    )
    kwargs['act_cfg'] = {**act_cfg, **own} if of_one_family else own
    gate = cls(channels=channels, **{'norm_cfg': norm_cfg, **kwargs})
    gate.values = neuron.values
    return gate

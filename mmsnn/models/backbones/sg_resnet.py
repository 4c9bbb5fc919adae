"""SG ResNet and the spiking ResNets it is compared with, from block to network."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Callable, Optional, Union

import torch
from mmcv.cnn import build_conv_layer
from mmdet.registry import MODELS
from mmengine.model import BaseModule, ModuleList
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from ...config_types import arguments, find_type, loads_weights
from ..layers import (
    SpikeMaxPool2d,
    SpikingNeuron,
    build_conv,
    build_gate,
    build_neuron,
    build_norm,
    check_time_steps,
    conv_of_spikes,
    in_a_row,
    mark_spikes,
    side_by_side,
    spiking_layer,
    unfold_frames,
)
from ..layers.builder import lookup

# Inside a stage time is folded into the batch, (T*B, C, H, W), time-major: convs and norms need not
# know about it; neurons and gates are told T.


class SpikingBlock(BaseModule):
    """Base of the blocks: a residual branch and the projection of its shortcut.

    A basic branch is conv3x3, conv3x3; a bottleneck is conv1x1, conv3x3, conv1x1. The shortcut is
    the identity, or conv1x1 and norm where the shape changes. A subclass says where the neurons
    stand and how branch and shortcut meet, in ``forward(s, time_steps)`` from spikes
    (T*B, C, H, W) to spikes; it is named in a config by ``block=dict(type='MyBlock')``.

    Args:
        in_channels: Channels of the input.
        channels: Channels of the 3x3 conv.
        bottleneck: Whether the branch is a bottleneck, with 4 * channels at its end.
        stride: Stride of the block.
        conv_cfg: Conv layer.
        norm_cfg: Norm layer.
        act_cfg: Neuron.
    """

    #: alpha of a tdBN that ends one of the branches that add up in front of a neuron.
    joined_alpha = 1.0
    #: Whether membrane currents go from block to block, and neurons follow the last one.
    membrane_shortcut = False
    #: The gate where the config names none; None for blocks that take no ``gate_cfg``.
    default_gate: Optional[dict] = None
    #: Whether forward holds for spikes in bytes, as integer convs take them (mmsnn.deploy).
    takes_bytes = False

    def __init__(
        self,
        in_channels: int,
        channels: int,
        bottleneck: bool,
        stride: int,
        conv_cfg: Optional[dict],
        norm_cfg: dict,
        act_cfg: dict,
    ):
        super().__init__()
        self.out_channels = channels * 4 if bottleneck else channels
        if bottleneck:
            convs = [
                (in_channels, channels, 1, 1),
                (channels, channels, 3, stride),
                (channels, self.out_channels, 1, 1),
            ]
        else:
            convs = [(in_channels, channels, 3, stride), (channels, channels, 3, 1)]
        self.num_convs = len(convs)
        #: Whether the neurons give 0 and 1.
        self.binary = True
        self.norm_names = []
        for i, (c_in, c_out, kernel, conv_stride) in enumerate(convs, 1):
            neuron = build_neuron(act_cfg)
            alpha = self.joined_alpha if i == self.num_convs else 1.0
            name, norm = build_norm(norm_cfg, c_out, i, neuron.v_threshold, alpha)
            self.norm_names.append(name)
            self.add_module(
                f'conv{i}',
                build_conv(
                    conv_cfg, c_in, c_out, kernel, conv_stride, padding=kernel // 2, bias=False
                ),
            )
            self.add_module(name, norm)
            self.add_module(f'neuron{i}', neuron)
            self.binary &= neuron.values == 'binary'
        self.downsample = None
        if stride != 1 or in_channels != self.out_channels:
            self.downsample = nn.Sequential(
                build_conv(conv_cfg, in_channels, self.out_channels, 1, stride, bias=False),
                build_norm(norm_cfg, self.out_channels, 1, neuron.v_threshold, self.joined_alpha)[
                    1
                ],
            )

    @property
    def last_norm(self) -> nn.Module:
        """The norm that ends the residual branch."""
        return getattr(self, self.norm_names[-1])

    def layer(self, i: int) -> tuple[nn.Module, nn.Module, nn.Module]:
        """Conv, norm and neuron of the branch's i-th layer, counted from 1."""
        norm = getattr(self, self.norm_names[i - 1])
        return getattr(self, f'conv{i}'), norm, getattr(self, f'neuron{i}')

    def current(self, i: int, spikes: Tensor) -> Tensor:
        """Norm(conv(spikes)) of the branch's i-th layer, counted from 1."""
        conv, norm, _ = self.layer(i)
        return norm(conv_of_spikes(conv, spikes, self.binary))

    def shortcut_current(self, x: Tensor, binary: bool = True) -> Tensor:
        """Norm(conv1x1(x)) where the shape changes, else ``x``."""
        if self.downsample is None:
            return x
        conv, norm = self.downsample
        return norm(conv_of_spikes(conv, x, binary and self.binary))


@MODELS.register_module()
class GateBlock(SpikingBlock):
    """Spikes meet spikes: O = gate(R, S). With an SG gate, O is binary again.

    R = neuron(norm(conv(... s))), S = s or neuron(norm(conv1x1(s))). This is SG ResNet's block
    (Zhang et al. 2023; our reading, docs/method.md) and, with SEW's gates, SEW ResNet's.

    Args:
        gate_cfg: The gate; default ``ResidualGate``.
        **kwargs: As of :class:`SpikingBlock`.
    """

    default_gate = dict(type='ResidualGate')
    takes_bytes = True

    def __init__(self, *, gate_cfg: Optional[dict] = None, **kwargs):
        gate_cfg = gate_cfg or self.default_gate
        super().__init__(**kwargs)
        if self.downsample is not None:
            self.downsample_neuron = build_neuron(kwargs['act_cfg'])
        self.gate = build_gate(gate_cfg, self.out_channels, kwargs['norm_cfg'], kwargs['act_cfg'])

    def forward(self, s: Tensor, time_steps: int) -> Tensor:
        """Spikes to spikes."""
        # Behind a gate whose output isn't binary, the block's own input needn't be.
        binary = self.gate.binary and self.binary
        shortcut = s
        if self.downsample is not None:
            conv, norm = self.downsample
            layer = conv, norm, self.downsample_neuron
            shortcut = spiking_layer(*layer, s, time_steps, binary=binary)
        residual = spiking_layer(*self.layer(1), s, time_steps, binary=binary)
        for i in range(2, self.num_convs):
            residual = spiking_layer(*self.layer(i), residual, time_steps, binary=self.binary)
        last = self.layer(self.num_convs)
        joined = self.gate, shortcut
        return spiking_layer(*last, residual, time_steps, *joined, binary=self.binary)


@MODELS.register_module()
class SEWBlock(GateBlock):
    """SEW ResNet's block: :class:`GateBlock` with its add, unless the config names a gate.

    Source: Fang et al. 2021.

    Args:
        **kwargs: As of :class:`GateBlock`.
    """

    default_gate = dict(type='SEWAddGate')


@MODELS.register_module()
class AddBlock(SpikingBlock):
    """Currents add up in front of the last neuron: O = neuron(norm(conv(...)) + S).

    The plain spiking ResNet.

    Args:
        **kwargs: As of :class:`SpikingBlock`.
    """

    takes_bytes = True

    def forward(self, s: Tensor, time_steps: int) -> Tensor:
        """Spikes to spikes."""
        x = s
        for i in range(1, self.num_convs):
            x = spiking_layer(*self.layer(i), x, time_steps, binary=self.binary)
        neuron = self.layer(self.num_convs)[-1]
        return neuron(self.current(self.num_convs, x) + self.shortcut_current(s), time_steps)


@MODELS.register_module()
class TDBNBlock(AddBlock):
    """STBP-tdBN's block: :class:`AddBlock` with alpha = 1/sqrt(2) where two branches add up.

    Source: Zheng et al. 2021, section 3.

    Args:
        **kwargs: As of :class:`SpikingBlock`.
    """

    joined_alpha = 2**-0.5


@MODELS.register_module()
class MSBlock(SpikingBlock):
    """MS ResNet's block: the shortcut carries membrane currents, neurons stand before the convs.

    x + norm(conv(neuron(... x))); Hu et al. 2021.

    Args:
        **kwargs: As of :class:`SpikingBlock`.
    """

    membrane_shortcut = True
    takes_bytes = True

    def forward(self, x: Tensor, time_steps: int) -> Tensor:
        """Currents to currents."""
        residual = x
        for i in range(1, self.num_convs + 1):
            neuron = self.layer(i)[-1]
            residual = self.current(i, neuron(residual, time_steps))
        return residual + self.shortcut_current(x, binary=False)


#: Short names for ``block`` of SGResNet.
BLOCKS = {
    'sg': GateBlock,
    'sew': SEWBlock,
    'plain': AddBlock,
    'tdbn': TDBNBlock,
    'ms': MSBlock,
}


@MODELS.register_module()
class SGResNet(BaseModule):
    """Spiking gate ResNet (Zhang et al. 2023) and its baselines, as an MMDetection backbone.

    An image is the same current at every time step, so the stem's first conv and norm run once and
    the first neuron integrates their result T times. That is exact, not an approximation.

    Args:
        depth: 10, 18, 34 (basic blocks), 50, 101 or 152 (bottlenecks); 19 is STBP-tdBN's network
            of three stages (3, 3 and 2 basic blocks), which has ``base_channels=128``.
        time_steps: Number of time steps, T.
        in_channels: Channels of the input.
        stem_channels: Channels of the stem; default ``base_channels``.
        base_channels: Channels of the first stage's 3x3 convs.
        num_stages: Number of stages, 1 to 4 (3 at depth 19).
        strides: Stride of the first block of each stage.
        out_indices: Stages whose spikes are returned.
        stem: ``'imagenet'`` (conv 7x7/2, max pool), ``'deep'`` (three convs 3x3, the first /2,
            max pool) or ``'cifar'`` (conv 3x3/1).
        block: ``'sg'``, or a baseline: ``'plain'`` (add before the neuron), ``'tdbn'`` (STBP-tdBN),
            ``'sew'`` or ``'ms'``; or the config of a registered :class:`SpikingBlock`, such as
            ``dict(type='MyBlock')``.
        gate_cfg: Gate of the blocks ``'sg'`` (default ``ResidualGate``) and ``'sew'`` (default
            ``SEWAddGate``).
        frozen_stages: Stages to freeze, as in MMDetection's ResNet: -1 none, 0 the stem, ...
        conv_cfg: Conv layer.
        norm_cfg: Norm layer; a tdBN takes the threshold of ``act_cfg`` unless it names its own.
        act_cfg: Neuron.
        norm_eval: Whether norms keep to their running statistics while training.
        with_cp: Whether to recompute blocks in the backward pass, to save memory; the running
            statistics of norms then move twice a step.
        zero_init_residual: Whether the last norm of each branch starts at zero.
        init_cfg: As in MMDetection; default Kaiming for convs, 1 for norms.
            ``dict(type='ANNPretrained', checkpoint=...)`` takes an ANN's weights over.

    Raises:
        ValueError: An unknown depth, stem, block, neuron, surrogate, norm or gate, or a number
            out of range. The message names the value.

    Example:
        >>> import torch
        >>> from mmsnn.models import SGResNet
        >>> self = SGResNet(depth=18, time_steps=4).eval()
        >>> for level in self(torch.rand(1, 3, 32, 32)):
        ...     print(tuple(level.shape))
        (4, 1, 64, 8, 8)
        (4, 1, 128, 4, 4)
        (4, 1, 256, 2, 2)
        (4, 1, 512, 1, 1)
    """

    #: How many windows of each recording a batch holds, (windows * B, ...), all first ones first:
    #: neurons go on from each to the next (:class:`mmsnn.models.layers.Streaming`).
    windows = 1
    #: By depth, whether the blocks are bottlenecks, and how many each stage has.
    arch_settings = {
        10: (False, (1, 1, 1, 1)),
        18: (False, (2, 2, 2, 2)),
        19: (False, (3, 3, 2)),
        34: (False, (3, 4, 6, 3)),
        50: (True, (3, 4, 6, 3)),
        101: (True, (3, 4, 23, 3)),
        152: (True, (3, 8, 36, 3)),
    }
    #: By stem, kernel and stride of each conv, and whether a max pool follows.
    stem_settings = {
        'imagenet': (((7, 2),), True),
        'deep': (((3, 2), (3, 1), (3, 1)), True),
        'cifar': (((3, 1),), False),
    }

    def __init__(
        self,
        depth: int,
        time_steps: int = 4,
        in_channels: int = 3,
        stem_channels: Optional[int] = None,
        base_channels: int = 64,
        num_stages: int = 4,
        strides: Sequence[int] = (1, 2, 2, 2),
        out_indices: Sequence[int] = (0, 1, 2, 3),
        stem: str = 'imagenet',
        block: Union[str, dict] = 'sg',
        gate_cfg: Optional[dict] = None,
        frozen_stages: int = -1,
        conv_cfg: Optional[dict] = None,
        norm_cfg: dict = dict(type='TDBN'),
        act_cfg: dict = dict(type='LIFNeuron'),
        norm_eval: bool = False,
        with_cp: bool = False,
        zero_init_residual: bool = False,
        init_cfg: Union[dict, list, None] = None,
    ):
        if init_cfg is None:
            init_cfg = [
                dict(type='Kaiming', layer='Conv2d'),
                dict(type='Constant', val=1, layer=['_BatchNorm', 'TDBN', 'GroupNorm']),
            ]
        super().__init__(init_cfg)
        stages, bottleneck = self._check(
            depth, stem, time_steps, num_stages, strides, out_indices, frozen_stages
        )
        self.time_steps = time_steps
        self.in_channels = in_channels
        self.out_indices = tuple(out_indices)
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.with_cp = with_cp
        self.zero_init_residual = zero_init_residual

        layers: dict[str, Any] = dict(conv_cfg=conv_cfg, norm_cfg=norm_cfg, act_cfg=act_cfg)
        block_cls, make_block = _block(block, gate_cfg, bottleneck=bottleneck, **layers)
        self.membrane_shortcut = block_cls.membrane_shortcut
        stem_channels = stem_channels or base_channels
        self._make_stem(stem, in_channels, stem_channels, **layers)
        widths = [base_channels * 2**i for i in range(num_stages)]
        stage_channels = self._make_stages(make_block, stem_channels, widths, stages, strides)
        #: Channels of each returned level.
        self.out_channels = tuple(stage_channels[i] for i in self.out_indices)
        if self.membrane_shortcut:
            self.out_neurons = ModuleList(build_neuron(act_cfg) for _ in self.out_indices)
        self._freeze_stages()
        if zero_init_residual and issubclass(block_cls, GateBlock):
            _check_learns_from_rest(build_neuron(act_cfg))

    def _check(
        self,
        depth: int,
        stem: str,
        time_steps: int,
        num_stages: int,
        strides: Sequence[int],
        out_indices: Sequence[int],
        frozen_stages: int,
    ) -> tuple[Sequence[int], bool]:
        """Blocks of each stage, and whether they are bottlenecks, of arguments that fit."""
        for name, value, known in (
            ('depth', depth, self.arch_settings),
            ('stem', stem, self.stem_settings),
        ):
            if value not in known:
                raise ValueError(f'unknown {name} {value!r}: choose one of {list(known)}')
        check_time_steps(time_steps)
        bottleneck, stage_blocks = self.arch_settings[depth]
        if not 1 <= num_stages <= len(stage_blocks) or len(strides) != num_stages:
            raise ValueError(
                f'num_stages must be 1 to {len(stage_blocks)} at depth {depth}, with one stride a '
                f'stage, got num_stages={num_stages!r}, strides={tuple(strides)!r}'
            )
        indices = list(out_indices)
        if not indices or indices != sorted(set(indices) & set(range(num_stages))):
            raise ValueError(
                f'out_indices must name stages 0 to {num_stages - 1}, in ascending '
                f'order, got {tuple(out_indices)!r}'
            )
        if not -1 <= frozen_stages <= num_stages:
            raise ValueError(f'frozen_stages must be -1 to {num_stages}, got {frozen_stages!r}')
        return stage_blocks[:num_stages], bottleneck

    def _make_stages(
        self,
        make_block: Callable,
        channels: int,
        widths: Sequence[int],
        stages: Sequence[int],
        strides: Sequence[int],
    ) -> list[int]:
        """Add ``layer1`` and so on; channels of each."""
        stage_channels = []
        self.res_layers = []
        for i, (width, num_blocks, stride) in enumerate(zip(widths, stages, strides), 1):
            stage = ModuleList()
            for j in range(num_blocks):
                block = make_block(
                    in_channels=channels, channels=width, stride=stride if j == 0 else 1
                )
                stage.append(block)
                channels = block.out_channels
            self.res_layers.append(f'layer{i}')
            self.add_module(self.res_layers[-1], stage)
            stage_channels.append(channels)
        return stage_channels

    def _make_stem(
        self,
        stem: str,
        in_channels: int,
        stem_channels: int,
        conv_cfg: Optional[dict],
        norm_cfg: dict,
        act_cfg: dict,
    ) -> None:
        convs, pool = self.stem_settings[stem]
        widths = [stem_channels // 2] * (len(convs) - 1) + [stem_channels]
        self.stem = ModuleList()
        for (kernel, stride), width in zip(convs, widths):
            neuron = build_neuron(act_cfg)
            self.stem.append(
                nn.ModuleDict(
                    dict(
                        conv=build_conv_layer(
                            conv_cfg,
                            in_channels,
                            width,
                            kernel,
                            stride,
                            padding=kernel // 2,
                            bias=False,
                        ),
                        norm=build_norm(norm_cfg, width, v_threshold=neuron.v_threshold)[1],
                        neuron=neuron,
                    )
                )
            )
            in_channels = width
        if self.membrane_shortcut:
            self.stem[-1].pop('neuron')
        self.maxpool: nn.Module = nn.Identity()
        if pool and self.membrane_shortcut:
            self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        elif pool:
            self.maxpool = SpikeMaxPool2d(3, 2, padding=1, binary=neuron.values == 'binary')

    def init_weights(self) -> None:
        """As MMDetection's ResNet, and silent residual branches where asked for."""
        super().init_weights()
        if self.zero_init_residual and not loads_weights(self.init_cfg):
            for module in self.modules():
                if isinstance(module, SpikingBlock):
                    weight = module.last_norm.weight
                    assert isinstance(weight, Tensor)
                    nn.init.zeros_(weight)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Run all time steps.

        Args:
            x: Images (B, C, H, W); or event frames, as (T, B, C, H, W) or with time in the
                channels, as (B, T * C, H, W) (:func:`~mmsnn.models.layers.fold_frames`). Of as many
                images as time steps, only the latter are taken: which axis is time could not be
                told.

        Returns:
            Spikes (T, B, C, H, W) of each stage in ``out_indices``.

        Raises:
            ValueError: Input of another rank or another number of channels; event frames of
                another T, or with an axis that could be time or batch.
        """
        time_steps = self.windows * self.time_steps
        x = self._with_time(x)
        if self.windows > 1:
            x = in_a_row(x if x.dim() == 5 else x.expand(self.time_steps, *x.shape), self.windows)
        x = self._stem(x, time_steps)
        outs = []
        for i, name in enumerate(self.res_layers):
            for block in getattr(self, name):
                if self.with_cp and x.requires_grad:
                    x = checkpoint(block, x, time_steps, use_reentrant=False)
                else:
                    x = block(x, time_steps)
            if i in self.out_indices:
                out = x
                if self.membrane_shortcut:
                    out = self.out_neurons[self.out_indices.index(i)](x, time_steps)
                out = out.unflatten(0, (time_steps, -1))
                outs.append(side_by_side(out, self.windows) if self.windows > 1 else out)
        return mark_spikes(outs, type(self).__name__, self.out_channels)

    def _with_time(self, x: Tensor) -> Tensor:
        """Images as they are, and event frames with time first."""
        steps, channels, shape = self.time_steps, self.in_channels, tuple(x.shape)
        if x.dim() == 4 and shape[1] == channels:
            return x
        if x.dim() == 4 and shape[1] == steps * channels:
            return unfold_frames(x, steps)
        if x.dim() != 5 or shape[2] != channels:
            raise ValueError(
                f'{type(self).__name__} takes images (B, {channels}, H, W) or event frames '
                f'(T, B, {channels}, H, W), got an input of shape {shape}'
            )
        why = (
            "MMDetection's DetDataPreprocessor puts the batch first: give the model "
            "data_preprocessor=dict(type='EventDetDataPreprocessor') in its place"
        )
        if shape[0] != steps:
            raise ValueError(
                f'the data come in {shape[0]} frames, but model.backbone.time_steps is {steps}: '
                f'event frames are (T, B, C, H, W), got an input of shape {shape}. Set both to the '
                f'same T. {why}'
            )
        if shape[1] == steps > 1:
            raise ValueError(
                f'event frames of shape {shape} could be (T, B, C, H, W) or (B, T, C, H, W): '
                f'{why}; or, where time does come first, call mmsnn.models.layers.fold_frames on '
                'them'
            )
        return x

    def _stem(self, x: Tensor, time_steps: int) -> Tensor:
        """Images or frames to (T*B, C, H, W); what does not change with t is computed once."""
        shared = x.dim() == 4
        if not shared:
            x = x.flatten(0, 1)
        if x.device.type == 'cpu':
            # What comes behind keeps this memory format: convs, forward and backward, are faster.
            x = x.contiguous(memory_format=torch.channels_last)
        binary = False  # images and frames are not spikes
        for layer in self.stem:
            if 'neuron' in layer:
                pool = self.maxpool if layer is self.stem[-1] else None
                parts = layer['conv'], layer['norm'], layer['neuron']
                x = spiking_layer(*parts, x, time_steps, shared=shared, binary=binary, pool=pool)
                shared, binary = False, layer['neuron'].values == 'binary'
            else:
                x = self.maxpool(layer['norm'](layer['conv'](x)))
        return x.repeat(time_steps, 1, 1, 1) if shared else x

    def _freeze_stages(self) -> None:
        frozen = [self.stem] if self.frozen_stages >= 0 else []
        if self.membrane_shortcut:
            frozen += [
                neuron
                for i, neuron in zip(self.out_indices, self.out_neurons)
                if i < self.frozen_stages
            ]
        frozen += [getattr(self, name) for name in self.res_layers[: max(self.frozen_stages, 0)]]
        for module in frozen:
            module.eval()
            for param in module.parameters():
                param.requires_grad = False

    def train(self, mode: bool = True):
        """Set the mode; frozen stages, and norms with ``norm_eval``, stay in eval mode."""
        super().train(mode)
        self._freeze_stages()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self


def _block(
    block: Union[str, dict], gate_cfg: Optional[dict], **kwargs
) -> tuple[type[SpikingBlock], Callable]:
    """The class of the blocks, and what makes one of its channels and stride."""
    if isinstance(block, str):
        known = BLOCKS.get(block) or find_type(dict(type=block), MODELS)
        if known is None:
            raise ValueError(
                f'unknown block {block!r}: choose one of {list(BLOCKS)}, or give the config of a '
                "registered one, dict(type='MyBlock')"
            )
        cfg = dict(type=known)
    else:
        cfg = block
    cls = lookup(cfg, 'block', SpikingBlock)
    if gate_cfg is not None:
        if cls.default_gate is None:
            raise ValueError(
                f'block {block!r} has no gate: leave gate_cfg={gate_cfg!r} out (gate_cfg=None in a '
                "config that inherits it), or choose block 'sg' or 'sew'"
            )
        kwargs['gate_cfg'] = gate_cfg
    return cls, partial(cls, **{**kwargs, **arguments(cfg)})


def _check_learns_from_rest(neuron: SpikingNeuron) -> None:
    if neuron.learns_at(0.0):
        return
    raise ValueError(
        'zero_init_residual=True starts with silent residual branches, and a '
        f'{neuron.surrogate_words} has no gradient there (threshold {neuron.v_threshold}): they '
        "could never learn. Take it away, or choose surrogate='arctan'"
    )

"""Decoder necks: spikes of every level to real-valued maps that any neck or head takes."""

from collections.abc import Sequence
from typing import Optional, Union

from mmdet.registry import MODELS
from mmengine.model import BaseModule, ModuleList
from torch import Tensor

from ...config_types import arguments
from ..layers import (
    AttentionSpikeDecoder,
    LastDecoder,
    LevelsDecoder,
    RateDecoder,
    SpikeDecoder,
    build_decoder,
)
from ..layers.builder import lookup


@MODELS.register_module()
class DecoderNeck(BaseModule):
    """One spike decoder a level, or one that looks at all levels.

    Args:
        in_channels: Channels of each level.
        decoder: Config of a registered :class:`~mmsnn.models.layers.SpikeDecoder`, which is built
            for each level, or :class:`~mmsnn.models.layers.LevelsDecoder`.
        init_cfg: As in MMDetection.

    Raises:
        ValueError: Unknown decoder; the message lists the known ones.

    Example:
        >>> import torch
        >>> from mmsnn.models import DecoderNeck
        >>> neck = DecoderNeck([64, 128], decoder=dict(type='MembraneDecoder', decay=0.5))
        >>> outs = neck([torch.ones(4, 1, 64, 8, 8), torch.ones(4, 1, 128, 4, 4)])
        >>> [tuple(out.shape) for out in outs]
        [(1, 64, 8, 8), (1, 128, 4, 4)]
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        decoder: dict = dict(type='AttentionSpikeDecoder'),
        init_cfg: Union[dict, list, None] = None,
    ):
        super().__init__(init_cfg)
        self.in_channels: list[int] = list(in_channels)
        #: Channels of each map that comes out.
        self.out_channels: list[int] = self.in_channels
        #: One decoder a level, or None where one looks at all of them.
        self.decoders: Optional[ModuleList] = None
        #: The decoder that looks at all levels, or None.
        self.decoder: Optional[LevelsDecoder] = None
        cls = lookup(decoder, 'decoder', (SpikeDecoder, LevelsDecoder))
        if issubclass(cls, LevelsDecoder):
            self.decoder = cls(in_channels=self.in_channels, **arguments(decoder))
            self.out_channels = list(self.decoder.out_channels)
        else:
            self.decoders = ModuleList(build_decoder(decoder, c) for c in self.in_channels)

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Decode every level.

        Args:
            inputs: One tensor of spikes (T, B, C, H, W) a level.

        Returns:
            One tensor (B, C, H, W) a level, or as the decoder of all levels says.

        Raises:
            ValueError: Another number of levels, rank or channels than it was built for.
        """
        if len(inputs) != len(self.in_channels):
            raise ValueError(
                f'{type(self).__name__} was built for {len(self.in_channels)} levels '
                f'(in_channels={self.in_channels}), got {len(inputs)}: let '
                "in_channels match the backbone's out_indices"
            )
        # In the layout of MMDetection's own backbones, whatever that of the spikes is: heads such
        # as CenterNet's take views of their maps.
        if self.decoder is not None:
            return tuple(level.contiguous() for level in self.decoder(inputs))
        assert self.decoders is not None  # one of the two is there
        return tuple(decode(x).contiguous() for decode, x in zip(self.decoders, inputs))


@MODELS.register_module()
class ASDNeck(DecoderNeck):
    """Attention spike decoders (:class:`~mmsnn.models.layers.AttentionSpikeDecoder`).

    Args:
        in_channels: Channels of each level.
        reduction: Channel reduction of the squeeze and excitation.
        kernel_size: Kernel size of the spatial conv.
        init_cfg: As in MMDetection.

    Example:
        >>> import torch
        >>> from mmsnn.models import ASDNeck
        >>> neck = ASDNeck(in_channels=[64, 128])
        >>> outs = neck([torch.ones(4, 1, 64, 8, 8), torch.ones(4, 1, 128, 4, 4)])
        >>> [tuple(out.shape) for out in outs]
        [(1, 64, 8, 8), (1, 128, 4, 4)]
    """

    def __init__(
        self, in_channels: Sequence[int], reduction: int = 16, kernel_size: int = 7, init_cfg=None
    ):
        decoder = dict(type=AttentionSpikeDecoder, reduction=reduction, kernel_size=kernel_size)
        super().__init__(in_channels, decoder, init_cfg)


@MODELS.register_module()
class RateNeck(DecoderNeck):
    """Rate coding, the mean over time: the baseline of :class:`ASDNeck`.

    Args:
        in_channels: Channels of each level.
        init_cfg: As in MMDetection.

    Example:
        >>> import torch
        >>> from mmsnn.models import RateNeck
        >>> neck = RateNeck(in_channels=[64, 128])
        >>> outs = neck([torch.ones(4, 1, 64, 8, 8), torch.ones(4, 1, 128, 4, 4)])
        >>> [tuple(out.shape) for out in outs]
        [(1, 64, 8, 8), (1, 128, 4, 4)]
    """

    def __init__(self, in_channels: Sequence[int], init_cfg=None):
        super().__init__(in_channels, dict(type=RateDecoder), init_cfg)


@MODELS.register_module()
class LastNeck(DecoderNeck):
    """The last time step alone: the other baseline of :class:`ASDNeck`.

    Args:
        in_channels: Channels of each level.
        init_cfg: As in MMDetection.
    """

    def __init__(self, in_channels: Sequence[int], init_cfg=None):
        super().__init__(in_channels, dict(type=LastDecoder), init_cfg)

"""Decoder necks: spikes of every level to real-valued maps that any neck or head takes."""

from collections.abc import Sequence

from mmdet.registry import MODELS
from mmengine.model import BaseModule, ModuleList
from torch import Tensor

from ..layers import AttentionSpikeDecoder, LastDecoder, RateDecoder, SpikeDecoder


class DecoderNeck(BaseModule):
    """One spike decoder a level.

    Args:
        in_channels: Channels of each level.
        init_cfg: As in MMDetection.
        **kwargs: Arguments of the decoder.
    """

    decoder: type[SpikeDecoder]

    def __init__(self, in_channels: Sequence[int], init_cfg=None, **kwargs):
        super().__init__(init_cfg)
        self.in_channels: list[int] = list(in_channels)
        self.decoders = ModuleList(self.decoder(c, **kwargs) for c in self.in_channels)

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Decode every level.

        Args:
            inputs: One tensor of spikes (T, B, C, H, W) a level.

        Returns:
            One tensor (B, C, H, W) a level.

        Raises:
            ValueError: Another number of levels, rank or channels than it was built for.
        """
        if len(inputs) != len(self.decoders):
            raise ValueError(
                f'{type(self).__name__} was built for {len(self.decoders)} levels '
                f'(in_channels={self.in_channels}), got {len(inputs)}: let '
                "in_channels match the backbone's out_indices"
            )
        # In the layout of MMDetection's own backbones, whatever that of the spikes is: heads such
        # as CenterNet's take views of their maps.
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

    decoder = AttentionSpikeDecoder

    def __init__(
        self, in_channels: Sequence[int], reduction: int = 16, kernel_size: int = 7, init_cfg=None
    ):
        super().__init__(in_channels, init_cfg, reduction=reduction, kernel_size=kernel_size)


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

    decoder = RateDecoder


@MODELS.register_module()
class LastNeck(DecoderNeck):
    """The last time step alone: the other baseline of :class:`ASDNeck`.

    Args:
        in_channels: Channels of each level.
        init_cfg: As in MMDetection.
    """

    decoder = LastDecoder

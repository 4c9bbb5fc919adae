"""Spiking RetinaNet: a spiking backbone, a decoder, and an ordinary RetinaNet behind it."""

from mmdet.models.detectors import RetinaNet
from mmdet.registry import MODELS
from torch import nn

from ..layers import why_a_decoder
from ..necks.decoder_necks import DecoderNeck


@MODELS.register_module()
class SpikingRetinaNet(RetinaNet):
    """Hybrid SNN-ANN detector (Zhang et al. 2023): spikes in the backbone, RetinaNet behind it.

    It is MMDetection's RetinaNet, and checks at build time that the parts fit: that a decoder
    stands between spikes and the first ANN layer, and that the channels agree.

    Args:
        **kwargs: As of MMDetection's RetinaNet; ``neck`` is a list that starts with a decoder, as
            in ``neck=[dict(type='ASDNeck', ...), dict(type='FPN', ...)]``.

    Raises:
        ValueError: Parts that do not fit; the message says which and how to mend it.

    Example:
        >>> from mmdet.registry import MODELS
        >>> from mmengine.config import Config
        >>> cfg = Config.fromfile('configs/digits/spiking-retinanet_sg-r10_asd_fpn_digits.py')
        >>> detector = MODELS.build(cfg.model)
        >>> type(detector).__name__, [type(neck).__name__ for neck in detector.neck]
        ('SpikingRetinaNet', ['ASDNeck', 'FPN'])
    """

    def __init__(self, backbone: dict, neck=None, **kwargs):
        super().__init__(backbone=backbone, neck=neck, **kwargs)
        check_spiking_parts(self.backbone, self.neck if self.with_neck else None)


def check_spiking_parts(backbone: nn.Module, neck: nn.Module) -> None:
    """Refuse a backbone and neck that would fail, or not learn, deep inside.

    Args:
        backbone: The built backbone.
        neck: The built neck, or None.

    Raises:
        ValueError: No decoder behind a spiking backbone, or channels that disagree.
    """
    channels = getattr(backbone, 'out_channels', None)
    necks = [] if neck is None else list(neck) if isinstance(neck, nn.Sequential) else [neck]
    first = necks[0] if necks else None
    if not isinstance(first, DecoderNeck):
        found = 'no neck' if first is None else f'a {type(first).__name__}'
        raise ValueError(why_a_decoder(type(backbone).__name__, channels or (), found))
    gives = type(backbone).__name__
    for module in necks:
        takes = getattr(module, 'in_channels', None)
        if isinstance(takes, (list, tuple)) and channels and list(takes) != list(channels):
            raise ValueError(
                f'channels do not match: {gives} gives {list(channels)}, but '
                f'{type(module).__name__} was built with in_channels={list(takes)}'
            )
        if not isinstance(module, DecoderNeck):
            break
        gives, channels = type(module).__name__, takes

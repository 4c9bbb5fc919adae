"""Spiking RetinaNet: a spiking backbone, a decoder, and an ordinary RetinaNet behind it."""

from typing import Optional

from mmdet.models.detectors import RetinaNet
from mmdet.registry import MODELS
from torch import Tensor, nn

from ..necks import DecoderNeck
from .checks import check_channels, list_necks, why_no_decoder


@MODELS.register_module()
class SpikingRetinaNet(RetinaNet):
    """Hybrid SNN-ANN detector (Zhang et al. 2023): spikes in the backbone, RetinaNet behind it.

    It is MMDetection's RetinaNet, and checks at build time that the parts fit: that a decoder
    stands between spikes and the first ANN layer, and that the channels agree. Every detector is
    checked so (:mod:`mmsnn.models.detectors.checks`); here, the decoder is one of mmsnn's.

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

    def loss(self, batch_inputs: Tensor, batch_data_samples: list) -> dict:
        """MMDetection's losses, of the samples that have labels.

        Args:
            batch_inputs: As in MMDetection.
            batch_data_samples: Likewise. Those whose metainfo says ``labelled=False``, windows of a
                stream between two labels, run through the backbone alone.

        Returns:
            The losses.
        """
        kept = [i for i, s in enumerate(batch_data_samples) if s.get('labelled', True)]
        if len(kept) == len(batch_data_samples):
            return super().loss(batch_inputs, batch_data_samples)
        # Where none is kept one goes on, for a gradient of 0 that every process needs.
        going = kept or [0]
        levels = tuple(level[:, going] for level in self.backbone(batch_inputs))
        levels = self.neck(levels)
        if not kept:
            outs = [x for maps in self.bbox_head(levels) for x in maps]
            return dict(loss_unlabelled=sum(0 * x.sum() for x in outs))
        return self.bbox_head.loss(levels, [batch_data_samples[i] for i in kept])


def check_spiking_parts(backbone: nn.Module, neck: Optional[nn.Module]) -> None:
    """Refuse a backbone and neck that would fail, or not learn, deep inside.

    Args:
        backbone: The built backbone.
        neck: The built neck, or None.

    Raises:
        ValueError: No decoder behind a spiking backbone, or channels that disagree.
    """
    necks = list_necks(neck)
    if not necks or not isinstance(necks[0], DecoderNeck):
        raise ValueError(why_no_decoder(backbone, necks))
    check_channels(backbone, necks, (nn.Module,))

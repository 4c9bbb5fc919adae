"""Boxes of MMDetection's dense heads in operations of fixed shapes, non-maximum suppression too."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Optional

import torch
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.models.detectors import SingleStageDetector
from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder, DistancePointBBoxCoder
from mmdet.structures.bbox import get_box_tensor
from torch import Tensor, nn

from ..ops.operators.boxes import keep_boxes
from .plain import ExportError

#: Those whose boxes are clipped to the image behind their decoding, by ``clip_border``.
CODERS = (DeltaXYWHBBoxCoder, DistancePointBBoxCoder)


class BoxSettings(NamedTuple):
    """What a head's ``test_cfg`` says."""

    score_thr: float
    #: The most candidates of a level, and boxes of an image.
    nms_pre: int
    max_per_img: int
    iou_threshold: float
    class_agnostic: bool
    #: Whether boxes without width or height are left out.
    sized: bool


def box_settings(model: nn.Module) -> BoxSettings:
    """Check that a detector's boxes are found as :class:`DenseBoxes` finds them.

    Args:
        model: The detector.

    Returns:
        The settings of its head.

    Raises:
        ExportError: It is of another kind, or its settings ask for something else.
    """
    head: Any = getattr(model, 'bbox_head', None)
    own = [
        name
        for name in ('predict', 'predict_by_feat', '_predict_by_feat_single', '_bbox_post_process')
        if getattr(type(head), name, None) is not getattr(BaseDenseHead, name)
    ]
    if getattr(type(model), 'predict', None) is not SingleStageDetector.predict or own:
        kind = (
            type(model).__name__
            if head is None
            else f'{type(model).__name__} with {type(head).__name__}'
        )
        raise ExportError(
            f'the boxes of a {kind} cannot be exported: known are one-stage detectors whose heads '
            'decode as those of RetinaNet, FCOS and ATSS do'
        )
    if type(head.bbox_coder) not in CODERS:
        raise ExportError(
            f'boxes of a {type(head.bbox_coder).__name__} cannot be exported: known are '
            f'{" and ".join(coder.__name__ for coder in CODERS)}'
        )
    cfg: Any = head.test_cfg or {}
    rule = dict(cfg.get('nms') or {})
    kind = rule.pop('type', 'nms')
    agnostic, iou_threshold = rule.pop('class_agnostic', False), rule.pop('iou_threshold', None)
    rule.pop('split_thr', None)  # which changes nothing but memory
    if kind != 'nms' or iou_threshold is None or rule:
        raise ExportError(
            f'model.test_cfg.nms={dict(cfg.get("nms") or {})} cannot be exported: known is plain '
            "suppression, dict(type='nms', iou_threshold=0.5)"
        )
    for name in ('nms_pre', 'max_per_img'):
        if cfg.get(name, -1) < 1:
            raise ExportError(f'model.test_cfg.{name} must be at least 1, got {cfg.get(name)!r}')
    smallest = cfg.get('min_bbox_size', -1)
    if smallest > 0:
        raise ExportError(
            f'model.test_cfg.min_bbox_size={smallest} is in pixels of the picture before it was '
            'resized, which the graph does not know: set it to 0, and leave small boxes out later'
        )
    return BoxSettings(
        score_thr=cfg.get('score_thr', 0),
        nms_pre=cfg.nms_pre,
        max_per_img=cfg.max_per_img,
        iou_threshold=iou_threshold,
        class_agnostic=agnostic,
        sized=smallest == 0,
    )


class DenseBoxes(nn.Module):
    """A one-stage detector from normalised images to boxes, as its own ``predict`` finds them.

    What MMDetection does image by image, with as many boxes as there happen to be, is done here for
    all images at once, with the same number for each.

    Args:
        model: The detector.

    Raises:
        ExportError: As of :func:`box_settings`.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.settings = box_settings(model)
        self.model: Any = model

    def forward(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Find boxes.

        Args:
            images: (B, C, H, W), normalised and padded.
            sizes: (B, 2), height and width of each image inside its padding, to which boxes are
                clipped.

        Returns:
            Boxes (B, N, 4) as (x1, y1, x2, y2) in pixels of ``images``, scores (B, N) from the
            highest on, and labels (B, N). N is ``max_per_img``, or less where there are fewer
            candidates; rows without a box have a score of 0 and the label -1.
        """
        settings, head = self.settings, self.model.bbox_head
        outputs = self.model._forward(images)
        maps = outputs[0]
        priors = head.prior_generator.grid_priors(
            [m.shape[-2:] for m in maps], dtype=maps[0].dtype, device=maps[0].device
        )
        levels = [self._candidates(*level) for level in zip(priors, *outputs)]
        boxes, scores, labels = (torch.cat(parts, 1) for parts in zip(*levels))
        if getattr(head.bbox_coder, 'clip_border', True):
            height, width = sizes.to(boxes.dtype).split(1, 1)
            most = torch.stack([width, height, width, height], 2)
            boxes = torch.minimum(boxes.clamp(min=0), most)
        if settings.sized:
            lengths = boxes[..., 2:] - boxes[..., :2]
            scores = torch.where((lengths > 0).all(2), scores, -torch.ones(()))
        apart = boxes
        if not settings.class_agnostic:
            # As MMCV does: classes stand beside each other, too far apart to overlap.
            step = torch.where(scores[..., None] >= 0, boxes, 0.0).amax((1, 2)) + 1
            apart = boxes + (labels * step[:, None])[..., None]
        kept = keep_boxes(apart, scores, settings.iou_threshold, settings.max_per_img)
        scores = torch.where(kept, scores, -torch.ones(()))
        scores, best = scores.topk(torch.sym_min(settings.max_per_img, scores.shape[1]))
        there = scores >= 0
        boxes = boxes.gather(1, best[..., None].expand(-1, -1, 4))
        return (
            torch.where(there[..., None], boxes, 0.0),
            torch.where(there, scores, 0.0),
            torch.where(there, labels.gather(1, best), -1),
        )

    def _candidates(
        self, priors: Tensor, cls: Tensor, deltas: Tensor, factors: Optional[Tensor] = None
    ) -> Sequence[Tensor]:
        """Boxes, scores and labels of a level; what is below the threshold has a score of -1."""
        head, settings = self.model.bbox_head, self.settings
        cls = _by_prior(cls, head.cls_out_channels)
        custom = getattr(head.loss_cls, 'custom_cls_channels', False)
        if custom:
            scores = head.loss_cls.get_activation(cls)
        else:
            scores = cls.sigmoid() if head.use_sigmoid_cls else cls.softmax(-1)[..., :-1]
        classes = scores.shape[2]
        scores = scores.flatten(1)
        scores, best = scores.topk(torch.sym_min(settings.nms_pre, scores.shape[1]))
        where, labels = best // classes, best % classes
        scores = torch.where(scores > settings.score_thr, scores, -torch.ones(()))
        if factors is not None:
            factors = _by_prior(factors, 1)[..., 0].sigmoid().gather(1, where)
            scores = torch.where(scores >= 0, scores * factors, scores)
        deltas = _by_prior(deltas, head.bbox_coder.encode_size)
        deltas = deltas.gather(1, where[..., None].expand(-1, -1, deltas.shape[2]))
        priors = get_box_tensor(priors)[where]
        boxes = get_box_tensor(head.bbox_coder.decode(priors.flatten(0, 1), deltas.flatten(0, 1)))
        return boxes.unflatten(0, where.shape), scores, labels


def _by_prior(maps: Tensor, values: int) -> Tensor:
    """(B, A * values, H, W) to (B, H * W * A, values)."""
    return maps.permute(0, 2, 3, 1).reshape(maps.shape[0], -1, values)

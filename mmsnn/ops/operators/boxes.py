"""Which boxes of a detector stay: for inference, without a gradient."""

import torch
from torch import Tensor

from ..nms import nms
from .base import define


def _keep_boxes(boxes: Tensor, scores: Tensor, iou_threshold: float, most: int) -> Tensor:
    """Which boxes non-maximum suppression keeps.

    Args:
        boxes: (B, K, 4), as (x1, y1, x2, y2).
        scores: (B, K); boxes of negative score are left out.
        iou_threshold: Above it, the box of lower score goes.
        most: The most boxes of an image that are kept.

    Returns:
        bool (B, K).
    """
    if boxes.shape != (*scores.shape, 4) or scores.dim() != 2:
        raise ValueError(
            f'boxes need the shape (B, K, 4), and scores (B, K), got {tuple(boxes.shape)} and '
            f'{tuple(scores.shape)}'
        )
    kept = _keep_boxes_fake(boxes, scores, iou_threshold, most).fill_(False)
    for keep, own_boxes, own_scores in zip(kept, boxes, scores):
        (valid,) = (own_scores >= 0).nonzero(as_tuple=True)
        found = nms(own_boxes[valid], own_scores[valid], iou_threshold)
        keep[valid[found[:most]]] = True
    return kept


def _keep_boxes_fake(boxes, scores, iou_threshold, most):
    return torch.empty_like(scores, dtype=torch.bool)


keep_boxes = define(
    'keep_boxes(Tensor boxes, Tensor scores, float iou_threshold, int most) -> Tensor',
    _keep_boxes,
    _keep_boxes_fake,
)

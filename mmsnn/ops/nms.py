"""Non-maximum suppression, which exported detectors call."""

import torch
from torch import Tensor

from .spec import compute_dtype

# Keeps a block of the IoU matrix (128 x 5,000 float32) in the second-level cache.
_BLOCK = 128


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int = 0) -> Tensor:
    """Greedy non-maximum suppression.

    A box is dropped when its IoU with a kept box of higher score is *above* the threshold. Two
    zero-area boxes have the IoU 0/0, which is above nothing, so both stay. It decides as MMCV's CPU
    kernel does, in the same order of float32 arithmetic.

    Args:
        boxes: (N, 4) as (x1, y1, x2, y2); half precision is computed in float32.
        scores: (N,). Of equal scores the lower index goes first.
        iou_threshold: IoU above which a box is dropped, rounded to float32 as the kernel does.
        offset: 0, or 1 for boxes whose x2 and y2 are the last pixel inside.

    Returns:
        Indices of the kept boxes by descending score, (K,) int64.
    """
    boxes = boxes.detach().to(compute_dtype(boxes.dtype))
    threshold = torch.tensor(iou_threshold, dtype=torch.float32).item()
    order = torch.sort(scores.detach(), descending=True, stable=True).indices
    coords = boxes[order].t().contiguous()
    areas = (coords[2] - coords[0] + offset) * (coords[3] - coords[1] + offset)
    kept = [order[:0]]
    while order.numel():
        # Resolve the block of best boxes among themselves, then drop what they suppress behind
        # them: only boxes that are still alive are ever compared.
        head, head_areas = coords[:, :_BLOCK], areas[:_BLOCK]
        keep = _resolve(_pairwise_iou(head, head_areas, head, head_areas, offset) > threshold)
        kept.append(order[:_BLOCK][keep])
        order, coords, areas = order[_BLOCK:], coords[:, _BLOCK:], areas[_BLOCK:]
        if order.numel() == 0:
            break
        iou = _pairwise_iou(head[:, keep], head_areas[keep], coords, areas, offset)
        dropped = (iou > threshold).any(0)
        if dropped.any():
            alive = ~dropped
            order, coords, areas = order[alive], coords[:, alive], areas[alive]
    return torch.cat(kept)


def _pairwise_iou(
    boxes1: Tensor, areas1: Tensor, boxes2: Tensor, areas2: Tensor, offset: int
) -> Tensor:
    """IoU of coordinate-major (4, N) and (4, M) boxes, (N, M).

    In-place steps: the temporaries, not the arithmetic, set the time.
    """
    width = torch.minimum(boxes1[2, :, None], boxes2[2])
    width -= torch.maximum(boxes1[0, :, None], boxes2[0])
    height = torch.minimum(boxes1[3, :, None], boxes2[3])
    height -= torch.maximum(boxes1[1, :, None], boxes2[1])
    if offset:
        width += offset
        height += offset
    inter = width.clamp_(min=0).mul_(height.clamp_(min=0))
    union = torch.add(areas1[:, None], areas2, out=height).sub_(inter)
    return inter.div_(union)


def _resolve(overlaps: Tensor) -> Tensor:
    """Which of some boxes stay, the best first, by what overlaps what, (B, B).

    A box stays where no better one that stays overlaps it. After k rounds that is right for the
    first k boxes, and mostly for all of them after a few.
    """
    overlaps = overlaps.triu(1)
    alive = torch.ones_like(overlaps[0])
    while True:
        after = ~(overlaps & alive[:, None]).any(0)
        if torch.equal(after, alive):
            return alive
        alive = after

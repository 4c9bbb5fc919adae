"""Non-maximum suppression (tests/compat/test_ops.py compares it), and its operator."""

import pytest
import torch

from mmsnn.ops.nms import nms
from mmsnn.ops.operators.boxes import keep_boxes


def test_long_chain():
    """Each box overlaps the next one alone, so that every other one stays."""
    left = torch.arange(300.0)
    boxes = torch.stack([left, torch.zeros(300), left + 1.9, torch.ones(300)], 1)
    kept = nms(boxes, torch.arange(300, 0, -1.0), 0.25)
    assert kept.tolist() == list(range(0, 300, 2))


def test_operator():
    boxes = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 5], [9, 9, 12, 12], [20, 20, 22, 22]])
    boxes = torch.stack([boxes, boxes.flip(0)])
    scores = torch.tensor([[0.5, 0.9, 0.4, -1], [0.1, 0.2, 0.9, 0.8]])
    expected = [[False, True, True, False], [False, True, True, False]]
    assert keep_boxes(boxes, scores, 0.5, 2).tolist() == expected
    torch.library.opcheck(torch.ops.mmsnn.keep_boxes.default, (boxes, scores, 0.5, 2))


def test_boxes_and_scores_that_do_not_fit():
    with pytest.raises(ValueError, match=r'shape \(B, K, 4\).*got \(2, 3, 4\) and \(2, 4\)'):
        keep_boxes(torch.zeros(2, 3, 4), torch.zeros(2, 4), 0.5, 2)

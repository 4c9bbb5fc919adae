"""The sample that data sets, classifiers and metrics share."""

import numpy as np
import pytest
import torch

from mmsnn.structures import ClsDataSample


@pytest.mark.parametrize('label', [3, np.int64(3), [3], torch.tensor(3), np.array([3])])
def test_a_label_of_any_kind_is_one_int64(label):
    sample = ClsDataSample().set_gt_label(label)
    assert sample.gt_label.dtype == torch.int64
    assert sample.gt_label.tolist() == [3]


def test_more_than_one_label_is_refused():
    with pytest.raises(RuntimeError):
        ClsDataSample().set_gt_label([1, 2])


def test_scores_bring_the_label():
    sample = ClsDataSample(metainfo=dict(img_path='cat.png'))
    sample.set_pred_score(torch.tensor([0.2, 0.1, 0.7])).set_gt_score(torch.tensor([0.5, 0.0, 0.5]))
    assert sample.pred_label.tolist() == [2]
    assert sample.img_path == 'cat.png'
    moved = sample.to(torch.float64)
    assert moved.pred_score.dtype == torch.float64
    assert moved.gt_score.tolist() == [0.5, 0.0, 0.5]

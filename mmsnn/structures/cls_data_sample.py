"""Truth and prediction of one classified image or event stream."""

from collections.abc import Sequence
from typing import Union

import numpy as np
import torch
from mmengine.structures import BaseDataElement
from torch import Tensor


class ClsDataSample(BaseDataElement):
    """What is known of one sample, and what the classifier says of it.

    - ``gt_label``: (1,), int64, the true class.
    - ``gt_score``: (num_classes,), the true class as a distribution; MixUp and CutMix set it.
    - ``pred_score``: (num_classes,), probabilities.
    - ``pred_label``: (1,), int64, the most probable class.

    Example:
        >>> import torch
        >>> from mmsnn.structures import ClsDataSample
        >>> sample = ClsDataSample(metainfo=dict(img_path='cat.png')).set_gt_label(3)
        >>> sample.gt_label
        tensor([3])
        >>> sample.set_pred_score(torch.tensor([0.1, 0.7, 0.2])).pred_label
        tensor([1])
    """

    def set_gt_label(self, label: Union[int, np.integer, Sequence[int], Tensor]) -> 'ClsDataSample':
        """Set ``gt_label``.

        Args:
            label: One class index.

        Returns:
            The sample itself.
        """
        label = torch.as_tensor(label, dtype=torch.int64).reshape(1)
        self.set_field(label, 'gt_label', dtype=Tensor)
        return self

    def set_gt_score(self, score: Tensor) -> 'ClsDataSample':
        """Set ``gt_score``.

        Args:
            score: (num_classes,), sums to 1.

        Returns:
            The sample itself.
        """
        self.set_field(score, 'gt_score', dtype=Tensor)
        return self

    def set_pred_score(self, score: Tensor) -> 'ClsDataSample':
        """Set ``pred_score``, and ``pred_label`` with it.

        Args:
            score: (num_classes,), probabilities.

        Returns:
            The sample itself.
        """
        self.set_field(score, 'pred_score', dtype=Tensor)
        self.set_field(score.argmax().reshape(1), 'pred_label', dtype=Tensor)
        return self

"""What data sets for classifiers have in common."""

import numpy as np
from mmengine.dataset import BaseDataset, force_full_init


class ClsDataset(BaseDataset):
    """A data set of samples with one class each.

    Data sets that derive from it are checked before training, see
    :func:`mmsnn.datasets.check_cls_dataset`. Items hold the class as ``gt_label``, a whole number
    that counts up the ``classes`` of the metainfo from 0. ``load_data_list`` raises a
    :class:`~mmsnn.datasets.DatasetError` that says what is wrong with the data and what to do.
    """

    @force_full_init
    def get_gt_labels(self) -> np.ndarray:
        """The class of every sample.

        Returns:
            (N,), int64.
        """
        return np.array([self.get_data_info(i)['gt_label'] for i in range(len(self))], np.int64)

    def get_cat_ids(self, idx: int) -> list[int]:
        """The class of a sample, for ``ClassBalancedDataset``.

        Args:
            idx: Position of the sample.

        Returns:
            Its class, alone in a list.
        """
        return [int(self.get_data_info(idx)['gt_label'])]

    def check_files(self) -> None:
        """Look at the files that are read sample by sample, during training.

        What ``load_data_list`` reads need not be looked at again.

        Raises:
            DatasetError: One of them is missing or broken.
        """

    def image_files(self) -> tuple[str, list[str]]:
        """Image files that ``LoadImageFromFile`` reads sample by sample, which are looked at, too.

        Returns:
            A folder, and their paths relative to it; none by default.
        """
        return '', []

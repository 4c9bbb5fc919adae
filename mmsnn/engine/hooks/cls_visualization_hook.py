"""Pictures of what a classifier found, during validation and testing."""

import os.path as osp
from collections.abc import Sequence
from typing import Optional

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.visualization import Visualizer

from ...datasets.image_files import output_names
from ...structures import ClsDataSample
from ...visualization import input_picture
from .det_picture_hook import pictures_folder, say_where


@HOOKS.register_module()
class ClsVisualizationHook(Hook):
    """Draws samples with their true and found class; MMDetection's hook of this kind, for classes.

    The pictures are those that the network sees, so data sets need not be image files.

    Args:
        draw: Whether to draw; ``tools/test.py --show-dir`` and ``--show`` turn it on.
        interval: In validation, draw the first sample of every so many batches.
        show: Whether to show the pictures on the screen.
        wait_time: Seconds to show each.
        test_out_dir: Folder below the run's folder for the pictures of a test; None gives them to
            the visualizer's backends.
    """

    def __init__(
        self,
        draw: bool = False,
        interval: int = 50,
        show: bool = False,
        wait_time: float = 0.0,
        test_out_dir: Optional[str] = None,
    ):
        self.draw = draw
        self.interval = interval
        self.show = show
        self.wait_time = wait_time
        self.test_out_dir = test_out_dir
        self._count = 0
        self._names: dict[str, str] = {}

    def before_test(self, runner: Runner) -> None:
        """Name the pictures by the files of the samples, the same in every process."""
        if not self.draw or self.test_out_dir is None:
            return
        dataset = runner.test_dataloader.dataset
        paths = [dataset.get_data_info(i).get('img_path') for i in range(len(dataset))]
        # Several samples of one file, as parts of a recording, are told apart by their numbers.
        if None not in paths and len(set(paths)) == len(paths):
            self._names = output_names(paths, '.png')

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict, outputs: Sequence[ClsDataSample]
    ) -> None:
        """Draw the first sample of a batch."""
        if self.draw and batch_idx % self.interval == 0:
            self._draw('val', data_batch['inputs'][0], outputs[0], runner.iter + batch_idx)

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict, outputs: Sequence[ClsDataSample]
    ) -> None:
        """Draw every sample."""
        if not self.draw:
            return
        for frames, sample in zip(data_batch['inputs'], outputs):
            self._count += 1
            out_file = None
            if self.test_out_dir is not None:
                folder = pictures_folder(runner, self.test_out_dir)
                number = f'{self._count:06d}.png'
                out_file = osp.join(folder, self._names.get(sample.get('img_path'), number))
            self._draw('test', frames, sample, self._count, out_file)

    def after_test(self, runner: Runner) -> None:
        """Say where the pictures are."""
        if self.draw and self.test_out_dir is not None:
            say_where(runner, self.test_out_dir)

    def _draw(self, name, inputs, sample, step, out_file=None) -> None:
        Visualizer.get_current_instance().add_datasample(
            name,
            input_picture(inputs),
            sample,
            show=self.show,
            wait_time=self.wait_time,
            out_file=out_file,
            step=step,
        )

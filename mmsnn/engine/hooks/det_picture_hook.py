"""Pictures of what a detector found during a test, each in a file of its own."""

import os.path as osp
from collections.abc import Sequence

import mmcv
from mmdet.engine.hooks import DetVisualizationHook
from mmdet.registry import HOOKS
from mmdet.structures import DetDataSample
from mmengine.fileio import get
from mmengine.runner import Runner

from ...datasets.image_files import output_names


def pictures_folder(runner: Runner, test_out_dir: str) -> str:
    """Where the pictures of a test go.

    Args:
        runner: Of the test.
        test_out_dir: What ``tools/test.py --show-dir`` was given.

    Returns:
        A folder below the run's own.
    """
    return osp.join(runner.work_dir, runner.timestamp, test_out_dir)


def say_where(runner: Runner, test_out_dir: str) -> None:
    """Say where the pictures of a test are.

    Args:
        runner: Of the test.
        test_out_dir: What ``tools/test.py --show-dir`` was given.
    """
    folder = pictures_folder(runner, test_out_dir)
    runner.logger.info(f'mmsnn: the pictures are in {osp.abspath(folder)}')


@HOOKS.register_module()
class DetPictureHook(DetVisualizationHook):
    """MMDetection's hook, whose test pictures of one name in different folders are two pictures.

    MMDetection's own writes one over the other. ``tools/test.py --show-dir`` takes this one in its
    place.

    Args:
        *args: As of MMDetection's hook.
        **kwargs: Likewise.
    """

    def before_test(self, runner: Runner) -> None:
        """Name the pictures, the same in every process."""
        dataset = runner.test_dataloader.dataset
        paths = (dataset.get_data_info(i)['img_path'] for i in range(len(dataset)))
        self._names = output_names(list(paths)) if self.draw and self.test_out_dir else {}

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict, outputs: Sequence[DetDataSample]
    ) -> None:
        """Draw every sample."""
        if not self.draw:
            return
        for sample in outputs:
            self._test_index += 1
            image = mmcv.imfrombytes(
                get(sample.img_path, backend_args=self.backend_args), channel_order='rgb'
            )
            out_file = None
            if self.test_out_dir is not None:
                folder = pictures_folder(runner, self.test_out_dir)
                out_file = osp.join(folder, self._names[sample.img_path])
            self._visualizer.add_datasample(
                osp.basename(sample.img_path) if self.show else 'test_img',
                image,
                data_sample=sample,
                show=self.show,
                wait_time=self.wait_time,
                pred_score_thr=self.score_thr,
                out_file=out_file,
                step=self._test_index,
            )

    def after_test(self, runner: Runner) -> None:
        """Say where the pictures are."""
        if self.draw and self.test_out_dir is not None:
            say_where(runner, self.test_out_dir)

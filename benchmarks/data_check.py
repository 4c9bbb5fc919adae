"""What the check of the data before a run costs, by the time of an epoch of training."""

import argparse
import copy
import os
import statistics
import tempfile
import time

# First: without mmcv's compiled ops, MMDetection's models import only behind it.
import mmsnn  # noqa: F401  isort: skip

# What the evaluation of a run imports, too.
import mmdet.evaluation  # noqa: F401
from mmengine.config import Config, DictAction
from mmengine.runner import Runner

from mmsnn.datasets import check_config_datasets
from mmsnn.utils import CONFIG_ERRORS, exit_on_error


def seconds(function, *args):
    """Time of a call."""
    start = time.perf_counter()
    function(*args)
    return time.perf_counter() - start


def main():
    """Print the times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='path of the config')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE')
    args = parser.parse_args()
    cfg = Config.fromfile(args.config)
    if args.cfg_options:
        cfg.merge_from_dict(args.cfg_options)

    checked = copy.deepcopy(cfg)
    with exit_on_error(*CONFIG_ERRORS):
        check_config_datasets(copy.deepcopy(cfg))  # before the training: what is missing
    with tempfile.TemporaryDirectory() as folder:
        cfg.update(work_dir=folder, launcher='none', log_level='WARNING')
        cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1)
        cfg.update(val_cfg=None, val_dataloader=None, val_evaluator=None)
        cfg.update(test_cfg=None, test_dataloader=None, test_evaluator=None)
        cfg.default_hooks.checkpoint = dict(type='CheckpointHook', interval=-1, save_last=False)
        runner = Runner.from_cfg(cfg)  # which imports whatever the check needs, too
        epoch = seconds(runner.train)

        # The kernels, which have their place in the same cache, are loaded by now.
        os.environ['MMSNN_CACHE_DIR'] = os.path.join(folder, 'cache')
        first = seconds(check_config_datasets, checked)
        later = [seconds(check_config_datasets, checked) for _ in range(5)]
    images = len(runner.train_dataloader.dataset)
    print(f'an epoch of {images} images: {epoch:.2f} s')
    for name, cost in (('the first check', first), ('a later one', statistics.median(later))):
        print(f'{name}: {cost * 1e3:.0f} ms, {100 * cost / epoch:.2f} % of the epoch')


if __name__ == '__main__':
    main()

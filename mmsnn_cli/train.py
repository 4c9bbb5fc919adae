"""Train a detector or a classifier. The options are those of MMDetection's tools/train.py."""

import argparse
from collections.abc import Sequence
from typing import Optional

# First: without mmcv's compiled ops, MMDetection's models import only behind it.
import mmsnn  # noqa: F401  isort: skip

from mmdet.utils import setup_cache_size_limit_of_dynamo

from mmsnn.compat import check_state_dict, enforce_safe_loading
from mmsnn.utils import (
    ToolError,
    add_common_arguments,
    build_runner,
    check_data,
    check_pretrained,
    check_settings,
    enable_amp,
    exit_on_error,
    faults_in_one_line,
    fetch_checkpoint,
    find_start,
    leave_launcher,
    load_config,
    lock_work_dir,
    setup_launcher,
)

EXAMPLES = """examples:
  mmsnn train mmsnn::spiking_retinanet/spiking-retinanet_sg-r18_asd_fpn_1x_coco.py --amp
  mmsnn train mmsnn::sg_resnet/sg-r18_asd_cifar10.py
  mmsnn train CONFIG --resume                           # go on after a stop
  mmsnn train CONFIG --cfg-options model.backbone.time_steps=2
  torchrun --nproc_per_node 8 -m mmsnn train CONFIG --launcher pytorch    # 8 GPUs"""


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog='mmsnn train',
        description='Train a detector or a classifier from a config.',
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('config', help='path of the config')
    parser.add_argument(
        '--work-dir', help='folder for logs and checkpoints (default: work_dirs/NAME_OF_CONFIG)'
    )
    parser.add_argument(
        '--amp', action='store_true', help='train in mixed precision: bfloat16, on GPU and CPU'
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help="scale the learning rate by the batch size over the config's "
        'auto_scale_lr.base_batch_size',
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='go on from CHECKPOINT or, without a value, from the latest in the work dir',
    )
    add_common_arguments(parser)
    return parser.parse_args(argv)


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Train."""
    args = parse_args(argv)
    enforce_safe_loading(args.trust_checkpoint)
    setup_cache_size_limit_of_dynamo()
    with exit_on_error():
        cfg = load_config(args)
        if args.amp:
            enable_amp(cfg)
        if args.auto_scale_lr:
            if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
                raise ToolError(
                    '--auto-scale-lr needs to know the batch size that the learning '
                    'rate was chosen for: add auto_scale_lr=dict(enable=True, '
                    'base_batch_size=16) to the config'
                )
            cfg.auto_scale_lr.enable = True
        if args.resume is not None:
            cfg.resume = True
            cfg.load_from = None if args.resume == 'auto' else args.resume
        check_settings(cfg, ('train', 'val'))
        if cfg.get('load_from'):
            cfg.load_from = fetch_checkpoint(cfg.load_from)
        lock_work_dir(cfg.work_dir)
        start = find_start(cfg, args.trust_checkpoint)
        check_pretrained(cfg, args.trust_checkpoint)
        resumed = (start.content, start.path) if start and cfg.get('resume') else ()
        check_data(cfg, ('train', 'val'), args, None, *resumed)
        del resumed

    setup_launcher(cfg)
    runner = build_runner(cfg, ('train', 'val'))
    with exit_on_error():
        if start is not None and cfg.get('resume'):
            check_state_dict(runner.model, start.content, start.path)
        del start
        with faults_in_one_line():
            runner.train()
    leave_launcher()

"""Evaluate a detector or a classifier. The options are those of MMDetection's tools/test.py."""

import argparse
from collections.abc import Sequence
from typing import Optional

# First: without mmcv's compiled ops, MMDetection's models import only behind it.
import mmsnn  # noqa: F401  isort: skip

from mmdet.engine.hooks import DetVisualizationHook
from mmdet.engine.hooks.utils import trigger_visualization_hook
from mmdet.evaluation import DumpDetResults
from mmdet.registry import HOOKS
from mmdet.utils import setup_cache_size_limit_of_dynamo
from mmengine.config import Config, ConfigDict

from mmsnn.compat import check_state_dict, enforce_safe_loading, load_checkpoint_file
from mmsnn.config_types import find_type
from mmsnn.datasets import datasets_of
from mmsnn.utils import (
    ToolError,
    add_common_arguments,
    add_fuse_argument,
    build_runner,
    check_data,
    check_settings,
    check_time_steps,
    exit_on_error,
    faults_in_one_line,
    fetch_checkpoint,
    leave_launcher,
    load_config,
    set_time_steps,
    setup_launcher,
    unwrap,
)

EXAMPLES = """examples:
  mmsnn test CONFIG work_dirs/NAME/epoch_12.pth
  mmsnn test CONFIG CHECKPOINT --show-dir pictures   # boxes found beside true boxes
  mmsnn test CONFIG CHECKPOINT --out predictions.pkl
  mmsnn test CONFIG CHECKPOINT --time-steps 2        # T = 2, whatever the config says
  mmsnn test CONFIG CHECKPOINT --fuse                # several times faster
  torchrun --nproc_per_node 8 -m mmsnn test CONFIG CHECKPOINT --launcher pytorch    # 8 GPUs"""


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog='mmsnn test',
        description='Evaluate a checkpoint: the COCO table of a detector, the accuracies of a '
        'classifier.',
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('config', help='path of the config')
    parser.add_argument('checkpoint', help='path of the checkpoint')
    parser.add_argument(
        '--work-dir', help='folder for the log and the metrics (default: work_dirs/NAME_OF_CONFIG)'
    )
    parser.add_argument('--out', metavar='FILE.pkl', help='save the predictions')
    parser.add_argument('--show', action='store_true', help='show the pictures on the screen')
    parser.add_argument(
        '--show-dir',
        metavar='DIR',
        help='save pictures with the boxes, true ones on the left and found ones '
        'on the right, or with the classes, to WORK_DIR/TIMESTAMP/DIR',
    )
    parser.add_argument(
        '--wait-time',
        type=float,
        default=2,
        metavar='SECONDS',
        help='how long --show shows each (default: 2)',
    )
    parser.add_argument(
        '--tta',
        action='store_true',
        help="test-time augmentation: the config's, or a horizontal flip",
    )
    parser.add_argument(
        '--time-steps', type=int, metavar='T', help="evaluate with T time steps, not the config's"
    )
    add_fuse_argument(parser)
    add_common_arguments(parser)
    return parser.parse_args(argv)


def enable_tta(cfg: Config) -> None:
    """Wrap the model and the pipeline for test-time augmentation, as MMDetection does.

    Args:
        cfg: The config.

    Raises:
        ToolError: The model is no detector, and the config says nothing of it.
    """
    if 'tta_model' not in cfg and 'head' in cfg.model:
        raise ToolError(
            '--tta knows what to do for detectors: for a classifier, give the config a tta_model '
            'and a tta_pipeline'
        )
    if 'tta_model' not in cfg:
        cfg.tta_model = dict(
            type='DetTTAModel',
            tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100),
        )
    meta_keys = (
        'img_id',
        'img_path',
        'ori_shape',
        'img_shape',
        'scale_factor',
        'flip',
        'flip_direction',
    )
    flips = dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip', prob=0.0)],
            [dict(type='PackDetInputs', meta_keys=meta_keys)],
        ],
    )
    for _, _, dataset in datasets_of(cfg, ('test',)):
        dataset.pipeline = cfg.get('tta_pipeline') or [*dataset.pipeline[:-1], flips]
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Evaluate."""
    args = parse_args(argv)
    enforce_safe_loading(args.trust_checkpoint)
    setup_cache_size_limit_of_dynamo()
    with exit_on_error():
        if args.out is not None and not args.out.endswith(('.pkl', '.pickle')):
            raise ToolError(f'--out must name a .pkl file, got {args.out}')
        cfg = load_config(args)
        if args.time_steps is not None:
            check_time_steps(args.time_steps)
        check_settings(cfg, ('test',))
        args.checkpoint = fetch_checkpoint(args.checkpoint)
        checkpoint = load_checkpoint_file(args.checkpoint, args.trust_checkpoint)
        check_data(cfg, ('test',), args, args.time_steps, checkpoint, args.checkpoint)
        if args.tta:
            enable_tta(cfg)
    # A config that resumes a training tests without resuming anything.
    cfg.load_from, cfg.resume = args.checkpoint, False
    if args.show or args.show_dir:
        cfg = trigger_visualization_hook(cfg, args)
        hook = cfg.default_hooks.visualization
        if find_type(hook, HOOKS) is DetVisualizationHook:
            hook.type = 'mmdet.DetPictureHook'
    if args.fuse is not None:
        fuse_hook = dict(type='FuseHook', precision=args.fuse)
        cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), fuse_hook]

    setup_launcher(cfg)
    runner = build_runner(cfg, ('test',))
    with exit_on_error():
        detector = unwrap(runner.model)
        check_state_dict(detector, checkpoint, args.checkpoint)
        del checkpoint
        if args.time_steps is not None:
            set_time_steps(detector, args.time_steps)
        if args.out is not None:
            runner.test_evaluator.metrics.append(DumpDetResults(out_file_path=args.out))
        with faults_in_one_line():
            runner.test()
    leave_launcher()

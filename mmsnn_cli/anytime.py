"""Anytime results: one checkpoint at several numbers of time steps, its scores against time."""

import argparse
import json
import os
from collections.abc import Sequence
from typing import Optional

# First: without mmcv's compiled ops, MMDetection's models import only behind it.
import mmsnn  # noqa: F401  isort: skip

import torch
from mmengine.dist import is_main_process

from mmsnn.compat import check_state_dict, enforce_safe_loading, load_checkpoint_file
from mmsnn.datasets import check_frames
from mmsnn.engine import FuseHook
from mmsnn.utils import (
    add_common_arguments,
    add_fuse_argument,
    anytime,
    anytime_table,
    build_runner,
    check_data,
    check_out,
    check_settings,
    check_time_steps,
    draw_anytime,
    exit_on_error,
    fetch_checkpoint,
    get_time_steps,
    leave_launcher,
    load_config,
    picture_path,
    score_names,
    set_time_steps,
    setup_launcher,
    unwrap,
)

EXAMPLES = """examples:
  mmsnn anytime CONFIG CHECKPOINT
  mmsnn anytime CONFIG CHECKPOINT --fuse
  mmsnn anytime CONFIG CHECKPOINT --time-steps 1 2 3 --out anytime.json"""


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog='mmsnn anytime',
        description='Evaluate a checkpoint at several numbers of time steps T: a table of T, mAP '
        'or accuracy, and time, the same with every number as JSON, and a picture beside it.',
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('config', help='path of the config')
    parser.add_argument('checkpoint', help='path of the checkpoint')
    parser.add_argument(
        '--time-steps',
        type=int,
        nargs='+',
        default=[1, 2, 3, 4, 6, 8],
        metavar='T',
        help='numbers of time steps (default: 1 2 3 4 6 8)',
    )
    parser.add_argument('--work-dir', help='folder for the log (default: work_dirs/NAME_OF_CONFIG)')
    parser.add_argument(
        '--out',
        metavar='FILE.json',
        help='the results; the picture is FILE.png (default: WORK_DIR/TIMESTAMP/anytime.json)',
    )
    add_fuse_argument(parser)
    add_common_arguments(parser)
    return parser.parse_args(argv)


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Evaluate and time at every T."""
    args = parse_args(argv)
    steps = sorted(set(args.time_steps))
    enforce_safe_loading(args.trust_checkpoint)
    with exit_on_error(OSError, ValueError):
        fuse_hook = None if args.fuse is None else FuseHook(args.fuse)
        check_time_steps(*steps)
        cfg = load_config(args)
        if args.out is not None:
            check_out(args.out)
        check_settings(cfg, ('test',))
        args.checkpoint = fetch_checkpoint(args.checkpoint)
        checkpoint = load_checkpoint_file(args.checkpoint, args.trust_checkpoint)
        for t in steps:
            check_frames(cfg, ('test',), t)
        check_data(cfg, ('test',), args, None, checkpoint, args.checkpoint)
    cfg.load_from, cfg.resume = args.checkpoint, False

    setup_launcher(cfg)
    runner = build_runner(cfg, ('test',))
    with exit_on_error():
        model = unwrap(runner.model)
        check_state_dict(model, checkpoint, args.checkpoint)
        del checkpoint
        score_names(runner.test_evaluator)  # refuses an evaluator without any
        configured = get_time_steps(model)
        for t in steps:  # every one is checked before the work starts
            set_time_steps(model, t)
        # What runner.test() does, with another middle.
        runner.call_hook('before_run')
        runner.load_or_resume()
        if fuse_hook is not None:
            fuse_hook.before_test(runner)
            model = unwrap(runner.model)
        model.eval()
        rows, scores = anytime(runner, model, steps, configured)
        runner.call_hook('after_run')
    runner.logger.info(f'the config has T = {configured}\n{anytime_table(rows, scores)}')
    if is_main_process():
        out = args.out or os.path.join(runner.log_dir, 'anytime.json')
        about = dict(
            config=args.config,
            checkpoint=args.checkpoint,
            config_time_steps=configured,
            fused=args.fuse,
            device=torch.cuda.get_device_name() if torch.cuda.is_available() else 'cpu',
        )
        with open(out, 'x') as file:
            json.dump({**about, 'results': rows}, file, indent=2)
        draw_anytime(rows, scores, configured).savefig(picture_path(out), dpi=150)
        print(f'results: {out}\npicture: {picture_path(out)}')
    leave_launcher()

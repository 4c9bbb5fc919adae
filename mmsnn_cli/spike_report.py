"""One page about a spiking detector or classifier: results, pictures, spikes, energy, time."""

import argparse
import math
import os.path as osp
import shlex
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Optional

# First: without mmcv's compiled ops, MMDetection's models import only behind it.
import mmsnn  # noqa: F401  isort: skip

from mmdet.evaluation import CocoMetric

from mmsnn.analysis import AC_ENERGY, MAC_ENERGY
from mmsnn.compat import check_state_dict, enforce_safe_loading, load_checkpoint_file
from mmsnn.config_types import type_name
from mmsnn.datasets import DatasetError, check_frames
from mmsnn.report import collect, compare, read_report, write
from mmsnn.utils import (
    ToolError,
    add_common_arguments,
    build_runner,
    check_data,
    check_out,
    check_settings,
    check_time_steps,
    exit_on_error,
    fetch_checkpoint,
    load_config,
    unwrap,
)

EXAMPLES = """examples:
  mmsnn report CONFIG work_dirs/NAME/epoch_12.pth
  mmsnn report CONFIG CHECKPOINT --out report.html --images 30
  mmsnn report CONFIG CHECKPOINT --max-images 500   # of a large set
  mmsnn report CONFIG CHECKPOINT --mac-energy 3.1 --ac-energy 0.1
  mmsnn report ANN_CONFIG ANN_CHECKPOINT --out ann.html --like snn.html
  mmsnn report --compare ann.html snn.html --out compare.html"""

DEFAULT_STEPS = (1, 2, 3, 4, 6, 8)


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog='mmsnn report',
        description='Evaluate a checkpoint on the test data and write one HTML file that says how '
        'good it is, how sparse, at what energy beside its ANN twin, when it would have been right '
        'already, and what went wrong, with pictures of its spikes and its attention. The file '
        'needs no network; FILE.json beside it has every number.',
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('config', nargs='?', help='path of the config')
    parser.add_argument('checkpoint', nargs='?', help='path of the checkpoint')
    parser.add_argument(
        '--compare',
        nargs=2,
        metavar=('A', 'B'),
        help='put two reports side by side instead: their pages, JSON files or folders. An ANN and '
        'a spiking network, two T, before and after',
    )
    parser.add_argument('--work-dir', help='folder for the log (default: work_dirs/NAME_OF_CONFIG)')
    parser.add_argument(
        '--out',
        metavar='FILE.html',
        help='the report (default: WORK_DIR/TIMESTAMP/spike_report.html)',
    )
    parser.add_argument(
        '--time-steps',
        type=int,
        nargs='+',
        metavar='T',
        help='numbers of time steps for accuracy and time over T (default: 1 2 3 4 6 8; of event '
        'frames, which come in a number of their own, that one)',
    )
    parser.add_argument(
        '--images',
        type=int,
        default=9,
        metavar='N',
        help='pictures to show: a third of them the worst, typical and best (default: 9)',
    )
    parser.add_argument(
        '--like',
        metavar='REPORT',
        help='show the pictures that another report of the same data shows, to compare the two',
    )
    parser.add_argument(
        '--max-images', type=int, metavar='N', help='look only at the first N images'
    )
    parser.add_argument(
        '--score-thr',
        type=float,
        metavar='S',
        help="least score of a detector's box in pictures and counts (default: the best F1)",
    )
    parser.add_argument(
        '--train-dir',
        metavar='DIR',
        help="folder of the training run, for its curves (default: the checkpoint's)",
    )
    for name, joules, what in (
        ('mac', MAC_ENERGY, 'multiply-accumulate'),
        ('ac', AC_ENERGY, 'synaptic operation'),
    ):
        parser.add_argument(
            f'--{name}-energy',
            type=float,
            default=joules * 1e12,
            metavar='PJ',
            help=f'picojoules a {what} (default: {joules * 1e12:g}, 45 nm)',
        )
    add_common_arguments(parser)
    args = parser.parse_args(argv)
    if args.compare is None and args.checkpoint is None:
        parser.error('give a CONFIG and a CHECKPOINT, or --compare A B')
    if args.compare is not None and args.config is not None:
        parser.error('--compare takes two reports and no config')
    return args


def check_args(args: argparse.Namespace) -> None:
    """Refuse what would fail after the long work.

    Args:
        args: The command line.

    Raises:
        ToolError: An option out of range, an output that is there already, or several processes.
    """
    if args.launcher != 'none':
        raise ToolError('a report is made by one process: take --launcher away')
    for name in ('images', 'max_images'):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ToolError(f'--{name.replace("_", "-")} must be at least 1, got {value}')
    if args.score_thr is not None and not 0 <= args.score_thr <= 1:
        raise ToolError(f'--score-thr must lie between 0 and 1, got {args.score_thr}')
    for name in ('mac_energy', 'ac_energy'):
        value = getattr(args, name)
        if not 0 <= value < math.inf:
            raise ToolError(f'--{name.replace("_", "-")} must be a number of pJ, got {value}')
    if args.train_dir is not None and not osp.isdir(args.train_dir):
        raise ToolError(f'--train-dir {args.train_dir} is not a folder')
    if args.out is not None:
        check_out(args.out, suffix='.html', beside='.json')


def write_comparison(args: argparse.Namespace) -> None:
    """Two reports on one page.

    Args:
        args: The command line.
    """
    out = args.out or 'compare.html'
    with exit_on_error(OSError, ValueError):
        check_out(out, suffix='.html', beside=None)
        page = compare(*args.compare)
        with open(out, 'x', encoding='utf-8') as file:
            file.write(page)
    print(f'comparison: {out}')


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Measure, and write the report."""
    args = parse_args(argv)
    if args.compare is not None:
        write_comparison(args)
        return
    enforce_safe_loading(args.trust_checkpoint)
    with exit_on_error(OSError, ValueError):
        check_args(args)
        check_time_steps(*args.time_steps or ())
        cfg = load_config(args)
        check_settings(cfg, ('test',))
        args.checkpoint = fetch_checkpoint(args.checkpoint)
        checkpoint = load_checkpoint_file(args.checkpoint, args.trust_checkpoint)
        check_data(cfg, ('test',), args, None, checkpoint, args.checkpoint)
        steps = check_steps(cfg, args.time_steps)
        if args.like is not None:
            shown = read_report(args.like).numbers['gallery']
            args.like = [(shot['index'], shot['group']) for shot in shown]
        prepare_data(cfg, args.max_images)
    cfg.load_from, cfg.resume = args.checkpoint, False
    # A fused model writes no spikes that could be counted.
    cfg.custom_hooks = [h for h in cfg.get('custom_hooks') or [] if type_name(h) != 'FuseHook']

    runner = build_runner(cfg, ('test',))
    with exit_on_error():
        model = unwrap(runner.model)
        check_state_dict(model, checkpoint, args.checkpoint)
        del checkpoint
        runner.call_hook('before_run')
        runner.load_or_resume()
        size = len(runner.test_dataloader.dataset)
        if args.like and max(i for i, _ in args.like) >= size:
            raise ToolError(f'--like is a report of other data: there are {size} images here')
        if args.max_images is not None:
            judge_only(runner)
        numbers, pictures = collect(
            runner,
            model,
            steps,
            num_images=args.images,
            score_thr=args.score_thr,
            like=args.like,
            log_dir=args.train_dir or osp.dirname(args.checkpoint),
            mac_energy=args.mac_energy * 1e-12,
            ac_energy=args.ac_energy * 1e-12,
        )
        runner.call_hook('after_run')
    out = args.out or osp.join(runner.log_dir, 'spike_report.html')
    numbers = dict(
        config=args.config,
        checkpoint=args.checkpoint,
        command=shlex.join(['mmsnn', 'report', *(sys.argv[1:] if argv is None else argv)]),
        **numbers,
    )
    json_path = write(numbers, pictures, out)
    print(f'report: {out}\nnumbers: {json_path}')


def judge_only(runner) -> None:
    """Let COCO's evaluation look at the images that are run, and not count the others as missed."""
    dataset = runner.test_dataloader.dataset
    for metric in runner.test_evaluator.metrics:
        if isinstance(metric, CocoMetric):
            metric.img_ids = [dataset.get_data_info(i)['img_id'] for i in range(len(dataset))]


def check_steps(cfg, time_steps: Optional[list[int]]) -> list[int]:
    """The numbers of time steps to run.

    Args:
        cfg: The config.
        time_steps: What the command line says; None for the default.

    Returns:
        They.

    Raises:
        DatasetError: The data come in another number of frames.
    """
    if time_steps is not None:
        for t in time_steps:
            check_frames(cfg, ('test',), t)
        return time_steps
    steps = []
    for t in DEFAULT_STEPS:
        with suppress(DatasetError):
            check_frames(cfg, ('test',), t)
            steps.append(t)
    return steps


def prepare_data(cfg, max_images: Optional[int]) -> None:
    """Let the test data come in order, as they are gone through several times, and not too many.

    Args:
        cfg: The config, which is changed.
        max_images: How many images at most; None for all.

    Raises:
        ToolError: There are no test data, or of several data sets not all are wanted.
    """
    loader = cfg.get('test_dataloader')
    if not loader:
        raise ToolError('the config has no test_dataloader, and a report needs images')
    loader.sampler = dict(type='DefaultSampler', shuffle=False)
    if max_images is None:
        return
    dataset = loader.dataset
    if 'dataset' in dataset or 'datasets' in dataset:
        raise ToolError(
            f'--max-images takes one data set, not a {type_name(dataset)}: take --max-images away, '
            'or give the test_dataloader one data set'
        )
    chosen = dataset.get('indices')
    if chosen is None:
        dataset.indices = max_images
    elif isinstance(chosen, int):
        dataset.indices = min(chosen, max_images)
    else:
        dataset.indices = list(chosen)[:max_images]

"""Anytime results: one checkpoint at several numbers of time steps, its scores against time."""

import argparse
import json
import os
import time
from itertools import islice
from statistics import median

# First: without mmcv's compiled ops, MMDetection's models import only behind it.
import mmsnn  # noqa: F401  isort: skip

import torch
from matplotlib.figure import Figure
from mmdet.evaluation import CocoMetric
from mmengine.dist import is_main_process
from mmengine.runner import Runner, autocast
from rich.progress import track
from torch import nn

from mmsnn.compat import check_state_dict, enforce_safe_loading, load_checkpoint_file
from mmsnn.datasets import check_frames
from mmsnn.engine import FuseHook
from mmsnn.evaluation import ClsMetric
from mmsnn.utils import (
    ToolError,
    add_common_arguments,
    add_fuse_argument,
    build_runner,
    check_data,
    check_out,
    exit_on_error,
    leave_launcher,
    load_config,
    picture_path,
    set_time_steps,
    setup_launcher,
    unwrap,
)

EXAMPLES = """examples:
  python tools/analysis_tools/anytime.py CONFIG CHECKPOINT
  python tools/analysis_tools/anytime.py CONFIG CHECKPOINT --fuse
  python tools/analysis_tools/anytime.py CONFIG CHECKPOINT --time-steps 1 2 3 --out anytime.json"""

#: Batches that are timed, and how many times each; evaluation takes all batches.
TIMED_BATCHES, TIMED_RUNS = 20, 3


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
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
        default=[1, 2, 4, 8],
        metavar='T',
        help='numbers of time steps (default: 1 2 4 8)',
    )
    parser.add_argument('--work-dir', help='folder for the log (default: work_dirs/NAME_OF_CONFIG)')
    parser.add_argument(
        '--out',
        metavar='FILE.json',
        help='the results; the picture is FILE.png (default: WORK_DIR/TIMESTAMP/anytime.json)',
    )
    add_fuse_argument(parser)
    add_common_arguments(parser)
    return parser.parse_args()


def find_scores(runner: Runner) -> dict[str, str]:
    """The numbers that say how good a model is, or refuse an evaluation that ends without.

    Args:
        runner: The runner.

    Returns:
        Names for people by their names in the log, less the prefix.

    Raises:
        ToolError: Its test evaluator has no CocoMetric for boxes, and no ClsMetric.
    """
    for metric in runner.test_evaluator.metrics:
        if isinstance(metric, CocoMetric) and 'bbox' in metric.metrics and not metric.format_only:
            return dict(bbox_mAP='mAP', bbox_mAP_50='mAP_50')
        if isinstance(metric, ClsMetric):
            return {f'top{k}': f'top-{k}' for k in metric.topk}
    raise ToolError(
        "the config's test_evaluator gives no bbox mAP: it needs "
        "dict(type='CocoMetric', metric='bbox', ann_file=...) without format_only, or, for a "
        "classifier, dict(type='ClsMetric')"
    )


def milliseconds_per_image(
    model: nn.Module, batches: list, steps: list[int], fp16: bool
) -> dict[int, float]:
    """Time of the model alone, with its pre- and post-processing, at every T.

    Args:
        model: The detector or classifier.
        batches: Batches of the data loader.
        steps: Numbers of time steps.
        fp16: Whether the test loop runs in mixed precision.

    Returns:
        Median over batches and runs, by T.
    """
    times = {t: [] for t in steps}
    for batch in track(batches, 'timing'):
        # Every T on the same batch: what else the machine does meets all of them alike.
        for t in steps:
            set_time_steps(model, t)
            for run in range(1 + TIMED_RUNS):
                start = now()
                with torch.no_grad(), autocast(enabled=fp16):
                    found = model.test_step(batch)
                if run > 0:  # the first is the warm-up, for this image size too
                    times[t].append(1000 * (now() - start) / len(found))
    return {t: median(values) for t, values in times.items()}


def now() -> float:
    """Seconds, with the GPU's work done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def table(rows: list[dict], scores: dict[str, str]) -> str:
    """The results as text, one line a T."""
    names = ''.join(f' {name:>7}' for name in scores.values())
    lines = [f'{"T":>4}{names} {"ms/image":>10} {"relative time":>14}']
    for row in rows:
        numbers = ''.join(f' {row[key]:>7.3f}' for key in scores)
        lines.append(
            f'{row["time_steps"]:>4}{numbers} {row["ms_per_image"]:>10.2f} '
            f'{row["relative_time"]:>14.3f}'
        )
    return '\n'.join(lines)


def draw(rows: list[dict], scores: dict[str, str], configured: int, path: str) -> None:
    """Draw scores and time against T.

    Args:
        rows: The results.
        scores: Which of the numbers to draw, as of :func:`find_scores`.
        configured: T of the config, which is marked.
        path: Picture to write.
    """
    steps = [row['time_steps'] for row in rows]
    figure = Figure(figsize=(9, 3.5), layout='constrained')
    accuracy, cost = figure.subplots(1, 2)
    for key, label in scores.items():
        accuracy.plot(steps, [row[key] for row in rows], 'o-', label=label)
    accuracy.set_ylabel(' and '.join(scores.values()))
    cost.plot(steps, [row['ms_per_image'] for row in rows], 'o-', color='tab:red')
    cost.set_ylabel('ms an image')
    for axes in (accuracy, cost):
        axes.axvline(configured, color='grey', linestyle=':', label="the config's T")
        axes.set_xlabel('time steps T')
        axes.set_xticks(steps)
        axes.set_ylim(bottom=0)
        axes.legend()
    figure.savefig(path, dpi=150)


def evaluate(
    runner: Runner, model: nn.Module, steps: list[int], scores: dict[str, str]
) -> list[dict]:
    """The evaluator's numbers at every T.

    Args:
        runner: The runner.
        model: Its model.
        steps: Numbers of time steps.
        scores: As of :func:`find_scores`.

    Returns:
        For each T ``time_steps`` and the numbers by their names in the log, less the prefix.
    """
    rows = []
    for t in steps:
        runner.logger.info(f'evaluating at T = {t} (of {", ".join(map(str, steps))})')
        set_time_steps(model, t)
        metrics = runner.test_loop.run()
        # CocoMetric gives nothing at all where the detector found no box in any image.
        row = dict(time_steps=t, **dict.fromkeys(scores, 0.0))
        row.update({key.rpartition('/')[2]: value for key, value in metrics.items()})
        rows.append(row)
    return rows


def main() -> None:
    """Evaluate and time at every T."""
    args = parse_args()
    steps = sorted(set(args.time_steps))
    enforce_safe_loading(args.trust_checkpoint)
    with exit_on_error(OSError, ValueError):
        fuse_hook = None if args.fuse is None else FuseHook(args.fuse)
        cfg = load_config(args)
        if args.out is not None:
            check_out(args.out)
        checkpoint = load_checkpoint_file(args.checkpoint, args.trust_checkpoint)
        for t in steps:
            check_frames(cfg, ('test',), t)
        check_data(cfg, ('test',))
    cfg.load_from = args.checkpoint

    setup_launcher(cfg)
    runner = build_runner(cfg)
    with exit_on_error():
        model = unwrap(runner.model)
        check_state_dict(model, checkpoint, args.checkpoint)
        del checkpoint
        scores = find_scores(runner)
        configured = getattr(getattr(model, 'backbone', None), 'time_steps', None)
        for t in steps:  # every one is checked before the work starts
            set_time_steps(model, t)
        # What runner.test() does, with its middle once for every T.
        runner.call_hook('before_run')
        runner.load_or_resume()
        if fuse_hook is not None:
            fuse_hook.before_test(runner)
            model = unwrap(runner.model)
        rows = evaluate(runner, model, steps, scores)
        runner.call_hook('after_run')
        batches = list(islice(runner.test_dataloader, TIMED_BATCHES))
        fp16 = runner.test_loop.fp16
        times = milliseconds_per_image(model, batches, sorted({*steps, configured}), fp16)
    for row in rows:
        row['ms_per_image'] = round(times[row['time_steps']], 2)
        row['relative_time'] = round(times[row['time_steps']] / times[configured], 3)
    runner.logger.info(f'the config has T = {configured}\n{table(rows, scores)}')
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
        draw(rows, scores, configured, picture_path(out))
        print(f'results: {out}\npicture: {picture_path(out)}')
    leave_launcher()


if __name__ == '__main__':
    main()

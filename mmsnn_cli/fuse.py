"""What fusing gives here: time of every precision, and whether the results stay."""

import argparse
import itertools
import json
from collections.abc import Sequence
from statistics import median
from typing import Optional

# First: without mmcv's compiled ops, MMDetection's models import only behind it.
import mmsnn  # noqa: F401  isort: skip

import torch
from rich.progress import track
from terminaltables import AsciiTable

from mmsnn.compat import enforce_safe_loading
from mmsnn.deploy import PRECISIONS, fuse, resolve_precision
from mmsnn.report.matching import match_boxes
from mmsnn.utils import (
    CONFIG_ERRORS,
    ToolError,
    add_measuring_arguments,
    exit_on_error,
    input_batches,
    load_model,
    now,
)

EPILOG = """examples:
  mmsnn fuse CONFIG --checkpoint CHECKPOINT
  mmsnn fuse CONFIG --checkpoint CHECKPOINT --time-steps 2 --num 50
  mmsnn fuse CONFIG --shape 320 320                     # no data, initial weights: times alone

Norms are folded into convs, and convs on spikes take the named precision. Nothing is written: a
fused model is made anew from its checkpoint in a second, by --fuse PRECISION of mmsnn test, report,
anytime and benchmark, and in Python by

  model = mmsnn.deploy.fuse(init_detector(CONFIG, CHECKPOINT), PRECISION)

Times are of this machine, one image at a time: let nothing else run beside. mmsnn test --fuse
PRECISION has the mAP or accuracy of the whole test data."""

SCORE_THR = 0.3


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog='mmsnn fuse',
        description='Time a detector or classifier fused in every precision that this machine '
        'computes, and compare what it finds with what it finds unfused.',
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_measuring_arguments(parser)
    parser.add_argument(
        '--num', type=int, default=20, metavar='N', help='images to measure on (default: 20)'
    )
    args = parser.parse_args(argv)
    if args.num < 1:
        parser.error(f'--num must be at least 1, got {args.num}')
    return args


def run(model, batches: list) -> tuple[list, float]:
    """Predictions, and the median of seconds an image."""
    samples, seconds = [], []
    with torch.no_grad():
        model.test_step(batches[0])
        for batch in batches:
            start = now()
            samples += model.test_step(batch)
            seconds.append(now() - start)
    return samples, median(seconds)


def agreement(before: list, after: list) -> dict:
    """How far results stay.

    Args:
        before: Samples of the unfused model.
        after: Those of the fused one.

    Returns:
        ``same``, the share of boxes (or of pictures' classes) that are found again, None where
        nothing was found before; ``score_change``, the largest change of their scores.
    """
    same, count, change = 0, 0, 0.0
    for a, b in zip(before, after):
        if hasattr(a, 'pred_label'):
            count += 1
            same += int(a.pred_label) == int(b.pred_label)
            change = max(change, float((a.pred_score - b.pred_score).abs().max()))
            continue
        a, b = a.pred_instances.cpu().numpy(), b.pred_instances.cpu().numpy()
        a = a[a.scores >= SCORE_THR]
        crowd = [False] * len(a)
        matches = match_boxes(b.bboxes, b.labels, b.scores, a.bboxes, a.labels, crowd)
        count += len(a)
        same += int((matches.found_by >= 0).sum())
        for score, partner in zip(a.scores, matches.found_by):
            if partner >= 0:
                change = max(change, abs(float(score - b.scores[partner])))
    return dict(same=same / count if count else None, score_change=change)


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Measure and print."""
    args = parse_args(argv)
    enforce_safe_loading(args.trust_checkpoint)
    with exit_on_error(*CONFIG_ERRORS):
        cfg, model = load_model(args)
        batches, source = input_batches(cfg, args.shape, 1, data_check=not args.no_data_check)
        batches = list(itertools.islice(batches, args.num))
        if not batches:
            raise ToolError('there is nothing to measure on: the test data are empty')
    device = next(model.parameters()).device
    auto = resolve_precision('auto', device, model)
    before, unfused = run(model, batches)
    rows = [dict(precision='unfused', ms=1e3 * unfused, ratio=1.0, same=None, score_change=None)]
    cannot = {}
    for precision in track([p for p in PRECISIONS if p != 'auto'], 'fusing'):
        try:
            resolve_precision(precision, device, model)
        except ValueError as error:
            cannot[precision] = str(error)
            continue
        after, seconds = run(fuse(model, precision), batches)
        row = dict(precision=precision, ms=1e3 * seconds, ratio=seconds / unfused)
        rows.append({**row, **agreement(before, after)})
    print_table(rows, auto, 'pred_label' in before[0])
    for reason in cannot.values():
        print(f'not here: {reason}')
    print(f'on {len(batches)} images: {source}')
    if args.out:
        report = dict(config=args.config, checkpoint=args.checkpoint, auto=auto, rows=rows)
        with open(args.out, 'w') as file:
            json.dump(dict(report, not_here=cannot, images=len(batches)), file, indent=2)
        print(f'numbers: {args.out}')


def print_table(rows: list[dict], auto: str, classifier: bool) -> None:
    """One row a precision."""
    same = 'same class' if classifier else f'boxes (score >= {SCORE_THR}) found again'
    table = [['precision', 'ms an image', 'x unfused', same, 'largest change of a score']]
    for row in rows:
        name = row['precision'] + (' (auto)' if row['precision'] == auto else '')
        cells = [name, f'{row["ms"]:.1f}', f'{row["ratio"]:.2f}']
        if row['precision'] == 'unfused':
            cells += ['', '']
        elif row['same'] is None:
            cells += ['none were found', '']
        else:
            cells += [f'{100 * row["same"]:.1f} %', f'{row["score_change"]:.4f}']
        table.append(cells)
    print(AsciiTable(table).table)

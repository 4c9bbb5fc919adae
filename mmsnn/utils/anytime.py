"""One checkpoint at several numbers of time steps: scores against time."""

from collections.abc import Iterable, Sequence
from copy import deepcopy
from statistics import median
from typing import Optional

import numpy as np
import torch
from matplotlib.figure import Figure
from mmdet.evaluation import CocoMetric, VOCMetric
from mmengine.evaluator import DumpResults, Evaluator
from mmengine.model import BaseModel
from mmengine.runner import Runner, autocast
from rich.progress import track

from ..evaluation import ClsMetric
from .cli import ToolError, set_time_steps
from .measuring import now


def score_names(evaluator: Evaluator) -> dict[str, str]:
    """The numbers that say how good a model is.

    Args:
        evaluator: The test evaluator.

    Returns:
        Names for people by their names in the log, less the prefix. Empty where the evaluator has
        none of the metrics that are known here: :func:`main_score` then takes its first number.

    Raises:
        ToolError: Nothing in it gives a number.
    """
    for metric in evaluator.metrics:
        # LVIS's metric is one of COCO's, with other names.
        if isinstance(metric, CocoMetric) and metric.default_prefix == 'coco':
            if 'bbox' not in metric.metrics or metric.format_only:
                continue
            wanted = metric.metric_items or ('mAP', 'mAP_50')
            scores = {f'bbox_{key}': key for key in ('mAP', 'mAP_50') if key in wanted}
            if scores:
                return scores
        if isinstance(metric, ClsMetric):
            return {f'top{k}': f'top-{k}' for k in metric.topk}
        if isinstance(metric, VOCMetric) and metric.metric == 'mAP':
            return {'mAP': 'mAP'}
    if all(
        isinstance(m, DumpResults) or getattr(m, 'format_only', False) for m in evaluator.metrics
    ):
        raise ToolError(
            "the config's test_evaluator gives no number: it needs "
            "dict(type='CocoMetric', metric='bbox', ann_file=...) without format_only, or, for a "
            "classifier, dict(type='ClsMetric')"
        )
    return {}


def main_score(metrics: Iterable[str]) -> dict[str, str]:
    """The score of an evaluator whose metrics are not known here: its first number.

    Args:
        metrics: Names of its numbers, in its order.

    Returns:
        The name, by itself, as of :func:`score_names`.

    Raises:
        ToolError: There is none.
    """
    first = next(iter(metrics), None)
    if first is None:
        raise ToolError('the test_evaluator gave no number: perhaps nothing was found at all')
    return {first: first}


def plain_metrics(metrics: dict[str, float], scores: Iterable[str]) -> dict[str, float]:
    """An evaluator's numbers by their names in the log less the prefix.

    Args:
        metrics: What the evaluator gives.
        scores: Names of the scores, which are 0 where it gives none: CocoMetric gives nothing at
            all where the detector found no box in any image.

    Returns:
        The numbers, the scores first.
    """
    named = {
        key.rpartition('/')[2]: value.item() if isinstance(value, np.number) else value
        for key, value in metrics.items()
        if isinstance(value, (int, float, np.number))
    }
    return {**dict.fromkeys(scores, 0.0), **named}


def anytime(
    runner: Runner,
    model: BaseModel,
    steps: Sequence[Optional[int]],
    configured: Optional[int],
) -> tuple[list[dict[str, float]], dict[str, str]]:
    """Evaluate and time a model at several T, side by side.

    Every batch runs at every T before the next one is taken, so that whatever else the machine
    does meets all T alike.

    Args:
        runner: The runner; its test data and evaluator are used.
        model: The detector or classifier, in eval mode.
        steps: Numbers of time steps; ``[None]`` of a model without any, as an ANN.
        configured: T to which the times are relative; the model has it again in the end.

    Returns:
        For each T ``time_steps``, the evaluator's numbers by their names in the log less the
        prefix, ``ms_per_image``, the median over batches of the model with its pre- and
        post-processing, and ``relative_time``; and the scores among them, as of
        :func:`score_names`.

    Raises:
        ToolError: As of :func:`score_names`, :func:`main_score` and
            :func:`mmsnn.utils.set_time_steps`.
    """
    scores = score_names(runner.test_evaluator)
    evaluators = {t: _copy(runner.test_evaluator) for t in steps}
    times: dict[Optional[int], list] = {
        t: [] for t in sorted({*steps, configured}, key=lambda t: t or 0)
    }
    for i, batch in enumerate(track(runner.test_dataloader, 'evaluating at every T')):
        for t in times:
            if t is not None:
                set_time_steps(model, t)
            # The first run of a T pays for what later ones find done.
            for _ in range(2 if i == 0 else 1):
                own = deepcopy(batch)
                start = now()
                with torch.no_grad(), autocast(enabled=runner.test_loop.fp16):
                    found = model.test_step(own)
                elapsed = 1000 * (now() - start) / len(found)
            times[t].append(elapsed)
            if t in evaluators:
                evaluators[t].process(data_samples=found, data_batch=batch)
    if configured is not None:
        set_time_steps(model, configured)
    size = len(runner.test_dataloader.dataset)
    found = {t: evaluator.evaluate(size) for t, evaluator in evaluators.items()}
    # One that found nothing at one T may give no number there, and numbers at another.
    names = (name for metrics in found.values() for name in plain_metrics(metrics, ()))
    scores = scores or main_score(names)
    rows = []
    for t, metrics in found.items():
        row = dict(time_steps=t, **plain_metrics(metrics, scores))
        row['ms_per_image'] = round(median(times[t]), 2)
        row['relative_time'] = round(median(times[t]) / median(times[configured]), 3)
        rows.append(row)
    return rows, scores


def _copy(evaluator: Evaluator) -> Evaluator:
    """An evaluator of its own for a T, which leaves the files of the config's alone."""
    evaluator = deepcopy(evaluator)
    evaluator.metrics = [m for m in evaluator.metrics if not isinstance(m, DumpResults)]
    for metric in evaluator.metrics:
        for name in ('out_file', 'outfile_prefix', 'confusion_matrix'):
            if getattr(metric, name, None):
                setattr(metric, name, None)
    return evaluator


def anytime_table(rows: Sequence[dict], scores: dict[str, str]) -> str:
    """The results as text, one line a T.

    Args:
        rows: As of :func:`anytime`.
        scores: As of :func:`score_names`.

    Returns:
        Several lines.
    """
    names = ''.join(f' {name:>7}' for name in scores.values())
    lines = [f'{"T":>4}{names} {"ms/image":>10} {"relative time":>14}']
    for row in rows:
        numbers = ''.join(f' {row[key]:>7.3f}' for key in scores)
        lines.append(
            f'{row["time_steps"]:>4}{numbers} {row["ms_per_image"]:>10.2f} '
            f'{row["relative_time"]:>14.3f}'
        )
    return '\n'.join(lines)


def draw_anytime(rows: Sequence[dict], scores: dict[str, str], configured: int) -> Figure:
    """Draw scores and time against T.

    Args:
        rows: As of :func:`anytime`.
        scores: As of :func:`score_names`.
        configured: T of the config, which is marked.

    Returns:
        The picture.
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
    return figure

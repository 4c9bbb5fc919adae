"""Accuracy of a classifier, per class where wanted, and what is taken for what."""

import json
import math
import os
import os.path as osp
from collections.abc import Sequence
from typing import Any, NamedTuple, Optional

import numpy as np
import torch
from matplotlib.figure import Figure
from mmdet.registry import METRICS
from mmengine.evaluator import BaseMetric
from mmengine.logging import MessageHub, MMLogger
from mmengine.visualization import Visualizer
from terminaltables import AsciiTable
from torch import Tensor

from ..visualization import figure_picture

# Up to so many classes the cells of the picture carry their counts, and the axes names.
MAX_WRITTEN = 20
MAX_NAMED = 200
MAX_NAME_LENGTH = 20


class _Result(NamedTuple):
    """What is kept of one sample; plain numbers are what processes exchange fastest."""

    label: int
    pred: int
    rank: int
    num_classes: int


def rank_of_label(scores: Tensor, labels: Tensor) -> Tensor:
    """Number of classes that come before the true one when classes are sorted by score.

    Of equal scores the class of the lower index comes first, so every sample has one rank. What
    is not a number comes before the true class: a network that gives NaN is never right.

    Args:
        scores: (N, num_classes).
        labels: (N,), int64.

    Returns:
        (N,), int64, from 0 to num_classes.
    """
    own = scores.gather(1, labels[:, None])
    before = (scores > own) | scores.isnan() | own.isnan()
    index = torch.arange(scores.shape[1], device=scores.device)
    before |= (scores == own) & (index < labels[:, None])
    return before.sum(1)


def confusion_matrix(labels: np.ndarray, preds: np.ndarray, num_classes: int) -> np.ndarray:
    """How often each class is taken for each.

    Args:
        labels: (N,), true classes.
        preds: (N,), predicted classes.
        num_classes: Number of classes.

    Returns:
        (num_classes, num_classes), int64: rows are true classes, columns predicted ones.
    """
    cells = np.bincount(labels * num_classes + preds, minlength=num_classes**2)
    return cells.reshape(num_classes, num_classes)


def draw_confusion_matrix(counts: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Picture of a confusion matrix; colours are shares of the true class.

    Args:
        counts: (num_classes, num_classes), rows are true classes.
        classes: Names of the classes.

    Returns:
        (height, width, 3), uint8, RGB.
    """
    number = len(counts)
    share = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    # Everything in inches. Margins are reckoned from the names: to lay out the text of a hundred
    # classes automatically takes seconds.
    side = min(16.0, max(5.0, 0.16 * number))
    names = []
    if number <= MAX_NAMED:
        names = [
            name if len(name) <= MAX_NAME_LENGTH else name[: MAX_NAME_LENGTH - 1] + '…'
            for name in map(str, classes)
        ]
    size = min(10.0, max(4.0, 0.75 * 72 * side / number))
    margin = 0.7 + 0.62 * size / 72 * max(map(len, names), default=4)
    width, height = margin + side + 1.2, margin + side + 0.5
    # Without pyplot: it would keep the figure, and pick a backend for the whole process.
    figure = Figure(figsize=(width, height), dpi=100)
    axes = figure.add_axes((margin / width, margin / height, side / width, side / height))
    picture = axes.imshow(share, cmap='Blues', vmin=0, vmax=100, interpolation='nearest')
    accuracy = 100 * np.trace(counts) / max(counts.sum(), 1)
    axes.set_title(f'{counts.sum()} samples, top-1 {accuracy:.2f} %')
    if names:
        axes.set_xticks(range(number), names, rotation=90, fontsize=size)
        axes.set_yticks(range(number), names, fontsize=size)
    middle = margin + side / 2
    figure.text(middle / width, 0.15 / height, 'predicted class', ha='center')
    figure.text(0.15 / width, middle / height, 'true class', va='center', rotation=90)
    if number <= MAX_WRITTEN:
        for row, column in np.argwhere(counts):
            axes.text(
                column,
                row,
                counts[row, column],
                ha='center',
                va='center',
                fontsize=8,
                color='white' if share[row, column] > 50 else 'black',
            )
    scale = ((margin + side + 0.2) / width, margin / height, 0.2 / width, side / height)
    figure.colorbar(picture, cax=figure.add_axes(scale), label='% of the true class')
    return figure_picture(figure, dpi=100)


@METRICS.register_module()
class ClsMetric(BaseMetric):
    """Top-k accuracy in percent, ``accuracy/top1`` and so on.

    Each sample needs ``pred_score`` (num_classes,) and ``gt_label`` (1,), as
    :class:`~mmsnn.structures.ClsDataSample` has them. Of classes with the same score the one of
    the lower index counts as predicted first; a score that is not a number is never right.

    Args:
        topk: The values of k. A k above the number of classes counts as that number.
        classwise: Adds ``accuracy/<class>_top1`` for every class and prints them as a table.
            A class without samples gives NaN.
        confusion_matrix: Sends a picture named ``confusion_matrix`` to all backends of the
            visualizer, its step the number of the last training iteration, and writes the counts as
            JSON beside it wherever a backend keeps its pictures in a folder.
        out_file: Where to write the accuracies, and the counts of the confusion matrix, as JSON.
            With ``confusion_matrix`` the picture comes beside it, as a PNG file.
        collect_device: See :class:`mmengine.evaluator.BaseMetric`.
        prefix: In front of the keys; ``'accuracy'`` if it is None.
        collect_dir: See :class:`mmengine.evaluator.BaseMetric`.

    Raises:
        ValueError: ``topk`` has no or a wrong value, ``out_file`` is not a .json file, or a
            sample has no score or a label that is not a class.

    Example:
        >>> import torch
        >>> from mmsnn.evaluation import ClsMetric
        >>> metric = ClsMetric(topk=(1, 2))
        >>> sample = dict(gt_label=torch.tensor([1]), pred_score=torch.tensor([0.5, 0.4, 0.1]))
        >>> metric.process(None, [sample])
        >>> metric.evaluate(1)
        {'accuracy/top1': 0.0, 'accuracy/top2': 100.0}
    """

    default_prefix = 'accuracy'

    def __init__(
        self,
        topk: Sequence[int] = (1, 5),
        classwise: bool = False,
        confusion_matrix: bool = False,
        out_file: Optional[str] = None,
        collect_device: str = 'cpu',
        prefix: Optional[str] = None,
        collect_dir: Optional[str] = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        topk = tuple(topk) if isinstance(topk, Sequence) else (topk,)
        if not topk or not all(isinstance(k, int) and k >= 1 for k in topk):
            raise ValueError(f'topk must be whole numbers from 1 on, at least one: got {topk}')
        if out_file is not None and not str(out_file).endswith('.json'):
            raise ValueError(f'out_file must name a .json file: got {out_file}')
        self.topk = topk
        self.classwise = classwise
        self.confusion_matrix = confusion_matrix
        self.out_file = out_file

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Take in one batch.

        Args:
            data_batch: Not used.
            data_samples: Predictions, as dicts.

        Raises:
            ValueError: A sample has no score, or a label that is not a class.
        """
        for sample in data_samples:
            for key in ('pred_score', 'gt_label'):
                if sample.get(key) is None:
                    raise ValueError(
                        f'ClsMetric got a sample without {key} ({sample.get("img_path")}): the '
                        'model must predict scores, and the data must have labels'
                    )
        scores = torch.stack([sample['pred_score'].detach().float() for sample in data_samples])
        labels = torch.cat([torch.as_tensor(s['gt_label']).reshape(1) for s in data_samples])
        labels = labels.to(scores.device)
        num_classes = scores.shape[1]
        for label, sample in zip(labels.tolist(), data_samples):
            if not 0 <= label < num_classes:
                raise ValueError(
                    f'the label {label} ({sample.get("img_path")}) is not one of the '
                    f'{num_classes} classes that the model tells apart: set num_classes of its '
                    'head to that of the data set'
                )
        ranks = rank_of_label(scores, labels)
        # NaN counts as a miss, also in the confusion matrix: it goes to the first other class.
        preds = torch.where(scores.isnan(), -math.inf, scores).argmax(1)
        preds = torch.where((preds == labels) & (ranks > 0), (labels + 1) % num_classes, preds)
        for row in zip(labels.tolist(), preds.tolist(), ranks.tolist()):
            self.results.append(_Result(*row, num_classes))

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Compute the accuracies, and write what is asked for.

        Args:
            results: Of all samples, from all processes.

        Returns:
            The accuracies in percent.

        Raises:
            ValueError: There are no samples.
        """
        if not results:
            raise ValueError('ClsMetric got no samples: the data set that is evaluated is empty')
        # Processes exchange tuples.
        labels, preds, ranks, numbers = np.array(results, np.int64).T
        num_classes = int(numbers[0])
        metrics = {f'top{k}': float(100 * np.mean(ranks < min(k, num_classes))) for k in self.topk}
        names = (self.dataset_meta or {}).get('classes')
        if names is None or len(names) != num_classes:
            names = [str(i) for i in range(num_classes)]
        counts = confusion_matrix(labels, preds, num_classes)
        if self.classwise:
            metrics.update(self._per_class(counts, names))
        if self.confusion_matrix or self.out_file:
            self._write(metrics, counts, names)
        return metrics

    def _per_class(self, counts: np.ndarray, names: Sequence[str]) -> dict[str, float]:
        rows = [['class', 'samples', 'top-1 (%)', 'most often taken for']]
        metrics = {}
        for index, (name, row) in enumerate(zip(names, counts)):
            total = int(row.sum())
            accuracy = float(100 * row[index] / total) if total else math.nan
            metrics[f'{name}_top1'] = accuracy
            others = row.copy()
            others[index] = 0
            worst = int(others.argmax())
            confused = f'{names[worst]} ({others[worst]})' if others[worst] else ''
            rows.append([name, str(total), f'{accuracy:.2f}', confused])
        MMLogger.get_current_instance().info('\n' + AsciiTable(rows).table)
        return metrics

    def _write(self, metrics: dict[str, float], counts: np.ndarray, names: Sequence[str]) -> None:
        # JSON has no NaN.
        numbers = {
            'metrics': {k: v if math.isfinite(v) else None for k, v in metrics.items()},
            'classes': list(names),
            'confusion_matrix': counts.tolist(),
        }
        if self.out_file:
            os.makedirs(osp.dirname(osp.abspath(self.out_file)), exist_ok=True)
            with open(self.out_file, 'w', encoding='utf-8') as file:
                json.dump(numbers, file)
        if not self.confusion_matrix:
            return
        picture = draw_confusion_matrix(counts, names)
        if self.out_file:
            import mmcv

            mmcv.imwrite(picture[..., ::-1], osp.splitext(self.out_file)[0] + '.png')
        try:
            visualizer = Visualizer.get_current_instance()
        except RuntimeError:  # evaluated outside a runner
            return
        step = int(MessageHub.get_current_instance().get_info('iter', 0) or 0)
        visualizer.add_image('confusion_matrix', picture, step)
        for backend in visualizer._vis_backends.values():
            folder = getattr(backend, '_img_save_dir', None)
            if folder and osp.isdir(folder):
                path = osp.join(folder, f'confusion_matrix_{step}.json')
                with open(path, 'w', encoding='utf-8') as file:
                    json.dump(numbers, file)

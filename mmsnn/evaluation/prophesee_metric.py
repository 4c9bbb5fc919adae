"""Prophesee's metric for detectors of events, and its rivals beside it."""

import math
from collections.abc import Sequence
from typing import Any, Optional, Union

import numpy as np
from mmdet.registry import METRICS
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger
from terminaltables import AsciiTable

from ..datasets.events.boxes import BOX_DTYPE, make_boxes
from ..datasets.events.prophesee import find_sensor
from .box_protocols import NAMES, box_ap, find_protocol


@METRICS.register_module()
class PropheseeMetric(BaseMetric):
    """COCO's AP of boxes in event recordings, by the official protocol and others by name.

    See :func:`~mmsnn.evaluation.find_protocol` for what each leaves out. Each sample needs
    ``pred_instances`` and, of its metainfo, ``recording`` (the file), ``t`` (microseconds) and
    ``boxes``, the true ones, as :class:`~mmsnn.datasets.PropheseeDetection` gives them. Of a
    stream, predictions in windows without a label (``labelled=False``) don't count.

    Args:
        generation: The sensor, and with it the sizes of boxes that count, as of
            :class:`~mmsnn.datasets.PropheseeDetection`.
        protocols: Which to compute, of 'prophesee', 'rvt', 'sfod' and 'spikeyolo'; they are printed
            side by side.
        classwise: Adds the AP of each class, and prints it.
        collect_device: See :class:`mmengine.evaluator.BaseMetric`.
        prefix: In front of the keys; ``'events'`` if it is None.
        collect_dir: See :class:`mmengine.evaluator.BaseMetric`.

    Raises:
        ValueError: A protocol that isn't known for the sensor; samples that lack something.

    Example:
        >>> import torch
        >>> from mmsnn.datasets.events import make_boxes
        >>> from mmsnn.evaluation import PropheseeMetric
        >>> truth = make_boxes(1)
        >>> truth['t'], truth['x'], truth['y'], truth['w'], truth['h'] = 600_000, 10, 20, 40, 30
        >>> found = dict(
        ...     bboxes=torch.tensor([[10.0, 20, 50, 50]]),
        ...     scores=torch.ones(1),
        ...     labels=torch.zeros(1, dtype=torch.long),
        ... )
        >>> metric = PropheseeMetric('gen1')
        >>> metric.dataset_meta = dict(classes=('car', 'pedestrian'))
        >>> sample = dict(recording='a_td.dat', t=600_000, boxes=truth, pred_instances=found)
        >>> metric.process(None, [sample])
        >>> round(metric.evaluate(1)['events/prophesee_mAP'], 3)
        1.0
    """

    default_prefix = 'events'

    def __init__(
        self,
        generation: Union[str, Sequence[int]] = 'gen1',
        protocols: Sequence[str] = ('prophesee',),
        classwise: bool = False,
        collect_device: str = 'cpu',
        prefix: Optional[str] = None,
        collect_dir: Optional[str] = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        if isinstance(protocols, str) or not protocols:
            raise ValueError(f'protocols must be a list of names, got {protocols!r}')
        self.protocols = {name: find_protocol(name, generation) for name in protocols}
        self.size = find_sensor(generation).size
        self.classwise = classwise

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Take in one batch.

        Args:
            data_batch: Not used.
            data_samples: Predictions, as dicts.

        Raises:
            ValueError: A sample has no boxes, recording or time.
        """
        for sample in data_samples:
            for key in ('pred_instances', 'recording', 't', 'boxes'):
                if sample.get(key) is None:
                    raise ValueError(
                        f'PropheseeMetric got a sample without {key} '
                        f'({sample.get("recording")}): the data set must be PropheseeDetection, '
                        'and the last transform PackEventDetInputs'
                    )
            width, height = self.size
            if tuple(sample.get('ori_shape', (height, width))) != (height, width):
                raise ValueError(
                    f'PropheseeMetric got windows of {sample["ori_shape"][1]}x'
                    f'{sample["ori_shape"][0]} pixels, expected {width}x{height}. Set '
                    'generation of the evaluator to that of the data set'
                )
            if sample.get('flip'):
                raise ValueError(
                    'PropheseeMetric got a mirrored sample, whose predictions are not where its '
                    'true boxes are: take EventRandomFlip out of the pipeline of the test'
                )
            found = sample['pred_instances']
            corners = np.asarray(found['bboxes'].detach().cpu(), np.float64).reshape(-1, 4)
            boxes = make_boxes(len(corners))
            boxes['t'] = sample['t']
            boxes['x'], boxes['y'] = corners[:, 0], corners[:, 1]
            boxes['w'], boxes['h'] = (corners[:, 2:] - corners[:, :2]).T
            boxes['class_id'] = found['labels'].cpu().numpy()
            boxes['class_confidence'] = found['scores'].detach().cpu().numpy()
            if not all(np.isfinite(boxes[name]).all() for name in ('x', 'y', 'w', 'h')):
                raise ValueError(
                    f'{sample["recording"]}: a predicted box at {sample["t"]} us is not a number: '
                    'the training has diverged'
                )
            # What a stream finds between two labels would count beside what it finds at them,
            # wherever windows are shorter than the tolerance.
            if not sample.get('labelled', True):
                boxes = boxes[:0]
            self.results.append((sample['recording'], int(sample['t']), sample['boxes'], boxes))

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Compute the AP of each protocol.

        Args:
            results: Of all samples, from all processes.

        Returns:
            ``{protocol}_mAP`` and so on, from 0 to 1; NaN where no true box counts.

        Raises:
            ValueError: There are no samples, or the classes aren't known.
        """
        if not results:
            raise ValueError(
                'PropheseeMetric got no samples: the data that are evaluated are empty'
            )
        classes = (self.dataset_meta or {}).get('classes')
        if not classes:
            raise ValueError('PropheseeMetric needs the classes of the data set, in its metainfo')
        # The last batch of several processes may repeat samples.
        unique = {(name, t): (true, predicted) for name, t, true, predicted in results}
        names = sorted({name for name, _ in unique})
        parts = [[unique[key] for key in sorted(unique) if key[0] == name] for name in names]
        empty = np.empty(0, BOX_DTYPE)
        truth = [np.concatenate([empty, *(true for true, _ in part)]) for part in parts]
        predicted = [np.concatenate([empty, *(boxes for _, boxes in part)]) for part in parts]
        rows = [['protocol', 'true boxes', 'times', *NAMES]]
        metrics: dict[str, float] = {}
        for name, protocol in self.protocols.items():
            found = box_ap(truth, predicted, protocol, len(classes), self.size)
            rows.append([name, str(found['boxes']), str(found['times'])])
            rows[-1] += [f'{found[key]:.4f}' for key in NAMES]
            metrics.update({f'{name}_{key}': found[key] for key in NAMES})
            if self.classwise:
                metrics.update(
                    {f'{name}_{label}_mAP': ap for label, ap in zip(classes, found['classes'])}
                )
        logger = MMLogger.get_current_instance()
        logger.info('\n' + AsciiTable(rows).table)
        if self.classwise:
            rows = [['protocol', *classes]]
            for name in self.protocols:
                values = [metrics[f'{name}_{label}_mAP'] for label in classes]
                rows.append([name, *(f'{value:.4f}' for value in values)])
            logger.info('\n' + AsciiTable(rows).table)
        if any(math.isnan(metrics[f'{name}_mAP']) for name in self.protocols):
            logger.warning('No true box counts by one of the protocols, so that its mAP is NaN')
        return metrics

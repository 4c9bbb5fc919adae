"""Average precision of boxes in event recordings, by the protocols of the field.

The official one is Prophesee's: boxes of the first half second and small ones are left out, of
truth and predictions alike; each time that has a true box is a picture; predictions within a
tolerance of it are its detections; COCO's AP of these pictures. Where labels come more often than
twice the tolerance, one prediction counts for several times. Others differ in what they leave out,
so that their numbers don't compare.
"""

import contextlib
import io
import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Optional, Union

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ..datasets.events.boxes import crop_boxes
from ..datasets.events.prophesee import find_sensor

__all__ = ['PROTOCOLS', 'BoxProtocol', 'box_ap', 'filter_boxes', 'find_protocol']

#: What COCOeval's first six numbers are called.
NAMES = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l')


class BoxProtocol(NamedTuple):
    """Which boxes count.

    - ``skip``: Boxes up to this time, in microseconds, don't; None leaves none out.
    - ``min_diagonal``, ``min_side``: In pixels; smaller boxes don't.
    - ``crop``: Whether true boxes are cut at the sensor's borders before.
    - ``tolerance``: Microseconds from a true box's time to predictions that count for it.
    """

    skip: Optional[int] = 500_000
    min_diagonal: float = 0
    min_side: float = 0
    crop: bool = False
    tolerance: int = 50_000


PROTOCOLS = {
    'gen1': {
        'prophesee': BoxProtocol(min_diagonal=30, min_side=10),
        'rvt': BoxProtocol(min_diagonal=30, min_side=10, crop=True),
        'sfod': BoxProtocol(min_diagonal=30, min_side=20),
        'spikeyolo': BoxProtocol(skip=None),
    },
    '1mpx': {
        'prophesee': BoxProtocol(min_diagonal=60, min_side=20),
        'rvt': BoxProtocol(min_diagonal=60, min_side=20, crop=True),
    },
    'digits': {'prophesee': BoxProtocol(min_diagonal=30, min_side=10)},
    'own': {'prophesee': BoxProtocol(min_diagonal=30, min_side=10)},
}


def find_protocol(name: str, generation: Union[str, Sequence[int]]) -> BoxProtocol:
    """A protocol by its name, as far as public code says what it is.

    - ``prophesee``: t > 0.5 s; diagonal of 30 and sides of 10 pixels (Gen1, the digits of
      ``mmsnn digits-events`` and one's own recordings), or 60 and 20 (1Mpx).
    - ``rvt``: as ``prophesee``, but true boxes are cut at the sensor's borders first.
    - ``sfod``: as ``prophesee`` with sides of 20 pixels, on Gen1.
    - ``spikeyolo``: nothing is left out, on Gen1. Its own numbers come by Ultralytics' reckoning of
      AP, which isn't COCO's; here it is COCO's of the same boxes.

    Args:
        name: One of these.
        generation: 'gen1', '1mpx' or 'digits', or (W, H) of one's own sensor.

    Returns:
        The protocol.

    Raises:
        ValueError: There is none of that name for that sensor.
    """
    find_sensor(generation)
    known = PROTOCOLS[generation if isinstance(generation, str) else 'own']
    if name not in known:
        raise ValueError(
            f'no protocol {name!r} is known for {generation}, only {", ".join(known)}: the '
            'publication of that name says none'
        )
    return known[name]


def filter_boxes(boxes: np.ndarray, protocol: BoxProtocol) -> np.ndarray:
    """The boxes that count: t > skip, w^2 + h^2 >= diagonal^2, w >= side, h >= side.

    Args:
        boxes: (N,) of ``mmsnn.datasets.events.BOX_DTYPE``.
        protocol: What counts.

    Returns:
        Those that do, in their order.

    Example:
        >>> from mmsnn.datasets.events import make_boxes
        >>> from mmsnn.evaluation import filter_boxes, find_protocol
        >>> boxes = make_boxes(3)
        >>> boxes['t'], boxes['w'], boxes['h'] = 600_000, [29, 18, 9], [9, 24, 40]
        >>> filter_boxes(boxes, find_protocol('prophesee', 'gen1'))['w']
        array([18.])
    """
    w, h = boxes['w'], boxes['h']
    keep = w**2 + h**2 >= protocol.min_diagonal**2
    keep &= (w >= protocol.min_side) & (h >= protocol.min_side)
    if protocol.skip is not None:
        keep &= boxes['t'] > protocol.skip
    return boxes[keep]


def box_ap(
    truth: Sequence[np.ndarray],
    predictions: Sequence[np.ndarray],
    protocol: BoxProtocol,
    num_classes: int,
    sensor_size: tuple[int, int],
) -> dict[str, Any]:
    """COCO's average precision of the boxes of recordings.

    Args:
        truth: Of each recording the true boxes, (N,) of ``mmsnn.datasets.events.BOX_DTYPE``.
        predictions: Of each recording the predicted ones, likewise.
        protocol: What counts.
        num_classes: ``class_id`` goes from 0 to this number.
        sensor_size: (W, H) of the sensor, in pixels.

    Returns:
        ``mAP``, ``mAP_50``, ``mAP_75``, ``mAP_s``, ``mAP_m``, ``mAP_l`` from 0 to 1, NaN where no
        true box counts; ``classes``, the AP of each class; ``boxes`` and ``times``, how many true
        boxes and times count.

    Raises:
        ValueError: Other numbers of recordings, or a class that isn't one.
    """
    if len(truth) != len(predictions):
        raise ValueError(
            f'{len(truth)} recordings have true boxes and {len(predictions)} predicted ones'
        )
    images, annotations, results = 0, [], []
    for true, predicted in zip(truth, predictions):
        for boxes in (true, predicted):
            wrong = boxes['class_id'][(boxes['class_id'] < 0) | (boxes['class_id'] >= num_classes)]
            if len(wrong):
                raise ValueError(f'the class id {wrong[0]} is none of 0 to {num_classes - 1}')
        if protocol.crop:
            true = crop_boxes(true, sensor_size)
        true, predicted = filter_boxes(true, protocol), filter_boxes(predicted, protocol)
        predicted = predicted[np.argsort(predicted['t'], kind='stable')]
        for t in np.unique(true['t']):
            images += 1
            annotations += [_as_coco(box, images) for box in true[true['t'] == t]]
            low, high = np.searchsorted(
                predicted['t'], [t - protocol.tolerance, t + protocol.tolerance + 1]
            )
            results += [_as_coco(box, images) for box in predicted[low:high]]
    if not annotations:
        nothing: dict[str, Any] = dict.fromkeys(NAMES, math.nan)
        return {**nothing, 'classes': [math.nan] * num_classes, 'boxes': 0, 'times': 0}
    return {
        **_evaluate(annotations, results, images, num_classes),
        'boxes': len(annotations),
        'times': images,
    }


def _as_coco(box, image):
    return dict(
        image_id=image,
        category_id=int(box['class_id']) + 1,
        bbox=[float(box[name]) for name in 'xywh'],
        area=float(box['w'] * box['h']),
        iscrowd=0,
        score=float(box['class_confidence']),
    )


def _evaluate(annotations, results, images, num_classes):
    """COCOeval of both, which are numbered from 1 on."""
    with contextlib.redirect_stdout(io.StringIO()):
        sides = []
        for boxes in (annotations, results):
            coco = COCO()
            coco.dataset = dict(
                images=[dict(id=i) for i in range(1, images + 1)],
                categories=[dict(id=i) for i in range(1, num_classes + 1)],
                annotations=[dict(box, id=i) for i, box in enumerate(boxes, 1)],
            )
            coco.createIndex()
            sides.append(coco)
        evaluation = COCOeval(*sides, 'bbox')
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    found = dict(zip(NAMES, (float(value) for value in evaluation.stats)))
    # By threshold, recall, class, area and number of detections; -1 where there is no true box.
    precision = evaluation.eval['precision'][:, :, :, 0, -1]
    classes = [precision[:, :, k] for k in range(num_classes)]
    per_class = [float(p[p > -1].mean()) if (p > -1).any() else math.nan for p in classes]
    return {
        **{name: value if value >= 0 else math.nan for name, value in found.items()},
        'classes': per_class,
    }

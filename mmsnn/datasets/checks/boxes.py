"""Which boxes of a COCO file a run uses, and why it leaves the others out."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import DatasetError
from .classes import shorten

# From this share of lost boxes on, it is said.
WARN_SHARE = 0.05
# Boxes that would all be right as corners are taken for corners if this share of them, read as
# x, y, width, height, reaches beyond the image; of fewer boxes, it may be chance.
CORNER_SHARE = 0.25
CORNER_BOXES = 8

CROWD = 'iscrowd is 1'
AREA = 'their area is 0 or less'
IGNORED = 'ignore is 1'
OUTSIDE = 'they lie outside of the image'
SMALL = 'they are less than 1 pixel wide or high'
NO_IMAGE = 'the file does not list their image'
NO_CATEGORY = 'the file does not list their category'
FILTERED = 'filter_cfg or indices leaves out their image'

MEND = {
    CROWD: 'iscrowd marks crowds, which are not learnt: set it to 0 for boxes of single objects',
    AREA: 'Set area to width * height',
    IGNORED: 'Set ignore to 0, or take it away',
    OUTSIDE: 'Give boxes as x, y, width, height in pixels of the image',
    SMALL: 'Give boxes as x, y, width, height in pixels of the image',
    NO_IMAGE: 'image_id must be the id of an entry of images, as a number or text as there',
    NO_CATEGORY: 'category_id must be the id of an entry of categories, as a number or text as '
    'there',
    FILTERED: 'Change filter_cfg or indices of the data set',
}


def count_boxes(found: Sequence[dict[str, Any]]) -> int:
    """How many boxes of a data set are trained on or scored.

    Args:
        found: The data set's items, with their ``instances``.

    Returns:
        The number without crowds.
    """
    items = [instance for info in found for instance in info.get('instances', [])]
    return sum(not instance.get('ignore_flag', 0) for instance in items)


def check_boxes(
    coco: dict[str, Any],
    wanted: set,
    found: Sequence[dict[str, Any]],
    split: str,
    path: str,
) -> list[str]:
    """Check that the boxes of a data set reach the model.

    How many do is counted in what the data set class itself made of the file.

    Args:
        coco: The annotation file.
        wanted: Category ids of the classes of the data set.
        found: The data set's items, with their ``instances``.
        split: What the data are used for.
        path: The annotation file, for messages.

    Returns:
        Warnings.

    Raises:
        DatasetError: No box is left to train on or to validate on.
    """
    left = count_boxes(found)
    reasons = _why_lost(coco, wanted, {info['img_id'] for info in found})
    total = left + sum(reasons.values())
    lost = total - left - reasons[FILTERED]
    if left and lost <= WARN_SHARE * total:
        return []
    if not left and not reasons:
        names = [c['name'] for c in coco['categories'] if c['id'] in wanted]
        text = f'{path} has no boxes of the classes to {_verb(split)} ({shorten(names)})'
        mend = 'Give an annotation file that has'
    else:
        why = '; '.join(f'{count} as {reason}' for reason, count in reasons.most_common())
        text = (
            f'{path}: MMDetection keeps {left} of {total} boxes, in {len(found)} of '
            f'{len(coco["images"])} images, to {_verb(split)}; it drops {why}'
        )
        mend = MEND[reasons.most_common(1)[0][0]]
    if not left and split != 'test':
        raise DatasetError(f'{text}. {mend}')
    return [f'{text}. {mend}'] if total else []


def _verb(split):
    return 'train on' if split == 'train' else 'evaluate on'


def _why_lost(coco, wanted, used) -> Counter:
    """Count the annotations of the classes that a run leaves out, as ``CocoDataset`` does."""
    images = {image['id']: image for image in coco['images']}
    categories = {category['id'] for category in coco['categories']}
    reasons: Counter = Counter()
    for entry in coco.get('annotations', []):
        reason = _why(entry, images.get(entry['image_id']), categories, wanted, used)
        if reason:
            reasons[reason] += 1
    return reasons


def _why(entry, image, categories, wanted, used):
    if image is None:
        return NO_IMAGE
    if entry['category_id'] not in categories:
        return NO_CATEGORY
    if entry['category_id'] not in wanted:  # left out on purpose
        return None
    if entry.get('ignore', False):
        return IGNORED
    x, y, w, h = entry['bbox']
    if min(x + w, image['width']) <= max(x, 0) or min(y + h, image['height']) <= max(y, 0):
        return OUTSIDE
    if entry['area'] <= 0:
        return AREA
    if w < 1 or h < 1:
        return SMALL
    if entry.get('iscrowd', False):
        return CROWD
    return FILTERED if entry['image_id'] not in used else None


def check_box_format(coco: dict[str, Any], path: str) -> list[str]:
    """Check that boxes are x, y, width and height in pixels of their image.

    Args:
        coco: The annotation file.
        path: The file, for messages.

    Returns:
        Warnings.

    Raises:
        DatasetError: They are shares of the image, or corners.
    """
    sizes = {image['id']: (image['width'], image['height']) for image in coco['images']}
    entries = [e for e in coco.get('annotations', []) if e['image_id'] in sizes]
    if not entries:
        return []
    boxes = np.array([entry['bbox'] for entry in entries], float)
    limits = np.array([sizes[entry['image_id']] for entry in entries], float)
    if boxes.min() >= 0 and boxes.max() <= 1 and limits.min() > 1:
        raise DatasetError(
            f'{path}: all boxes lie between 0 and 1, as shares of the image. Give them as x, y, '
            'width, height in pixels'
        )
    ends = boxes[:, :2] + boxes[:, 2:]
    # Those that lie outside altogether are counted as lost.
    beyond = (ends > limits + 1).any(1) & (boxes[:, :2] < limits).all(1)
    corners = ((boxes[:, 2:] > boxes[:, :2]) & (boxes[:, 2:] <= limits + 1)).all()
    if not beyond.any():
        return []
    if corners and beyond.mean() >= CORNER_SHARE and len(boxes) >= CORNER_BOXES:
        first = entries[int(beyond.argmax())]
        raise DatasetError(
            f'{path}: the boxes are corners x1, y1, x2, y2, as it seems: read as x, y, width, '
            f'height, {int(beyond.sum())} of {len(boxes)} reach beyond their image (the first is '
            f'annotation {first["id"]}, {first["bbox"]}), read as corners none. Write x1, y1, '
            'x2 - x1, y2 - y1'
        )
    if beyond.mean() > WARN_SHARE:
        return [
            f'{path}: {int(beyond.sum())} of {len(boxes)} boxes reach beyond their image. They '
            'must be x, y, width, height in pixels'
        ]
    return []

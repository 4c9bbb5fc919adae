"""Check that an evaluator scores the images and classes that its data set gives."""

import os.path as osp
import re
from collections.abc import Mapping, Sequence
from typing import Any, Callable, Optional

from ...config_types import find_type
from ..errors import DatasetError
from .boxes import check_box_format
from .classes import check_label_order
from .coco_file import check_has, describe_annotation, stem

#: In configs of models that find masks: names of their parts, heads and losses.
_NAMES_OF_MASKS = re.compile('[Mm]ask|MASK|[Pp]anoptic|SOLO|[Ss]eg|Ins[A-Z]|YOLACT|Inst')


def metrics_of(evaluator: Any, key: str) -> list[tuple[str, Mapping[str, Any], Optional[int]]]:
    """The metrics of an evaluator.

    Args:
        evaluator: Its config: a metric, a list of metrics, or an evaluator with ``metrics``.
        key: Its config key.

    Returns:
        For each, the config key, the config, and, where every part of a ``ConcatDataset`` has a
        metric of its own, the number of the part.
    """
    separate = False
    if isinstance(evaluator, Mapping) and 'metrics' in evaluator:
        separate = 'dataset_prefixes' in evaluator  # MultiDatasetsEvaluator
        evaluator, key = evaluator['metrics'], f'{key}.metrics'
    if isinstance(evaluator, Mapping):
        return [(key, evaluator, 0 if separate else None)]
    return [
        (f'{key}.{i}', metric, i if separate else None)
        for i, metric in enumerate(evaluator or [])
        if isinstance(metric, Mapping)
    ]


def is_coco_metric(metric: Mapping[str, Any]) -> bool:
    """Whether a metric is COCO's, by pycocotools.

    Args:
        metric: Its config.

    Returns:
        Whether it is.
    """
    # Here and not above: the check of a folder should not need the whole of MMDetection.
    from mmdet.evaluation import CocoMetric
    from mmdet.registry import METRICS

    cls = find_type(metric, METRICS)
    if not isinstance(cls, type) or not issubclass(cls, CocoMetric):
        return False
    # LVIS and others derive from it but score differently.
    metric_class: Any = cls
    return metric_class.compute_metrics is CocoMetric.compute_metrics


def local_file(metric: Mapping[str, Any]) -> Optional[str]:
    """The annotation file of a metric.

    Args:
        metric: Its config.

    Returns:
        The path, or None where it has none or one that is not on a local disk.
    """
    path = metric.get('ann_file')
    backend = (metric.get('backend_args') or {}).get('backend', 'local')
    return path if path and backend == 'local' and '://' not in str(path) else None


def check_evaluator(
    evaluator: Any,
    split: str,
    found: Optional[Sequence[tuple[str, Mapping[str, Any], int]]],
    read: Callable[[str], dict],
) -> list[str]:
    """Check the metrics of an evaluator against the data sets that it scores.

    Args:
        evaluator: Its config.
        split: ``'val'`` or ``'test'``.
        found: For each part of the split's data, its config key, what :func:`check_coco_dataset`
            returned, and how often its images come; None where not all are COCO data.
        read: Reads an annotation file, as :func:`read_coco_file`.

    Returns:
        Warnings.

    Raises:
        DatasetError: The evaluator would crash, or give a wrong number.
    """
    warnings: list[str] = []
    for key, metric, part in metrics_of(evaluator, f'{split}_evaluator'):
        path = local_file(metric)
        if path and not osp.isfile(path):
            raise DatasetError(
                f'{key}.ann_file {path} does not exist. Set it to the annotation file of the '
                'data set that is evaluated'
            )
        if not found or not is_coco_metric(metric) or (metric.get('ann_file') and not path):
            continue
        parts = found if part is None else found[part : part + 1]
        if not parts:
            continue
        _check_repeated(parts, key)
        if path:
            warnings += _check_scored(metric, path, key, parts, split, read)
        else:
            _check_mixed([image for _, data, _ in parts for image in data['files']], 'image', key)
    return warnings


def check_masks(evaluator: Any, split: str, model: Mapping[str, Any]) -> list[str]:
    """Compare what COCO's metrics ask for with what the names of a model's parts promise.

    Args:
        evaluator: Config of the evaluator.
        split: ``'val'`` or ``'test'``.
        model: Config of the model.

    Returns:
        Warnings: names prove nothing.
    """
    # A model without a box head is of a kind that is not known here.
    head = model.get('bbox_head') or (model.get('roi_head') or {}).get('bbox_head')
    if not head or _NAMES_OF_MASKS.search(str(model)):
        return []
    return [
        f"{key} asks for masks by metric 'segm', but no part of the model seems to find masks: "
        "evaluation will fail. Set metric='bbox'"
        for key, metric, _ in metrics_of(evaluator, f'{split}_evaluator')
        if is_coco_metric(metric) and _asks_for_masks(metric) and not metric.get('format_only')
    ]


def _asks_for_masks(metric) -> bool:
    kinds = metric.get('metric', 'bbox')
    return 'segm' in ([kinds] if isinstance(kinds, str) else kinds)


def _check_repeated(parts, key):
    seen: dict = {}
    for name, data, times in parts:
        if times > 1:
            raise DatasetError(
                f'{name} gives every image {times} times, and {key} would count all boxes but the '
                'first as false. Take the RepeatDataset away where data are evaluated'
            )
        for image in data['files']:
            if image in seen:
                raise DatasetError(
                    f'{name} and {seen[image]} both have an image of the id {image!r}, and {key} '
                    'would take them for one. Give images ids of their own, or take '
                    'MultiDatasetsEvaluator, with a metric for each data set'
                )
        seen.update(dict.fromkeys(data['files'], name))


def _check_mixed(ids, kind, where):
    kinds = {isinstance(value, str) for value in ids}
    if len(kinds) > 1:
        raise DatasetError(
            f"{where}: some {kind} ids are numbers and some are texts, which COCO's evaluation "
            'cannot sort. Give them all as numbers'
        )


def _check_scored(metric, path, key, parts, split, read) -> list[str]:
    coco = read(path)
    categories = coco['categories']
    if metric.get('sort_categories'):
        categories = sorted(categories, key=lambda category: category['id'])
    classes = parts[0][1]['classes']
    check_label_order(classes, categories, path, key)
    if metric.get('format_only'):
        return []
    if split != 'test':
        check_has(coco, 'annotations', path)
    warnings = check_box_format(coco, path)
    wanted = {category['id'] for category in categories if category['name'] in set(classes)}
    listed = {image['id']: image['file_name'] for image in coco['images']}
    scored = [
        entry
        for entry in coco.get('annotations', [])
        if entry['image_id'] in listed and entry['category_id'] in wanted
    ]
    warnings += _check_images(path, key, parts, listed, scored)
    _check_mixed(listed, 'image', path)
    _check_mixed(wanted, 'category', path)
    masks = _asks_for_masks(metric)
    for entry in scored:
        _check_entry(entry, listed, path)
        if masks and not entry.get('segmentation'):
            raise DatasetError(
                f'{describe_annotation(entry, listed, path)} has no segmentation, which {key} asks '
                "for by metric 'segm'. Set metric='bbox', or give annotations with masks"
            )
    crowds = sum(bool(entry['iscrowd']) for entry in scored)
    if len(scored) == crowds:
        crowd = f' ({crowds} are crowds: set iscrowd to 0 for boxes of single objects)'
        text = (
            f'{key}: {path} has no box to evaluate on{crowd if crowds else ""}, so that mAP will '
            'be -1.000. Give an annotation file with boxes of the classes, or set format_only=True '
            'and outfile_prefix to only write results'
        )
        if split != 'test':
            raise DatasetError(text)
        warnings.append(text)
    return warnings


def _check_images(path, key, parts, listed, scored) -> list[str]:
    """Compare image ids, and names of the same id."""
    files = {image: name for _, data, _ in parts for image, name in data['files'].items()}
    unknown = [image for image in files if image not in listed]
    other = [i for i, name in files.items() if i in listed and stem(listed[i]) not in ('', name)]
    missed = dict.fromkeys(e['image_id'] for e in scored if e['image_id'] not in files)
    own = list(dict.fromkeys(data['ann_file'] for _, data, _ in parts))
    same = len(own) == 1 and osp.realpath(own[0]) == osp.realpath(path)
    if same and missed:  # left out by indices or filter_cfg, which the user set
        return [
            f'{parts[0][0]} leaves out {len(missed)} images of {path} that have boxes, and {key} '
            'counts those as missed: mAP will be too low'
        ]
    if unknown:
        what = f'{len(unknown)} of its {len(files)} image ids are not in it ({unknown[0]!r})'
    elif other:
        image = other[0]
        what = f'the image of id {image!r} is {listed[image]} there and {files[image]} here'
    elif missed:
        what = f'{len(missed)} more images have boxes there, which would count as missed'
    else:
        return []
    mend = (
        f'Set it to {own[0]}'
        if len(own) == 1
        else f'Give one file with the images of all of {", ".join(own)}, or take '
        'MultiDatasetsEvaluator, with a metric for each data set'
    )
    raise DatasetError(
        f'{key}.ann_file {path} is not of the images of {", ".join(p[0] for p in parts)}: {what}. '
        f'{mend}'
    )


def _check_entry(entry, listed, path):
    try:
        number = float(entry['id'])
    except ValueError:
        number = 0
    if number == 0:
        raise DatasetError(
            f"{describe_annotation(entry, listed, path)}: COCO's evaluation cannot use the id "
            f'{entry["id"]!r}: of 0 the box counts as missed, of a text it crashes. Number '
            'annotations from 1'
        )
    if entry.get('iscrowd') not in (0, 1):
        has = f'iscrowd={entry["iscrowd"]!r}' if 'iscrowd' in entry else "no 'iscrowd'"
        raise DatasetError(
            f'{describe_annotation(entry, listed, path)} has {has} (expected: 0 or 1). Correct '
            'it or delete the entry'
        )

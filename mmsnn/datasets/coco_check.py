"""Look at COCO-format data before long work starts on them.

MMDetection reads broken data late or not at all: a missing image stops an epoch halfway, a
truncated JPEG trains as half a grey picture, a class that the file does not have is left out
without a word. These checks read every annotation and touch every image file once, and say in one
message what is wrong, where, and what to do.
"""

import json
import math
import os
import os.path as osp
import re
from concurrent.futures import ThreadPoolExecutor

from PIL import Image
from rich.progress import track

from .errors import DatasetError

__all__ = ['DATA_HINT', 'DatasetError', 'check_coco_dataset', 'check_config_datasets']

DATA_HINT = (
    'Point to your copy with the environment variable MMSNN_COCO_ROOT=/path/to/coco, or with '
    '--cfg-options train_dataloader.dataset.data_root=/path/to/coco'
)
# From about this many images on, a check takes seconds and shows its progress.
PROGRESS_FROM = 3000

JPEG_START, JPEG_END = b'\xff\xd8\xff', b'\xff\xd9'
PNG_START, PNG_END = b'\x89PNG\r\n\x1a\n', b'IEND\xaeB`\x82'


def check_coco_dataset(
    ann_file,
    img_dir,
    classes=None,
    num_classes=None,
    data_root=None,
    splits=('train',),
    hint=DATA_HINT,
):
    """Check that a COCO-format data set can be trained on and evaluated.

    Args:
        ann_file (str | Path): Annotation file.
        img_dir (str | Path): Folder that the file names in it start from.
        classes (Sequence[str] | None): Class names of the data set. None skips what needs them.
        num_classes (dict[str, int] | None): Number of classes of each head of the model, by the
            config key that sets it, for example ``{'model.bbox_head.num_classes': 80}``.
        data_root (str | Path | None): Folder that holds both, for a clearer message where the
            whole of it is missing.
        splits (Sequence[str]): What the data are used for. Data for ``'train'`` must have boxes;
            data for ``'val'`` or ``'test'`` must have what the COCO metric reads; data for
            ``'test'`` alone may come without annotations.
        hint (str): How to point to the data, said where they are missing.

    Returns:
        dict[str, int]: Number of ``images`` and ``boxes``.

    Raises:
        DatasetError: If anything is wrong. The message names the first problem of the annotations,
            or up to three image files and the number of the others.
    """
    ann_file, img_dir = os.fspath(ann_file), os.fspath(img_dir)
    for kind, path, is_there in (
        ('data root', data_root, osp.isdir),
        ('annotation file', ann_file, osp.isfile),
        ('image folder', img_dir, osp.isdir),
    ):
        if path and not is_there(path):
            raise DatasetError(f'the {kind} {path} does not exist. {hint}')

    coco = _load_json(ann_file)
    _check_structure(coco, ann_file, needs_annotations=set(splits) != {'test'})
    images = _check_images(coco['images'], ann_file)
    names = _check_categories(coco['categories'], ann_file)
    if classes is not None:
        _check_classes(classes, list(names.values()), num_classes or {}, ann_file)
    annotations = coco.get('annotations', [])
    _check_annotations(annotations, images, names, ann_file, evaluated=set(splits) != {'train'})
    if 'train' in splits:
        _check_has_boxes(annotations, names, classes, ann_file)
    _check_image_files(list(images.values()), img_dir, ann_file)
    return {'images': len(images), 'boxes': len(annotations)}


def check_config_datasets(cfg, splits=('train', 'val')):
    """Check the COCO-format data sets of an MMDetection config.

    Wrappers (``RepeatDataset``, ``ConcatDataset`` and the like) are opened. Data sets of other
    kinds and data that are not on a local disk are passed over. Data that several splits share are
    read once.

    Args:
        cfg (mmengine.Config): The config.
        splits (Sequence[str]): Which of ``'train'``, ``'val'`` and ``'test'`` to check.

    Returns:
        dict[str, dict[str, int]]: What :func:`check_coco_dataset` found, by annotation file.

    Raises:
        DatasetError: If anything is wrong with one of them.
    """
    heads = _head_classes(cfg.get('model') or {})
    jobs = {}
    for split in splits:
        loader = cfg.get(f'{split}_dataloader') or {}
        for key, dataset in _unwrap(loader.get('dataset'), f'{split}_dataloader.dataset'):
            job = _resolve(dataset, key, _hint(cfg, key))
            if job is not None:
                place = (job['ann_file'], job['img_dir'])
                jobs.setdefault(place, {**job, 'splits': []})['splits'].append(split)

    results = {
        job['ann_file']: check_coco_dataset(num_classes=heads, **job) for job in jobs.values()
    }
    for split in splits:
        _check_evaluator(cfg.get(f'{split}_evaluator'), f'{split}_evaluator')
    return results


# --- the annotation file ---------------------------------------------------------------------


def _load_json(path):
    try:
        with open(path, encoding='utf-8') as file:
            return json.load(file)
    except json.JSONDecodeError as error:
        raise DatasetError(
            f'{path} is not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}. '
            'It may be cut off or not an annotation file: fetch or write it again'
        ) from error
    except UnicodeDecodeError as error:
        raise DatasetError(
            f'{path} is not a JSON text file (byte {error.start} is not UTF-8). If it is an '
            'archive, unpack it; otherwise give the COCO annotation file'
        ) from error
    except OSError as error:
        raise DatasetError(
            f'{path} cannot be read: {error.strerror}. Correct the permissions or the disk'
        ) from error


def _check_structure(coco, path, needs_annotations):
    advice = 'Give a COCO detection file (instances_*.json)'
    if not isinstance(coco, dict):
        raise DatasetError(
            f'{path} is not in COCO format: it holds a {type(coco).__name__} at the top, not an '
            f'object with images, annotations and categories. {advice}'
        )
    for key in ('images', 'annotations', 'categories'):
        if key not in coco:
            if key == 'annotations' and not needs_annotations:
                continue
            raise DatasetError(
                f'{path} is not in COCO format: the key {key!r} is missing. {advice}'
            )
        if not isinstance(coco[key], list):
            raise DatasetError(
                f'{path} is not in COCO format: {key!r} is a {type(coco[key]).__name__}, '
                f'not a list. {advice}'
            )
    for key in ('images', 'categories'):
        if not coco[key]:
            raise DatasetError(f'{path} lists no {key}. Give an annotation file that does')


def _is_id(value):
    return isinstance(value, (int, str)) and not isinstance(value, bool)


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _check_entries(entries, tests, describe):
    """Check the fields of a list of entries.

    Args:
        entries (list): The entries.
        tests (dict[str, tuple[Callable, str]]): For each field, a test of its value and what is
            expected of it in words.
        describe (Callable): Names an entry, given its position and itself.

    Raises:
        DatasetError: If an entry lacks a field, a value fails its test or an id comes twice.
    """
    seen = set()
    for position, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise DatasetError(
                f'{describe(position, {})} is a {type(entry).__name__}, not an object. '
                'Correct or delete it'
            )
        for field, (test, expected) in tests.items():
            if field not in entry:
                raise DatasetError(
                    f'{describe(position, entry)} has no {field!r} (expected: {expected}). '
                    'Add it or delete the entry'
                )
            if not test(entry[field]):
                raise DatasetError(
                    f'{describe(position, entry)} has {field}={entry[field]!r} (expected: '
                    f'{expected}). Correct it or delete the entry'
                )
        if entry['id'] in seen:
            raise DatasetError(
                f'{describe(position, entry)} has an id that an earlier entry has. '
                'Give every entry an id of its own'
            )
        seen.add(entry['id'])


def _check_images(entries, path):
    def describe(position, entry):
        name = entry.get('file_name', f'number {position + 1} of the list')
        return f'{path}: image {name} (id {entry.get("id")})'

    side = (lambda v: _is_number(v) and v > 0, 'a number of pixels above 0')
    tests = {
        'id': (_is_id, 'an integer'),
        'file_name': (lambda v: isinstance(v, str) and v != '', 'a file name'),
        'height': side,
        'width': side,
    }
    _check_entries(entries, tests, describe)
    return {entry['id']: entry['file_name'] for entry in entries}


def _check_categories(entries, path):
    def describe(position, entry):
        return f'{path}: category number {position + 1} of the list (id {entry.get("id")})'

    tests = {
        'id': (_is_id, 'an integer'),
        'name': (lambda v: isinstance(v, str), 'the name of the class'),
    }
    _check_entries(entries, tests, describe)
    return {entry['id']: entry['name'] for entry in entries}


def _is_box(value):
    return (
        isinstance(value, list)
        and len(value) == 4
        and all(map(_is_number, value))
        and value[2] >= 0
        and value[3] >= 0
    )


def _check_annotations(entries, images, names, path, evaluated):
    def describe(position, entry):
        number = entry.get('id', f'number {position + 1} of the list')
        image = entry.get('image_id')
        image = images.get(image, image) if _is_id(image) else image
        return f'{path}: annotation {number} (image {image})'

    tests = {
        'id': (_is_id, 'an integer'),
        'image_id': (lambda v: _is_id(v) and v in images, 'the id of an entry of images'),
        'category_id': (lambda v: _is_id(v) and v in names, 'the id of an entry of categories'),
        # Boxes without width or height pass: MMDetection leaves them out by itself.
        'bbox': (_is_box, '4 finite numbers x, y, width, height, width and height not negative'),
        'area': (_is_number, 'a finite number'),
    }
    if evaluated:  # the COCO metric reads it, training does not
        tests['iscrowd'] = (lambda v: v in (0, 1), '0 or 1')
    _check_entries(entries, tests, describe)


def _check_has_boxes(annotations, names, classes, path):
    wanted = set(names.values() if classes is None else classes)
    if not any(names[entry['category_id']] in wanted for entry in annotations):
        raise DatasetError(
            f'{path} has no boxes of the classes to train on ({_shorten(sorted(wanted))}). '
            'Give the annotation file of a training set'
        )


# --- classes -----------------------------------------------------------------------------------


def _shorten(names, limit=20):
    names = [str(name) for name in names]
    more = f' and {len(names) - limit} more' if len(names) > limit else ''
    return ', '.join(names[:limit]) + more


def _check_classes(classes, names, num_classes, path):
    if isinstance(classes, str):
        raise DatasetError(
            f'metainfo.classes is the text {classes!r}, and no file of that name exists. Give a '
            f'sequence of names; of one name with a comma: classes=({classes!r},)'
        )
    missing = [name for name in classes if name not in names]
    if missing:
        raise DatasetError(
            f'{path} has no category named {_shorten(missing)}. It has: {_shorten(names)}. Set '
            'the names of the data set: metainfo=dict(classes=(...)), and num_classes of the head '
            'to their number'
        )
    for key, number in num_classes.items():
        if number != len(classes):
            raise DatasetError(
                f'{key} is {number}, but the data set of {path} has {len(classes)} classes '
                f'({_shorten(classes, 5)}). Set {key}={len(classes)}, or metainfo.classes of the '
                f'data set to {number} names'
            )


# --- image files -------------------------------------------------------------------------------


def _image_problem(path):
    """Return what is wrong with an image file, or None.

    Decoding every image would take as long as an epoch. An image that starts and ends as its
    format should is taken as whole; only the others are decoded.
    """
    try:
        with open(path, 'rb') as file:
            start = file.read(8)
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - 64))
            end = file.read()
    except FileNotFoundError:
        return 'missing'
    except OSError as error:
        return error.strerror or 'not readable'
    if size == 0:
        return 'empty, 0 bytes'
    if start.startswith(JPEG_START) and JPEG_END in end:
        return None
    if start == PNG_START and PNG_END in end:
        return None
    try:
        with Image.open(path) as image:
            image.load()
    except Exception as error:  # what Pillow raises for broken data depends on the format
        known = start.startswith(JPEG_START) or start == PNG_START
        return 'truncated' if known else f'not an image: {type(error).__name__}'
    return None


def _check_image_files(names, img_dir, ann_file):
    paths = [osp.join(img_dir, name) for name in names]
    # The time goes into waiting for the disk, or for the network behind it.
    with ThreadPoolExecutor(16) as pool:
        problems = track(
            pool.map(_image_problem, paths),
            description=f'Checking {img_dir}',
            total=len(paths),
            disable=len(paths) < PROGRESS_FROM,
        )
        bad = [f'{name} ({problem})' for name, problem in zip(names, problems) if problem]
    if bad:
        more = f' and {len(bad) - 3} more' if len(bad) > 3 else ''
        raise DatasetError(
            f'{len(bad)} of the {len(names)} images that {ann_file} lists cannot be used from '
            f'{img_dir}: {", ".join(bad[:3])}{more}. Fetch them again, or check that the image '
            'folder (data_prefix.img) belongs to this annotation file'
        )


# --- configs -----------------------------------------------------------------------------------


def _head_classes(model):
    heads = {}
    for key, owner in (('model', model), ('model.roi_head', model.get('roi_head') or {})):
        head = owner.get('bbox_head')
        if isinstance(head, dict):
            found = {f'{key}.bbox_head': head}
        else:  # one head for each stage of a cascade
            found = {f'{key}.bbox_head.{i}': stage for i, stage in enumerate(head or [])}
        heads.update(
            {f'{k}.num_classes': h['num_classes'] for k, h in found.items() if 'num_classes' in h}
        )
    return heads


def _unwrap(dataset, key):
    """Yield the data sets inside wrappers, each with its config key."""
    if not isinstance(dataset, dict):
        return
    if 'dataset' in dataset:
        yield from _unwrap(dataset['dataset'], f'{key}.dataset')
    elif 'datasets' in dataset:
        for i, part in enumerate(dataset['datasets']):
            yield from _unwrap(part, f'{key}.datasets.{i}')
    else:
        yield key, dataset


def _coco_class(dataset):
    """Return the class of a data set that reads plain COCO files, otherwise None."""
    # Here and not above: the check of a folder should not need the whole of MMDetection.
    from mmdet.datasets import CocoDataset
    from mmdet.registry import DATASETS

    cls = dataset.get('type')
    if isinstance(cls, str):
        cls = DATASETS.get(cls)
    if not (isinstance(cls, type) and issubclass(cls, CocoDataset)):
        return None
    # LVIS, panoptic COCO and others derive from it but read files of another form.
    same_form = cls.COCOAPI is CocoDataset.COCOAPI
    return cls if same_form and cls.load_data_list is CocoDataset.load_data_list else None


def _is_remote(path):
    return '://' in path


def _hint(cfg, key):
    """How to point to the data of this config: by the environment variable that it reads."""
    hint = DATA_HINT.replace('train_dataloader.dataset', key)
    variables = re.findall(r'\{\{\s*\$\s*(\w+)\s*:', getattr(cfg, 'text', ''))
    if variables:
        hint = hint.replace('MMSNN_COCO_ROOT=/path/to/coco', f'{variables[0]}=/path/to/data')
    return hint


def _resolve(dataset, key, hint):
    """Return the arguments of :func:`check_coco_dataset` for a data set config, or None."""
    cls = _coco_class(dataset)
    backend = (dataset.get('backend_args') or {}).get('backend', 'local')
    if cls is None or backend != 'local':
        return None
    root = dataset.get('data_root') or ''
    ann_file = osp.join(root, dataset.get('ann_file') or '')
    img_dir = osp.join(root, (dataset.get('data_prefix') or {}).get('img') or '')
    if _is_remote(ann_file) or _is_remote(img_dir):
        return None

    classes = (dataset.get('metainfo') or {}).get('classes', cls.METAINFO.get('classes'))
    if isinstance(classes, str) and osp.isfile(classes):
        with open(classes, encoding='utf-8') as file:
            classes = file.read().splitlines()
    return {
        'ann_file': ann_file,
        'img_dir': img_dir,
        'classes': classes,
        'data_root': root,
        'hint': hint,
    }


def _check_evaluator(evaluator, key):
    for metric in evaluator if isinstance(evaluator, (list, tuple)) else [evaluator or {}]:
        path = metric.get('ann_file')
        if path and not _is_remote(path) and not osp.isfile(path):
            raise DatasetError(
                f'{key}.ann_file {path} does not exist. Set it to the annotation file of the '
                'data set that is evaluated'
            )

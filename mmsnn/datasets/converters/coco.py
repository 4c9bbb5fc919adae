"""What the converters have in common: images and boxes in, checked COCO files out."""

import json
import os
import random
import shutil
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Union

from ..checks import check_coco_dataset, check_image_files
from ..checks.images import Loader, Picture
from ..errors import DatasetError
from ..files import open_file

#: Names that splits have in the folders and files of both formats, and those that they get.
SPLITS = {'train': 'train', 'val': 'val', 'valid': 'val', 'validation': 'val', 'test': 'test'}

TOO_SMALL = 'boxes less than 1 pixel wide or high, which MMDetection leaves out'


class Box(NamedTuple):
    """A box in pixels of the image as the training pipeline loads it.

    - ``label``: its class, counted from 0.
    - ``x``, ``y``, ``w``, ``h``: left, top, width and height.
    - ``crowd``: it is neither learnt nor counted as missed.
    """

    label: int
    x: float
    y: float
    w: float
    h: float
    crowd: bool = False


class Converted(NamedTuple):
    """A data set in COCO format.

    - ``root``: the folder that ``file_name`` of the images is relative to.
    - ``splits``: what each file is to hold, by the name of the split.
    - ``skipped``: how many of what was left out, by what it was.
    - ``notes``: what else the user should know, a line each.
    """

    root: str
    splits: dict[str, dict[str, Any]]
    skipped: Counter
    notes: list[str]


def look_at(paths: Sequence[str], root: str, notes: list[str]) -> dict[str, Picture]:
    """Look at image files as the training pipeline loads them.

    Args:
        paths: The files.
        root: The folder that they lie in.
        notes: Gets a line where pictures have an EXIF orientation.

    Returns:
        The picture by path.

    Raises:
        DatasetError: Some cannot be read; the message names up to three.
    """
    names = {os.path.relpath(path, root): path for path in paths}
    found, _ = check_image_files(
        list(names), root, Loader(), '', 'Fetch them again, or take them and their boxes away'
    )
    turned = [name for name, picture in found.items() if picture.orientation != 1]
    if turned:
        notes.append(
            f'{len(turned)} images have an EXIF orientation (the first is {turned[0]}), by which '
            'training turns them: their boxes are taken for those of the turned pictures'
        )
    return {names[name]: picture for name, picture in found.items()}


def hold_out(names: Sequence[str], share: float) -> dict[str, list[str]]:
    """Split names at random, the same names always alike.

    Args:
        names: The names.
        share: Share of them that is to validate; 0 for none.

    Returns:
        Those of ``'train'`` and ``'val'``, in the order given.

    Raises:
        DatasetError: The share leaves one of them empty.
    """
    if share == 0:
        return {'train': list(names)}
    if not 0 < share < 1:
        raise DatasetError(f'--val-share is {share:g}: give a share between 0 and 1')
    count = round(share * len(names))
    if not 0 < count < len(names):
        raise DatasetError(
            f'--val-share {share:g} of {len(names)} images leaves {count} to validate and '
            f'{len(names) - count} to train: give another share'
        )
    held = set(random.Random(0).sample(sorted(names), count))
    return {
        'train': [name for name in names if name not in held],
        'val': [name for name in names if name in held],
    }


def check_names(classes: Sequence[str], where: str) -> tuple[str, ...]:
    """Check names of classes.

    Args:
        classes: The names.
        where: What gives them, for messages.

    Returns:
        The names.

    Raises:
        DatasetError: There are none, or one is empty or comes twice.
    """
    if not classes:
        raise DatasetError(f'{where} names no classes. Name them with --classes')
    for name, count in Counter(classes).items():
        if not name or count > 1:
            wrong = f'{count} classes named {name!r}' if name else 'a class without a name'
            raise DatasetError(f'{where} has {wrong}. Give every class a name of its own')
    return tuple(classes)


def read_text(path: Union[str, Path]) -> str:
    """Read a text file.

    Args:
        path: The file.

    Returns:
        The text.

    Raises:
        DatasetError: It cannot be read, or is not in UTF-8.
    """
    try:
        with open_file(path) as file:
            return file.read().decode('utf-8-sig')
    except UnicodeDecodeError as error:
        raise DatasetError(
            f'{path} is not a text in UTF-8 (byte {error.start}). Save it as such'
        ) from error
    except OSError as error:
        raise DatasetError(f'{path} cannot be read: {error.strerror}') from error


def drop_small(boxes: Iterable[Box], skipped: Counter) -> list[Box]:
    """Leave out what MMDetection would leave out.

    Args:
        boxes: The boxes of an image.
        skipped: Counts those that are left out.

    Returns:
        The others.
    """
    boxes = list(boxes)
    large = [box for box in boxes if box.w >= 1 and box.h >= 1]
    if len(large) < len(boxes):
        skipped[TOO_SMALL] += len(boxes) - len(large)
    return large


def build(
    samples: Sequence[tuple[str, Sequence[Box]]],
    pictures: Mapping[str, Picture],
    root: str,
    classes: Sequence[str],
) -> dict[str, Any]:
    """Put one split together.

    Args:
        samples: Path and boxes of each image.
        pictures: Their sizes, as of :func:`look_at`.
        root: The folder that names are relative to.
        classes: Names of the classes by label.

    Returns:
        What the annotation file is to hold.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for path, boxes in samples:
        images.append(
            {
                'id': len(images) + 1,
                'file_name': Path(os.path.relpath(path, root)).as_posix(),
                'width': pictures[path].width,
                'height': pictures[path].height,
            }
        )
        for box in boxes:
            annotations.append(
                {
                    'id': len(annotations) + 1,  # COCO's evaluation cannot do with 0
                    'image_id': len(images),
                    'category_id': box.label + 1,
                    'bbox': [box.x, box.y, box.w, box.h],
                    'area': box.w * box.h,
                    'iscrowd': int(box.crowd),
                    'segmentation': [],
                }
            )
    categories = [{'id': i + 1, 'name': name} for i, name in enumerate(classes)]
    return {'images': images, 'annotations': annotations, 'categories': categories}


def note_shared_images(splits: Mapping[str, Collection[str]], notes: list[str]) -> None:
    """Note images that are trained on and scored, too.

    Args:
        splits: Paths of the images by split.
        notes: Gets a line for each split that shares images with training.
    """
    for name in ('val', 'test'):
        shared = set(splits.get('train', ())) & set(splits.get(name, ()))
        if shared:
            notes.append(
                f'{len(shared)} of the {len(splits[name])} images of {name} are in train too: a '
                'score on them says nothing about new images'
            )


# --- files ---------------------------------------------------------------------------------------


def check_out_dir(out_dir: Union[str, Path]) -> None:
    """Check that the files of a data set would replace nothing.

    Args:
        out_dir: The folder that they go to.

    Raises:
        DatasetError: It is a file, or not empty.
    """
    out_dir = Path(out_dir)
    if out_dir.exists() and not out_dir.is_dir():
        raise DatasetError(f'{out_dir} is a file: give a folder as --out-dir')
    if out_dir.exists() and any(out_dir.iterdir()):
        raise DatasetError(
            f'{out_dir} is there already and not empty: give another --out-dir, or move it away'
        )


def write_coco(converted: Converted, out_dir: Union[str, Path]) -> list[str]:
    """Write the annotation files of a data set, and check them as before a training.

    Args:
        converted: The data set.
        out_dir: Folder to make. Nothing that is already in it is ever changed.

    Returns:
        What the check warns of.

    Raises:
        DatasetError: The folder is not empty, or training would refuse the data; then nothing is
            written.
        OSError: A file cannot be written.
    """
    check_out_dir(out_dir)
    out_dir = Path(os.path.abspath(out_dir))
    # Made beside its place and then renamed, so that a run cut off halfway leaves nothing there
    # that looks finished.
    partial = out_dir.parent / f'.{out_dir.name}.partial-{os.getpid()}'
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise DatasetError(
            f'{out_dir} cannot be made: {error.strerror}. Give another --out-dir'
        ) from error
    warnings: list[str] = []
    try:
        for name, coco in converted.splits.items():
            path = partial / f'{name}.json'
            path.write_text(json.dumps(coco, ensure_ascii=False), encoding='utf-8')
            warnings += _check(path, name, coco, converted.root)
        if out_dir.exists():
            out_dir.rmdir()  # empty, or it would have been refused above
        partial.rename(out_dir)
    except DatasetError as error:
        raise DatasetError(str(error).replace(str(partial), str(out_dir))) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return [text.replace(str(partial), str(out_dir)) for text in warnings]


def _check(path, name, coco, root) -> list[str]:
    dataset = dict(
        type='mmdet.CocoDataset',
        data_root=root,
        ann_file=str(path),
        data_prefix=dict(img=''),
        metainfo=dict(classes=_classes(coco)),
        test_mode=name in ('val', 'test'),
    )
    found = check_coco_dataset(dataset, name, split=name if name in ('val', 'test') else 'train')
    return found['warnings']


def _classes(coco) -> tuple[str, ...]:
    return tuple(category['name'] for category in coco['categories'])


# --- what is said --------------------------------------------------------------------------------


def summary(converted: Converted, out_dir: Union[str, Path]) -> list[str]:
    """Say what was converted and what was not.

    Args:
        converted: The data set.
        out_dir: The folder of its files.

    Returns:
        Lines of text.
    """
    lines, total = [], Counter[int]()
    for name, coco in converted.splits.items():
        labels = Counter(entry['category_id'] for entry in coco['annotations'])
        crowds = sum(entry['iscrowd'] for entry in coco['annotations'])
        with_boxes = len({entry['image_id'] for entry in coco['annotations']})
        empty = len(coco['images']) - with_boxes
        total |= labels  # of splits that share images, such as trainval, the larger
        lines.append(
            f'{name}: {len(coco["images"])} images'
            + (f' ({empty} of them without boxes)' if empty else '')
            + f', {len(coco["annotations"])} boxes'
            + (f' ({crowds} of them iscrowd: not learnt, not counted as missed)' if crowds else '')
            + f': {Path(os.path.abspath(out_dir)) / f"{name}.json"}'
        )
    classes = _classes(next(iter(converted.splits.values())))
    lines.append(f'{len(classes)} classes: {", ".join(classes)}')
    unused = [name for i, name in enumerate(classes) if not total[i + 1]]
    if unused:
        lines.append(f'note: no box of {", ".join(unused)}')
    lines += [f'skipped: {count} {what}' for what, count in converted.skipped.items()]
    return lines + [f'note: {text}' for text in converted.notes]


def config_lines(converted: Converted, out_dir: Union[str, Path]) -> str:
    """The settings that a config needs to train on a data set.

    Args:
        converted: The data set.
        out_dir: The folder of its files.

    Returns:
        Python, to go under the ``_base_`` of a config for COCO.
    """
    out_dir = os.path.abspath(out_dir)
    root = os.path.join(os.path.abspath(converted.root), '')
    names = list(converted.splits)
    classes = _classes(converted.splits[names[0]])

    def path(name):
        return Path(out_dir, f'{name}.json').as_posix()

    def loader(split, name):
        return f'{split}_dataloader = dict(dataset=dict(ann_file={path(name)!r}, **data))'

    train = next((name for name in ('train', 'trainval') if name in names), names[0])
    val = next((name for name in ('val', 'test') if name in names and name != train), None)
    scored = [name for name in ('test',) if name in names and converted.splits[name]['annotations']]
    test = scored[0] if scored else val
    lines = [
        f'metainfo = dict(classes={classes!r})',
        f"data = dict(data_root={root!r}, data_prefix=dict(img=''), metainfo=metainfo)",
        loader('train', train),
    ]
    for split, name in (('val', val), ('test', test)):
        if name is None:
            lines.append(f'{split}_dataloader = {split}_cfg = {split}_evaluator = None')
        elif split == 'test' and name == val:
            lines += ['test_dataloader = val_dataloader', 'test_evaluator = val_evaluator']
        else:
            lines += [loader(split, name), f'{split}_evaluator = dict(ann_file={path(name)!r})']
    lines.append(f'model = dict(bbox_head=dict(num_classes={len(classes)}))')
    return '\n'.join(lines)

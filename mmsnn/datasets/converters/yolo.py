"""Read data sets in the format of YOLO, as Ultralytics reads them.

- A label file has a line for each box: class, then centre x, centre y, width and height, as shares
  of the picture, turned as its EXIF orientation says.
- A line of an outline (class, then three or more points) becomes the box around it; of a line of a
  pose (``kpt_shape`` in data.yaml) the box is taken.
- The label file of ``.../images/a/1.jpg`` is ``.../labels/a/1.txt``; where no folder is called
  ``images``, it lies beside the image. An image without one is kept, without boxes.
"""

import math
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Optional, Union

import yaml

from ..checks.images import Picture
from ..errors import DatasetError, MissingDataError
from ..files import is_by_product
from ..image_files import list_images
from .coco import (
    SPLITS,
    Box,
    Converted,
    build,
    check_names,
    drop_small,
    hold_out,
    look_at,
    note_shared_images,
    read_text,
)

OUTLINES = 'outlines, of which the boxes around them were taken'
POSES = 'poses, of which the boxes were taken'
# What lies beside images and is meant to: labels, and what training tools leave.
KNOWN_SUFFIXES = ('.txt', '.cache', '.npy', '.yaml', '.yml', '.json', '.xml', '.md')


class Row(NamedTuple):
    """A box as a label file has it: its class, and shares of the picture."""

    label: int
    cx: float
    cy: float
    w: float
    h: float


def read_yolo(
    root: Union[str, Path], classes: Sequence[str] = (), val_share: float = 0
) -> Converted:
    """Read ``data.yaml`` or ``classes.txt``, label files and the headers of the images.

    Args:
        root: A ``data.yaml``, or the folder that has one; or a folder with ``images``, ``labels``
            and ``classes.txt``.
        classes: Names of the classes, where no file says them.
        val_share: Share of the images that is to validate, where there is one split only.

    Returns:
        The data set.

    Raises:
        DatasetError: Something is missing or wrong; the message names file and line.
    """
    root = os.path.abspath(root)
    skipped: Counter = Counter()
    notes: list[str] = []
    path = _find_yaml(root)
    if path is not None:
        root = os.path.dirname(path)
        settings = _read_yaml(path)
        names = _names_of_yaml(settings, path)
        splits = _splits_of_yaml(settings, path, skipped)
    else:
        settings = {}
        path, names = _names_of_text(root)
        splits = _splits_of_folder(root, skipped)
    classes = _choose_names(names, classes, path, root)
    if val_share and list(splits) != ['train']:
        raise DatasetError(
            f'--val-share is for data without splits: {root} has {", ".join(splits)}. Leave it out'
        )
    if val_share:
        splits = hold_out(splits['train'], val_share)
    elif list(splits) == ['train']:
        notes.append(
            f'{root} has no other split than train: --val-share 0.2 holds a fifth of its images '
            'back to validate'
        )
    images = list(dict.fromkeys(image for paths in splits.values() for image in paths))
    keypoints = _keypoints(settings, path)
    shapes: Counter = Counter()
    rows = {
        image: _read_labels(image, len(classes), keypoints, skipped, shapes) for image in images
    }
    notes += [f'{count} {kind}' for kind, count in shapes.items()]
    _check_labelled(splits, rows, root)
    _count_strays(images, skipped)
    # All images lie below it.
    base = os.path.commonpath([root, *map(os.path.dirname, images)])
    pictures = look_at(images, base, notes)
    boxes = {
        image: drop_small((_scale(row, pictures[image]) for row in found or ()), skipped)
        for image, found in rows.items()
    }
    note_shared_images(splits, notes)
    coco = {
        split: build([(path, boxes[path]) for path in paths], pictures, base, classes)
        for split, paths in splits.items()
    }
    return Converted(base, coco, skipped, notes)


def _scale(row, picture: Picture) -> Box:
    width, height = picture.width, picture.height
    x, y = (row.cx - row.w / 2) * width, (row.cy - row.h / 2) * height
    return Box(row.label, x, y, row.w * width, row.h * height)


# --- data.yaml -----------------------------------------------------------------------------------


def _find_yaml(root) -> Optional[str]:
    if os.path.isfile(root):
        if not root.endswith(('.yaml', '.yml')):
            raise DatasetError(f'{root} is a file: give a data.yaml, or the folder of the data set')
        return root
    if not os.path.isdir(root):
        raise MissingDataError(f'{root} does not exist. Give a data.yaml, or its folder')
    found = sorted(
        path for pattern in ('*.yaml', '*.yml') for path in Path(root).glob(pattern)
        if not is_by_product(path.name)
    )  # fmt: skip
    named = [path for path in found if path.stem == 'data']
    if len(found) > 1 and len(named) != 1:
        raise DatasetError(
            f'{root} has several .yaml files: give one of '
            f'{", ".join(path.name for path in found)} by its path'
        )
    return str((named or found)[0]) if found else None


def _read_yaml(path) -> dict[str, Any]:
    try:
        settings = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        mark = getattr(error, 'problem_mark', None)
        line = mark.line + 1 if mark else 1
        problem = getattr(error, 'problem', None) or 'it is no YAML'
        raise DatasetError(f'{path}:{line}: {problem}. Correct it') from error
    if not isinstance(settings, dict):
        raise DatasetError(f'{path} is no data.yaml: it has no names, train and val')
    return settings


def _names_of_yaml(settings, path) -> Optional[list[str]]:
    names = settings.get('names')
    if names is None:
        return None
    if isinstance(names, dict):
        if sorted(names, key=str) != sorted(range(len(names)), key=str):
            raise DatasetError(
                f'{path}: the numbers of names must be 0 to {len(names) - 1}, got '
                f'{", ".join(map(str, names))}. Number the classes so'
            )
        names = [names[i] for i in range(len(names))]
    if not isinstance(names, list):
        raise DatasetError(f'{path}: names is {names!r}. Give a list of the names of the classes')
    for i, name in enumerate(names):
        if isinstance(name, bool) or not isinstance(name, (str, int, float)):
            raise DatasetError(
                f'{path}: the name of class {i} is {name!r}, as YAML reads it. Put it in quotes'
            )
    count = settings.get('nc', len(names))
    if count != len(names):
        raise DatasetError(f'{path}: nc is {count!r}, but names has {len(names)}. Correct one')
    return [str(name) for name in names]


def _splits_of_yaml(settings, path, skipped) -> dict[str, list[str]]:
    base = _base(settings.get('path'), path)
    splits = {}
    for key, split in SPLITS.items():
        places = settings.get(key)
        if not places:
            continue
        places = places if isinstance(places, list) else [places]
        found = [
            image
            for place in places
            for image in _images_of(_resolve(base, place, key, path), skipped)
        ]
        splits[split] = list(dict.fromkeys(found))
        if len(splits[split]) < len(found):
            skipped[f'images that {key} lists twice'] = len(found) - len(splits[split])
        if not found:
            raise MissingDataError(f'{path}: {key} ({", ".join(places)}) has no images')
    if not splits:
        raise DatasetError(f'{path} has no train, val or test. Name the folders of the images')
    return splits


def _base(given, path) -> str:
    """The folder that paths of splits are relative to."""
    folder = os.path.dirname(path)
    if given is None:
        return folder
    if not isinstance(given, str):
        raise DatasetError(f'{path}: path is {given!r}. Give a folder')
    base = os.path.join(folder, given)
    # Ultralytics looks in its own folder of data sets, which is not known here.
    return base if os.path.isdir(base) else folder


def _resolve(base, place, key, path) -> str:
    if not isinstance(place, str):
        raise DatasetError(f'{path}: {key} is {place!r}. Give a folder or a .txt list of images')
    # Roboflow writes ../train/images for what lies beside data.yaml.
    inside = place[3:] if place.startswith('../') else place
    for candidate in (os.path.join(base, place), os.path.join(base, inside)):
        if os.path.exists(candidate):
            return os.path.normpath(candidate)
    raise MissingDataError(
        f'{path}: {key} is {place}, and there is no {os.path.normpath(os.path.join(base, place))}. '
        'Correct it, or path'
    )


def _images_of(place, skipped) -> list[str]:
    """The images in a folder, or those that a text lists."""
    if os.path.isdir(place):
        images, others = list_images(place)
        for other in others:
            suffix = os.path.splitext(other)[1].lower()
            if suffix not in KNOWN_SUFFIXES:
                skipped[f'{suffix or "other"} files, which are no images'] += 1
        return images
    folder = os.path.dirname(place)
    found = []
    for number, line in enumerate(read_text(place).splitlines(), 1):
        name = line.strip()
        if not name:
            continue
        image = os.path.normpath(os.path.join(folder, name))
        if not os.path.isfile(image):
            raise MissingDataError(
                f'{place}:{number}: there is no {image}. Correct or delete the line'
            )
        found.append(image)
    return found


# --- folders without data.yaml -------------------------------------------------------------------


def _names_of_text(root) -> tuple[str, Optional[list[str]]]:
    places = [os.path.join(root, *p) for p in (('classes.txt',), ('labels', 'classes.txt'))]
    path = next((place for place in places if os.path.isfile(place)), None)
    if path is None:
        return places[0], None
    return path, [line.strip() for line in read_text(path).rstrip().splitlines()]


def _splits_of_folder(root, skipped) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for folder, split in SPLITS.items():
        for places in (('images', folder), (folder, 'images')):
            place = os.path.join(root, *places)
            if os.path.isdir(place):
                found[split] = found.get(split, []) + _images_of(place, skipped)
    if found:
        taken = {image for paths in found.values() for image in paths}
        rest = set(list_images(os.path.join(root, 'images'))[0]) - taken
        if rest:
            skipped['images that lie outside of the folders train, val and test'] = len(rest)
    elif os.path.isdir(os.path.join(root, 'images')):
        found = {'train': _images_of(os.path.join(root, 'images'), skipped)}
    empty = [split for split, paths in found.items() if not paths]
    if empty or not found:
        of = f' of {empty[0]}' if empty else ''
        raise MissingDataError(
            f'{root} has neither a data.yaml nor images{of} in the folder images. Give the folder '
            'of the data set, or its data.yaml'
        )
    return found


def _choose_names(names, given, path, root) -> tuple[str, ...]:
    if names is None:
        if not given:
            raise DatasetError(
                f'{root} does not name its classes: there are no names in {path}. Name them with '
                '--classes, in the order of their numbers'
            )
        return check_names(given, '--classes')
    if given and list(given) != names:
        # Labels are numbers, so that other names would name other things.
        raise DatasetError(
            f'{path} has the classes {", ".join(names)}, and --classes says '
            f'{", ".join(given)}. Leave it out, or correct the file'
        )
    return check_names(names, path)


# --- label files ---------------------------------------------------------------------------------


def label_path(image: str) -> str:
    """Where the label file of an image lies.

    Args:
        image: Path of the image.

    Returns:
        Path of a ``.txt`` file.
    """
    head, found, tail = os.path.splitext(image)[0].rpartition(f'{os.sep}images{os.sep}')
    return f'{head}{os.sep}labels{os.sep}{tail}.txt' if found else f'{tail}.txt'


def _keypoints(settings, path) -> int:
    """How many numbers follow the box in each line, of a data set of poses."""
    shape = settings.get('kpt_shape')
    if shape is None:
        return 0
    if not (isinstance(shape, list) and shape and all(isinstance(n, int) for n in shape)):
        raise DatasetError(f'{path}: kpt_shape is {shape!r}. Give two whole numbers')
    return math.prod(shape)


def _read_labels(image, num_classes, keypoints, skipped, shapes) -> Optional[list[Row]]:
    """The boxes of an image; None where there is no label file."""
    path = label_path(image)
    if not os.path.exists(path):
        return None
    rows: dict[Row, None] = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        try:
            row, kind = _read_line(line.split(), num_classes, keypoints)
        except ValueError as error:
            raise DatasetError(f'{path}:{number}: {error}') from None
        if row in rows:  # as Ultralytics does it
            skipped['lines that come twice in a label file'] += 1
            continue
        rows[row] = None
        if kind:
            shapes[kind] += 1
    return list(rows)


def _read_line(words, num_classes, keypoints) -> tuple[Row, str]:
    """The box of a line, and what else it was."""
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        raise ValueError(f'{" ".join(words)[:60]!r} are not all numbers. Correct it') from None
    label, values = numbers[0], numbers[1:]
    if label not in range(num_classes):
        raise ValueError(
            f'the class is {words[0]}, but there are {num_classes} classes, numbered from 0. '
            'Correct it, or name all classes'
        )
    count = len(values)
    outline = not keypoints and count >= 6 and count % 2 == 0
    if count != 4 + keypoints and not outline:
        score = ': has it a score, as predictions have?' if count == 5 else ''
        raise ValueError(
            f'{count} numbers follow the class{score}, where a box has {4 + keypoints}: centre x, '
            'centre y, width and height. Correct it'
        )
    shares = values if outline else values[:4]
    for value in shares:
        # Rounding may end a little beyond the edge.
        if not -1e-3 <= value <= 1 + 1e-3:
            raise ValueError(
                f'{value:g} is no share of the picture, from 0 to 1. Divide pixels by its width '
                'and height'
            )
    if not outline:
        return Row(int(label), *shares), POSES if keypoints else ''
    xs, ys = shares[::2], shares[1::2]
    left, right, top, bottom = min(xs), max(xs), min(ys), max(ys)
    box = (left + right) / 2, (top + bottom) / 2, right - left, bottom - top
    return Row(int(label), *box), OUTLINES


def _check_labelled(splits, rows, root) -> None:
    for split, paths in splits.items():
        if split != 'test' and all(rows[path] is None for path in paths):
            raise MissingDataError(
                f'{root}: none of the {len(paths)} images of {split} has a label file; that of '
                f'{paths[0]} would be {label_path(paths[0])}. Put them there'
            )


def _count_strays(images, skipped) -> None:
    """Count label files whose image is not there."""
    strays = 0
    for labels, pictures in {
        os.path.dirname(label_path(image)): os.path.dirname(image) for image in images
    }.items():
        if labels != pictures and os.path.isdir(labels):
            stems = {os.path.splitext(name)[0] for name in os.listdir(pictures)} | {'classes'}
            strays += sum(
                name.endswith('.txt') and not is_by_product(name) and name[:-4] not in stems
                for name in os.listdir(labels)
            )
    if strays:
        skipped['label files without an image'] = strays

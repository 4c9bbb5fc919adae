"""Read COCO annotation files, and check that their entries are what COCO's tools expect."""

import json
import math
import os.path as osp
from typing import Any

from ..errors import DatasetError


def read_coco_file(path: str) -> dict[str, Any]:
    """Read an annotation file and check its form and entries.

    What MMDetection leaves out by itself passes: boxes without width or height, annotations of
    images or categories that the file does not list.

    Args:
        path: The file.

    Returns:
        What it holds; ``annotations`` may be missing.

    Raises:
        DatasetError: It cannot be read, or an entry is wrong. The message names the first problem.
    """
    coco = _load_json(path)
    _check_structure(coco, path)
    images = _check_images(coco['images'], path)
    _check_categories(coco['categories'], path)
    _check_annotations(coco.get('annotations', []), images, path)
    return coco


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


ADVICE = 'Give a COCO detection file (instances_*.json)'


def _check_structure(coco, path):
    if not isinstance(coco, dict):
        raise DatasetError(
            f'{path} is not in COCO format: it holds a {type(coco).__name__} at the top, not an '
            f'object with images, annotations and categories. {ADVICE}'
        )
    for key in ('images', 'annotations', 'categories'):
        if key not in coco:
            if key != 'annotations':  # a test set may come without
                check_has(coco, key, path)
        elif not isinstance(coco[key], list):
            raise DatasetError(
                f'{path} is not in COCO format: {key!r} is a {type(coco[key]).__name__}, '
                f'not a list. {ADVICE}'
            )
    for key in ('images', 'categories'):
        if not coco[key]:
            raise DatasetError(f'{path} lists no {key}. Give an annotation file that does')


def check_has(coco: dict[str, Any], key: str, path: str) -> None:
    """Check that an annotation file has a list.

    Args:
        coco: What the file holds.
        key: Name of the list.
        path: The file, for the message.

    Raises:
        DatasetError: It has not.
    """
    if key not in coco:
        raise DatasetError(f'{path} is not in COCO format: the key {key!r} is missing. {ADVICE}')


def is_id(value: Any) -> bool:
    """Whether a value can name an entry.

    Args:
        value: Any.

    Returns:
        Whether it is a whole number or a text.
    """
    if isinstance(value, float):  # as some tools write whole numbers
        return value.is_integer()
    return isinstance(value, (int, str)) and not isinstance(value, bool)


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_box(value):
    return (
        isinstance(value, list)
        and len(value) == 4
        and all(map(_is_number, value))
        and value[2] >= 0
        and value[3] >= 0
    )


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
        'id': (is_id, 'an integer'),
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
        'id': (is_id, 'an integer'),
        'name': (lambda v: isinstance(v, str), 'the name of the class'),
    }
    _check_entries(entries, tests, describe)


def describe_annotation(entry: dict[str, Any], images: dict, path: str, position: int = 0) -> str:
    """Name an annotation in a message.

    Args:
        entry: The annotation.
        images: File names of the images by id.
        path: The annotation file.
        position: Its position in the list, for one without an id.

    Returns:
        File, id and image.
    """
    number = entry.get('id', f'number {position + 1} of the list')
    image = entry.get('image_id')
    image = images.get(image, image) if is_id(image) else image
    return f'{path}: annotation {number} (image {image})'


def _check_annotations(entries, images, path):
    tests = {
        'id': (is_id, 'an integer'),
        'image_id': (is_id, 'the id of an entry of images'),
        'category_id': (is_id, 'the id of an entry of categories'),
        # Boxes without width or height pass: MMDetection leaves them out by itself.
        'bbox': (_is_box, '4 finite numbers x, y, width, height, width and height not negative'),
        'area': (_is_number, 'a finite number'),
    }
    _check_entries(entries, tests, lambda i, entry: describe_annotation(entry, images, path, i))


def stem(file_name: str) -> str:
    """Last part of a file name, without its suffix.

    Args:
        file_name: With ``/`` or the system's separators.

    Returns:
        The stem.
    """
    return osp.splitext(osp.basename(file_name))[0]

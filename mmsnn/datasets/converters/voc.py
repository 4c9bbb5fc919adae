"""Read data sets in the format of Pascal VOC.

Boxes, labels and what is ignored are those of MMDetection's ``VOCDataset``:

- corners count pixels from 1, are cut down to whole pixels, and 1 is taken from each of them; a box
  is xmax - xmin wide;
- ``difficult`` objects become ``iscrowd``: COCO data are then trained with ``ignored_instances`` as
  VOC data are, and evaluation counts neither such an object as missed nor what is found there as
  wrong. With ``ignore``, ``CocoDataset`` would drop them, and learn that nothing is there.
"""

import math
import os
import xml.etree.ElementTree as ET
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Optional, Union
from xml.parsers import expat

from ..checks.coco import SIZE_TOLERANCE
from ..errors import DatasetError, MissingDataError
from ..image_files import list_images
from .coco import (
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

LISTS = ('train', 'val', 'trainval', 'test')  # VOC's own, in ImageSets/Main
CORNERS = ('xmin', 'ymin', 'xmax', 'ymax')


class VOCObject(NamedTuple):
    """An object of an annotation file.

    - ``name``: its class.
    - ``corners``: xmin, ymin, xmax, ymax in whole pixels, as the file counts them.
    - ``difficult``: whether it is marked so.
    """

    name: str
    corners: tuple[int, int, int, int]
    difficult: bool


class VOCFile(NamedTuple):
    """What an annotation file says.

    - ``file_name``: name of the image, '' where it isn't said.
    - ``size``: width and height in pixels, and the line that says so; None where it isn't said.
    - ``objects``: the objects.
    """

    file_name: str
    size: Optional[tuple[int, int, int]]
    objects: list[VOCObject]


def read_voc(
    root: Union[str, Path],
    splits: Sequence[str] = (),
    classes: Sequence[str] = (),
    val_share: float = 0,
    zero_based: bool = False,
) -> Converted:
    """Read ``Annotations/*.xml``, ``ImageSets/Main/*.txt`` and the headers of the images.

    Args:
        root: The folder that has ``Annotations``, such as ``VOCdevkit/VOC2007``.
        splits: Names of the lists in ``ImageSets/Main``; by default train, val, trainval and test,
            those that are there. Without lists, all annotated images are one split.
        classes: Names of the classes in the order of their labels; by default those of the splits,
            sorted, which is the order of ``VOCDataset``.
        val_share: Share of the images that is to validate, where there are no lists.
        zero_based: Pixels are counted from 0, as some tools write them, and not from 1.

    Returns:
        The data set.

    Raises:
        DatasetError: Something is missing or wrong; the message names file and line.
    """
    root = os.path.abspath(root)
    folder = os.path.join(root, 'Annotations')
    if not os.path.isdir(folder):
        raise MissingDataError(f'{root} has no folder Annotations.{_other_roots(root)}')
    skipped: Counter = Counter()
    notes: list[str] = []
    images = _list_images(root)
    listed = _read_lists(root, splits, skipped)
    lists: Mapping[str, Collection[str]]
    if listed is None:
        lists = hold_out(_annotated(folder, images, skipped), val_share)
        origin = {name: folder for names in lists.values() for name in names}
        if not val_share:
            notes.append(
                f'{root} has no lists in ImageSets/Main, so that all images are in train: '
                '--val-share 0.2 holds a fifth of them back to validate'
            )
    else:
        if val_share:
            raise DatasetError(
                f'--val-share is for folders without lists of images: {root}/ImageSets/Main has '
                f'{", ".join(listed)}. Leave it out'
            )
        lists = listed
        origin = {name: where for names in listed.values() for name, where in names.items()}
    files = {name: _read_xml(folder, name, where) for name, where in origin.items()}
    paths = {name: _find_image(root, images, name, files[name], origin[name]) for name in files}
    classes = _classes(files, classes, root, skipped)
    pictures = look_at(list(paths.values()), root, notes)
    for name, file in files.items():
        _check_size(file, pictures[paths[name]], _xml_path(folder, name), paths[name])
    boxes = {
        name: drop_small(_boxes(file, classes, zero_based), skipped) for name, file in files.items()
    }
    if not zero_based:
        _note_zero_based(files, notes)
    note_shared_images(lists, notes)
    coco = {
        split: build([(paths[n], boxes[n]) for n in names], pictures, root, classes)
        for split, names in lists.items()
    }
    return Converted(root, coco, skipped, notes)


# --- folders and lists ---------------------------------------------------------------------------


def _other_roots(root) -> str:
    places = [p for p in (Path(root), Path(root) / 'VOCdevkit') if p.is_dir()]
    inside = sorted(p.parent for place in places for p in place.glob('*/Annotations'))
    return f' Give one of: {", ".join(map(str, inside))}' if inside else ' Give the one that has'


def _list_images(root) -> dict[str, list[str]]:
    """Paths of the images by name without suffix."""
    folder = next(
        (f for f in ('JPEGImages', 'images', 'Images') if os.path.isdir(os.path.join(root, f))),
        'Annotations',
    )
    found = defaultdict(list)
    for path in list_images(os.path.join(root, folder))[0]:
        found[Path(path).relative_to(os.path.join(root, folder)).with_suffix('').as_posix()].append(
            path
        )
    if not found:
        raise MissingDataError(f'{root} has no images in JPEGImages. Put them there')
    return found


def _read_lists(root, splits, skipped) -> Optional[dict[str, dict[str, str]]]:
    """For each split, the names in its list and where they stand; None where there are no lists."""
    folder = Path(root, 'ImageSets', 'Main')
    there = sorted(path.stem for path in folder.glob('*.txt'))
    wanted = list(dict.fromkeys(splits)) or [name for name in LISTS if name in there]
    missing = [name for name in wanted if name not in there]
    if missing or (there and not wanted):
        raise MissingDataError(
            f'{folder} has no {missing[0] if missing else "train"}.txt. Name with --splits what '
            f'there is: {", ".join(there) or "nothing"}'
        )
    if not there:
        return None
    lists: dict[str, dict[str, str]] = {}
    for split in wanted:
        path = folder / f'{split}.txt'
        lists[split] = names = {}
        for number, line in enumerate(read_text(path).splitlines(), 1):
            name = line.strip()
            if name in names:
                skipped[f'names that come twice in {split}.txt'] += 1
            elif name:
                names[name] = f'{path}:{number}'
        if not names:
            raise DatasetError(f'{path} lists no images. Name the other lists with --splits')
    return lists


def _annotated(folder, images, skipped) -> list[str]:
    names = sorted(path.stem for path in Path(folder).glob('*.xml') if path.name[0] != '.')
    if not names:
        raise MissingDataError(f'{folder} has no .xml files. Put them there')
    without = len(set(images) - set(names))
    if without:
        skipped['images without an annotation file'] = without
    return names


def _xml_path(folder, name) -> str:
    return os.path.join(folder, f'{name}.xml')


def _find_image(root, images, name, file, where) -> str:
    # The name of the annotation file first, as MMDetection does it: the name inside is often stale.
    stem = Path(file.file_name.replace('\\', '/')).name
    found = images.get(name) or images.get(Path(stem).with_suffix('').as_posix() if stem else '')
    if not found:
        said = f' or {stem}' if stem else ''
        raise DatasetError(f'{where}: {root}/JPEGImages has no image {name}.jpg{said}')
    named = [path for path in found if os.path.basename(path) == stem]
    if len(found) > 1 and len(named) != 1:
        raise DatasetError(
            f'{where}: several images are called {name}: '
            f'{", ".join(os.path.basename(path) for path in found)}. Keep one of them'
        )
    return named[0] if named else found[0]


# --- annotation files ----------------------------------------------------------------------------


def _read_xml(folder, name, where) -> VOCFile:
    path = _xml_path(folder, name)
    try:
        tree, lines = _parse(path)
    except FileNotFoundError:
        raise MissingDataError(
            f'{where}: there is no {path}. Fetch it, or delete the line'
        ) from None
    except OSError as error:
        raise DatasetError(f'{path} cannot be read: {error.strerror}') from error
    except (expat.ExpatError, ValueError) as error:  # ValueError: encodings that expat has not
        line = getattr(error, 'lineno', 1)
        words = expat.ErrorString(error.code) if hasattr(error, 'code') else error
        raise DatasetError(f'{path}:{line}: it is no XML: {words}. Write the file again') from error

    def number(parent, tag, least=-math.inf):
        element = parent.find(tag)
        at = lines[parent if element is None else element]
        text = '' if element is None else (element.text or '').strip()
        if element is None:
            raise DatasetError(f'{path}:{at}: <{parent.tag}> has no <{tag}>. Add it')
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value >= least):
            raise DatasetError(f'{path}:{at}: <{tag}> is {text!r}, not a number. Correct it')
        return int(value)

    def read_object(element):
        name = (element.findtext('name') or '').strip()
        box = element.find('bndbox')
        at = lines[element]
        if not name:
            raise DatasetError(f'{path}:{at}: the object has no <name>. Name its class')
        if box is None:
            raise DatasetError(f'{path}:{at}: the object ({name}) has no <bndbox>. Add it')
        corners = tuple(number(box, tag) for tag in CORNERS)
        if corners[2] < corners[0] or corners[3] < corners[1]:
            raise DatasetError(
                f'{path}:{lines[box]}: the box (xmin, ymin, xmax, ymax) = {corners} ends before it '
                'begins. Correct it'
            )
        difficult = element.find('difficult') is not None and number(element, 'difficult') != 0
        return VOCObject(name, corners, difficult)

    element, size = tree.find('size'), None
    if element is not None:
        size = number(element, 'width', 0), number(element, 'height', 0), lines[element]
    file_name = (tree.findtext('filename') or '').strip()
    return VOCFile(file_name, size, [read_object(e) for e in tree.findall('object')])


def _parse(path) -> tuple[ET.Element, dict[ET.Element, int]]:
    """Parse an XML file; ElementTree's own parser does not tell in which line an element begins."""
    parser, builder, lines = expat.ParserCreate(), ET.TreeBuilder(), {}

    def start(tag, attributes):
        lines[builder.start(tag, attributes)] = parser.CurrentLineNumber

    parser.StartElementHandler = start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    with open(path, 'rb') as file:
        parser.ParseFile(file)
    return builder.close(), lines


def _check_size(file, picture, path, image) -> None:
    if not file.size or not file.size[0] or not file.size[1]:  # some tools write 0 for unknown
        return
    *size, line = file.size
    if all(abs(a - b) <= max(1, SIZE_TOLERANCE * b) for a, b in zip(size, picture[:2])):
        return
    turned = tuple(size) == (picture.height, picture.width) and picture.orientation in (5, 6, 7, 8)
    mend = (
        f'it has the EXIF orientation {picture.orientation}: save it upright, with the boxes of '
        'the upright picture'
        if turned
        else 'give the image that was annotated or, if the boxes belong to this one, its size'
    )
    raise DatasetError(
        f'{path}:{line}: <size> is {size[0]}x{size[1]}, but {image} is {picture.width}x'
        f'{picture.height} as loaded, so that boxes would lie at the wrong place; {mend}'
    )


def _classes(files, classes, root, skipped) -> tuple[str, ...]:
    found = Counter(thing.name for file in files.values() for thing in file.objects)
    if not classes:
        if not found:
            raise DatasetError(f'{root}: no annotation file has an object')
        return check_names(sorted(found), root)
    classes = check_names(classes, '--classes')
    if not any(found[name] for name in classes):
        raise DatasetError(
            f'no object in {root} is of the classes {", ".join(classes)}. There are: '
            f'{", ".join(sorted(found)) or "none"}'
        )
    for name in sorted(set(found) - set(classes)):
        skipped[f'objects named {name!r}, which is not in --classes'] = found[name]
    return classes


def _boxes(file, classes, zero_based) -> list[Box]:
    labels = {name: label for label, name in enumerate(classes)}
    boxes = []
    for thing in file.objects:
        if thing.name in labels:
            x1, y1, x2, y2 = (corner - (not zero_based) for corner in thing.corners)
            boxes.append(Box(labels[thing.name], x1, y1, x2 - x1, y2 - y1, thing.difficult))
    return boxes


def _note_zero_based(files, notes) -> None:
    count = sum(0 in thing.corners[:2] for file in files.values() for thing in file.objects)
    if count:
        notes.append(
            f'{count} boxes begin at pixel 0, but VOC counts pixels from 1: if the tool that wrote '
            'them counts from 0, all boxes are 1 pixel too far up and left; then give --zero-based'
        )

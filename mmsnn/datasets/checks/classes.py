"""Which class has which label: it must be the same wherever labels are read or written."""

from collections.abc import Mapping, Sequence
from typing import Any, Optional

from ..errors import DatasetError

SKIP = 'or, if it is meant, leave the check out with --no-data-check'


def shorten(names: Sequence, limit: int = 20) -> str:
    """Join names.

    Args:
        names: The names.
        limit: From how many on the rest is only counted.

    Returns:
        The text.
    """
    more = f' and {len(names) - limit} more' if len(names) > limit else ''
    return ', '.join(str(name) for name in names[:limit]) + more


def check_heads(classes: Sequence, num_classes: Mapping[str, int], where: str) -> None:
    """Check that each head has as many classes as the data.

    Args:
        classes: Names of the data set's classes.
        num_classes: Number of classes of each head of the model, by the config key that sets it.
        where: What the data set is called in the message.

    Raises:
        DatasetError: One has another number.
    """
    for key, number in num_classes.items():
        if number != len(classes):
            raise DatasetError(
                f'{key} is {number}, but the data set of {where} has {len(classes)} classes '
                f'({shorten(classes, 5)}). Set {key}={len(classes)}, or metainfo.classes of the '
                f'data set to {number} names'
            )


def write_classes(classes: Sequence) -> str:
    """Classes as a config has them.

    Args:
        classes: Their names.

    Returns:
        The text to copy.
    """
    return f'metainfo=dict(classes={tuple(classes)!r})'


def _difference(classes, first) -> str:
    extra = [name for name in classes if name not in first]
    lacking = [name for name in first if name not in classes]
    parts = [
        f'{verb} {shorten(names, 5)}'
        for verb, names in (('has no', lacking), ('has also', extra))
        if names
    ]
    return '; '.join(parts) or 'orders them anew'


def check_label_order(
    classes: Sequence[str], categories: Sequence[Mapping[str, Any]], path: str, key: str
) -> None:
    """Check that a COCO file gives every class the label that the config gives it.

    pycocotools, and with it MMDetection, counts labels in the order of the file's categories.

    Args:
        classes: Names of the classes in the order of their labels, as the config has them.
        categories: The file's categories.
        path: The file.
        key: The config key of what reads it.

    Raises:
        DatasetError: A class is missing or comes twice, or the order is another.
    """
    if isinstance(classes, str):
        raise DatasetError(
            f'metainfo.classes is the text {classes!r}, and no file of that name exists. Give a '
            f'sequence of names; of one name with a comma: classes=({classes!r},)'
        )
    names = [category['name'] for category in categories]
    missing = [name for name in classes if name not in names]
    if missing:
        raise DatasetError(
            f'{path} has no category named {shorten(missing)}. It has: {shorten(names)}. Set '
            'the names of the data set: metainfo=dict(classes=(...)), and num_classes of the head '
            'to their number'
        )
    resolved = [name for name in names if name in classes]
    for where, listed in ((path, resolved), (f'{key}.metainfo.classes', list(classes))):
        twice = [name for name in dict.fromkeys(listed) if listed.count(name) > 1]
        if twice:
            raise DatasetError(
                f'{where} has {listed.count(twice[0])} classes named {twice[0]!r}, so that one of '
                'them gets the label of another class. Give every class a name of its own'
            )
    if resolved != list(classes):
        raise DatasetError(
            f'{key}: {path} lists its categories in another order than metainfo.classes, '
            'and labels follow the file, so that boxes would get names of other classes. Set '
            f'{write_classes(resolved)} in all data sets, or write the categories of this file in '
            'the order that metainfo.classes has'
        )


def check_same_classes(found: Mapping[str, Mapping[str, Any]]) -> None:
    """Check that data sets count the same classes in the same order.

    A class that one of them lacks would shift all labels after it without a word.

    Args:
        found: ``classes`` of the data sets by config key. Those without known classes are passed
            over.

    Raises:
        DatasetError: Two differ.
    """
    known = [(key, result['classes']) for key, result in found.items() if result.get('classes')]
    for key, classes in known[1:]:
        first_key, first = known[0]
        if classes != first:
            raise DatasetError(
                f'the classes of {key} are not those of {first_key}: it '
                f'{_difference(classes, first)}. The labels would not mean the same. Give both '
                'the same classes (class folders, or categories of their files) and set in both '
                f'{write_classes(first)}'
            )


def check_trained_classes(
    found: Mapping[str, Mapping[str, Any]], checkpoint: Mapping[str, Any], path: str
) -> None:
    """Check that data sets count the classes as those that a checkpoint was trained on.

    Args:
        found: ``classes`` of the data sets by config key, those without passed over.
        checkpoint: What the checkpoint file holds. One that names no classes is passed over.
        path: The file.

    Raises:
        DatasetError: They differ.
    """
    trained = trained_classes(checkpoint)
    for key, result in found.items():
        classes = result.get('classes')
        # Another number of classes is another architecture, which is said elsewhere.
        if trained and classes and len(trained) == len(classes) and trained != classes:
            raise DatasetError(
                f'the classes of {key} are not those that {path} was trained on: it '
                f'{_difference(classes, trained)}. Its predictions would get names of other '
                f'classes. Set {write_classes(trained)}, with files of this order, {SKIP}'
            )


def trained_classes(checkpoint: Mapping[str, Any]) -> Optional[tuple[str, ...]]:
    """The classes that a checkpoint was trained on, by label.

    Args:
        checkpoint: What the file holds.

    Returns:
        Their names, or None where it does not say.
    """
    meta = checkpoint.get('meta')
    meta = meta.get('dataset_meta') if isinstance(meta, Mapping) else None
    if isinstance(meta, (list, tuple)) and meta:  # one of each part of a ConcatDataset
        meta = meta[0]
    if not isinstance(meta, Mapping):
        return None
    classes = meta.get('classes', meta.get('CLASSES'))
    return tuple(classes) if isinstance(classes, (list, tuple)) and classes else None

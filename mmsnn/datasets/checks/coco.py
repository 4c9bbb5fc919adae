"""Look at COCO-format data before long work starts on them.

MMDetection reads broken data late or not at all: a missing image stops an epoch halfway, a
truncated JPEG trains as half a grey picture, boxes that it leaves out and labels that it numbers
in another order cost accuracy without a word. The data set class itself reads the annotations here,
and what it made of them is compared with what the config says.
"""

import contextlib
import io
import os.path as osp
from collections.abc import Mapping
from typing import Any, Callable, Optional

from ...config_types import find_type, type_name
from ..errors import DatasetError
from .boxes import check_box_format, check_boxes, count_boxes
from .classes import check_heads, check_label_order
from .coco_file import check_has, read_coco_file, stem
from .images import check_image_files, find_loader

DATA_HINT = (
    'Point to your copy with the environment variable MMSNN_COCO_ROOT=/path/to/coco, or with '
    '--cfg-options train_dataloader.dataset.data_root=/path/to/coco'
)

# Sides that differ by no more than this, or by less than a pixel, put no box at a wrong place.
SIZE_TOLERANCE = 0.01
# From this share of images on, sizes that differ from their entries are an error.
REFUSED_SHARE = 0.01


def check_coco_dataset(
    dataset: Mapping[str, Any],
    key: str = 'dataset',
    num_classes: Optional[Mapping[str, int]] = None,
    split: str = 'train',
    hint: str = DATA_HINT,
    read: Callable[[str], dict] = read_coco_file,
) -> dict[str, Any]:
    """Check that a COCO-format data set can be trained on and evaluated.

    Args:
        dataset: Its config. The type is a ``CocoDataset`` or its name in MMDetection's registry.
        key: The config key of the data set, for messages.
        num_classes: Number of classes of each head of the model, by the config key that sets it,
            for example ``{'model.bbox_head.num_classes': 80}``.
        split: What the data are used for. Data for ``'train'`` and ``'val'`` must have boxes;
            data for ``'test'`` may come without annotations.
        hint: How to point to the data, said where they are missing.
        read: Reads an annotation file, as :func:`read_coco_file`.

    Returns:
        ``images`` and ``boxes``, how many the run will see; ``classes``, their names by label;
        ``ann_file``; ``files``, the stems of the image files by image id; ``warnings``, in words.

    Raises:
        DatasetError: If anything is wrong. The message names the first problem of the annotations,
            or up to three image files and the number of the others.
    """
    data = _build(dataset, key)
    path = data.ann_file
    _check_place('annotation file', path, osp.isfile, data, hint)
    coco = read(path)
    if split != 'test':
        check_has(coco, 'annotations', path)
    classes = data.metainfo.get('classes', ())
    check_label_order(classes, coco['categories'], path, key)
    check_heads(classes, num_classes or {}, path)
    warnings = check_box_format(coco, path)
    _load(data, coco, key)
    if not data.data_list:
        raise DatasetError(
            f'{key}: filter_cfg and indices leave none of the {len(coco["images"])} images of '
            f'{path}. Change them'
        )
    warnings += check_boxes(coco, set(data.cat_ids), data.data_list, split, path)
    warnings += _check_files(data, find_loader(dataset.get('pipeline')), hint)
    return {
        'images': len(data.data_list),
        'boxes': count_boxes(data.data_list),
        'classes': tuple(classes),
        'ann_file': path,
        'files': {info['img_id']: stem(str(info['img_path'])) for info in data.data_list},
        'warnings': warnings,
    }


def is_coco(cls: Any) -> bool:
    """Whether a data set class reads plain COCO files.

    Args:
        cls: The class.

    Returns:
        Whether it does.
    """
    # Here and not above: the check of a folder should not need the whole of MMDetection.
    from mmdet.datasets import CocoDataset

    if not issubclass(cls, CocoDataset):
        return False
    # LVIS, panoptic COCO and others derive from it but read files of another form.
    same_form = cls.COCOAPI is CocoDataset.COCOAPI
    return same_form and cls.load_data_list is CocoDataset.load_data_list


# --- the data set, as the run will have it -------------------------------------------------------


def _build(dataset, key):
    from mmdet.registry import DATASETS

    cls = find_type(dataset, DATASETS)
    if not (isinstance(cls, type) and is_coco(cls)):
        raise DatasetError(f'{key}: {type_name(dataset)} is not a data set that reads COCO files')
    left_out = ('type', '_scope_', 'pipeline', 'lazy_init', 'serialize_data', 'proposal_file')
    arguments = {name: value for name, value in dataset.items() if name not in left_out}
    if not isinstance(arguments.get('ann_file', ''), str):
        raise DatasetError(
            f'{key}.ann_file must be the path of one file, got {arguments["ann_file"]!r}. For '
            'several, take a ConcatDataset'
        )
    try:
        return cls(**arguments, pipeline=[], lazy_init=True, serialize_data=False)
    except (TypeError, ValueError, AttributeError, AssertionError) as error:
        raise DatasetError(f'{key}: {error}') from error


def _check_place(kind, path, is_there, data, hint):
    """Check that a file or folder is there, and blame the root only where it is what is missing."""
    if not is_there(path):
        root = data.data_root
        if root and not osp.isdir(root) and osp.join(path, '').startswith(root):
            kind, path = 'data root', root
        raise DatasetError(f'the {kind} {path} does not exist. {hint}')


def _load(data, coco, key):
    """Let the data set read its annotations, without reading the file once more."""

    def opened(*_, **__):
        api = type(data).COCOAPI()
        api.dataset = coco
        api.createIndex()
        # As mmdet's COCO does after the file is read.
        api.img_ann_map, api.cat_img_map = api.imgToAnns, api.catToImgs
        return api

    data.COCOAPI = opened
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
            data.full_init()
    except (LookupError, TypeError, ValueError, AttributeError, AssertionError) as error:
        raise DatasetError(
            f'{key}: {type(data).__name__} cannot read {data.ann_file}: '
            f'{type(error).__name__}: {error}'
        ) from error


# --- image files ---------------------------------------------------------------------------------


def _check_files(data, loader, hint) -> list[str]:
    folder = data.data_prefix.get('img') or ''
    entries = {}
    for info in data.data_list:
        path = info['img_path']
        if isinstance(path, str) and '://' not in path:
            name = osp.relpath(path, folder) if folder and path.startswith(folder) else path
            entries[name] = info
    if folder and loader is not None and not all(map(osp.isabs, entries)):
        _check_place('image folder', folder, osp.isdir, data, hint)
    if loader is not None and data.test_mode:  # then MMDetection refuses what ignore_empty lost
        loader = loader._replace(ignore_empty=False)
    pictures, warnings = check_image_files(
        list(entries),
        folder,
        loader,
        f' that {data.ann_file} lists',
        'Fetch them again, or check that the image folder (data_prefix.img) belongs to this '
        'annotation file',
    )
    return warnings + _check_sizes(pictures, entries, data.ann_file)


def _check_sizes(pictures, entries, path) -> list[str]:
    """Compare the sizes of pictures, as the run decodes them, with those of their entries."""
    wrong, turned, told = [], 0, False
    for name, picture in pictures.items():
        size = entries[name]['width'], entries[name]['height']
        differs = any(abs(a - b) > max(1, SIZE_TOLERANCE * b) for a, b in zip(size, (picture[:2])))
        if differs and picture.width:
            wrong.append((name, size, picture))
        elif picture.orientation in (5, 6, 7, 8) and picture.width != picture.height:
            told = True  # whoever wrote the entries looked at the orientation
        turned += not differs and picture.orientation != 1
    if not wrong:
        if turned and not told:
            return [
                f'{turned} of the {len(pictures)} images that {path} lists have an EXIF '
                'orientation, by which the loader turns them: their boxes must be those of '
                'the turned pictures'
            ]
        return []
    name, size, picture = wrong[0]
    by_exif = picture.orientation != 1 and size == picture[1::-1]
    text = (
        f'{len(wrong)} of the {len(pictures)} images that {path} lists have another size than '
        f'their entry, so that boxes lie at the wrong place: {name} is {picture.width}x'
        f'{picture.height} as loaded, its entry says {size[0]}x{size[1]}'
    )
    if by_exif:
        text += (
            f' (EXIF orientation {picture.orientation}). Save the pictures upright or, if boxes '
            'belong to them as stored, load them with LoadImageFromFile('
            "color_type='color_ignore_orientation')"
        )
    else:
        text += '. Correct width and height, and the boxes if they belong to another size'
    if len(wrong) > REFUSED_SHARE * len(pictures):
        raise DatasetError(text)
    return [text]

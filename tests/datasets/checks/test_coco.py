import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config

from mmsnn.datasets import DatasetError, check_coco_dataset, check_config_datasets
from mmsnn.datasets.checks.coco_file import read_coco_file

COCO_TINY = os.environ.get('MMSNN_COCO_TINY')
needs_coco = pytest.mark.skipif(
    not COCO_TINY, reason='set MMSNN_COCO_TINY to a folder with annotations/ and train2017/'
)
CLASSES = ('cat', 'dog')


def small_coco():
    names = ['a.jpg', 'b.png', 'c.jpg', 'd.png', 'e.jpg']
    return {
        'images': [
            {'id': i, 'file_name': name, 'height': 48, 'width': 64} for i, name in enumerate(names)
        ],
        'annotations': [
            {
                'id': 10 + i,
                'image_id': i,
                'category_id': 1 + i % 2,
                'bbox': [1.0, 2.0, 20.0, 10.0],
                'area': 200.0,
                'iscrowd': 0,
            }
            for i in range(5)
        ],
        'categories': [{'id': 1, 'name': 'cat'}, {'id': 2, 'name': 'dog'}],
    }


class Folder:
    """A small data set that a test breaks."""

    def __init__(self, root):
        self.root = root
        self.ann_file = root / 'ann.json'
        self.img_dir = root / 'img'
        self.img_dir.mkdir()
        self.coco = small_coco()
        noise = np.random.default_rng(0)
        for image in self.coco['images']:
            pixels = noise.integers(0, 255, (48, 64, 3), dtype=np.uint8)
            cv2.imwrite(str(self.img_dir / image['file_name']), pixels)
        self.write()

    def write(self):
        self.ann_file.write_text(json.dumps(self.coco))

    def check(self, classes=CLASSES, split='train', num_classes=None, **kwargs):
        """How many images and boxes the run will see; the warnings are kept."""
        self.write()
        dataset = data(self.root, metainfo={'classes': classes}, **kwargs)
        found = check_coco_dataset(dataset, num_classes=num_classes, split=split)
        self.warnings = found['warnings']
        return found['images'], found['boxes']

    def message(self, **kwargs):
        with pytest.raises(DatasetError) as caught:
            self.check(**kwargs)
        assert '\n' not in str(caught.value)
        return str(caught.value)

    def cut(self, name, keep):
        path = self.img_dir / name
        path.write_bytes(path.read_bytes()[:keep])


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


def assert_in(message, *parts):
    for part in parts:
        assert str(part) in message, message


def test_good_data(folder):
    assert folder.check(num_classes={'model.bbox_head.num_classes': 2}) == (5, 5)
    assert folder.check(split='val') == (5, 5)
    assert folder.warnings == []
    assert folder.check(classes=('dog',)) == (5, 2)  # a part of the classes will do
    assert folder.warnings == []


def test_what_mmdetection_copes_with(folder):
    folder.coco['annotations'][0]['id'] = 0  # matters to COCO's evaluation alone
    folder.coco['annotations'][1]['id'] = 'eleven'
    del folder.coco['annotations'][1]['iscrowd']
    folder.coco['annotations'][2]['id'] = 12.0
    folder.coco['images'][0]['id'] = folder.coco['annotations'][0]['image_id'] = 'first'
    folder.coco['images'][1]['height'] = 47.6
    assert folder.check() == (5, 5)
    assert folder.warnings == []


@pytest.mark.parametrize('ids', [(0, 1), (7, 90), ('c1', 'c2')])
def test_category_ids(folder, ids):
    for category, number in zip(folder.coco['categories'], ids):
        category['id'] = number
    for annotation in folder.coco['annotations']:
        annotation['category_id'] = ids[annotation['category_id'] - 1]
    assert folder.check() == (5, 5)
    assert folder.check(classes=('dog',)) == (5, 2)


# --- what is missing ---------------------------------------------------------------------------


def test_missing_places(folder, tmp_path):
    gone = tmp_path / 'gone'
    text = folder.message(data_root=str(gone))
    assert_in(text, f'data root {gone} does', 'MMSNN_COCO_ROOT=', '--cfg-options', 'data_root=')
    text = folder.message(ann_file='gone.json')
    assert_in(text, f'annotation file {gone}.json does', 'MMSNN_COCO_ROOT=')
    text = folder.message(data_prefix={'img': 'gone'})
    assert_in(text, f'image folder {gone} does', 'MMSNN_COCO_ROOT=')
    with pytest.raises(DatasetError, match=r'does not exist\. Unpack the archive\.$'):
        check_coco_dataset(data(gone), hint='Unpack the archive.')


def test_absolute_paths_need_no_data_root(folder, tmp_path):
    gone = str(tmp_path / 'gone')
    places = {'ann_file': str(folder.ann_file), 'data_prefix': {'img': str(folder.img_dir)}}
    assert folder.check(data_root=gone, **places) == (5, 5)
    for image in folder.coco['images']:
        image['file_name'] = str(folder.img_dir / image['file_name'])
    places['data_prefix'] = {'img': gone}
    assert folder.check(data_root=gone, **places) == (5, 5)


def test_arguments_of_another_form(folder):
    text = folder.message(ann_file=['a.json', 'b.json'])
    assert_in(text, "dataset.ann_file must be the path of one file, got ['a.json'", 'ConcatDataset')
    assert_in(folder.message(filter='x'), 'dataset: ', "argument 'filter'")
    assert_in(folder.message(data_prefix={'img': None}), 'dataset: prefix should be a string')


# --- not a COCO file ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('content', 'parts'),
    [
        (b'{"images": [],\n "annotations": [1,', ['not valid JSON', 'line 2', 'column']),
        (b'', ['not valid JSON', 'line 1']),
        (b'\x1f\x8b\x08\x00', ['not a JSON text file', 'unpack']),
        (b'[1, 2]', ['not in COCO format', 'list']),
        (b'{"annotations": [], "categories": []}', ["key 'images' is missing"]),
        (
            b'{"images": [{"id": 1, "file_name": "a", "height": 1, "width": 1}], '
            b'"categories": [{"id": 1, "name": "cat"}]}',
            ["key 'annotations' is missing"],
        ),
        (b'{"images": [], "annotations": []}', ["key 'categories' is missing"]),
        (b'{"images": {}, "annotations": [], "categories": []}', ["'images' is a dict"]),
        (b'{"images": [], "annotations": [], "categories": []}', ['lists no images']),
    ],
)
def test_not_a_coco_file(folder, content, parts):
    folder.ann_file.write_bytes(content)
    with pytest.raises(DatasetError) as caught:
        check_coco_dataset(data(folder.root))
    assert_in(str(caught.value), folder.ann_file, *parts)


# --- bad entries -------------------------------------------------------------------------------


@pytest.mark.parametrize('field', ['id', 'file_name', 'height', 'width'])
def test_image_without(folder, field):
    del folder.coco['images'][2][field]
    assert_in(folder.message(), folder.ann_file, f'no {field!r}')


@pytest.mark.parametrize(
    ('part', 'field', 'value'),
    [
        ('images', 'height', 0),
        ('images', 'width', '64'),
        ('images', 'file_name', None),
        ('images', 'id', [1]),
        ('categories', 'name', 3),
        ('annotations', 'image_id', [1]),
        ('annotations', 'category_id', None),
        ('annotations', 'area', None),
    ],
)
def test_bad_value(folder, part, field, value):
    folder.coco[part][1][field] = value
    assert_in(folder.message(), folder.ann_file, f'{field}={value!r}', 'expected')


def test_message_names_annotation_and_image(folder):
    folder.coco['annotations'][3]['category_id'] = None
    assert_in(folder.message(), 'annotation 13', 'image d.png', 'category_id=None')


@pytest.mark.parametrize(
    'bbox',
    [
        [1, 2, 3],
        [1, 2, 3, 4, 5],
        None,
        '1 2 3 4',
        [1, 2, '3', 4],
        [1, 2, float('nan'), 4],
        [float('inf'), 2, 3, 4],
        [1, 2, -3, 4],
        [1, 2, 3, -4],
    ],
)
def test_bad_box(folder, bbox):
    folder.coco['annotations'][2]['bbox'] = bbox
    parts = [folder.ann_file, 'annotation 12', 'c.jpg', f'bbox={bbox!r}', '4 finite numbers']
    assert_in(folder.message(), *parts)


def test_annotation_without_box(folder):
    del folder.coco['annotations'][2]['bbox']
    assert_in(folder.message(), 'annotation 12', "no 'bbox'")


def test_same_id_twice(folder):
    folder.coco['annotations'][2]['id'] = 10
    assert_in(folder.message(), 'annotation 10', 'an earlier entry')


def test_entry_of_the_wrong_type(folder):
    folder.coco['annotations'][2] = [1, 2]
    assert_in(folder.message(), 'number 3 of the list', 'is a list')


# --- boxes that the run throws away --------------------------------------------------------------


LOST = {
    'crowd': ({'iscrowd': 1}, 'iscrowd is 1', 'set it to 0'),
    'area': ({'area': 0}, 'their area is 0 or less', 'width * height'),
    'ignore': ({'ignore': 1}, 'ignore is 1', 'Set ignore to 0'),
    'outside': ({'bbox': [70, 2, 10, 10]}, 'they lie outside of the image', 'in pixels'),
    'small': ({'bbox': [1, 2, 0.5, 10]}, 'they are less than 1 pixel wide', 'in pixels'),
    'image': ({'image_id': 77}, 'the file does not list their image', 'image_id must be'),
    'image as text': (
        {'image_id': '1'},
        'the file does not list their image',
        'as a number or text',
    ),
    'category': (
        {'category_id': 9},
        'the file does not list their category',
        'category_id must be',
    ),
}


@pytest.mark.parametrize(('change', 'why', 'mend'), LOST.values(), ids=LOST)
def test_lost_boxes(folder, change, why, mend):
    folder.coco['annotations'][1].update(change)
    assert folder.check() == (5, 4)
    (text,) = folder.warnings
    assert_in(text, folder.ann_file, 'keeps 4 of 5 boxes, in 5 of 5 images', f'1 as {why}', mend)
    for annotation in folder.coco['annotations']:
        annotation.update(change)
    for split in ('train', 'val'):
        assert_in(folder.message(split=split), 'keeps 0 of 5 boxes', f'5 as {why}', mend)
    assert folder.check(split='test')[1] == 0
    assert len(folder.warnings) == 1


def test_boxes_are_counted_as_the_run_does(folder):
    from mmdet.datasets import CocoDataset

    changes = [change for change, *_ in LOST.values()] + [{}, {'category_id': 1}]
    first, folder.coco['annotations'] = folder.coco['annotations'][0], []
    for i, change in enumerate(changes):
        entry = {**first, 'id': i, 'image_id': i % 5, 'category_id': 2, **change}
        folder.coco['annotations'].append(entry)
    settings = {'filter_cfg': {'filter_empty_gt': True, 'min_size': 32}, 'indices': 4}
    found = folder.check(classes=('dog',), **settings)
    config = data(folder.root, metainfo={'classes': ('dog',)}, **settings)
    config.pop('type')
    run = CocoDataset(**config)
    boxes = [b for i in range(len(run)) for b in run.get_data_info(i)['instances']]
    assert found == (len(run), sum(not box['ignore_flag'] for box in boxes)) == (4, 1)


def test_filters(folder):
    del folder.coco['annotations'][2]
    assert folder.check(filter_cfg={'filter_empty_gt': True}) == (4, 4)
    assert folder.warnings == []
    assert folder.check(indices=2) == (2, 2)
    (folder.img_dir / 'e.jpg').unlink()  # is not opened by the run
    assert folder.check(indices=2) == (2, 2)
    text = folder.message(filter_cfg={'min_size': 100})
    assert_in(text, 'filter_cfg and indices leave none of the 5 images')


def test_few_lost_boxes_are_not_worth_a_word(folder):
    extra = folder.coco['annotations'][0]
    folder.coco['annotations'] += [{**extra, 'id': 100 + i} for i in range(20)]
    extra['iscrowd'] = 1
    assert folder.check() == (5, 24)
    assert folder.warnings == []


def test_boxes_as_shares_of_the_image(folder):
    for annotation in folder.coco['annotations']:
        annotation['bbox'] = [0, 0.25, 1, 0.5]
    for split in ('train', 'val', 'test'):
        assert_in(folder.message(split=split), 'lie between 0 and 1', 'in pixels')


def test_boxes_as_corners(folder):
    entry = folder.coco['annotations'][0]
    folder.coco['annotations'] = [
        {**entry, 'id': i + 1, 'image_id': i % 5, 'bbox': [2 + 4 * i, 3, 20 + 4 * i, 40]}
        for i in range(10)
    ]
    text = folder.message()
    assert_in(text, 'are corners', '4 of 10 reach beyond', 'annotation 7, [26, 3, 44, 40]')
    folder.coco['annotations'][0]['bbox'] = [10, 3, 8, 40]  # cannot be corners
    folder.check()
    assert_in(folder.warnings[0], '4 of 10 boxes reach beyond their image')
    del folder.coco['annotations'][5:]
    folder.check()
    assert folder.warnings == []


def test_no_boxes(folder):
    folder.coco['annotations'] = []
    for split in ('train', 'val'):
        assert_in(folder.message(split=split), folder.ann_file, 'no boxes', 'cat, dog')
    assert folder.check(split='test') == (5, 0)


def test_no_boxes_of_the_classes(folder):
    for annotation in folder.coco['annotations']:
        annotation['category_id'] = 1
    assert_in(folder.message(classes=('dog',)), 'no boxes', '(dog)')


def test_test_images_may_come_without_annotations(folder):
    del folder.coco['annotations']
    assert folder.check(split='test') == (5, 0)
    assert folder.warnings == []
    assert_in(folder.message(split='val'), "'annotations' is missing")


def test_real_crowds(folder):
    """As in COCO: one crowd with its run lengths among many boxes."""
    entry = folder.coco['annotations'][0]
    folder.coco['annotations'] += [{**entry, 'id': 50 + i} for i in range(20)]
    rle = {'size': [48, 64], 'counts': [100, 50, 2922]}
    folder.coco['annotations'][0].update(iscrowd=1, segmentation=rle, area=50)
    assert folder.check() == (5, 24)
    assert folder.warnings == []


# --- classes -----------------------------------------------------------------------------------


def test_class_not_in_the_file(folder):
    text = folder.message(classes=('cat', 'horse', 'cow'))
    assert_in(text, folder.ann_file, 'horse, cow', 'It has: cat, dog', 'metainfo')


def test_long_lists_of_classes_are_cut(folder):
    text = folder.message(classes=tuple(f'class{i}' for i in range(80)))
    assert_in(text, 'class19 and 60 more')
    assert 'class20' not in text


def test_head_has_another_number_of_classes(folder):
    text = folder.message(num_classes={'model.bbox_head.num_classes': 80})
    assert_in(text, 'model.bbox_head.num_classes is 80', '2 classes', 'num_classes=2')


def test_class_given_as_text(folder):
    assert_in(folder.message(classes='cat'), "classes=('cat',)")


@pytest.mark.parametrize('split', ['train', 'val', 'test'])
def test_order_of_classes(folder, split):
    text = folder.message(classes=('dog', 'cat'), split=split)
    assert_in(text, folder.ann_file, 'in another order', "metainfo=dict(classes=('cat', 'dog'))")


def test_labels_follow_the_file():
    """Why the order is checked: what MMDetection does with metainfo in another order."""
    from mmdet.datasets.api_wrappers import COCO

    api = COCO()
    api.dataset = small_coco()
    api.createIndex()
    assert api.get_cat_ids(cat_names=('dog', 'cat')) == [1, 2]


def test_two_classes_of_one_name(folder):
    folder.coco['categories'].append({'id': 3, 'name': 'cat'})
    assert_in(folder.message(), folder.ann_file, "has 2 classes named 'cat'")
    assert folder.check(classes=('dog',)) == (5, 2)
    text = folder.message(classes=('dog', 'dog'))
    assert_in(text, 'dataset.metainfo.classes has 2 classes named', "'dog'")


# --- image files -------------------------------------------------------------------------------


def test_missing_images(folder):
    for name in ('a.jpg', 'b.png', 'c.jpg', 'e.jpg'):
        (folder.img_dir / name).unlink()
    text = folder.message()
    assert_in(text, '4 of the 5 images', folder.img_dir, 'a.jpg (missing)', 'and 1 more')
    assert 'e.jpg' not in text


def test_empty_image(folder):
    folder.cut('b.png', 0)
    assert_in(folder.message(), '1 of the 5 images', 'b.png (empty, 0 bytes)')


@pytest.mark.parametrize('name', ['a.jpg', 'b.png'])
@pytest.mark.parametrize('share', [0.02, 0.5, 0.95])
def test_truncated_image(folder, name, share):
    folder.cut(name, int((folder.img_dir / name).stat().st_size * share))
    assert_in(folder.message(), f'{name} (truncated)')


def test_not_an_image(folder):
    (folder.img_dir / 'a.jpg').write_text('<html>404</html>')
    assert_in(folder.message(), 'a.jpg (not an image')


def test_a_folder_in_place_of_an_image(folder):
    (folder.img_dir / 'a.jpg').unlink()
    (folder.img_dir / 'a.jpg').mkdir()
    assert_in(folder.message(), 'a.jpg')


@pytest.mark.parametrize('name', ['a.jpg', 'b.png'])
def test_bytes_after_the_end_are_fine(folder, name):
    with open(folder.img_dir / name, 'ab') as file:
        file.write(b'\0' * 1000)
    folder.check()


def test_other_formats_are_fine(folder):
    pixels = np.zeros((48, 64, 3), np.uint8)
    cv2.imwrite(str(folder.img_dir / 'a.bmp'), pixels)
    (folder.img_dir / 'a.bmp').rename(folder.img_dir / 'a.jpg')
    folder.check()


# --- configs -----------------------------------------------------------------------------------


def data(root, **kwargs):
    return {
        'type': 'CocoDataset',
        'data_root': str(root),
        'ann_file': 'ann.json',
        'data_prefix': {'img': 'img/'},
        'metainfo': {'classes': CLASSES},
        **kwargs,
    }


def config(train, val=None, **kwargs):
    return Config(
        {
            'model': {'type': 'RetinaNet', 'bbox_head': {'type': 'RetinaHead', 'num_classes': 2}},
            'train_dataloader': {'dataset': train},
            'val_dataloader': val and {'dataset': val},
            'default_scope': 'mmdet',
            **kwargs,
        }
    )


def config_message(cfg, **kwargs):
    with pytest.raises(DatasetError) as caught:
        check_config_datasets(cfg, **kwargs)
    return str(caught.value)


def test_config(folder):
    cfg = config(data(folder.root), data(folder.root, test_mode=True))
    found = check_config_datasets(cfg)
    assert list(found) == ['train_dataloader.dataset', 'val_dataloader.dataset']
    assert [(part['images'], part['boxes']) for part in found.values()] == [(5, 5)] * 2


def test_config_reads_shared_files_once(folder, monkeypatch):
    from mmsnn.datasets.checks import config as module

    read = []
    monkeypatch.setattr(
        module, 'read_coco_file', lambda path: read.append(path) or read_coco_file(path)
    )
    evaluator = {'type': 'CocoMetric', 'ann_file': str(folder.ann_file)}
    check_config_datasets(config(data(folder.root), data(folder.root), val_evaluator=evaluator))
    assert read == [str(folder.ann_file)]


def test_config_one_file_with_two_uses(folder):
    """Each is checked, with its own classes, split and arguments."""
    train = data(folder.root)
    other = data(folder.root, metainfo={'classes': ('dog', 'cat')})
    assert_in(config_message(config(train, other)), 'val_dataloader.dataset: ', 'another order')
    text = config_message(config(train, {**train, 'indices': 0}))
    assert_in(text, 'val_dataloader.dataset: ', 'none of the 5 images')
    fewer = data(folder.root, metainfo={'classes': ('dog',)})
    text = config_message(config(train, fewer, model={}))
    assert_in(text, 'classes of val_dataloader.dataset are not', 'has no cat', "('cat', 'dog')")


def test_config_other_order_in_one_file(folder, tmp_path):
    """In validation, or in one part of a ConcatDataset."""
    other = tmp_path / 'other.json'
    folder.coco['categories'].reverse()
    other.write_text(json.dumps(folder.coco))
    train, swapped = data(folder.root), data(folder.root, ann_file='other.json')
    assert_in(config_message(config(train, swapped)), 'val_dataloader.dataset', other)
    both = {'type': 'ConcatDataset', 'datasets': [train, swapped]}
    text = config_message(config(both))
    assert_in(text, 'train_dataloader.dataset.datasets.1: ', other, "classes=('dog', 'cat')")
    swapped['metainfo'] = {'classes': ('dog', 'cat')}
    assert_in(config_message(config(both)), 'datasets.1 are not those of', 'orders them anew')
    both['datasets'] = [swapped, {**swapped, 'indices': 3}]
    assert len(check_config_datasets(config(both))) == 2


@pytest.mark.parametrize(
    'wrap',
    [
        lambda d: {'type': 'RepeatDataset', 'times': 2, 'dataset': d},
        lambda d: {'type': 'ConcatDataset', 'datasets': [d, d]},
        lambda d: {'type': 'ClassBalancedDataset', 'oversample_thr': 0.1, 'dataset': d},
        lambda d: {
            'type': 'MultiImageMixDataset',
            'dataset': {'type': 'RepeatDataset', 'times': 2, 'dataset': d},
        },
    ],
)
def test_config_opens_wrappers(folder, wrap):
    found = check_config_datasets(config(wrap(data(folder.root))))
    assert all((part['images'], part['boxes']) == (5, 5) for part in found.values())
    assert found
    folder.cut('a.jpg', 0)
    assert_in(config_message(config(wrap(data(folder.root)))), 'a.jpg (empty')


def test_config_names_the_key_to_set(folder, tmp_path):
    gone = tmp_path / 'gone'
    wrapped = {'type': 'RepeatDataset', 'times': 2, 'dataset': data(gone)}
    text = config_message(config(wrapped))
    assert_in(text, gone, '--cfg-options train_dataloader.dataset.dataset.data_root=')
    assert 'environment variable' not in text, 'the config reads none'
    cfg = config(data(folder.root), data(gone))
    assert_in(config_message(cfg), '--cfg-options val_dataloader.dataset.data_root=')
    check_config_datasets(cfg, splits=('train',))


@pytest.mark.parametrize(
    ('model', 'key'),
    [
        ({'bbox_head': {'num_classes': 80}}, 'model.bbox_head.num_classes'),
        (
            {'roi_head': {'bbox_head': {'num_classes': 80}}, 'rpn_head': {'num_classes': 1}},
            'model.roi_head.bbox_head.num_classes',
        ),
        (
            {'roi_head': {'bbox_head': [{'num_classes': 2}, {'num_classes': 80}]}},
            'model.roi_head.bbox_head.1.num_classes',
        ),
    ],
)
def test_config_heads(folder, model, key):
    text = config_message(config(data(folder.root), model=model))
    assert_in(text, f'{key} is 80', '2 classes', f'Set {key}=2')


def test_config_classes_default_to_those_of_the_data_set(folder):
    dataset = data(folder.root)
    del dataset['metainfo']
    assert_in(config_message(config(dataset)), 'no category named person, bicycle')


def test_config_classes_from_a_file(folder, tmp_path):
    (tmp_path / 'names.txt').write_text('cat\ndog\n')
    dataset = data(folder.root, metainfo={'classes': str(tmp_path / 'names.txt')})
    assert len(check_config_datasets(config(dataset))) == 1


@pytest.mark.parametrize(
    'change',
    [
        {'data_root': 's3://bucket/coco/'},
        {'backend_args': {'backend': 'petrel'}},
        {'type': 'VOCDataset'},
        {'type': 'CocoPanopticDataset'},
        {'type': 'LVISV1Dataset'},
        {'type': 'NobodyKnowsDataset'},
    ],
)
def test_config_passes_over(folder, change):
    assert check_config_datasets(config({**data(folder.root / 'gone'), **change})) == {}


def test_config_subclass(folder):
    from mmdet.datasets import CocoDataset
    from mmdet.registry import DATASETS

    class Pets(CocoDataset):
        METAINFO = {'classes': CLASSES}

    DATASETS.register_module(name='PetsOfTheTest', module=Pets)
    try:
        for kind in ('PetsOfTheTest', 'mmdet.PetsOfTheTest', Pets):
            dataset = data(folder.root, type=kind)
            del dataset['metainfo']
            cfg = config(dataset)
            assert len(check_config_datasets(cfg)) == 1
    finally:
        DATASETS.module_dict.pop('PetsOfTheTest')


# --- real images -------------------------------------------------------------------------------


@needs_coco
@pytest.mark.parametrize('split', ['train', 'val'])
def test_real_coco(split):
    root = Path(COCO_TINY)
    dataset = {
        'type': 'CocoDataset',
        'data_root': str(root),
        'ann_file': f'annotations/instances_{split}2017.json',
        'data_prefix': {'img': f'{split}2017'},
    }
    heads = {'model.bbox_head.num_classes': 80}
    found = check_coco_dataset(dataset, num_classes=heads, split=split)
    assert found['images'] == len(list((root / f'{split}2017').iterdir()))
    assert found['boxes'] > 0
    assert found['warnings'] == []


@needs_coco
def test_real_coco_truncated(tmp_path):
    root = Path(COCO_TINY)
    images = tmp_path / 'val2017'
    shutil.copytree(root / 'val2017', images)
    victim = sorted(images.iterdir())[0]
    victim.chmod(0o644)
    victim.write_bytes(victim.read_bytes()[:-200])
    with pytest.raises(DatasetError, match=rf'{victim.name} \(truncated\)'):
        check_coco_dataset(
            {
                'type': 'CocoDataset',
                'ann_file': str(root / 'annotations' / 'instances_val2017.json'),
                'data_prefix': {'img': str(images)},
            },
            split='val',
        )

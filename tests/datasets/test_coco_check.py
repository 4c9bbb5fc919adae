import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config

from mmsnn.datasets import DatasetError, check_coco_dataset, check_config_datasets

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

    def check(self, **kwargs):
        self.write()
        return check_coco_dataset(self.ann_file, self.img_dir, **{'classes': CLASSES, **kwargs})

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
    assert folder.check(num_classes={'model.bbox_head.num_classes': 2}) == {'images': 5, 'boxes': 5}
    assert folder.check(classes=None, splits=('train', 'val')) == {'images': 5, 'boxes': 5}
    assert folder.check(classes=('dog',))['images'] == 5  # a part of the classes will do


def test_what_mmdetection_copes_with(folder):
    folder.coco['annotations'][0]['bbox'] = [3, 4, 0, 5]
    folder.coco['images'][0].update(height=480, width=640)  # real size is another
    del folder.coco['annotations'][1]['iscrowd']
    folder.check()


# --- what is missing ---------------------------------------------------------------------------


def test_missing_places(folder, tmp_path):
    def message(ann_file, img_dir, **kwargs):
        with pytest.raises(DatasetError) as caught:
            check_coco_dataset(ann_file, img_dir, **kwargs)
        return str(caught.value)

    gone = tmp_path / 'gone'
    text = message(gone / 'ann.json', gone / 'img', data_root=gone)
    assert_in(text, f'data root {gone}', 'MMSNN_COCO_ROOT=', '--cfg-options', 'data_root=')
    text = message(gone, folder.img_dir, data_root=tmp_path)
    assert_in(text, f'annotation file {gone}', 'MMSNN_COCO_ROOT=')
    assert_in(message(folder.ann_file, gone), f'image folder {gone}', 'MMSNN_COCO_ROOT=')
    text = message(gone, folder.img_dir, hint='Unpack the archive.')
    assert text.endswith('does not exist. Unpack the archive.')


# --- not a COCO file ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('content', 'parts'),
    [
        (b'{"images": [],\n "annotations": [1,', ['not valid JSON', 'line 2', 'column']),
        (b'', ['not valid JSON', 'line 1']),
        (b'\x1f\x8b\x08\x00', ['not a JSON text file', 'unpack']),
        (b'[1, 2]', ['not in COCO format', 'list']),
        (b'{"annotations": [], "categories": []}', ["key 'images' is missing"]),
        (b'{"images": [], "categories": []}', ["key 'annotations' is missing"]),
        (b'{"images": [], "annotations": []}', ["key 'categories' is missing"]),
        (b'{"images": {}, "annotations": [], "categories": []}', ["'images' is a dict"]),
        (b'{"images": [], "annotations": [], "categories": []}', ['lists no images']),
    ],
)
def test_not_a_coco_file(folder, content, parts):
    folder.ann_file.write_bytes(content)
    with pytest.raises(DatasetError) as caught:
        check_coco_dataset(folder.ann_file, folder.img_dir)
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
        ('annotations', 'image_id', 77),
        ('annotations', 'image_id', [1]),
        ('annotations', 'category_id', 9),
        ('annotations', 'area', None),
    ],
)
def test_bad_value(folder, part, field, value):
    folder.coco[part][1][field] = value
    assert_in(folder.message(), folder.ann_file, f'{field}={value!r}', 'expected')


def test_message_names_annotation_and_image(folder):
    folder.coco['annotations'][3]['category_id'] = 9
    assert_in(folder.message(), 'annotation 13', 'image d.png', 'category_id=9')


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


def test_evaluation_needs_iscrowd(folder):
    del folder.coco['annotations'][1]['iscrowd']
    assert_in(folder.message(splits=('val',)), 'annotation 11', "no 'iscrowd'")


def test_no_boxes(folder):
    folder.coco['annotations'] = []
    assert_in(folder.message(), folder.ann_file, 'no boxes', 'cat, dog')
    assert folder.check(splits=('val',)) == {'images': 5, 'boxes': 0}


def test_no_boxes_of_the_classes(folder):
    for annotation in folder.coco['annotations']:
        annotation['category_id'] = 1
    assert_in(folder.message(classes=('dog',)), 'no boxes', 'dog')


def test_test_images_may_come_without_annotations(folder):
    del folder.coco['annotations']
    assert folder.check(splits=('test',)) == {'images': 5, 'boxes': 0}
    assert_in(folder.message(splits=('val', 'test')), "'annotations' is missing")


# --- classes -----------------------------------------------------------------------------------


def test_class_not_in_the_file(folder):
    text = folder.message(classes=('cat', 'horse', 'cow'))
    assert_in(text, folder.ann_file, 'horse, cow', 'It has: cat, dog', 'metainfo')


def test_long_lists_of_classes_are_cut(folder):
    text = folder.message(classes=[f'class{i}' for i in range(80)])
    assert_in(text, 'class19 and 60 more')
    assert 'class20' not in text


def test_head_has_another_number_of_classes(folder):
    text = folder.message(num_classes={'model.bbox_head.num_classes': 80})
    assert_in(text, 'model.bbox_head.num_classes is 80', '2 classes', 'num_classes=2')


def test_class_given_as_text(folder):
    assert_in(folder.message(classes='cat'), "classes=('cat',)")


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
    assert check_config_datasets(cfg) == {str(folder.ann_file): {'images': 5, 'boxes': 5}}


def test_config_reads_shared_data_once(folder, monkeypatch):
    from mmsnn.datasets import coco_check

    calls = []
    monkeypatch.setattr(coco_check, 'check_coco_dataset', lambda **kwargs: calls.append(kwargs))
    check_config_datasets(config(data(folder.root), data(folder.root)))
    assert [call['splits'] for call in calls] == [['train', 'val']]


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
    assert len(check_config_datasets(config(wrap(data(folder.root))))) == 1
    folder.cut('a.jpg', 0)
    assert_in(config_message(config(wrap(data(folder.root)))), 'a.jpg (empty')


def test_config_names_the_key_to_set(folder, tmp_path):
    gone = tmp_path / 'gone'
    wrapped = {'type': 'RepeatDataset', 'times': 2, 'dataset': data(gone)}
    text = config_message(config(wrapped))
    assert_in(text, gone, '--cfg-options train_dataloader.dataset.dataset.data_root=')
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


def test_config_evaluator(folder, tmp_path):
    gone = str(tmp_path / 'gone.json')
    cfg = config(data(folder.root), data(folder.root), val_evaluator={'ann_file': gone})
    assert_in(config_message(cfg), 'val_evaluator.ann_file', gone)
    check_config_datasets(cfg, splits=('train',))
    metrics = [{'ann_file': str(folder.ann_file)}, {'type': 'Speed'}, {'ann_file': 's3://a/b'}]
    check_config_datasets(config(data(folder.root), val_evaluator=metrics))


# --- real images -------------------------------------------------------------------------------


@needs_coco
@pytest.mark.parametrize('split', ['train', 'val'])
def test_real_coco(split):
    from mmdet.datasets import CocoDataset

    root = Path(COCO_TINY)
    found = check_coco_dataset(
        root / 'annotations' / f'instances_{split}2017.json',
        root / f'{split}2017',
        classes=CocoDataset.METAINFO['classes'],
        num_classes={'model.bbox_head.num_classes': 80},
        data_root=root,
        splits=(split,),
    )
    assert found['images'] == len(list((root / f'{split}2017').iterdir()))
    assert found['boxes'] > 0


@needs_coco
def test_real_coco_truncated(tmp_path):
    root = Path(COCO_TINY)
    images = tmp_path / 'val2017'
    shutil.copytree(root / 'val2017', images)
    victim = sorted(images.iterdir())[0]
    victim.chmod(0o644)
    victim.write_bytes(victim.read_bytes()[:-200])
    with pytest.raises(DatasetError, match=rf'{victim.name} \(truncated\)'):
        check_coco_dataset(root / 'annotations' / 'instances_val2017.json', images)

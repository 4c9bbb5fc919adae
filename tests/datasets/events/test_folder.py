"""Folders of recordings become data sets; broken folders are named before training."""

import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS
from mmengine.registry import DefaultScope

from mmsnn.datasets import (
    DVSCIFAR10,
    DatasetError,
    EventFolder,
    check_cls_dataset,
    check_event_folder,
)
from mmsnn.datasets.events import EVENT_SUFFIXES

ROWS = np.array([[1, 2, 10, 1], [0, 0, 20, 0], [4, 2, 30, 1]])


def write(path, rows=ROWS):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, rows)


@pytest.fixture
def root(tmp_path):
    """Classes cat and dog of 2 and 1 recordings, and files that are none."""
    folder = tmp_path / 'set'
    for name in ('dog/a.npy', 'cat/b 1.npy', 'cat/a.npy'):
        write(folder / name)
    (folder / 'README.txt').write_text('events')
    (folder / 'cat' / 'notes.txt').write_text('cats')
    (folder / '.git').mkdir()
    return folder


def listed(dataset):
    items = [dataset.get_data_info(i) for i in range(len(dataset))]
    return [('/'.join(item['img_path'].split('/')[-2:]), item['gt_label']) for item in items]


def test_classes_are_the_sorted_folders(root):
    dataset = EventFolder(root)
    assert dataset.metainfo['classes'] == ('cat', 'dog')
    assert listed(dataset) == [('cat/a.npy', 0), ('cat/b 1.npy', 0), ('dog/a.npy', 1)]
    chosen = EventFolder(root, metainfo=dict(classes=('dog', 'cat')))
    assert listed(chosen) == [('dog/a.npy', 0), ('cat/a.npy', 1), ('cat/b 1.npy', 1)]


@pytest.fixture
def mmdet_scope():
    """As ``default_scope='mmdet'`` of a config, so that pipelines find their transforms."""
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


def test_one_item_through_the_pipeline(root, tmp_path, mmdet_scope):
    dataset = DATASETS.build(
        dict(
            type='EventFolder',
            data_root=str(root),
            pipeline=[
                dict(
                    type='LoadEventFrames',
                    time_steps=2,
                    split_by='count',
                    sensor_size=(5, 3),
                    cache_dir=str(tmp_path / 'cache'),
                )
            ],
        )
    )
    item = dataset[2]
    assert item['frames'].shape == (2, 2, 3, 5)
    assert item['frames'].dtype == np.float32
    assert item['frames'].sum() == 3
    assert (item['gt_label'], item['sample_idx']) == (1, 2)
    assert item['img_path'] == str(root / 'dog' / 'a.npy')
    assert item['img_shape'] == item['ori_shape'] == (3, 5)
    np.testing.assert_array_equal(dataset[2]['frames'], item['frames'])  # from the cache


def test_ann_file(root):
    ann = root / 'train.txt'
    ann.write_text('dog/a.npy 1\n\ncat/b 1.npy cat\n')
    dataset = EventFolder(root, ann_file='train.txt')
    assert listed(dataset) == [('dog/a.npy', 1), ('cat/b 1.npy', 0)]
    assert dataset.metainfo['classes'] == ('cat', 'dog')


@pytest.mark.parametrize(
    ('line', 'message'),
    [
        ('dog/a.npy 2', r"line 2 is 'dog/a.npy 2'. Expected: .* one of cat, dog or below 2"),
        ('dog/a.npy bird', r'line 2 .* one of cat, dog'),
        ('dog/a.npy', r"line 2 is 'dog/a.npy'. Expected: a path, a space and a label"),
        ('dog/gone.npy 1', r'line 2: .*dog/gone.npy does not exist'),
        ('cat/notes.txt 0', r'line 2: .*notes.txt has none of the suffixes .aedat'),
    ],
)
def test_bad_lines_of_the_ann_file(root, line, message):
    (root / 'train.txt').write_text(f'cat/a.npy 0\n{line}\n')
    with pytest.raises(DatasetError, match=message):
        EventFolder(root, ann_file='train.txt')


def test_missing_and_empty_ann_file(root):
    with pytest.raises(DatasetError, match=r'the list .*train.txt does not exist'):
        EventFolder(root, ann_file='train.txt')
    (root / 'train.txt').write_text('\n')
    with pytest.raises(DatasetError, match=r'train.txt lists no recordings'):
        EventFolder(root, ann_file='train.txt')


# --- DVS-CIFAR10 ---------------------------------------------------------------------------------


@pytest.fixture
def dvs_cifar10(tmp_path):
    """Twenty empty recordings of each class under their official names."""
    for name in DVSCIFAR10.METAINFO['classes']:
        (tmp_path / name).mkdir()
        for number in range(20):
            (tmp_path / name / f'cifar10_{name}_{number}.aedat').touch()
    return tmp_path


def test_the_usual_split(dvs_cifar10):
    train, test = (listed(DVSCIFAR10(dvs_cifar10, split=split)) for split in ('train', 'test'))
    assert len(train) == 180
    assert len(test) == 20
    assert not set(train) & set(test)
    # By number: 2 comes before 10, and the last two are 18 and 19.
    assert train[2] == ('airplane/cifar10_airplane_2.aedat', 0)
    assert test[:2] == [
        ('airplane/cifar10_airplane_18.aedat', 0),
        ('airplane/cifar10_airplane_19.aedat', 0),
    ]
    assert test[-1] == ('truck/cifar10_truck_19.aedat', 9)


def test_official_classes_in_official_order(dvs_cifar10):
    (dvs_cifar10 / 'zebra').mkdir()
    dataset = DVSCIFAR10(dvs_cifar10)
    names = 'airplane automobile bird cat deer dog frog horse ship truck'
    assert ' '.join(dataset.metainfo['classes']) == names
    with pytest.raises(ValueError, match=r"split is 'val'"):
        DVSCIFAR10(dvs_cifar10, split='val')
    (dvs_cifar10 / 'frog').rename(dvs_cifar10 / 'toad')
    with pytest.raises(DatasetError, match=r'no folder for the class frog. It has: air.*toad'):
        DVSCIFAR10(dvs_cifar10)


def test_a_recording_in_two_formats(dvs_cifar10):
    (dvs_cifar10 / 'dog' / 'cifar10_dog_3.npz').touch()
    with pytest.raises(DatasetError, match=r'cifar10_dog_3.aedat also as cifar10_dog_3.npz'):
        DVSCIFAR10(dvs_cifar10)
    assert len(DVSCIFAR10(dvs_cifar10, suffixes=('.aedat',))) == 180


# --- the check before training -------------------------------------------------------------------


def test_check_says_what_is_there(root):
    assert check_event_folder(root) == {'cat': ['a.npy', 'b 1.npy'], 'dog': ['a.npy']}
    cfg = dict(type='EventFolder', data_root=str(root), pipeline=[dict(type='NoSuchTransform')])
    found = check_cls_dataset(cfg)
    assert (found['images'], found['classes']) == (3, ('cat', 'dog'))


def test_missing_root(tmp_path):
    for look in (check_event_folder, EventFolder):
        with pytest.raises(DatasetError, match=r'data root .*gone does not exist'):
            look(str(tmp_path / 'gone'))
    with pytest.raises(DatasetError, match=r'has no folders of classes'):
        check_event_folder(str(tmp_path))


def test_empty_class_folder(root):
    (root / 'bird').mkdir()
    (root / 'bird' / 'notes.txt').touch()
    with pytest.raises(DatasetError) as error:
        check_event_folder(str(root))
    assert str(root / 'bird') in str(error.value)
    assert all(suffix in str(error.value) for suffix in EVENT_SUFFIXES)
    with pytest.raises(DatasetError, match=r"the suffix '.evs' is none .* Known: .aedat"):
        check_event_folder(str(root), suffixes='.evs')


def test_head_of_every_file(root):
    EventFolder(root).check_files()
    (root / 'cat' / 'b 1.npy').write_bytes(b'broken')
    with pytest.raises(DatasetError, match=r'cat/b 1.npy is not a file of the format .npy'):
        EventFolder(root).check_files()
    (root / 'dog' / 'a.npy').write_bytes(b'')
    with pytest.raises(DatasetError) as error:
        EventFolder(root).check_files()
    assert 'cat/b 1.npy is not' in str(error.value)
    assert '1 more of the 3 recordings cannot be used either: ' in str(error.value)
    assert str(error.value).endswith(f'{root}/dog/a.npy')
    write(root / 'cat' / 'b 1.npy')
    write(root / 'dog' / 'a.npy', ROWS[:0])
    with pytest.raises(DatasetError, match=r'dog/a.npy holds no events'):
        EventFolder(root).check_files()


def test_what_macos_leaves_is_no_recording(root):
    before = listed(EventFolder(root))
    (root / 'cat' / '._a.npy').write_bytes(b'\0\5\x16\7')
    (root / '__MACOSX' / 'cat').mkdir(parents=True)
    (root / '__MACOSX' / 'cat' / '._a.npy').write_bytes(b'\0\5\x16\7')
    assert listed(EventFolder(root)) == before
    assert list(check_event_folder(root)) == ['cat', 'dog']
    EventFolder(root).check_files()


def check(root, **kwargs):
    load = dict(type='LoadEventFrames', time_steps=2, **kwargs)
    cfg = dict(type='EventFolder', data_root=str(root), pipeline=[load, dict(type='NDA')])
    return check_cls_dataset(cfg, key='val_dataloader.dataset')


def test_size_of_the_sensor_is_asked_for_before_a_run(root):
    with pytest.raises(DatasetError) as error:
        check(root)
    assert 'val_dataloader.dataset.pipeline.0: ' in str(error.value)
    assert 'cat/a.npy does not say the size of its sensor. Give sensor_size' in str(error.value)
    assert check(root, sensor_size=(5, 3))['images'] == 3
    x, y, t, p = ROWS.T
    for path in root.rglob('*.npy'):
        np.savez(path.with_suffix('.npz'), x=x, y=y, t=t, p=p, sensor_size=(5, 3))
        path.unlink()
    assert check(root)['images'] == 3
    np.savez(root / 'dog' / 'z.npz', x=x, y=y, t=t, p=p)
    with pytest.raises(DatasetError, match=r'dog/z.npz does not say the size'):
        check(root)


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(sensor_size=(5, 3, 1)), r'sensor_size is \(5, 3, 1\). Expected: \(width, height\)'),
        (dict(split_by='tim'), "split_by is 'tim', expected one of count, time"),
        (dict(sensor_siz=(5, 3)), 'sensor_siz'),
    ],
)
def test_arguments_of_the_loader_are_checked_before_a_run(root, kwargs, message):
    with pytest.raises(DatasetError, match=rf'val_dataloader.dataset.pipeline.0: .*{message}'):
        check(root, **kwargs)


@pytest.mark.parametrize('text', ['cat/a.npy ' + '9' * 5000, b'\xff\xfe'])
def test_unreadable_ann_file(root, text):
    (root / 'train.txt').write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DatasetError, match=r'train.txt, line 1 is|train.txt cannot be read as'):
        EventFolder(root, ann_file='train.txt')


def test_items_travel_through_a_data_loader(root, mmdet_scope):
    pipeline = [
        dict(type='LoadEventFrames', time_steps=4, sensor_size=(5, 3)),
        dict(type='ResizeEventFrames', size=6),
        dict(type='NDA', max_shift=2, max_cutout=2),
        dict(type='PackEventInputs'),
    ]
    dataset = EventFolder(root, pipeline=pipeline)
    loader = torch.utils.data.DataLoader(dataset, batch_size=3, collate_fn=list)
    (batch,) = loader
    assert [tuple(item['inputs'].shape) for item in batch] == [(4, 2, 6, 6)] * 3
    assert [item['data_samples'].gt_label.item() for item in batch] == [0, 0, 1]

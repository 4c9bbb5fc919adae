import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config

from mmsnn.datasets import DatasetError, check_cls_dataset, check_config_datasets

ROOT = Path(__file__).resolve().parents[3]
HEAD = {'model.head.num_classes': 10}


def write_cifar10(root, labels=(0, 1, 9)):
    root.mkdir()
    data = np.zeros((len(labels), 3072), np.uint8)
    content = pickle.dumps({'data': data, 'labels': list(labels)}, protocol=4)
    for name in (*(f'data_batch_{i}' for i in range(1, 6)), 'test_batch'):
        (root / name).write_bytes(content)
    return root


def write_folder(root, classes=('cat', 'dog')):
    for name in classes:
        (root / name).mkdir(parents=True)
        for i in range(2):
            pixels = np.full((6, 6, 3), 40 * i, np.uint8)
            assert cv2.imwrite(str(root / name / f'{i}.png'), pixels)
    return root


def cifar10(root, **kwargs):
    return dict(type='CIFAR10', data_root=str(root), **kwargs)


def folder(root, **kwargs):
    return dict(type='ImageFolder', data_root=str(root), **kwargs)


def message(dataset, **kwargs):
    with pytest.raises(DatasetError) as caught:
        check_cls_dataset(dataset, **kwargs)
    assert '\n' not in str(caught.value)
    return str(caught.value)


def config(train, val=None, num_classes=None, **kwargs):
    head = {} if num_classes is None else {'head': {'num_classes': num_classes}}
    return Config(
        {
            'model': {'type': 'AnyClassifier', **head},
            'train_dataloader': {'dataset': train},
            'val_dataloader': val and {'dataset': val},
            'default_scope': 'mmdet',
            **kwargs,
        }
    )


def config_message(*args, splits=('train', 'val'), **kwargs):
    with pytest.raises(DatasetError) as caught:
        check_config_datasets(config(*args, **kwargs), splits)
    assert '\n' not in str(caught.value)
    return str(caught.value)


# --- one data set --------------------------------------------------------------------------------


def test_good_data(tmp_path):
    found = check_cls_dataset(cifar10(write_cifar10(tmp_path / 'set')), num_classes=HEAD)
    assert found['images'] == 15
    assert found['classes'][9] == 'truck'
    found = check_cls_dataset(folder(write_folder(tmp_path / 'img')), num_classes={'head': 2})
    assert found == {'images': 4, 'classes': ('cat', 'dog'), 'warnings': []}


def test_what_a_pipeline_or_a_typo_would_break_is_not_run(tmp_path):
    dataset = cifar10(write_cifar10(tmp_path / 'set'), pipeline=[dict(type='NobodyKnows')])
    check_cls_dataset({**dataset, 'test_mode': True, 'lazy_init': True})
    text = message({**dataset, 'spilt': 'test'}, key='train_dataloader.dataset')
    assert text.startswith('train_dataloader.dataset: ')
    assert "unexpected keyword argument 'spilt'" in text
    text = message({**dataset, 'split': 'val'}, key='val_dataloader.dataset')
    assert text == "val_dataloader.dataset: split must be one of train, test: got 'val'"


def test_missing_data_come_with_the_hint(tmp_path):
    gone = tmp_path / 'gone'
    for dataset in (cifar10(gone), folder(gone)):
        text = message(dataset, hint='Unpack the archive')
        assert text == f'the data root {gone} does not exist. Unpack the archive'
    root = write_cifar10(tmp_path / 'set')
    (root / 'data_batch_5').unlink()
    assert message(cifar10(root), hint='Unpack').endswith('data_batch_5 does not exist. Unpack')


def test_broken_batches(tmp_path):
    root = write_cifar10(tmp_path / 'set')
    path = root / 'data_batch_2'
    path.write_bytes(path.read_bytes()[:1000])
    text = message(cifar10(root))
    assert f'{path} is truncated' in text
    assert '1000 bytes; the official file has 31035320' in text


def test_empty_class_folder_and_broken_images(tmp_path):
    root = write_folder(tmp_path / 'img')
    (root / 'cow').mkdir()
    assert f'class folder {root / "cow"} holds no images' in message(folder(root))
    (root / 'cow').rmdir()
    (root / 'dog/1.png').write_bytes(b'')
    assert 'dog/1.png (empty, 0 bytes)' in message(folder(root))


def test_lists(tmp_path):
    root = write_folder(tmp_path / 'img')
    path = tmp_path / 'list.txt'
    dataset = folder(root, ann_file=str(path))
    path.write_text('cat/0.png 0\ncat/gone.png 0\n')
    text = message(dataset)
    assert '1 of the 2 images' in text
    assert f'{path} lists' in text
    assert 'cat/gone.png (missing)' in text
    path.write_text('cat/0.png 0\ncat/1.png zero\n')
    assert f"{path}, line 2: 'cat/1.png zero' is not" in message(dataset)
    path.write_text('cat/0.png 0\ndog/0.png 2\ndog/1.png 7\n')
    assert check_cls_dataset(dataset, num_classes={'model.head.num_classes': 8})['classes'] is None
    text = message(dataset, key='val_dataloader.dataset', num_classes={'model.head.num_classes': 2})
    assert 'model.head.num_classes is 2' in text
    assert f'{root / "dog/0.png"} (val_dataloader.dataset) has the label 2' in text
    assert '1 more' in text
    assert 'Set model.head.num_classes=8' in text


def test_labels_and_the_head(tmp_path):
    root = write_cifar10(tmp_path / 'set')
    text = message(cifar10(root), num_classes={'model.head.num_classes': 7})
    assert 'model.head.num_classes is 7, so that labels go from 0 to 6' in text
    assert f'{root / "data_batch_1"}:2' in text
    assert 'has the label 9, and 4 more' in text
    assert 'Set model.head.num_classes=10' in text
    text = message(cifar10(root), key='the_key', num_classes={'model.head.num_classes': 100})
    assert 'model.head.num_classes is 100, but the data set of the_key has 10 classes' in text


def test_other_kinds_are_refused():
    assert 'dataset: CocoDataset is not a data set for classifiers' in message(
        dict(type='CocoDataset')
    )


# --- a config ------------------------------------------------------------------------------------


def test_config(tmp_path):
    root = write_cifar10(tmp_path / 'set')
    train = {'type': 'RepeatDataset', 'times': 2, 'dataset': cifar10(root)}
    cfg = config(train, cifar10(root, split='test'), num_classes=10)
    found = check_config_datasets(cfg)
    assert {key: result['images'] for key, result in found.items()} == {
        'train_dataloader.dataset.dataset': 15,
        'val_dataloader.dataset': 3,
    }
    assert 'model.head.num_classes is 9' in config_message(train, num_classes=9)


def test_config_reads_shared_data_once(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(
        'mmsnn.datasets.checks.config.check_cls_dataset',
        lambda *args: calls.append(args) or {'images': 1, 'classes': None},
    )
    dataset = cifar10(tmp_path)
    check_config_datasets(config({**dataset, 'pipeline': []}, {**dataset, 'test_mode': True}))
    assert len(calls) == 1
    check_config_datasets(config(dataset, {**dataset, 'split': 'test'}))
    assert len(calls) == 3


def test_config_names_the_key_to_set(tmp_path):
    root, gone = write_cifar10(tmp_path / 'set'), tmp_path / 'gone'
    text = config_message(cifar10(root), cifar10(gone))
    assert f'data root {gone} does not exist' in text
    assert text.endswith('with --cfg-options val_dataloader.dataset.data_root=/path/to/data')
    check_config_datasets(config(cifar10(root), cifar10(gone)), splits=('train',))


def test_frames_of_another_t_than_the_config_says(tmp_path):
    pipeline = [dict(type='LoadEventFrames', time_steps=3, sensor_size=(8, 8))]
    cfg = config(folder(write_folder(tmp_path / 'set'), pipeline=pipeline))
    cfg.model.backbone = dict(time_steps=4)
    with pytest.raises(DatasetError, match='time_steps is 3, but the model has T = 4'):
        check_config_datasets(cfg, ('train',))
    assert len(check_config_datasets(cfg, ('train',), time_steps=3)) == 1


@pytest.mark.parametrize(
    ('name', 'variable'),
    [
        ('cifar10', 'MMSNN_CIFAR10_ROOT'),
        ('cifar100', 'MMSNN_CIFAR100_ROOT'),
        ('imagenet', 'MMSNN_IMAGENET_ROOT'),
        ('digits_cls', 'MMSNN_DIGITS_CLS_ROOT'),
    ],
)
def test_base_configs_name_their_variable(name, variable, tmp_path, monkeypatch):
    monkeypatch.setenv(variable, str(tmp_path / 'gone'))
    cfg = Config.fromfile(ROOT / f'configs/_base_/datasets/{name}.py')
    with pytest.raises(DatasetError) as caught:
        check_config_datasets(cfg)
    assert f'{tmp_path / "gone"}/ does not exist' in str(caught.value)
    assert f'environment variable {variable}=/path/to/data' in str(caught.value)
    assert 'train_dataloader.dataset.data_root=' in str(caught.value)
    for evaluator in (cfg.val_evaluator, cfg.test_evaluator):
        assert evaluator.type == 'ClsMetric'


def test_classes_of_train_and_val_differ(tmp_path):
    train = write_folder(tmp_path / 'train', ('ant', 'cat', 'dog'))
    val = write_folder(tmp_path / 'val', ('cat', 'dog', 'emu'))
    text = config_message(folder(train), folder(val))
    assert 'classes of val_dataloader.dataset are not those of train_dataloader.dataset' in text
    assert 'has no ant; has also emu' in text
    classes = ('cat', 'dog')
    meta = {'metainfo': {'classes': classes}}
    check_config_datasets(config(folder(train, **meta), folder(val, **meta)))
    swapped = {'metainfo': {'classes': classes[::-1]}}
    assert 'orders them anew' in config_message(folder(train, **meta), folder(val, **swapped))


def test_config_passes_over(tmp_path):
    far = cifar10('s3://bucket/cifar')
    elsewhere = {**folder(tmp_path / 'gone'), 'backend_args': {'backend': 'petrel'}}
    assert check_config_datasets(config(far, elsewhere)) == {}

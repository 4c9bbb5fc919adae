"""The commands: what they write, say and refuse."""

import json
import runpy
import sys
from pathlib import Path

import pytest
from foreign_formats import make_voc, make_yolo, voc_object, write_labels, write_list, write_voc
from mmengine.config import Config
from mmengine.registry import init_default_scope

import mmsnn_cli
from mmsnn.datasets import check_config_datasets
from mmsnn.datasets.checks import images

ROOT = Path(__file__).parents[2]
CHECKED = ('train', 'val', 'test')


@pytest.fixture(autouse=True)
def image_cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp('cache')
    monkeypatch.setattr(images, 'cache_folder', lambda: folder)


@pytest.fixture
def convert(monkeypatch, capsys):
    """Start a tool as it is started by its name; give back what it says."""

    def run(kind, *args):
        path = ROOT / 'tools' / 'dataset_converters' / f'{kind}_to_coco.py'
        monkeypatch.setattr(sys, 'argv', [str(path), *map(str, args)])
        runpy.run_path(str(path), run_name='__main__')
        return capsys.readouterr().out

    return run


def refused(convert, *args):
    with pytest.raises(SystemExit) as caught:
        convert(*args)
    assert caught.value.code.startswith('error: ')
    assert '\n' not in caught.value.code
    return caught.value.code


def files(root):
    return sorted(str(path.relative_to(root)) for path in root.rglob('*') if path.is_file())


def check(tmp_path, said, splits=CHECKED):
    """Put the printed lines in a config for COCO, and look at its data."""
    base = ROOT / 'configs/coco_tiny/spiking-retinanet_sg-r10_asd_fpn_coco-tiny.py'
    lines = said.partition('under its _base_:\n')[2]
    (tmp_path / 'pets.py').write_text(f'_base_ = {str(base)!r}\n{lines}')
    cfg = Config.fromfile(tmp_path / 'pets.py')
    init_default_scope(cfg.default_scope)
    return cfg, check_config_datasets(cfg, splits)


@pytest.mark.parametrize(('kind', 'make'), [('voc', make_voc), ('yolo', make_yolo)])
def test_printed_lines_train(convert, tmp_path, kind, make):
    make(tmp_path / 'set')
    before = files(tmp_path)
    said = convert(kind, tmp_path / 'set')
    assert files(tmp_path) == sorted([*before, 'set/coco/train.json', 'set/coco/val.json'])
    cfg, found = check(tmp_path, said)
    assert cfg.model.bbox_head.num_classes == 3
    assert [result['images'] for result in found.values()] == [6, 2, 2]
    for split, result in zip(('train', 'val'), found.values()):
        coco = json.loads((tmp_path / 'set' / 'coco' / f'{split}.json').read_text())
        crowds = sum(entry['iscrowd'] for entry in coco['annotations'])
        assert result['boxes'] == len(coco['annotations']) - crowds > 0
        assert f'{split}: {result["images"]} images, {len(coco["annotations"])} boxes' in said
    assert '3 classes: cat, dog, hen' in said


def test_test_split_is_tested_and_relative_paths_work(convert, tmp_path, monkeypatch):
    make_voc(tmp_path)
    write_list(tmp_path, 'test', ['000000'])
    monkeypatch.chdir(tmp_path)
    said = convert('voc', '.', '-o', 'made/here')
    (tmp_path / 'elsewhere').mkdir()
    monkeypatch.chdir(tmp_path / 'elsewhere')
    _, found = check(tmp_path, said)
    assert [Path(result['ann_file']).name for result in found.values()] == [
        'train.json', 'val.json', 'test.json',
    ]  # fmt: skip
    assert 'note: 1 of the 1 images of test are in train too' in said


def test_train_alone(convert, tmp_path):
    write_voc(tmp_path / 'set', 'a', voc_object('cat', (1, 1, 9, 9), 1))
    write_voc(
        tmp_path / 'set', 'b', voc_object('cat', (1, 1, 9, 9)) + voc_object('pig', (1, 1, 9, 9))
    )
    write_voc(tmp_path / 'set', 'c')
    said = convert('voc', tmp_path / 'set', '--classes', 'cat', 'dog')
    assert 'train: 3 images (1 of them without boxes), 2 boxes (1 of them iscrowd' in said
    assert 'note: no box of dog' in said
    assert "skipped: 1 objects named 'pig'" in said
    assert 'note: ' in said
    assert '--val-share' in said
    assert 'warning: ' in said  # of the check: half of the boxes are crowds
    assert '.partial' not in said
    cfg, found = check(tmp_path, said, ('train',))
    assert [result['classes'] for result in found.values()] == [('cat', 'dog')]
    assert cfg.val_dataloader is cfg.val_cfg is cfg.test_evaluator is None


def test_nothing_is_overwritten(convert, tmp_path, monkeypatch):
    make_yolo(tmp_path)
    (tmp_path / 'coco').mkdir()
    convert('yolo', tmp_path)  # an empty folder may be taken
    before = {name: (tmp_path / name).read_bytes() for name in files(tmp_path)}
    assert f'{tmp_path}/coco is there already' in refused(convert, 'yolo', tmp_path / 'data.yaml')
    out = tmp_path / 'data.yaml'
    assert f'{out} is a file' in refused(convert, 'yolo', tmp_path, '-o', out)
    assert 'cannot be made' in refused(convert, 'yolo', tmp_path, '-o', out / 'coco')
    assert before == {name: (tmp_path / name).read_bytes() for name in files(tmp_path)}


def test_nothing_is_left_of_what_training_would_refuse(convert, tmp_path):
    make_yolo(tmp_path)
    for path in (tmp_path / 'labels' / 'val').iterdir():
        path.write_text('')
    before = files(tmp_path)
    said = refused(convert, 'yolo', tmp_path)
    assert f'{tmp_path}/coco/val.json has no boxes of the classes to evaluate on' in said
    assert files(tmp_path) == before
    write_labels(tmp_path, '0', ['0 2 2 2 2'], 'train')
    assert f'{tmp_path}/labels/train/0.txt:1: 2 is no share' in refused(convert, 'yolo', tmp_path)
    assert not (tmp_path / 'coco').exists()


def test_pictures_are_opened_once(convert, tmp_path, monkeypatch):
    make_yolo(tmp_path)
    seen = []
    look = images.look_at_image
    monkeypatch.setattr(
        images, 'look_at_image', lambda path, loader: seen.append(path) or look(path, loader)
    )
    convert('yolo', tmp_path)
    assert len(seen) == len(set(seen)) == 8


def test_by_the_one_command(tmp_path, capsys):
    make_yolo(tmp_path)
    mmsnn_cli.main(['convert', 'yolo', str(tmp_path)])
    assert '2 images' in capsys.readouterr().out
    with pytest.raises(SystemExit):
        mmsnn_cli.main(['convert', 'kitti', str(tmp_path)])
    assert "invalid choice: 'kitti'" in capsys.readouterr().err

"""The command that makes a detector spike: what it writes, says and refuses."""

import pytest
from mmengine.config import Config
from new_style import write_new_style

from mmsnn_cli.spike import MMDET_CONFIGS, base_name, main

MINE = f"""_base_ = '{MMDET_CONFIGS}/retinanet/retinanet_r18_fpn_1x_coco.py'
custom_imports = dict(imports=['mmsnn.models'], allow_failed_imports=False)
model = dict(bbox_head=dict(num_classes=3))
"""


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text(MINE)
    return path


def test_writes_a_config_that_inherits(mine, capsys):
    out = mine.parent / 'spiking' / 'mine.py'
    main([str(mine), '-o', str(out), '--depth', '10', '--time-steps', '2'])
    text = out.read_text()
    assert "_base_ = '../mine.py'" in text
    assert len(text.splitlines()) < 40
    cfg = Config.fromfile(out)
    assert cfg.custom_imports.imports == ['mmsnn.models', 'mmsnn']
    backbone = dict(type='SGResNet', depth=10, time_steps=2, out_indices=(1, 2, 3))
    assert cfg.model.backbone == backbone
    assert cfg.model.neck[0] == dict(type='ASDNeck', in_channels=[128, 256, 512])
    assert cfg.model.neck[1] == dict(
        type='FPN', in_channels=[128, 256, 512], out_channels=256, add_extra_convs='on_input',
        num_outs=5,
    )  # fmt: skip
    assert cfg.model.bbox_head.num_classes == 3
    said = capsys.readouterr().out
    assert 'ResNet-18 -> SGResNet-10, T = 2: levels of strides 8, 16, 32' in said
    assert 'one training step on random data: loss ' in said
    assert 'one prediction: ' in said
    with pytest.raises(SystemExit, match='is there already'):
        main([str(mine), '-o', str(out)])


def test_new_style(mine, capsys):
    """In pure Python, where a type is a class: written out whole."""
    new = mine.parent / 'new.py'
    write_new_style(Config.fromfile(mine), new)
    out = mine.parent / 'spiking.py'
    main([str(new), '-o', str(out), '--depth', '10'])
    cfg = Config.fromfile(out)
    assert cfg.model.backbone.type == 'SGResNet'
    assert cfg.model.bbox_head.num_classes == 3


def test_names_of_bases(tmp_path):
    name = 'retinanet/retinanet_r50_fpn_1x_coco.py'
    assert base_name(f'{MMDET_CONFIGS}/{name}', tmp_path / 'a.py') == f'mmdet::{name}'
    assert base_name(tmp_path / 'a.py', tmp_path / 'b' / 'c.py') == '../a.py'
    assert base_name('/one/a.py', '/other/b.py') == '/one/a.py'


@pytest.mark.parametrize(
    ('config', 'said'),
    [
        ('mmdet::ssd/ssd300_coco.py', 'ssd300_coco.py cannot be made to spike: this is SSD'),
        (
            'mmdet::faster_rcnn/faster-rcnn_r50-caffe_c4-1x_coco.py',
            'cannot be made to spike: this is a C4 detector',
        ),
        ('mmdet::no/such.py', 'such.py is not there'),
    ],
)
def test_refuses(config, said, tmp_path):
    out = tmp_path / 'out.py'
    with pytest.raises(SystemExit, match=said) as error:
        main([config, '-o', str(out)])
    assert len(str(error.value).strip().splitlines()) == 1
    assert not out.exists()


def test_refuses_time_steps(mine, tmp_path):
    with pytest.raises(SystemExit, match='at least 1'):
        main([str(mine), '-o', str(tmp_path / 'out.py'), '--time-steps', '0'])

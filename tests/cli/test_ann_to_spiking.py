"""The command that makes a spiking checkpoint of an ANN's: what it writes, says and refuses."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image

from mmsnn.apis import init_classifier
from mmsnn.models import ResNetCIFAR
from mmsnn_cli.ann_to_spiking import main

ROOT = Path(__file__).resolve().parents[2]
CONFIG = f"""_base_ = {str(ROOT / 'configs/digits/sg-r10_asd_digits-cls.py')!r}
model = dict(backbone=dict(base_channels=8, time_steps=2), head=dict(in_channels=32))
"""
MS = ['model.backbone.block=ms', 'model.backbone.gate_cfg=None']


@pytest.fixture
def job(tmp_path, monkeypatch):
    """A config, an ANN's checkpoint and pictures, in a folder of their own."""
    for name in ('TORCH_FORCE_WEIGHTS_ONLY_LOAD', 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'):
        monkeypatch.setenv(name, '0')
    monkeypatch.setenv('MMSNN_DIGITS_CLS_ROOT', str(tmp_path))
    random = np.random.default_rng(0)
    for split in ('train', 'test'):
        for label in range(10):
            folder = tmp_path / split / str(label)
            folder.mkdir(parents=True)
            pixels = random.integers(0, 256, (16, 16, 3), np.uint8)
            Image.fromarray(pixels).save(folder / 'a.png')
    (tmp_path / 'spiking.py').write_text(CONFIG)
    torch.manual_seed(0)
    net = ResNetCIFAR(
        10, base_channels=8, stem_channels=8, num_stages=3, strides=(1, 2, 2),
        dilations=(1, 1, 1), out_indices=(2,),
    )  # fmt: skip
    state = {**net.state_dict(), 'fc.weight': torch.randn(10, 32), 'fc.bias': torch.zeros(10)}
    torch.save(state, tmp_path / 'ann.pth')
    return tmp_path


def convert(job, *options, ann='ann.pth', out='out.pth'):
    main([str(job / ann), str(job / 'spiking.py'), str(job / out), *map(str, options)])


def test_weights_alone(job, capsys):
    convert(job)
    said = capsys.readouterr().out
    assert 'an ANN of 56 tensors, 56 used, 0 left out; 10 of the model are not in it' in said
    assert 'head.decoder.temporal.0' in said
    assert 'calibrated' not in said
    content = torch.load(job / 'out.pth', weights_only=True)
    assert set(content) == {'state_dict', 'meta'}
    ann = torch.load(job / 'ann.pth', weights_only=True)
    conv = content['state_dict']['backbone.stem.0.conv.weight']
    assert torch.equal(conv, ann['conv1.weight'])
    model = init_classifier(str(job / 'spiking.py'), str(job / 'out.pth'))
    assert model.dataset_meta['classes'] == tuple('0123456789')
    with pytest.raises(SystemExit, match='is there already'):
        convert(job)


def test_calibrated_and_tested(job, capsys):
    convert(job, '--images', 8)
    said = capsys.readouterr().out
    assert 'calibrated by 8 images, at T = 2' in said
    rows = [line for line in said.splitlines() if '.neuron' in line or 'downsample_neuron' in line]
    assert len(rows) == 9
    assert 'top-1 before' in said
    assert 'top-1 after' in said
    tested = said[said.index('on the test data') :].splitlines()
    steps = [line.split('|')[1].strip() for line in tested if line.startswith('|')]
    assert steps == ['T', '1', '2', '4', '8', '16']
    # What was tested before is what comes out without images.
    convert(job, out='plain.pth')
    calibrated, plain = (
        torch.load(job / name, weights_only=True)['state_dict'] for name in ('out.pth', 'plain.pth')
    )
    assert calibrated.keys() == plain.keys()
    moved = {key for key, value in plain.items() if not torch.equal(value, calibrated[key])}
    assert 'head.fc.weight' in moved
    assert 'backbone.layer3.0.bn2.running_mean' in moved
    assert not any('decoder' in key for key in moved)


def test_by_a_folder(job, capsys):
    convert(job, '--images', 3, '--image-dir', job / 'test', '--no-test')
    said = capsys.readouterr().out
    assert 'calibrated by 3 images' in said
    assert 'on the test data' not in said


def test_the_config_starts_by_it(job):
    """By one line of config, the same as by the command."""
    convert(job)
    cfg = Config.fromfile(job / 'spiking.py')
    init_default_scope('mmdet')
    cfg.model.init_cfg = dict(type='ANNPretrained', checkpoint=str(job / 'ann.pth'))
    model = MODELS.build(cfg.model)
    model.init_weights()
    state = torch.load(job / 'out.pth', weights_only=True)['state_dict']
    for name, value in model.state_dict().items():
        if 'decoder' not in name:
            assert torch.equal(value, state[name]), name


def test_refusals(job):
    torch.save({'cls_token': torch.ones(1), 'pos_embed': torch.ones(1)}, job / 'vit.pth')
    (job / 'cut.pth').write_bytes((job / 'ann.pth').read_bytes()[:3000])
    one = job / 'one'
    one.mkdir()
    Image.new('RGB', (16, 16)).save(one / 'a.png')
    broken = job / 'broken'
    broken.mkdir()
    (broken / 'a.png').write_bytes(b'no picture')
    for options, names, said in (
        ((), dict(ann='none.pth'), 'no such checkpoint file'),
        ((), dict(ann='vit.pth'), 'holds no ResNet'),
        ((), dict(ann='cut.pth'), 'truncated, damaged'),
        ((), dict(out='out.txt'), 'must name a .pth file'),
        (('--images', 4, '--image-dir', job / 'nowhere'), {}, 'no such folder of images'),
        (('--images', 4, '--image-dir', one), {}, 'is of one colour'),
        (('--cfg-options', 'model.backbone.stem=imagenet'), {}, "has another stem.*stem='cifar'"),
        (('--cfg-options', 'model.backbone.depth=18'), {}, 'is of another depth.*set depth=10'),
        (('--images', 4, '--cfg-options', *MS), {}, 'MSBlock has no known ANN'),
        (('--images', 4, '--image-dir', broken), {}, r'a\.png cannot be decoded'),
    ):
        with pytest.raises(SystemExit, match=said) as error:
            convert(job, *options, **names)
        assert len(str(error.value).strip().splitlines()) == 1
        assert not (job / 'out.pth').exists()


@pytest.mark.parametrize('options', [('--images', '0'), ('--image-dir', 'x')])
def test_usage(job, options, capsys):
    with pytest.raises(SystemExit):
        convert(job, *options)
    assert '--images' in capsys.readouterr().err

"""The model that a tool measures, and its input."""

import argparse
from itertools import islice

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger

from mmsnn.compat import CheckpointError
from mmsnn.datasets import DatasetError
from mmsnn.utils import ToolError, add_measuring_arguments, input_batches, load_model
from mmsnn.utils.measuring import _pipeline_size

DIGITS = 'configs/digits/spiking-retinanet_sg-r10_asd_fpn_digits.py'
DIGITS_CLS = 'configs/digits/sg-r10_asd_digits-cls.py'
DVS = 'configs/sg_resnet/sg-r19_asd_dvs-cifar10.py'
COCO = 'configs/spiking_retinanet/spiking-retinanet_sg-r18_asd_fpn_1x_coco.py'
IMAGENET = 'configs/sg_resnet/sg-r18_asd_imagenet.py'
ANN = 'configs/baselines/ann-r18_cifar10.py'
NARROW = ['--cfg-options', 'model.backbone.base_channels=8', 'model.head.in_channels=32']


@pytest.fixture(autouse=True)
def same_log_level():
    """Tools silence mmengine; other tests read what it says."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    yield
    logger.setLevel(level)


@pytest.fixture
def parse(request):
    def run(config, *options):
        parser = argparse.ArgumentParser()
        add_measuring_arguments(parser)
        return parser.parse_args([str(request.config.rootpath / config), *map(str, options)])

    return run


@pytest.fixture
def config(request, monkeypatch, tmp_path):
    """A config whose data is nowhere."""

    def read(path):
        for name in ('DIGITS', 'DIGITS_CLS', 'DVSCIFAR10', 'COCO', 'IMAGENET'):
            monkeypatch.setenv(f'MMSNN_{name}_ROOT', str(tmp_path / 'nowhere'))
        return Config.fromfile(request.config.rootpath / path)

    return read


def test_initial_weights_are_the_same_in_every_run(parse):
    args = parse(DIGITS_CLS, *NARROW, '--time-steps', 3)
    (_, one), (_, two) = load_model(args), load_model(args)
    assert not one.training
    assert one.backbone.time_steps == 3
    for a, b in zip(one.parameters(), two.parameters()):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ('config', 'options', 'said'),
    [
        (DIGITS, ['--shape', 0, 32], r'--shape must be two sizes of at least 1, got \[0, 32\]'),
        (DIGITS, ['--time-steps', 0], '--time-steps must be at least 1, got 0'),
        (DIGITS, ['--out', 'flops.txt'], '--out must name a .json file, got flops.txt'),
        (DIGITS, ['--checkpoint', 'no.pth'], 'no.pth: no such checkpoint file'),
        (DVS, ['--time-steps', 3], 'time_steps is 4, but the model has T = 3'),
        (ANN, ['--time-steps', 2], 'needs a spiking backbone'),
        ('configs/_base_/cls_runtime.py', [], 'has no model'),
    ],
)
def test_bad_options(parse, config, options, said):
    with pytest.raises((ToolError, CheckpointError, DatasetError), match=said):
        load_model(parse(config, *options))


@pytest.mark.parametrize(
    ('path', 'shape'),
    [
        (DIGITS, (3, 128, 128)),
        (COCO, (3, 800, 1333)),
        (IMAGENET, (3, 224, 224)),
        (DVS, (4, 2, 48, 48)),
    ],
)
def test_random_input_is_of_the_size_of_the_pipeline(config, path, shape):
    batches, source = input_batches(config(path), batch_size=2)
    assert 'random input' in source
    assert 'nowhere/ is not there' in source
    first, second = islice(batches, 2)
    assert [tuple(x.shape) for x in first['inputs']] == [shape] * 2
    assert not torch.equal(first['inputs'][0], first['inputs'][1])
    assert not torch.equal(first['inputs'][0], second['inputs'][0])


def test_random_events_are_spikes_and_give_a_prediction(parse):
    args = parse(DVS, '--shape', 16, 16, *NARROW)
    cfg, model = load_model(args)
    batches, source = input_batches(cfg, args.shape)
    batch = next(batches)
    assert batch['inputs'][0].shape == (4, 2, 16, 16)
    assert batch['inputs'][0].unique().tolist() == [0, 1]
    assert 'not there' not in source, 'it was asked for'
    assert model.test_step(batch)[0].pred_score.shape == (10,)


def test_random_events_for_a_detector(parse):
    config = 'configs/digits/spiking-retinanet_sg-r10_asd_fpn_digits-events.py'
    args = parse(config, '--shape', 64, 64)
    cfg, model = load_model(args)
    batch = next(input_batches(cfg, args.shape)[0])
    assert batch['inputs'][0].shape == (model.backbone.time_steps, 4, 64, 64)
    assert model.test_step(batch)[0].pred_instances.bboxes.shape[1:] == (4,)


def test_event_frames_of_another_t(parse):
    """They agree with the T asked for, whatever the config's model has."""
    frames = 'test_dataloader.dataset.pipeline.0.time_steps=3'
    cfg, model = load_model(parse(DVS, '--time-steps', 3, *NARROW, frames))
    batch = next(input_batches(cfg, (16, 16))[0])
    assert batch['inputs'][0].shape == (3, 2, 16, 16)
    assert model.test_step(batch)[0].pred_score.shape == (10,)


def test_no_test_data_and_no_size(config):
    cfg = config(DIGITS)
    cfg.test_dataloader = None
    with pytest.raises(ToolError, match=r'no test data: give the size .* by --shape H W'):
        input_batches(cfg)
    batches, _ = input_batches(cfg, (32, 48))
    assert next(batches)['inputs'][0].shape == (3, 32, 48)


def test_broken_data_is_no_missing_data(config, tmp_path):
    cfg = config(DIGITS)
    (tmp_path / 'nowhere' / 'annotations').mkdir(parents=True)
    with pytest.raises(DatasetError, match=r'instances_val\.json'):
        input_batches(cfg)


def test_pretrained_weights_are_not_looked_for(parse, tmp_path):
    """They would change no number of operations, and no time."""
    missing = dict(type='Pretrained', checkpoint=str(tmp_path / 'none.pth'))
    args = parse(DIGITS_CLS, '--shape', 16, 16, *NARROW)
    args.cfg_options['model.backbone.init_cfg'] = missing
    _, model = load_model(args)
    assert 'Pretrained' not in str(model.backbone.init_cfg)


@pytest.mark.parametrize(
    ('transform', 'size'),
    [
        (dict(type='Pad', size=(96, 64)), (64, 96)),
        (dict(type='CenterCrop', crop_size=(96, 64)), (64, 96)),
        (dict(type='Resize', scale=(96, 64)), (64, 96)),
        (dict(type='RandomCrop', crop_size=(64, 96)), (64, 96)),
    ],
)
def test_height_and_width_of_a_pipeline(transform, size):
    assert _pipeline_size([transform, dict(type='PackDetInputs')]) == size


def test_loader_of_workers(digits_root, monkeypatch):
    """It loads in this process, whatever options its workers have."""
    monkeypatch.setenv('MMSNN_DIGITS_ROOT', str(digits_root))
    cfg = Config.fromfile(DIGITS)
    cfg.test_dataloader.update(num_workers=2, prefetch_factor=4, timeout=30)
    batches, _ = input_batches(cfg)
    assert len(next(iter(batches))['inputs']) == 1

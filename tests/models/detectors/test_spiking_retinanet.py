import re
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope

import mmsnn

CONFIG = (
    Path(__file__).parents[3]
    / 'configs'
    / '_base_'
    / 'models'
    / 'spiking_retinanet_sg-r18_asd_fpn.py'
)
# Of the config, a sixteenth as wide.
CHANNELS = [c // 16 for c in Config.fromfile(CONFIG).model.neck[0].in_channels]
WRONG = [*CHANNELS[:-1], 2 * CHANNELS[-1]]


@pytest.fixture(autouse=True)
def quiet_mmdet():
    """init_weights logs a paragraph a parameter."""
    init_default_scope('mmdet')
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel('WARNING')
    yield
    logger.setLevel(level)


def narrow(**backbone):
    model = Config.fromfile(CONFIG).model
    model.backbone.update(base_channels=4, **backbone)
    model.neck[0].in_channels = CHANNELS
    model.neck[1].update(in_channels=CHANNELS, out_channels=8)
    model.bbox_head.update(num_classes=3, in_channels=8, feat_channels=8, stacked_convs=1)
    return model


def build(model):
    torch.manual_seed(0)
    return MODELS.build(model)


def inputs(batch_size=2):
    return demo_mm_inputs(
        batch_size,
        image_shapes=[(3, 64, 64)] * batch_size,
        num_items=[2] * batch_size,
        num_classes=3,
    )


def test_the_config_builds_at_full_width():
    detector = build(Config.fromfile(CONFIG).model)
    assert type(detector) is mmsnn.models.SpikingRetinaNet
    assert detector.backbone.out_channels == tuple(16 * c for c in CHANNELS)


@pytest.mark.parametrize('decoder', ['ASDNeck', 'RateNeck', 'LastNeck'])
def test_losses_and_predictions(decoder):
    model = narrow()
    model.neck[0].type = decoder
    detector = build(model)
    detector.init_weights()
    data = detector.data_preprocessor(inputs(), True)
    losses = detector(**data, mode='loss')
    assert set(losses) == {'loss_cls', 'loss_bbox'}
    total = sum(sum(values) for values in losses.values())
    assert torch.isfinite(total)
    total.backward()
    assert all(torch.isfinite(p.grad).all() for p in detector.parameters() if p.grad is not None)
    assert detector.backbone.stem[0]['conv'].weight.grad.abs().sum() > 0

    detector.eval()
    detector.test_cfg.score_thr = 0.0
    with torch.no_grad():
        data = detector.data_preprocessor(inputs(), False)
        results = detector(**data, mode='predict')
    assert len(results) == 2
    for result in results:
        found = result.pred_instances
        assert 0 < len(found) <= 100
        assert found.bboxes.shape == (len(found), 4)
        assert found.scores.min() >= 0
        assert found.labels.max() < 3


def test_a_step_of_training_changes_the_whole_model():
    detector = build(narrow())
    before = {k: p.detach().clone() for k, p in detector.named_parameters()}
    optim = torch.optim.AdamW(detector.parameters(), lr=1e-3)
    data = detector.data_preprocessor(inputs(), True)
    for _ in range(2):
        optim.zero_grad()
        sum(sum(v) for v in detector(**data, mode='loss').values()).backward()
        optim.step()
    for part in ('backbone.', 'neck.0.', 'neck.1.', 'bbox_head.'):
        assert any(
            not torch.equal(p, before[k])
            for k, p in detector.named_parameters()
            if k.startswith(part)
        ), part


def test_nothing_is_computed_in_vain():
    # A level that is decoded and then left out by FPN would cost its time and memory, and its
    # parameters would stop distributed training.
    detector = build(narrow())
    data = detector.data_preprocessor(inputs(), True)
    sum(sum(v) for v in detector(**data, mode='loss').values()).backward()
    assert [name for name, p in detector.named_parameters() if p.grad is None] == []


def test_predicts_at_another_number_of_time_steps():
    detector = build(narrow()).eval()
    data = detector.data_preprocessor(inputs(1), False)
    for time_steps in (1, 8):
        detector.backbone.time_steps = time_steps
        with torch.no_grad():
            assert len(detector(**data, mode='predict')) == 1


@pytest.mark.parametrize(
    ('change', 'match'),
    [
        (
            lambda m: m.pop('neck'),
            'needs a decoder right behind its backbone, found no neck: SGResNet '
            f"gives spikes (T, B, C, H, W). Put one in front: neck=[dict(type='ASDNeck', "
            f'in_channels={CHANNELS})',
        ),
        (lambda m: m.update(neck=m.neck[1]), 'found a FPN: SGResNet gives spikes (T, B, C, H, W)'),
        (lambda m: m.update(neck=m.neck[::-1]), 'found a FPN'),
        (
            lambda m: m.neck[0].update(in_channels=CHANNELS[1:]),
            f'SGResNet gives {CHANNELS}, but ASDNeck was built with in_channels={CHANNELS[1:]}',
        ),
        (
            lambda m: m.neck[1].update(in_channels=WRONG),
            f'ASDNeck gives {CHANNELS}, but FPN was built with in_channels={WRONG}',
        ),
        (
            lambda m: m.backbone.update(base_channels=8),
            f'SGResNet gives {[2 * c for c in CHANNELS]}',
        ),
        (
            lambda m: m.backbone.update(time_steps=0),
            'time_steps must be a whole number of at least 1',
        ),
    ],
)
def test_parts_that_do_not_fit(change, match):
    model = narrow()
    change(model)
    with pytest.raises(ValueError, match=re.escape(match)):
        build(model)


def test_a_decoder_alone_is_a_neck():
    model = narrow(out_indices=(3,))
    model.neck = dict(type='RateNeck', in_channels=[32])
    model.bbox_head.in_channels = 32
    model.bbox_head.anchor_generator.strides = [32]
    detector = build(model)
    data = detector.data_preprocessor(inputs(), True)
    assert len(detector(**data, mode='loss')['loss_cls']) == 1

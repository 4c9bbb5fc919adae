"""A spiking backbone is checked in every detector, and nobody has to ask for it."""

import re

import pytest
import torch
from mmdet.models.detectors import RetinaNet
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope
from small_nets import detector_config
from torch import nn

CHANNELS = [16, 32]


def config(kind):
    """A detector of MMDetection's; what is not asked for here stands at its defaults."""
    init_default_scope('mmdet')
    model = detector_config(1)
    model.type = kind
    head = dict(num_classes=3, in_channels=8, feat_channels=8, stacked_convs=1, norm_cfg=None)
    if kind == 'FCOS':
        model.bbox_head = dict(
            type='FCOSHead', strides=[4, 8], regress_ranges=((-1, 64), (64, 1e8)), **head
        )
    elif kind == 'ATSS':
        model.bbox_head.update(type='ATSSHead', norm_cfg=None)
    elif kind == 'FasterRCNN':
        coder = model.bbox_head.bbox_coder
        model.rpn_head = dict(
            type='RPNHead',
            in_channels=8,
            feat_channels=8,
            anchor_generator=dict(type='AnchorGenerator', scales=[8], ratios=[1.0], strides=[4, 8]),
            bbox_coder=coder,
        )
        model.roi_head = dict(
            type='StandardRoIHead',
            bbox_roi_extractor=dict(
                type='SingleRoIExtractor',
                roi_layer=dict(type='RoIAlign', output_size=3, sampling_ratio=0),
                out_channels=8,
                featmap_strides=[4, 8],
            ),
            bbox_head=dict(
                type='Shared2FCBBoxHead',
                in_channels=8,
                fc_out_channels=8,
                roi_feat_size=3,
                num_classes=3,
                bbox_coder=coder,
            ),
        )
        del model.bbox_head
    model.update(train_cfg=None, test_cfg=dict(rpn=None, rcnn=None))
    return model


KINDS = ['RetinaNet', 'FCOS', 'ATSS', 'FasterRCNN']
WRONG = [16, 64]


@pytest.mark.parametrize('kind', KINDS)
def test_parts_that_fit(kind):
    model = MODELS.build(config(kind))
    assert len(model.extract_feat(torch.rand(1, 3, 64, 64))) == 2


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize(
    ('change', 'match'),
    [
        (lambda m: m.update(neck=None), 'found no neck: SGResNet gives spikes (T, B, C, H, W)'),
        (lambda m: m.update(neck=m.neck[1]), f"found a FPN: SGResNet gives spikes (T, B, C, H, W). "
         f"Put one in front: neck=[dict(type='ASDNeck', in_channels={CHANNELS})"),
        (lambda m: m.update(neck=m.neck[::-1]), 'found a FPN'),
        (lambda m: m.neck[0].update(in_channels=WRONG),
         f'SGResNet gives {CHANNELS}, but ASDNeck was built with in_channels={WRONG}'),
        (lambda m: m.neck[1].update(in_channels=WRONG),
         f'ASDNeck gives {CHANNELS}, but FPN was built with in_channels={WRONG}'),
    ],
)  # fmt: skip
def test_parts_that_do_not_fit(kind, change, match):
    model = config(kind)
    change(model)
    with pytest.raises(ValueError, match=re.escape(match)):
        MODELS.build(model)


def without_decoder(kind='RetinaNet', **backbone):
    model = config(kind)
    model.neck = model.neck[1]
    model.backbone.update(backbone)
    return model


def built(model, cls):
    model.pop('type')
    return cls(**model)


def test_a_detector_that_decodes_for_itself_is_not_refused():
    class Decoding(RetinaNet):
        def extract_feat(self, x):
            return self.neck([level.mean(0) for level in self.backbone(x)])

    model = built(without_decoder(), Decoding)
    assert len(model.extract_feat(torch.rand(1, 3, 64, 64))) == 2


def test_a_neck_that_decodes_for_itself_is_not_refused():
    class Mean(nn.Module):
        in_channels = [1]

        def forward(self, levels):
            return [level.mean(0) for level in levels]

    model = config('RetinaNet')
    model.neck[0] = dict(type=Mean)
    assert len(MODELS.build(model).extract_feat(torch.rand(1, 3, 64, 64))) == 2


def test_an_ann_is_not_looked_at():
    model = without_decoder()
    model.backbone = dict(type='ResNet', depth=18, num_stages=2, strides=(1, 2), dilations=(1, 1),
                          out_indices=(0, 1), base_channels=16)  # fmt: skip
    model.neck.in_channels = [16, 32]
    MODELS.build(model)


def test_what_is_not_known_as_it_is_built_is_said_at_the_first_image():
    class Own(RetinaNet):
        def extract_feat(self, x):
            return self.neck(self.backbone(x))

    model = built(without_decoder(), Own)
    with pytest.raises(ValueError, match='needs a decoder right behind its backbone'):
        model.extract_feat(torch.rand(1, 3, 64, 64))

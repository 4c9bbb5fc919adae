"""Small networks in which every layer fires, and images for them."""

import torch
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope

import mmsnn.models
from mmsnn.models.layers import LIFNeuron


def images(batch=2, size=32, seed=0):
    return 2 * torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(seed))


def backbone(depth=10, **kwargs):
    torch.manual_seed(0)
    return lower_thresholds(mmsnn.models.SGResNet(depth, base_channels=8, **kwargs))


def classifier(head=(), data_preprocessor=None, **backbone):
    """With the thresholds that its config says, not lowered ones."""
    return MODELS.build(
        dict(
            type='SpikingClassifier',
            data_preprocessor=data_preprocessor,
            backbone=dict(
                type='SGResNet', depth=10, base_channels=8, **{'stem': 'cifar', **backbone}
            ),
            head={'type': 'SpikingClsHead', 'num_classes': 2, 'in_channels': 64, **dict(head)},
        )
    )


def detector_config(time_steps, decoder=None, **backbone):
    """A RetinaNet of two levels, strides 4 and 8."""
    channels = [16, 32]
    return ConfigDict(
        type='SpikingRetinaNet',
        data_preprocessor=dict(type='DetDataPreprocessor', mean=[127.0] * 3, std=[64.0] * 3),
        backbone=dict(
            type='SGResNet',
            depth=10,
            time_steps=time_steps,
            base_channels=16,
            num_stages=2,
            strides=(1, 2),
            out_indices=(0, 1),
            **backbone,
        ),
        neck=[
            decoder or dict(type='ASDNeck', in_channels=channels),
            dict(type='FPN', in_channels=channels, out_channels=8, num_outs=2),
        ],
        bbox_head=dict(
            type='RetinaHead',
            num_classes=3,
            in_channels=8,
            feat_channels=8,
            stacked_convs=1,
            anchor_generator=dict(
                type='AnchorGenerator',
                octave_base_scale=4,
                scales_per_octave=1,
                ratios=[1.0],
                strides=[4, 8],
            ),
            bbox_coder=dict(type='DeltaXYWHBBoxCoder'),
        ),
        train_cfg=dict(
            assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0),
            sampler=dict(type='PseudoSampler'),
            allowed_border=-1,
            pos_weight=-1,
        ),
        test_cfg=dict(
            nms_pre=50, score_thr=0.0, nms=dict(type='nms', iou_threshold=0.5), max_per_img=20
        ),
    )


def detector(time_steps, decoder=None, **backbone):
    init_default_scope('mmdet')
    torch.manual_seed(0)
    return MODELS.build(detector_config(time_steps, decoder, **backbone))


def detection_data():
    return demo_mm_inputs(1, image_shapes=[(3, 64, 64)], num_items=[2], num_classes=3)


def detections(model):
    with torch.no_grad():
        found = model.test_step(detection_data())[0].pred_instances
    return found.bboxes, found.scores, found.labels


def lower_thresholds(model):
    # At initialisation deep layers are nearly silent: a lower threshold lets all of them fire.
    for module in model.modules():
        if isinstance(module, LIFNeuron):
            module.v_threshold = 0.1
    return model.eval()


def is_clean(net):
    """Whether nothing of a profiler or recorder is left in it."""
    return all(
        not module._forward_hooks
        and not module._forward_pre_hooks
        and getattr(module, 'observer', None) is None
        for module in net.modules()
    )

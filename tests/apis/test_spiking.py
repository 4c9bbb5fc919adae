"""Detectors made to spike: what changes in their configs, what is refused, and that they run."""

import copy

import pytest
from mmengine.config import Config

from mmsnn.apis import CannotSpikeError, make_spiking, try_spiking
from mmsnn.apis.spiking import Level, check_maps, measure_levels, merged
from mmsnn_cli.spike import MMDET_CONFIGS


def shipped(name):
    return Config.fromfile(f'{MMDET_CONFIGS}/{name}')


def detector(backbone, neck, **model):
    parts = {} if neck is None else dict(neck=neck)
    return Config(dict(model=dict(type='RetinaNet', backbone=backbone, **parts, **model)))


RESNET = dict(type='ResNet', depth=18)
FPN = dict(type='FPN', in_channels=[64, 128, 256, 512], out_channels=16, num_outs=5)


def made(backbone=RESNET, neck=FPN, **model):
    return make_spiking(detector(backbone, neck, **model)).changes['model']


def test_fpn_that_reads_all_levels():
    changes = made()
    assert changes['backbone'] == dict(
        _delete_=True, type='SGResNet', depth=18, time_steps=4, out_indices=(0, 1, 2, 3)
    )
    assert changes['neck'] == [dict(type='ASDNeck', in_channels=[64, 128, 256, 512]), FPN]


def test_levels_that_the_neck_skips_get_no_decoder():
    changes = made(neck=dict(FPN, start_level=1, add_extra_convs='on_input'))
    assert changes['backbone']['out_indices'] == (1, 2, 3)
    assert changes['neck'][0]['in_channels'] == [128, 256, 512]
    kept = dict(FPN, in_channels=[128, 256, 512], add_extra_convs='on_input')
    assert changes['neck'][1] == kept
    changes = made(neck=dict(FPN, start_level=1, end_level=2, num_outs=2))
    assert changes['backbone']['out_indices'] == (1, 2)
    assert changes['backbone']['num_stages'] == 3
    assert changes['backbone']['strides'] == (1, 2, 2)
    assert changes['neck'][1]['in_channels'] == [128, 256]


def test_neck_of_several_parts_and_of_the_last_level_alone():
    bfp = dict(type='BFP', in_channels=16, num_levels=5, refine_level=2, refine_type='conv')
    assert made(neck=[FPN, bfp])['neck'][2] == bfp
    encoder = dict(
        type='DilatedEncoder', in_channels=512, out_channels=16, block_mid_channels=8,
        num_residual_blocks=1, block_dilations=[2],
    )  # fmt: skip
    changes = made(neck=encoder)
    assert changes['backbone']['out_indices'] == (3,)
    assert changes['neck'] == [dict(type='ASDNeck', in_channels=[512]), encoder]


def test_what_a_resnet_says_of_its_shape_is_kept():
    old = dict(
        type='ResNetV1d', depth=18, in_channels=1, base_channels=16, stem_channels=16,
        strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2), out_indices=(3,), with_cp=True,
        norm_cfg=dict(type='SyncBN'), frozen_stages=1, norm_eval=True,
    )  # fmt: skip
    mapper = dict(type='ChannelMapper', in_channels=[128], out_channels=16, num_outs=1)
    done = make_spiking(detector(old, mapper))
    assert done.changes['model']['backbone'] == dict(
        _delete_=True, type='SGResNet', depth=18, time_steps=4, out_indices=(3,), in_channels=1,
        base_channels=16, stem_channels=16, stem='deep', strides=(1, 2, 2, 1), with_cp=True,
        norm_cfg=dict(type='SyncTDBN'),
    )  # fmt: skip
    said = '\n'.join(done.notes)
    assert 'frozen_stages=1, norm_eval=True' in said
    assert 'dilations' in said


def test_other_channels_reach_neck_and_head():
    cfg = shipped('yolo/yolov3_mobilenetv2_8xb24-320-300e_coco.py')
    neck = make_spiking(cfg).changes['model']['neck']
    assert [part['in_channels'] for part in neck] == [[128, 256, 512], [512, 256, 128]]
    # No neck: the head reads the levels.
    dc5 = shipped('faster_rcnn/faster-rcnn_r50-caffe-dc5_1x_coco.py')
    changes = make_spiking(dc5, depth=18).changes['model']
    assert changes['neck'] == dict(type='ASDNeck', in_channels=[512])
    assert changes['rpn_head'] == dict(in_channels=512)
    assert changes['roi_head'] == dict(
        bbox_roi_extractor=dict(out_channels=512), bbox_head=dict(in_channels=512)
    )
    mask2former = shipped('mask2former/mask2former_r50_8xb2-lsj-50e_coco.py')
    changes = make_spiking(mask2former, depth=18).changes['model']
    assert changes['panoptic_head'] == dict(in_channels=[64, 128, 256, 512])
    assert 'panoptic_head' not in make_spiking(mask2former).changes['model']


def test_weights_of_the_ann_are_left_behind():
    cfg = detector(
        dict(RESNET, init_cfg=dict(type='Pretrained', checkpoint='torchvision://r')), FPN
    )
    cfg.load_from = 'https://somewhere/ann.pth'
    cfg.model.init_cfg = dict(type='Pretrained', checkpoint='ann.pth')
    cfg.optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.1))))
    before = copy.deepcopy(cfg)
    done = make_spiking(cfg)
    assert cfg.to_dict() == before.to_dict()
    assert done.changes['load_from'] is None
    assert done.changes['model']['init_cfg'] is None
    assert 'init_cfg' not in merged(cfg, done.changes).model.backbone
    assert any('backbone learns at 0.1 of the rate' in note for note in done.notes)
    for what in ('init_cfg', 'model.init_cfg', 'load_from'):
        note = next(note for note in done.notes if note.startswith(f'left out: {what}'))
        assert "type='ANNPretrained'" in note


def test_weights_of_another_network_do_not_fit():
    backbone = dict(type='CSPDarknet', init_cfg=dict(type='Pretrained', checkpoint='a.pth'))
    cfg = detector(backbone, dict(FPN, in_channels=[256, 512, 1024]))
    assert 'left out: init_cfg; weights of CSPDarknet do not fit an SGResNet' in (
        make_spiking(cfg).notes
    )


def test_measures_levels():
    assert measure_levels(dict(RESNET, out_indices=(0, 3))) == [Level(64, 4), Level(512, 32)]
    deformable = dict(RESNET, depth=50, dcn=dict(type='DCN'), stage_with_dcn=(False, True) * 2)
    assert measure_levels(deformable)[-1] == Level(2048, 32)


def test_a_head_that_would_see_other_maps():
    cfg = detector(RESNET, FPN)
    wrong = merged(cfg, make_spiking(cfg).changes)
    wrong.model.backbone.strides = (1, 2, 2, 1)
    with pytest.raises(CannotSpikeError, match=r'the head would see .* it saw'):
        check_maps(cfg.model, wrong.model)


REFUSED = {
    'ssd/ssd300_coco.py': 'this is SSD: its neck hands the levels of SSDVGG on',
    'ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco.py': 'this is SSD: .* of MobileNetV2',
    'faster_rcnn/faster-rcnn_r50-caffe_c4-1x_coco.py': 'C4 detector: roi_head.shared_head',
    'mask_rcnn/mask-rcnn_r50-caffe-c4_1x_coco.py': 'C4 detector: roi_head.shared_head',
    'detectors/detectors_cascade-rcnn_r50_1x_coco.py': 'RFP has a backbone of its own',
    'cornernet/cornernet_hourglass104_8xb6-210e-mstest_coco.py': r'strides \[4, 4\]',
    'bytetrack/bytetrack_yolox_x_8xb4-80e_crowdhuman-mot17halftrain_test-mot17halfval.py': (
        r'no model.backbone to replace \(model.type: ByteTrack\)'
    ),
}


@pytest.mark.parametrize('name', REFUSED)
def test_refused(name):
    with pytest.raises(CannotSpikeError, match=REFUSED[name]):
        make_spiking(shipped(name))


def test_refuses_what_spikes_and_what_does_not_fit():
    with pytest.raises(CannotSpikeError, match='it spikes already'):
        made(dict(type='SGResNet', depth=18))
    with pytest.raises(CannotSpikeError, match=r'FPN has in_channels=\[64, 128, 256\], but'):
        made(neck=dict(FPN, in_channels=[64, 128, 256]))
    with pytest.raises(CannotSpikeError, match='unknown depth 19: choose one of'):
        make_spiking(detector(RESNET, FPN), depth=19)
    with pytest.raises(CannotSpikeError, match='backbone NoNet does not run: NoNet is not in'):
        made(dict(type='NoNet'))


#: Small, and each of another kind: one dict for a neck; none; another backbone's channels.
FAST = {
    'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py': ['boxes'],
    'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py': ['boxes', 'masks'],
    'yolox/yolox_tiny_8xb8-300e_coco.py': ['boxes'],
}


@pytest.mark.parametrize('name', FAST)
def test_trains_and_predicts(name):
    cfg = shipped(name)
    trial = try_spiking(merged(cfg, make_spiking(cfg, depth=10).changes), size=64)
    assert list(trial.found) == FAST[name]
    assert trial.losses['loss'] > 0
    # Deep in a net of 64 pixels a few are silent.
    assert 0.8 * trial.parameters < trial.reached <= trial.parameters


def test_a_failing_step_says_why():
    cfg = shipped('tood/tood_r50_fpn_1x_coco.py')
    new = merged(cfg, make_spiking(cfg, depth=10).changes)
    with pytest.raises(CannotSpikeError, match=r"operator .* needs MMCV's compiled operators$"):
        try_spiking(new, size=64)

# STBP-tdBN's ResNet-34 on ImageNet. The paper reports 67.05 % with its widest, at T = 6.
_base_ = [
    '../_base_/models/sg-r18_asd_imagenet.py',
    '../_base_/datasets/imagenet.py',
    '../_base_/schedules/imagenet_100e.py',
    '../_base_/cls_runtime.py',
]
act_cfg = dict(
    type='LIFNeuron', decay=0.25, v_threshold=0.5, surrogate='rectangle', surrogate_width=1.0
)
model = dict(
    backbone=dict(
        _delete_=True,
        type='SGResNet',
        depth=34,
        time_steps=6,
        out_indices=(3,),
        block='tdbn',
        norm_cfg=dict(type='TDBN'),
        act_cfg=act_cfg,
    ),
    head=dict(decoder=dict(_delete_=True, type='RateDecoder'), loss=dict(label_smoothing=0.0)),
)

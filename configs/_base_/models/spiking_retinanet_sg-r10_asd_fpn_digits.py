# Small enough to be trained on a CPU in minutes.
_base_ = './spiking_retinanet_sg-r18_asd_fpn.py'
norm_cfg = dict(type='GN', num_groups=8, requires_grad=True)
model = dict(
    backbone=dict(
        depth=10,
        stem_channels=16,
        base_channels=32,
        num_stages=3,
        strides=(1, 2, 2),
        out_indices=(1, 2),
    ),
    neck=[
        dict(type='ASDNeck', in_channels=[64, 128]),
        dict(type='FPN', in_channels=[64, 128], out_channels=64, num_outs=2, norm_cfg=norm_cfg),
    ],
    bbox_head=dict(
        num_classes=10,
        in_channels=64,
        stacked_convs=2,
        feat_channels=64,
        norm_cfg=norm_cfg,
        anchor_generator=dict(
            octave_base_scale=2, scales_per_octave=3, ratios=[1.5], strides=[8, 16]
        ),
    ),
    test_cfg=dict(nms_pre=300, max_per_img=30),
)

_base_ = './spiking-retinanet_sg-r18_asd_fpn_1x_coco.py'
channels = [512, 1024, 2048]
model = dict(
    backbone=dict(depth=50),
    neck=[
        dict(type='ASDNeck', in_channels=channels),
        dict(
            type='FPN',
            in_channels=channels,
            out_channels=256,
            add_extra_convs='on_input',
            num_outs=5,
        ),
    ],
)

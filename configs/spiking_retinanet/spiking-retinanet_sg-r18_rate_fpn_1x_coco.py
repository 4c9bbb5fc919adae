# Decoder ablation: RateNeck in the place of ASDNeck.
_base_ = './spiking-retinanet_sg-r18_asd_fpn_1x_coco.py'
channels = [128, 256, 512]
model = dict(
    neck=[
        dict(type='RateNeck', in_channels=channels),
        dict(
            type='FPN',
            in_channels=channels,
            out_channels=256,
            add_extra_convs='on_input',
            num_outs=5,
        ),
    ]
)

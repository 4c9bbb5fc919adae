# Gate ablation: STBP-tdBN's block and neuron.
_base_ = './spiking-retinanet_sg-r18_asd_fpn_1x_coco.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='SGResNet',
        depth=18,
        time_steps=4,
        out_indices=(1, 2, 3),
        block='tdbn',
        act_cfg=dict(
            type='LIFNeuron',
            decay=0.25,
            v_threshold=0.5,
            surrogate='rectangle',
            surrogate_width=1.0,
        ),
    )
)

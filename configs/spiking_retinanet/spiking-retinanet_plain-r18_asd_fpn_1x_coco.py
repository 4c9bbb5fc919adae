# Gate ablation: no gate, currents add up in front of the neuron.
_base_ = './spiking-retinanet_sg-r18_asd_fpn_1x_coco.py'
model = dict(
    backbone=dict(
        _delete_=True, type='SGResNet', depth=18, time_steps=4, out_indices=(1, 2, 3), block='plain'
    )
)

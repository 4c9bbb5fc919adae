# Gate ablation: SEW's add of spikes, whose output is not binary.
_base_ = './spiking-retinanet_sg-r18_asd_fpn_1x_coco.py'
model = dict(backbone=dict(block='sew', gate_cfg=dict(type='SEWAddGate')))

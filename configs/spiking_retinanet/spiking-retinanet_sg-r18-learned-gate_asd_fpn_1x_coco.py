# Gate ablation: the gate signal is a spiking neuron of its own on the shortcut.
_base_ = './spiking-retinanet_sg-r18_asd_fpn_1x_coco.py'
model = dict(backbone=dict(gate_cfg=dict(type='LearnedGate')))

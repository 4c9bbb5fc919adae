_base_ = './spiking-retinanet_sg-r18_asd_fpn_1mpx.py'
model = dict(backbone=dict(depth=10))

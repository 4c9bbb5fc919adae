_base_ = './spiking-retinanet_sg-r18_asd_fpn_gen1.py'
model = dict(backbone=dict(depth=34))

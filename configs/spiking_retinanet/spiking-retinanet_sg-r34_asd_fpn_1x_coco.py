# The network of Zhang et al. 2023, table of MSCOCO results: mAP 0.296 as the paper reports it.
_base_ = './spiking-retinanet_sg-r18_asd_fpn_1x_coco.py'
model = dict(backbone=dict(depth=34))

# SG ResNet-34: the backbone of the paper's Spiking RetinaNet.
_base_ = './sg-r18_asd_imagenet.py'
model = dict(backbone=dict(depth=34))

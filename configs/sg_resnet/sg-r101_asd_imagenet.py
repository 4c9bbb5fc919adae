_base_ = './sg-r18_asd_imagenet.py'
model = dict(backbone=dict(depth=101), head=dict(in_channels=2048))

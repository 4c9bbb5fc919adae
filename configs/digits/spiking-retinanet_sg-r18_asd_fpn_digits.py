# The demo's detector at the depth of an ANN that MMDetection has: what an ANN is converted to.
_base_ = './spiking-retinanet_sg-r10_asd_fpn_digits.py'
model = dict(backbone=dict(depth=18))

# The demo: a small Spiking RetinaNet that finds handwritten digits, trained on a CPU in minutes.
_base_ = [
    '../_base_/models/spiking_retinanet_sg-r10_asd_fpn_digits.py',
    '../_base_/datasets/digits_detection.py',
    '../_base_/schedules/digits_10e.py',
    '../_base_/default_runtime.py',
]
model = dict(data_preprocessor=dict(mean=[127.5] * 3, std=[64.0] * 3, pad_size_divisor=16))
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=1, max_keep_ckpts=2))
custom_hooks = [
    dict(type='NonFiniteLossHook'),
    dict(type='SpikeStatsHook', interval=50, num_images=2),
]

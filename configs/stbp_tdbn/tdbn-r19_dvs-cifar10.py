# STBP-tdBN's ResNet-19 on DVS-CIFAR10: 10 frames of 48x48. The paper reports 67.8 %.
_base_ = [
    '../_base_/models/tdbn-r19_cifar.py',
    '../_base_/datasets/dvs_cifar10.py',
    '../_base_/schedules/dvs_100e.py',
    '../_base_/cls_runtime.py',
]
model = dict(
    data_preprocessor=dict(mean=None, std=None, bgr_to_rgb=False),
    backbone=dict(in_channels=2, time_steps=10),
)

load = dict(
    type='LoadEventFrames',
    time_steps=10,
    split_by='count',
    cache_dir='{{$MMSNN_EVENT_CACHE:data/event-cache}}',
)
resize = dict(type='ResizeEventFrames', size=48)
pack = dict(type='PackEventInputs')
train_dataloader = dict(dataset=dict(pipeline=[load, resize, dict(type='NDA'), pack]))
val_dataloader = dict(dataset=dict(pipeline=[load, resize, pack]))
test_dataloader = val_dataloader

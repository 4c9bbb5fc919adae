# MMSNN_DVSCIFAR10_ROOT=/path points every DVS-CIFAR10 config here at your copy, with the ten class
# folders of AEDAT files in it. Frames are cached in MMSNN_EVENT_CACHE once they have been counted.
dataset_type = 'DVSCIFAR10'
data_root = '{{$MMSNN_DVSCIFAR10_ROOT:data/dvs-cifar10}}/'
cache_dir = '{{$MMSNN_EVENT_CACHE:data/event-cache}}'
# T of the data; model.backbone.time_steps must be the same.
time_steps = 4

load = dict(type='LoadEventFrames', time_steps=time_steps, split_by='count', cache_dir=cache_dir)
train_pipeline = [
    load,
    dict(type='ResizeEventFrames', size=48),
    dict(type='NDA'),
    dict(type='PackEventInputs'),
]
test_pipeline = [load, dict(type='ResizeEventFrames', size=48), dict(type='PackEventInputs')]
train_dataloader = dict(
    batch_size=32,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type=dataset_type, data_root=data_root, split='train', pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=32,
    num_workers=4,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        split='test',
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type='ClsMetric', topk=(1, 5))
test_evaluator = dict(type='ClsMetric', topk=(1, 5), classwise=True, confusion_matrix=True)

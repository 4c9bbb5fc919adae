# Moving digits before a simulated event camera, made by `mmsnn digits-events`.
dataset_type = 'PropheseeDetection'
data_root = '{{$MMSNN_DIGITS_EVENTS_ROOT:data/digits-events}}/'
# T of the data; model.backbone.time_steps must be the same.
time_steps = 2

# 50 ms in two steps, each of two bins for either polarity, so four channels.
load = dict(
    type='LoadEventWindow',
    length=50_000,
    time_steps=time_steps,
    representation=dict(type='stacked_histogram', bins=2),
)
train_pipeline = [
    load,
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackEventDetInputs'),
]
test_pipeline = [load, dict(type='PackEventDetInputs')]
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img='train/'),
        generation='digits',
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img='val/'),
        generation='digits',
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type='PropheseeMetric', generation='digits')
test_evaluator = val_evaluator

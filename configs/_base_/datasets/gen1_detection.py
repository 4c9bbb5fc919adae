# MMSNN_GEN1_ROOT=/path points every Gen1 config here at your copy, with the folders train, val and
# test of NAME_td.dat (or NAME_td.dat.h5) and NAME_bbox.npy in it.
dataset_type = 'PropheseeDetection'
data_root = '{{$MMSNN_GEN1_ROOT:data/gen1}}/'
# T of the data; model.backbone.time_steps must be the same.
time_steps = 5

# SFOD's windows: 100 ms in five steps, each of two bins for either polarity, so four channels.
load = dict(
    type='LoadEventWindow',
    length=100_000,
    time_steps=time_steps,
    representation=dict(type='stacked_histogram', bins=2),
)
train_pipeline = [
    load,
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='EventRandomFlip', prob=0.5),
    dict(type='PackEventDetInputs'),
]
test_pipeline = [load, dict(type='PackEventDetInputs')]
train_dataloader = dict(
    batch_size=8,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img='train/'),
        generation='gen1',
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=4,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img='val/'),
        generation='gen1',
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = dict(
    batch_size=8,
    num_workers=4,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img='test/'),
        generation='gen1',
        test_mode=True,
        pipeline=test_pipeline,
    ),
)

val_evaluator = dict(type='PropheseeMetric', generation='gen1', protocols=['prophesee'])
test_evaluator = dict(
    type='PropheseeMetric',
    generation='gen1',
    protocols=['prophesee', 'rvt', 'sfod', 'spikeyolo'],
    classwise=True,
)

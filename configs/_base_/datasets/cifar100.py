# MMSNN_CIFAR100_ROOT=/path points every CIFAR-100 config here at your copy of the official Python
# batches. Items are decoded already: the pipelines need no transform that loads.
dataset_type = 'CIFAR100'
data_root = '{{$MMSNN_CIFAR100_ROOT:data/cifar-100-python}}/'

train_pipeline = [
    dict(type='RandomPadCrop', size=32, padding=4),
    dict(type='RandomFlip', prob=0.5),
    dict(type='CutOut', n_holes=1, cutout_shape=(8, 8)),
    dict(type='PackClsInputs'),
]
# No change for CIFAR's own images, and what makes any other picture fit (tools/image_demo.py).
test_pipeline = [
    dict(type='Resize', scale=(32, 32), keep_ratio=False),
    dict(type='PackClsInputs'),
]
train_dataloader = dict(
    batch_size=128,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        split='train',
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=100,
    num_workers=2,
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

# Handwritten digits of 16x16 pixels, made by tools/dataset_converters/digits_to_folder.py.
dataset_type = 'ImageFolder'
data_root = '{{$MMSNN_DIGITS_CLS_ROOT:data/digits-cls}}/'
metainfo = dict(classes=tuple('0123456789'))

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomPadCrop', size=16, padding=2),
    dict(type='PackClsInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(16, 16), keep_ratio=False),
    dict(type='PackClsInputs'),
]
train_dataloader = dict(
    batch_size=64,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        metainfo=metainfo,
        data_prefix=dict(img='train/'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=128,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        metainfo=metainfo,
        data_prefix=dict(img='test/'),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type='ClsMetric', topk=(1,))
test_evaluator = dict(type='ClsMetric', topk=(1,), classwise=True, confusion_matrix=True)

# SG ResNet-18 for 32x32 images: 3x3 stem, no pooling, and one ASD in front of the linear layer.
model = dict(
    type='SpikingClassifier',
    data_preprocessor=dict(
        type='ClsDataPreprocessor',
        mean=[125.307, 122.961, 113.8575],
        std=[51.5865, 50.847, 51.255],
        bgr_to_rgb=True,
    ),
    backbone=dict(
        type='SGResNet',
        depth=18,
        time_steps=4,
        stem='cifar',
        out_indices=(3,),
        block='sg',
        gate_cfg=dict(type='ResidualGate'),
        norm_cfg=dict(type='TDBN'),
        act_cfg=dict(type='LIFNeuron', decay=0.5, v_threshold=1.0),
    ),
    head=dict(
        type='SpikingClsHead',
        num_classes=10,
        in_channels=512,
        decoder=dict(type='AttentionSpikeDecoder'),
        loss=dict(type='ClsLoss', label_smoothing=0.1),
    ),
)

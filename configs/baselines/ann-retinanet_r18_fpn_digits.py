# The ANN twin of the digits detector: MMDetection's RetinaNet of the same widths and depth.
_base_ = '../digits/spiking-retinanet_sg-r18_asd_fpn_digits.py'
model = dict(
    type='RetinaNet',
    backbone=dict(
        _delete_=True,
        type='ResNet',
        depth=18,
        stem_channels=16,
        base_channels=32,
        num_stages=3,
        strides=(1, 2, 2),
        dilations=(1, 1, 1),
        out_indices=(1, 2),
        norm_eval=False,
        zero_init_residual=False,
    ),
    neck=dict(_delete_=True, **_base_.model.neck[1]),  # the FPN, without the decoder
)
custom_hooks = [dict(type='NonFiniteLossHook')]

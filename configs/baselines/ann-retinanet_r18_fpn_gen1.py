# The ANN twin of Spiking RetinaNet on Gen1: MMDetection's RetinaNet, to which the time steps of the
# frames are channels.
_base_ = '../spiking_retinanet/spiking-retinanet_sg-r18_asd_fpn_gen1.py'
model = dict(
    type='RetinaNet',
    backbone=dict(
        _delete_=True,
        type='ResNet',
        depth=18,
        in_channels=20,
        out_indices=(1, 2, 3),
        norm_eval=False,
        zero_init_residual=False,
    ),
    neck=dict(_delete_=True, **_base_.model.neck[1]),  # the FPN, without the decoder
)
custom_hooks = [dict(type='NonFiniteLossHook')]

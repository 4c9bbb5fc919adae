# Spiking RetinaNet on Prophesee's 1Mpx, in full resolution. Ours: no paper gives a recipe for it.
_base_ = [
    '../_base_/models/spiking_retinanet_sg-r18_asd_fpn.py',
    '../_base_/datasets/1mpx_detection.py',
    '../_base_/schedules/schedule_1x.py',
    '../_base_/default_runtime.py',
]
model = dict(
    data_preprocessor=dict(_delete_=True, type='EventDetDataPreprocessor', pad_size_divisor=32),
    backbone=dict(in_channels=4, time_steps=5),
    bbox_head=dict(num_classes=3),
)
optim_wrapper = dict(optimizer=dict(lr=0.01), clip_grad=dict(max_norm=35, norm_type=2))
# One process of 8 windows.
auto_scale_lr = dict(enable=False, base_batch_size=8)

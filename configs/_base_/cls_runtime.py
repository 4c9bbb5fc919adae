_base_ = './default_runtime.py'
default_hooks = dict(
    checkpoint=dict(save_best='accuracy/top1', max_keep_ckpts=2),
    visualization=dict(_delete_=True, type='ClsVisualizationHook'),
)
visualizer = dict(type='ClsVisualizer')

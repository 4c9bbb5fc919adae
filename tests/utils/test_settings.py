"""What a config says wrong is said before the data are looked at."""

from pathlib import Path

import mmdet
import pytest
import torch
from mmdet.datasets import CocoDataset
from mmengine.config import Config, ConfigDict

from mmsnn.datasets import ImageFolder
from mmsnn.utils import ToolError, check_settings
from mmsnn.utils.settings import accepted_arguments


def config(**settings):
    """Good settings of a training, with others in their place."""
    loader = dict(
        batch_size=2,
        num_workers=0,
        dataset=dict(
            type='CocoDataset',
            ann_file='train.json',
            data_prefix=dict(img='train/'),
            pipeline=[
                dict(type='LoadImageFromFile'),
                dict(type='Resize', scale=(32, 32)),
                dict(type='PackDetInputs'),
            ],
        ),
    )
    cfg = Config(
        dict(
            train_dataloader=loader,
            train_cfg=dict(type='EpochBasedTrainLoop', max_epochs=2, val_interval=1),
            optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1)),
            param_scheduler=[dict(type='MultiStepLR', milestones=[1])],
            model=dict(
                type='RetinaNet',
                backbone=dict(type='SGResNet', depth=10),
                bbox_head=dict(type='RetinaHead', num_classes=2, in_channels=8, stacked_convs=2),
            ),
            default_hooks=dict(
                checkpoint=dict(type='CheckpointHook', interval=1, priority='LOW'),
                logger=dict(type='LoggerHook'),
                timer=None,
            ),
            val_evaluator=dict(type='CocoMetric'),
        )
    )
    cfg.merge_from_dict(settings)
    return cfg


def test_good_settings_pass():
    check_settings(config(), ('train', 'val'))
    check_settings(Config({}), ('train', 'val', 'test'))


DATASET = 'train_dataloader.dataset'


@pytest.mark.parametrize(
    ('key', 'value', 'said'),
    [
        ('train_dataloader.batch_size', 0, 'batch_size is 0: set a whole number of at least 1'),
        ('train_dataloader.batch_size', 2.0, 'batch_size is 2.0'),
        ('train_dataloader.num_workers', -1, 'num_workers is -1'),
        ('train_cfg.max_epochs', 0, 'train_cfg.max_epochs is 0'),
        ('train_cfg.val_interval', 0, 'train_cfg.val_interval is 0'),
        ('train_cfg.max_iters', -5, 'train_cfg.max_iters is -5'),
        ('optim_wrapper.optimizer', dict(typ='SGD'), "no type, only 'typ'"),
        ('optim_wrapper.optimizer.typ', 'SGD', "unexpected keyword argument 'typ'"),
        ('optim_wrapper.optimizer.type', 'SDG', "SDG is not in .*did you mean 'SGD'"),
        ('optim_wrapper.optimizer.momentun', 0.9, "'momentun'.*did you mean 'momentum'"),
        ('optim_wrapper.clip_gard', 1, "did you mean 'clip_grad'"),
        ('optim_wrapper.optimizer.lr', -1.0, 'learning rate'),
        ('param_scheduler.0.type', 'MultiStpLR', "param_scheduler.0.*did you mean 'MultiStepLR'"),
        ('param_scheduler.0.gama', 0.1, "'gama'.*MultiStepLR takes .*milestones, gamma"),
        ('default_hooks.checkpoint.intervall', 2, "checkpoint: .*'intervall'.*mean 'interval'"),
        ('default_hooks.logger.ignore_lst', True, 'LoggerHook takes interval, '),
        ('model.backbone.dept', 10, "model.backbone: SGResNet.*mean 'depth'.*takes depth"),
        ('model.bbox_head.stacked_conv', 1, "model.bbox_head: .*mean 'stacked_convs'"),
        ('model.bbox_heads', 1, "model: RetinaNet.*mean 'bbox_head'"),
        ('val_evaluator.metrik', 'bbox', "val_evaluator: CocoMetric.*mean 'metric'"),
        (f'{DATASET}.pipeline.1.type', 'Resiz', "dataset.pipeline.1: Resiz .*mean 'Resize'"),
        (f'{DATASET}.pipeline.1.scal', 3, "dataset.pipeline.1: .*'scal'.*mean 'scale'"),
        (f'{DATASET}.ann_file', ['a.json', 'b.json'], 'ConcatDataset'),
        (f'{DATASET}.ann_file', 3, 'ann_file must be the path of one file, got 3'),
        (
            f'{DATASET}.data_prefix',
            'train/',
            "dict of folders, as dict.img='train/'., got 'train/'",
        ),
        (f'{DATASET}.data_prefix', dict(img=['a', 'b']), 'dict of folders'),
    ],
)
def test_bad_settings(key, value, said):
    cfg = config()
    if isinstance(value, dict):  # in the place of what is there
        cfg.merge_from_dict({key: {**value, '_delete_': True}})
    else:
        cfg.merge_from_dict({key: value})
    with pytest.raises(ToolError, match=said) as raised:
        check_settings(cfg, ('train', 'val'))
    assert str(raised.value).startswith(key.split('.')[0])
    assert '\n' not in str(raised.value)


def test_wrappers_are_opened():
    dataset = dict(
        type='ConcatDataset', datasets=[config().train_dataloader.dataset for _ in range(2)]
    )
    wrapped = dict(
        type='MultiImageMixDataset', dataset=dataset, pipeline=[dict(type='Mosai', prob=1.0)]
    )
    cfg = config(**{DATASET: ConfigDict(_delete_=True, **wrapped)})
    with pytest.raises(ToolError, match=r"train_dataloader.dataset.pipeline.0: .*mean 'Mosaic'"):
        check_settings(cfg, ('train',))
    cfg.train_dataloader.dataset.pipeline = []
    cfg.train_dataloader.dataset.dataset.datasets[1].pipeline[0].type = 'NoSuch'
    with pytest.raises(ToolError, match=r'dataset.dataset.datasets.1.pipeline.0: NoSuch'):
        check_settings(cfg, ('train',))


class TakesLists(CocoDataset):
    """A data set of a user's that takes other forms of the paths."""

    def __init__(self, ann_file, **kwargs):
        super().__init__(ann_file=ann_file[0], **kwargs)


@pytest.mark.parametrize(
    ('kind', 'key', 'value'),
    [(TakesLists, 'ann_file', ['a.json']), (ImageFolder, 'data_prefix', 'train/')],
)
def test_data_sets_of_other_forms_pass(kind, key, value):
    cfg = config()
    cfg.train_dataloader.dataset.type = kind
    cfg.train_dataloader.dataset[key] = value
    check_settings(cfg, ('train',))


class Parent:
    def __init__(self, one, two=2):
        pass


class HandsOn(Parent):
    def __init__(self, three=3, **kwargs):
        super().__init__(**kwargs)


class Keeps(Parent):
    def __init__(self, three=3, **kwargs):
        self.kwargs = kwargs
        super().__init__(one=1)


class Skips(HandsOn):
    def __init__(self, **kwargs):
        super(HandsOn, self).__init__(**kwargs)


class Plain:
    pass


@pytest.mark.parametrize(
    ('cls', 'names'),
    [
        (Parent, ['one', 'two']),
        (HandsOn, ['three', 'one', 'two']),
        (Keeps, None),
        (Skips, None),
        (Plain, None),
        (torch.nn.Identity, None),
    ],
)
def test_accepted_arguments(cls, names):
    """What isn't known for sure is not refused."""
    assert accepted_arguments(cls) == names


@pytest.mark.slow
def test_configs_of_mmdetection_pass():
    """None of their parts has an argument that its class doesn't take, but for two mistakes."""
    folder = Path(mmdet.__file__).parent / '.mim/configs'
    refused, seen = set(), 0
    for path in sorted(folder.glob('[!_]*/*.py')):
        try:
            cfg = Config.fromfile(path)
        except Exception:  # of packages that are not installed
            continue
        seen += 1
        parts = {name: cfg[name] for name in ('model', 'default_hooks') if name in cfg}
        parts.update({k: cfg[k] for k in ('custom_hooks', 'val_evaluator') if k in cfg})
        try:
            check_settings(Config(parts), ('val',))
        except ToolError as error:
            refused.add((path.stem, str(error).partition('. ')[0]))
    assert seen > 500
    unexpected = '.__init__() got an unexpected keyword argument'
    assert {(name, said) for name, said in refused if unexpected in said} == {
        (
            'faster-rcnn_r50_fpn_1x_voc0712-cocofmt',
            f"val_evaluator: CocoMetric{unexpected} 'eval_mode'",
        ),
        (
            'fcos_swinb_fpn_8x4_sample1e-3_mstrain_v3det_2x',
            f"model.neck: FPN{unexpected} 'force_grad_on_level'",
        ),
    }

"""What a config says wrong is said before the data are looked at."""

import pytest
from mmdet.datasets import CocoDataset
from mmengine.config import Config, ConfigDict

from mmsnn.datasets import ImageFolder
from mmsnn.utils import ToolError, check_settings


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

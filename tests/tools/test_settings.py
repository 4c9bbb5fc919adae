"""What configs and options ask for, through the tools themselves."""

import json
import shutil

import cv2
import pytest
import torch
from digits_detector import DIGITS, NARROW
from in_process import run_in_process
from mmdet.datasets import CocoDataset
from mmengine.config import Config

SHORT = [*NARROW, 'train_cfg.max_epochs=1']


@pytest.fixture
def run(monkeypatch, digits_root, tmp_path):
    """Run a tool in this process on the digits; give back its work dir."""

    def start(script, *args, options=(), config=DIGITS, iterations=False):
        work_dir = tmp_path / 'run'
        narrow = [option for option in SHORT if not (iterations and 'train_cfg' in option)]
        run_in_process(
            monkeypatch, script, config, *args, '--work-dir', work_dir, *narrow, *options,
            MMSNN_DIGITS_ROOT=digits_root,
        )  # fmt: skip
        return work_dir

    return start


@pytest.fixture
def refused(run):
    """The line in which a tool ends."""

    def start(*args, **kwargs):
        with pytest.raises(SystemExit) as ended:
            run(*args, **kwargs)
        return str(ended.value)

    return start


@pytest.mark.parametrize(
    ('script', 'args', 'options', 'said'),
    [
        ('train.py', [], ['train_dataloader.batch_size=0'], 'train_dataloader.batch_size is 0'),
        ('train.py', [], ['optim_wrapper.optimizer.typ=SGD'], "argument 'typ'"),
        ('train.py', [], ['model.backbone.dept=10'], 'model.backbone: SGResNet.__init__() got an'),
        ('train.py', [], ['model.bbox_head.anchor_generato.type=A'], "mean 'anchor_generator'"),
        ('train.py', [], ['param_scheduler.0.star_factor=1'], 'param_scheduler.0: '),
        ('train.py', [], ['default_hooks.checkpoint.intervall=2'], 'takes interval, '),
        ('train.py', [], ['val_evaluator.metrik=bbox'], 'val_evaluator: CocoMetric.__init__() got'),
        ('train.py', [], ['train_dataloader.sampler.type=DefaultSample'], "mean 'DefaultSampler'"),
        ('train.py', [], ['train_dataloader.batch_siz=2'], 'batch_siz'),
        ('train.py', [], ['val_evaluator.type=CocoMetri'], "mean 'CocoMetric'"),
        ('test.py', ['no.pth', '--time-steps', 0], [], '--time-steps must be at least 1, got 0'),
        ('test.py', ['no.pth'], ['test_dataloader.dataset.pipeline.1.scal=2'], "mean 'scale'"),
    ],
)
def test_said_in_one_line(refused, script, args, options, said):
    message = refused(script, *args, options=options).strip()
    assert message.startswith('error: ')
    assert said in message
    assert message.removesuffix('\n(MMSNN_TRACEBACK=1 shows where)').count('\n') == 0


def test_resume_in_the_config(trained, run, tmp_path, capfd):
    work_dir = tmp_path / 'run'
    work_dir.mkdir()
    shutil.copy(trained.work_dir / 'epoch_1.pth', work_dir)
    (work_dir / 'last_checkpoint').write_text(str(work_dir / 'epoch_1.pth'))
    run('train.py', options=['resume=True', 'train_cfg.max_epochs=2'])
    out = capfd.readouterr().out
    assert 'Epoch(train) [2]' in out
    assert 'Epoch(train) [1]' not in out
    # Testing with that config resumes nothing, whatever the training was.
    run('test.py', work_dir / 'epoch_2.pth', options=['resume=True'])
    assert 'coco/bbox_mAP: ' in capfd.readouterr().out


def test_tta_of_several_data_sets(trained, run, digits_root, request, tmp_path, capfd):
    cfg = Config.fromfile(request.config.rootpath / DIGITS)
    parts = [cfg.test_dataloader.dataset.to_dict() for _ in range(2)]
    for i, part in enumerate(parts):
        part.update(data_root=str(digits_root), indices=2 + i)
    cfg.test_dataloader.dataset = dict(type='ConcatDataset', datasets=parts)
    cfg.test_evaluator = dict(type='VOCMetric', metric='mAP')
    cfg.dump(tmp_path / 'concat.py')
    config = tmp_path / 'concat.py'
    run('test.py', trained.checkpoint, '--tta', config=config)
    assert 'Epoch(test) [1/1]' in capfd.readouterr().out


class TestAnyMetric:
    """Anytime and report take the main number of whatever metric the config has."""

    @pytest.fixture
    def config(self, digits_root, request, tmp_path):
        """Digits as VOC data."""
        root = tmp_path / 'voc' / 'VOC2007'
        (root / 'JPEGImages').mkdir(parents=True)
        cfg = Config.fromfile(request.config.rootpath / DIGITS)
        own = dict(cfg.test_dataloader.dataset, data_root=str(digits_root), pipeline=[])
        own.pop('type')
        data = CocoDataset(**own)
        (root / 'Annotations').mkdir()
        names = []
        for i in range(len(data)):
            info = data.get_data_info(i)
            path = info['img_path']
            name = path.rpartition('/')[2].rpartition('.')[0]
            names.append(name)
            cv2.imwrite(str(root / 'JPEGImages' / f'{name}.jpg'), cv2.imread(path))
            objects = ''.join(
                f'<object><name>{label}</name><difficult>0</difficult><bndbox>'
                + ''.join(
                    f'<{key}>{value + 1:.0f}</{key}>'
                    for key, value in zip(('xmin', 'ymin', 'xmax', 'ymax'), box)
                )
                + '</bndbox></object>'
                for box, label in ((x['bbox'], x['bbox_label']) for x in info['instances'])
            )
            size = f'<size><width>{info["width"]}</width><height>{info["height"]}</height></size>'
            text = f'<annotation>{size}{objects}</annotation>'
            (root / 'Annotations' / f'{name}.xml').write_text(text)
        (root / 'test.txt').write_text('\n'.join(names))
        cfg.test_dataloader.dataset = dict(
            type='VOCDataset',
            data_root=str(tmp_path / 'voc'),
            ann_file='VOC2007/test.txt',
            data_prefix=dict(sub_data_root='VOC2007/'),
            metainfo=dict(classes=tuple('0123456789')),
            test_mode=True,
            pipeline=cfg.test_dataloader.dataset.pipeline,
        )
        cfg.test_evaluator = dict(type='VOCMetric', metric='mAP', iou_thrs=[0.5, 0.75])
        cfg.dump(tmp_path / 'voc.py')
        return tmp_path / 'voc.py'

    def test_voc(self, trained, run, config, tmp_path):
        out = tmp_path / 'anytime.json'
        arguments = (trained.checkpoint, '--time-steps', 1, '--out', out)
        run('analysis_tools/anytime.py', *arguments, config=config)
        (row,) = json.loads(out.read_text())['results']
        assert {'mAP', 'AP50', 'AP75'} <= row.keys()
        assert row['mAP'] == pytest.approx((row['AP50'] + row['AP75']) / 2, abs=1e-3)
        page = tmp_path / 'report.html'
        arguments = (trained.checkpoint, '--time-steps', 1, '--images', 1, '--out', page)
        run('analysis_tools/spike_report.py', *arguments, config=config)
        numbers = json.loads((tmp_path / 'report.json').read_text())
        assert numbers['scores'] == {'mAP': 'mAP'}
        assert numbers['metrics']['mAP'] == pytest.approx(row['mAP'], abs=0.02)

    def test_proposals(self, trained, run, tmp_path):
        out = tmp_path / 'anytime.json'
        arguments = (trained.checkpoint, '--time-steps', 1, '--out', out)
        run('analysis_tools/anytime.py', *arguments, options=['test_evaluator.metric=proposal'])
        (row,) = json.loads(out.read_text())['results']
        assert 'AR@100' in row


def test_a_picture_broken_in_the_middle(trained, refused, digits_root, monkeypatch, tmp_path):
    root = shutil.copytree(digits_root, tmp_path / 'set')
    picture = sorted((root / 'val').iterdir())[2]
    content = picture.read_bytes()
    middle = len(content) // 2  # head and end are whole: the data check looks at no more
    picture.write_bytes(content[:100] + bytes(middle) + content[100 + middle :])
    options = [
        f'test_dataloader.dataset.data_root={root}',
        f'test_evaluator.ann_file={root}/annotations/instances_val.json',
        'test_dataloader.num_workers=1',
    ]
    message = refused('test.py', trained.checkpoint, options=options)
    assert str(picture) in message
    assert 'cannot be decoded' in message


@pytest.fixture
def config_with(request, tmp_path):
    """Path of a config of the digits with other settings."""

    def write(text):
        path = tmp_path / 'config.py'
        path.write_text(f"_base_ = '{request.config.rootpath / DIGITS}'\n{text}\n")
        return path

    return write


def test_hooks_of_epochs(run, config_with, capfd):
    """EMA, another pipeline midway, and an early stop."""
    config = config_with(
        """custom_hooks = [
    dict(type='EMAHook', momentum=0.5),
    dict(type='EarlyStoppingHook', monitor='coco/bbox_mAP', patience=1, min_delta=1.1),
    dict(
        type='PipelineSwitchHook',
        switch_epoch=1,
        switch_pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(type='Resize', scale=(64, 64)),
            dict(type='PackDetInputs'),
        ],
    ),
]
train_dataloader = dict(batch_size=4, dataset=dict(indices=8))"""
    )
    work_dir = run('train.py', config=config, options=['train_cfg.max_epochs=5'])
    out = capfd.readouterr().out
    assert out.count('Switch pipeline now!') == 1
    assert 'the monitored metric did not improve' in out
    state = torch.load(work_dir / 'epoch_2.pth', weights_only=False)
    assert not (work_dir / 'epoch_3.pth').exists(), 'no score grows by 1.1'
    average, last = state['state_dict'], state['ema_state_dict']
    assert last['steps'] == 4
    key = 'backbone.stem.0.conv.weight'
    assert not torch.equal(average[key], last[f'module.{key}'])


def test_mosaic_and_mixup(run, request, digits_root, monkeypatch, tmp_path, capfd):
    """Nested wrappers, whose transforms ask for more images."""
    monkeypatch.setenv('MMSNN_DIGITS_ROOT', str(digits_root))
    cfg = Config.fromfile(request.config.rootpath / DIGITS)
    inner = cfg.train_dataloader.dataset.to_dict()
    load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True)]
    inner.update(indices=8, pipeline=load)
    size = (64, 64)
    mixed = dict(
        type='MultiImageMixDataset',
        dataset=dict(type='RepeatDataset', times=2, dataset=inner),
        pipeline=[
            dict(type='Mosaic', img_scale=size),
            dict(type='RandomAffine', border=(-32, -32)),
            dict(type='MixUp', img_scale=size),
            dict(type='Resize', scale=size),
            dict(type='PackDetInputs'),
        ],
    )
    cfg.train_dataloader.dataset = mixed
    cfg.dump(tmp_path / 'mixed.py')
    options = ['train_dataloader.batch_size=8']
    work_dir = run('train.py', config=tmp_path / 'mixed.py', options=options)
    assert 'coco/bbox_mAP: ' in capfd.readouterr().out
    state = torch.load(work_dir / 'epoch_1.pth', weights_only=False)
    assert state['message_hub']['runtime_info']['iter'] == 1, 'the last of two'


def test_iterations_with_accumulation(run, config_with, capfd):
    config = config_with(
        """custom_hooks = []
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=4, val_interval=2)
param_scheduler = dict(_delete_=True, type='ConstantLR', by_epoch=False)
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=4))
log_processor = dict(by_epoch=False)
train_dataloader = dict(batch_size=2, sampler=dict(type='InfiniteSampler'))
optim_wrapper = dict(accumulative_counts=2)"""
    )
    work_dir = run('train.py', config=config, iterations=True)
    assert capfd.readouterr().out.count('coco/bbox_mAP: ') == 2
    state = torch.load(work_dir / 'iter_4.pth', weights_only=False)
    assert state['optimizer']['state'][0]['step'] == 2, 'one for two iterations'


@pytest.mark.parametrize(
    ('script', 'args'),
    [
        ('train.py', []),
        ('misc/print_config.py', []),
        ('analysis_tools/browse_dataset.py', []),
        ('analysis_tools/draw_predictions.py', ['predictions.pkl', 'pictures']),
        ('analysis_tools/get_flops.py', []),
    ],
)
def test_a_config_that_fails_in_any_tool(monkeypatch, tmp_path, script, args):
    config = tmp_path / 'broken.py'
    config.write_text('a = 1\nb = no_such\n')
    with pytest.raises(SystemExit) as ended:
        run_in_process(monkeypatch, script, config, *args)
    message = str(ended.value).strip()
    assert message.startswith('error: ')
    assert "broken.py, line 2: NameError: name 'no_such' is not defined" in message
    assert '\n' not in message


@pytest.mark.parametrize('tool_name', ['image_demo.py', 'test.py'])
def test_a_folder_for_a_config(monkeypatch, tmp_path, tool_name):
    args = [tmp_path, tmp_path, 'x.pth'] if tool_name == 'image_demo.py' else [tmp_path, 'x.pth']
    with pytest.raises(SystemExit, match='is a folder: give the path of a file'):
        run_in_process(monkeypatch, tool_name, *args)

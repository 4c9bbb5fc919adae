"""Recordings with boxes become samples, windows and a trained detector; bad ones are named."""

import numpy as np
import pytest
import torch
from event_files import write_dat, write_evt3, write_hdf5
from mmdet.registry import DATASETS, METRICS
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmengine.structures import InstanceData

from mmsnn.datasets import DatasetError, PropheseeDetection, check_config_datasets
from mmsnn.datasets.events import make_boxes, open_recording
from mmsnn.datasets.transforms import (
    EventRandomFlip,
    EventRandomRoll,
    LoadEventWindow,
    PackEventDetInputs,
    ResizeEventFrames,
)

CONFIG = 'configs/spiking_retinanet/spiking-retinanet_sg-r18_asd_fpn_gen1.py'
GEN1 = b'% Width 304\n% Height 240\n'


def boxes_of(*rows):
    """Rows of t, x, y, w, h, class and track."""
    boxes = make_boxes(len(rows))
    for i, row in enumerate(rows):
        for name, value in zip(('t', 'x', 'y', 'w', 'h', 'class_id', 'track_id'), row):
            boxes[name][i] = value
    return boxes


ROWS = [
    (600_000, 20, 30, 60, 50, 0, 7),
    (600_000, 280, 200, 60, 60, 1, 8),  # reaches out of the sensor
    (850_000, 30, 30, 60, 50, 0, 7),
    (1_100_000, 40, 30, 60, 50, 0, 7),
]


def events(number=1500, end=1_200_000, size=(304, 240), seed=0):
    rng = np.random.default_rng(seed)
    t = np.sort(rng.integers(0, end, number))
    columns = rng.integers(0, size[0], number), rng.integers(0, size[1], number)
    return np.stack([*columns, t, rng.integers(0, 2, number)], 1).tolist()


def write(folder, name='a', rows=ROWS, header=GEN1, end=1_200_000):
    folder.mkdir(parents=True, exist_ok=True)
    write_dat(folder / f'{name}_td.dat', events(end=end), header=header)
    np.save(folder / f'{name}_bbox.npy', boxes_of(*rows))


@pytest.fixture
def root(tmp_path):
    """Recordings a and b in each of the folders train, val and test."""
    for split in ('train', 'val', 'test'):
        for name in 'ab':
            write(tmp_path / split, name)
    return tmp_path


@pytest.fixture
def mmdet_scope():
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


def of(folder, **kwargs):
    return PropheseeDetection(data_root=str(folder), **kwargs)


# --- samples -------------------------------------------------------------------------------------


def test_a_sample_for_each_time_with_a_box(root):
    dataset = of(root, data_prefix=dict(img='train/'))
    assert dataset.metainfo['classes'] == ('car', 'pedestrian')
    infos = [dataset.get_data_info(i) for i in range(len(dataset))]
    times = [600_000, 850_000, 1_100_000]
    assert [info['t'] for info in infos] == times * 2
    assert infos[0]['recording'] == infos[0]['img_path'] == str(root / 'train' / 'a_td.dat')
    assert infos[0]['img_id'] == 'a_td.dat@600000'
    # For training boxes end at the sensor; the metric has them as they are, with their tracks.
    assert [one['bbox'] for one in infos[0]['instances']] == [
        [20, 30, 80, 80],
        [280, 200, 304, 240],
    ]
    assert [one['bbox_label'] for one in infos[0]['instances']] == [0, 1]
    assert infos[0]['boxes']['w'].tolist() == [60, 60]
    assert infos[0]['boxes']['track_id'].tolist() == [7, 8]
    dataset.check_files()


def test_stride_and_classes(root):
    def times(**kwargs):
        dataset = of(root / 'val', **kwargs)
        return [dataset.get_data_info(i)['t'] for i in range(len(dataset))]

    assert times(stride=250_000) == [600_000, 850_000, 1_100_000] * 2
    assert times(stride=250_001) == [600_000, 1_100_000] * 2
    assert times(metainfo=dict(classes=('pedestrian',))) == [600_000] * 2
    dataset = of(root / 'val', metainfo=dict(classes=('pedestrian', 'car')))
    assert dataset.get_data_info(0)['boxes']['class_id'].tolist() == [1, 0]
    rows = [(600_000 + k, 10, 10, 90, 90, k, 0) for k in range(7)]
    write(root / 'mpx', rows=rows, header=b'% Width 1280\n% Height 720\n')
    dataset = of(root / 'mpx', generation='1mpx')
    assert [dataset.get_data_info(i)['boxes']['class_id'][0] for i in range(3)] == [0, 1, 2]
    assert len(dataset) == 3
    names = PropheseeDetection(
        data_root=str(root / 'mpx'),
        generation='1mpx',
        metainfo=dict(classes=('bus', 'car')),
    )
    assert [names.get_data_info(i)['boxes']['class_id'].tolist() for i in range(2)] == [[1], [0]]
    with pytest.raises(DatasetError, match="the class 'cat' is none of gen1, which has car, ped"):
        of(root / 'val', metainfo=dict(classes=('cat',)))
    with pytest.raises(
        ValueError, match="generation is 'gen3', expected one of gen1, 1mpx, digits"
    ):
        of(root / 'val', generation='gen3')
    with pytest.raises(ValueError, match='stride must be at least 0'):
        of(root / 'val', stride=-1)


def test_recordings_of_ones_own(tmp_path):
    rows = [(600_000, 10, 10, 90, 90, 1, 0), (600_000, 300, 10, 90, 90, 0, 0)]
    write(tmp_path, rows=rows, header=b'% Width 346\n% Height 260\n')
    own = dict(generation=(346, 260), metainfo=dict(classes=('hand', 'ball')))
    dataset = of(tmp_path, **own)
    dataset.check_files()
    info = dataset.get_data_info(0)
    assert dataset.metainfo['classes'] == ('hand', 'ball')
    assert info['sensor_size'] == (346, 260)
    assert [one['bbox_label'] for one in info['instances']] == [1, 0]
    assert info['instances'][1]['bbox'] == [300, 10, 346, 100]
    with pytest.raises(DatasetError, match=r'but those of .* go from 0 to 0 '):
        of(tmp_path, generation=(346, 260), metainfo=dict(classes=('hand',)))
    with pytest.raises(ValueError, match='what the class ids of their boxes mean'):
        of(tmp_path, generation=(346, 260))
    for wrong in ((346,), (346, 0), 346, None):
        with pytest.raises(ValueError, match=r'or \(width, height\) of your own sensor'):
            of(tmp_path, generation=wrong)
    own['generation'] = 640, 480
    with pytest.raises(DatasetError, match='sensor of 346x260 pixels, but 640x480'):
        of(tmp_path, **own).check_files()


@pytest.mark.parametrize('name', ['a_td.dat', 'a.raw', 'a_td.dat.h5', 'a_td.h5'])
def test_recordings_of_any_format(tmp_path, name):
    rows = events()
    np.save(tmp_path / 'a_bbox.npy', boxes_of(*ROWS))
    if name.endswith('.h5'):
        pytest.importorskip('h5py', reason="needs pip install 'mmsnn[hdf5]'")
        write_hdf5(tmp_path / name, rows, (304, 240))
    elif name.endswith('.raw'):
        write_evt3(tmp_path / name, rows, (304, 240))
    else:
        write_dat(tmp_path / name, rows, header=b'% no size\n')
    dataset = of(tmp_path, pipeline=[])
    dataset.check_files()
    results = LoadEventWindow(length=100_000, time_steps=5)(dataset.get_data_info(1))
    expected = np.zeros((5, 2, 240, 304))
    for x, y, t, p in rows:
        if 750_000 <= t < 850_000:
            expected[(t - 750_000) // 20_000, p, y, x] += 1
    assert expected.sum() > 100
    np.testing.assert_array_equal(results['frames'], expected)


def test_the_pipeline_moves_boxes_with_events(root, mmdet_scope):
    dataset = of(root / 'train', pipeline=[])
    info = LoadEventWindow(length=100_000, time_steps=5, representation='voxel_grid')(
        dataset.get_data_info(0)
    )
    assert info['frames'].shape == (5, 5, 240, 304)
    pipeline = [
        dict(type='LoadEventWindow', length=100_000, time_steps=5),
        dict(type='LoadAnnotations', with_bbox=True),
        dict(type='EventRandomFlip', prob=1.0),
        dict(type='ResizeEventFrames', size=(120, 608)),
        dict(type='PackEventDetInputs'),
    ]
    cfg = dict(type='PropheseeDetection', data_root=str(root / 'train'), pipeline=pipeline)
    packed = DATASETS.build(cfg)[0]
    assert packed['inputs'].shape == (5, 2, 120, 608)
    assert packed['inputs'].dtype == torch.float32
    sample = packed['data_samples']
    # Mirrored: 304 - 80 to 304 - 20; then twice as wide and half as high.
    bboxes = sample.gt_instances.bboxes.tensor.tolist()
    assert bboxes == [[448, 15, 568, 40], [0, 100, 48, 120]]
    assert sample.scale_factor == (2.0, 0.5)
    assert (sample.t, sample.flip, len(sample.boxes)) == (600_000, True, 2)
    assert sample.recording == str(root / 'train' / 'a_td.dat')
    plain = LoadEventWindow(length=100_000, time_steps=5)(dataset.get_data_info(0))
    frames = plain['frames'].copy()
    flipped = EventRandomFlip(prob=1.0)(plain)['frames']
    np.testing.assert_array_equal(flipped, frames[..., ::-1])
    assert ResizeEventFrames((480, 608))(plain)['scale_factor'] == (2.0, 2.0)


def test_what_would_leave_boxes_behind(root):
    info = dict(frames=np.zeros((5, 2, 240, 304), np.float32), gt_bboxes=None)
    with pytest.raises(DatasetError, match='EventRandomRoll moves the events and not their boxes'):
        EventRandomRoll()(info)
    with pytest.raises(DatasetError, match="images take MMDetection's PackDetInputs"):
        PackEventDetInputs()(dict(img=np.zeros((8, 8, 3))))
    for arguments, message in (
        (dict(length=100_000, time_steps=0), 'time_steps is 0'),
        (dict(length=3, time_steps=5), 'length is 3, expected whole microseconds'),
        (dict(length=0.1, time_steps=5), 'length is 0.1, expected whole microseconds'),
        (dict(length=100, time_steps=5, representation='mcts'), "'mcts' is not known"),
    ):
        with pytest.raises(DatasetError, match=f'LoadEventWindow: .*{message}'):
            LoadEventWindow(**arguments)


# --- bad input -----------------------------------------------------------------------------------


def test_one_without_the_other(root):
    (root / 'train' / 'b_td.dat').unlink()
    with pytest.raises(DatasetError, match=r'train/: b_bbox\.npy has no recording beside it\. Exp'):
        of(root / 'train')
    (root / 'val' / 'b_bbox.npy').unlink()
    with pytest.raises(DatasetError, match=r'the recording b_td\.dat has no b_bbox\.npy beside it'):
        of(root / 'val')
    write_evt3(root / 'test' / 'a.raw', events(100))
    with pytest.raises(DatasetError, match=r'has the recording a\.raw also as a_td\.dat'):
        of(root / 'test')
    (root / 'none').mkdir()
    with pytest.raises(DatasetError, match=r'none/ has no recordings\. Expected: NAME_bbox\.npy'):
        of(root / 'none')
    with pytest.raises(DatasetError, match=r'the folder of recordings .*gone/? does not exist'):
        of(root / 'gone')


@pytest.mark.parametrize(
    ('row', 'message'),
    [
        (
            (700_000, 10, 10, 40, 40, 2, 0),
            r'box 1 has the class id 2, .* gen1 go from 0 to 1 \(car',
        ),
        ((700_000, 304, 10, 40, 40, 0, 0), r'1 of 5 boxes lie outside of the sensor of 304x240'),
        ((700_000, 10, -40, 40, 40, 0, 0), r'1 of 5 boxes lie outside of the sensor of 304x240'),
    ],
)
def test_boxes_of_another_sensor(root, row, message):
    write(root / 'train', rows=[ROWS[0], row, *ROWS[1:3], ROWS[3]])
    if 'class' in message:  # in the order of time
        message = message.replace('box 1', 'box 2')
    with pytest.raises(DatasetError, match=message):
        of(root / 'train')


def test_a_few_boxes_outside_are_left_out(root):
    rows = [(600_000 + 1000 * k, 10, 10, 40, 40, 0, 0) for k in range(40)]
    write(root / 'train', rows=[*rows, (600_000, 400, 10, 40, 40, 0, 0)])
    write(root / 'train', 'b', rows=rows)
    dataset = of(root / 'train')
    assert len(dataset) == 80
    assert sum(len(dataset.get_data_info(i)['boxes']) for i in range(80)) == 80


def test_recordings_that_do_not_fit_their_boxes(root):
    write(root / 'train', end=90_000)
    with pytest.raises(
        DatasetError, match=r'a_td\.dat ends at \d+ us, but has a label at 1100000 us'
    ):
        of(root / 'train').check_files()
    write(root / 'val', header=b'% Width 1280\n% Height 720\n')
    with pytest.raises(
        DatasetError, match=r'a_td\.dat is of a sensor of 1280x720 pixels, but 304x'
    ):
        of(root / 'val').check_files()
    info = of(root / 'val').get_data_info(0)
    with pytest.raises(DatasetError, match=r'a_td\.dat is of a sensor of 1280x720 pixels'):
        LoadEventWindow(length=100_000, time_steps=5)(info)
    path = root / 'test' / 'b_td.dat'
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(DatasetError, match=r'b_td\.dat is truncated'):
        of(root / 'test').check_files()


# --- the config ----------------------------------------------------------------------------------


@pytest.fixture
def cfg(root, tmp_path):
    cfg = Config.fromfile(CONFIG)
    for split in ('train', 'val', 'test'):
        loader = cfg[f'{split}_dataloader']
        loader.dataset.data_root = str(root)
        loader.update(batch_size=2, num_workers=0, persistent_workers=False)
    cfg.work_dir = str(tmp_path / 'work')
    return cfg


def test_what_is_said_before_training(root, cfg):
    found = check_config_datasets(cfg)
    assert found['train_dataloader.dataset']['images'] == 6
    assert found['train_dataloader.dataset']['boxes'] == 8
    assert found['train_dataloader.dataset']['classes'] == ('car', 'pedestrian')
    cfg.model.bbox_head.num_classes = 80
    with pytest.raises(DatasetError, match=r'num_classes is 80, but .* has 2 classes \(car, pede'):
        check_config_datasets(cfg)
    cfg.model.bbox_head.num_classes = 2
    cfg.model.backbone.time_steps = 4
    with pytest.raises(
        DatasetError, match=r'pipeline\.0\.time_steps is 5, but the model has T = 4'
    ):
        check_config_datasets(cfg)
    cfg.model.backbone.time_steps = 5
    cfg.val_dataloader.dataset.windows = 50_000
    with pytest.raises(
        DatasetError,
        match=r'val_dataloader.*windows=50000, but its LoadEventWindow has length=100000',
    ):
        check_config_datasets(cfg)
    cfg.val_dataloader.dataset.windows = None
    cfg.train_dataloader.dataset.data_prefix.img = 'gone/'
    with pytest.raises(
        DatasetError, match=r'gone/ does not exist\. Point to your copy with --cfg-'
    ):
        check_config_datasets(cfg)


def test_trains_and_is_evaluated(root, cfg):
    """A few steps on windows that are made smaller, and the metric."""
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=3, val_interval=100)
    cfg.default_hooks.checkpoint = None
    cfg.log_processor = dict(type='LogProcessor', window_size=1, by_epoch=False)
    cfg.param_scheduler = []
    cfg.randomness = dict(seed=0)
    cfg.val_dataloader.dataset.indices = 2
    cfg.val_evaluator.protocols = ['prophesee', 'sfod']
    # A window of the sensor is wider than what this test has time for.
    for split in ('train', 'val'):
        pipeline = cfg[f'{split}_dataloader'].dataset.pipeline
        pipeline.insert(len(pipeline) - 1, dict(type='ResizeEventFrames', size=(48, 64)))
    runner = Runner.from_cfg(cfg)
    before = [param.detach().clone() for param in runner.model.parameters()]
    runner.train()
    assert any(not torch.equal(a, b) for a, b in zip(before, runner.model.parameters()))
    scalars = runner.message_hub.log_scalars
    losses = [scalars[name].current() for name in ('train/loss_cls', 'train/loss_bbox')]
    assert np.isfinite(losses).all()
    found = runner.val_loop.run()
    assert 0 <= found['events/prophesee_mAP'] <= 1
    assert 0 <= found['events/sfod_mAP'] <= 1


def test_a_detector_that_knows_the_truth(root, cfg, mmdet_scope):
    """From the data set through resizing and the detector's way back to the metric."""
    pipeline = [*cfg.val_dataloader.dataset.pipeline]
    pipeline.insert(1, dict(type='LoadAnnotations', with_bbox=True))
    pipeline.insert(2, dict(type='ResizeEventFrames', size=(120, 608)))
    dataset = DATASETS.build({**cfg.val_dataloader.dataset, 'pipeline': pipeline})
    metric = METRICS.build(dict(type='PropheseeMetric', protocols=['prophesee', 'rvt']))
    metric.dataset_meta = dataset.metainfo
    for i in range(len(dataset)):
        sample = dataset[i]['data_samples']
        true = sample.gt_instances
        scale = torch.tensor(sample.scale_factor * 2)
        found = InstanceData(bboxes=true.bboxes.tensor / scale, labels=true.labels)
        found.scores = torch.ones(len(true))
        sample.pred_instances = found
        metric.process(None, [sample.to_dict()])
    found = metric.evaluate(len(dataset))
    # The pedestrian reaches out to 340, 260; what is inside, 24x40, has an IoU of 0.27 with that.
    assert found['events/prophesee_mAP'] == pytest.approx(0.5)
    assert found['events/rvt_mAP'] == pytest.approx(1)


def test_windows_are_those_of_open_recording(root):
    with open_recording(root / 'train' / 'a_td.dat') as recording:
        number = len(recording.window(500_000, 600_000))
    info = of(root / 'train').get_data_info(0)
    load = LoadEventWindow(100_000, 5, dict(type='stacked_histogram', bins=2, cut=255))
    assert load(info)['frames'].sum() == number > 0

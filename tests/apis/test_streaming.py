"""A detector follows recordings, from Python and by config."""

import copy

import numpy as np
import pytest
import torch
from event_files import write_dat
from mmengine.config import Config
from mmengine.runner import Runner
from torch.utils.flop_counter import FlopCounterMode

from mmsnn.apis import init_detector, stream
from mmsnn.datasets import DatasetError, PropheseeDetection, StreamBatchSampler
from mmsnn.datasets.events import make_boxes
from mmsnn.engine import StreamHook
from mmsnn.models.layers import Streaming

CONFIG = 'configs/spiking_retinanet/spiking-retinanet_sg-r18_asd_fpn_gen1-stream.py'
LENGTH = 100_000
#: Where labels are, and so how many windows there are.
LABELS = {'a': (400_000, 600_000), 'b': (250_000, 900_000), 'c': (600_000, 660_000)}
WINDOWS = {'a': 6, 'b': 10, 'c': 7}


def write(folder, names='abc'):
    folder.mkdir()
    for seed, name in enumerate(names):
        rng = np.random.default_rng(seed)
        end = max(LABELS[name]) + 50_000
        t = np.sort(rng.integers(0, end, 6000))
        t[0] = 0
        places = rng.integers(0, 304, 6000), rng.integers(0, 240, 6000)
        rows = np.stack([*places, t, rng.integers(0, 2, 6000)], 1).tolist()
        write_dat(folder / f'{name}_td.dat', rows, header=b'% Width 304\n% Height 240\n')
        boxes = make_boxes(len(LABELS[name]))
        boxes['t'], boxes['x'], boxes['y'] = LABELS[name], 40, 50
        boxes['w'], boxes['h'] = 90, 80
        np.save(folder / f'{name}_bbox.npy', boxes)


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp('gen1')
    for split in ('train', 'val', 'test'):
        write(root / split)
    return root


@pytest.fixture
def cfg(root, tmp_path):
    """A small model of two time steps on windows that are made smaller."""
    cfg = Config.fromfile(CONFIG)
    cfg.work_dir = str(tmp_path / 'work')
    backbone = dict(depth=10, base_channels=16, time_steps=2, act_cfg=dict(v_threshold=0.3))
    cfg.model.backbone.update(backbone)
    for neck in cfg.model.neck:
        neck.in_channels = [c // 4 for c in neck.in_channels]
    cfg.model.bbox_head.update(feat_channels=16, in_channels=16)
    cfg.model.neck[1].out_channels = 16
    cfg.model.test_cfg.score_thr = 0.0
    for split in ('train', 'val', 'test'):
        loader = cfg[f'{split}_dataloader']
        loader.update(num_workers=0, persistent_workers=False, batch_size=2)
        loader.dataset.data_root = str(root)
        pipeline = loader.dataset.pipeline
        pipeline[0].time_steps = 2
        pipeline.insert(len(pipeline) - 1, dict(type='ResizeEventFrames', size=(64, 96)))
    cfg.train_dataloader.batch_sampler.windows = 2
    cfg.default_hooks.checkpoint = None
    cfg.param_scheduler = []
    cfg.randomness = dict(seed=0)
    return cfg


@pytest.fixture
def model(cfg):
    torch.manual_seed(0)
    model = init_detector(cfg)
    for module in model.modules():
        if hasattr(module, 'running_var'):
            module.running_var.fill_(0.02)
    return model


def windows(number, seed=0):
    return 3 * torch.rand(number, 2, 4, 64, 96, generator=torch.Generator().manual_seed(seed))


def as_tuple(sample):
    found = sample.pred_instances
    return found.bboxes, found.scores, found.labels


def same(ours, theirs):
    return all(torch.equal(a, b) for a, b in zip(as_tuple(ours), as_tuple(theirs)))


# --- from Python ---------------------------------------------------------------------------------


def test_windows_equal_the_sequence(model):
    """The detections of each window are those of its spikes in one long forward."""
    frames = windows(4)
    follow = stream(model)
    found = [follow(window) for window in frames]
    batch = torch.stack(list(frames), 1)  # (T, windows, C, H, W)
    with torch.no_grad(), Streaming(model).carried(windows=4):
        levels = model.backbone(batch)
    with torch.no_grad():
        features = model.neck(levels)
        metas = [sample.metainfo for sample in found]
        whole = model.bbox_head.predict_by_feat(
            *model.bbox_head(features),
            batch_img_metas=[{**m, 'scale_factor': (1, 1)} for m in metas],
        )
    for sample, expected in zip(found, whole):
        ours = sample.pred_instances
        assert len(ours) == len(expected) > 0
        torch.testing.assert_close(ours.scores, expected.scores)
        torch.testing.assert_close(ours.bboxes, expected.bboxes, rtol=1e-4, atol=1e-3)
    alone = stream(model)(frames[3])
    assert not torch.equal(alone.pred_instances.scores, found[3].pred_instances.scores)


def test_a_window_costs_a_window(model):
    window = windows(1)[0]
    follow = stream(model)
    counts = []
    for call in (lambda: stream(model)(window), *[lambda: follow(window)] * 3):
        with FlopCounterMode(display=False) as counter:
            call()
        counts.append(counter.get_total_flops())
    assert counts[0] > 0
    assert len(set(counts)) == 1


def test_copies_fused_models_and_the_model_itself(model):
    frames = windows(3)
    follow = stream(model)
    first = follow(frames[0])
    copied, fused = copy.deepcopy(follow), follow.fuse('fp32')
    expected = [follow(window) for window in frames[1:]]
    assert all(same(copied(window), e) for window, e in zip(frames[1:], expected))
    for window, e in zip(frames[1:], expected):
        # Rounded otherwise; spikes at the threshold may differ.
        scores = fused(window).pred_instances.scores
        torch.testing.assert_close(scores, e.pred_instances.scores, rtol=1e-3, atol=1e-4)
    assert same(stream(model)(frames[0]), first)
    follow.reset()
    assert same(follow(frames[0]), first)


def test_recordings_side_by_side(model):
    frames = windows(6).unflatten(0, (3, 2))
    both = stream(model)
    found = [both(list(pair)) for pair in frames]
    for place in range(2):
        follow = stream(model)
        for pair, samples in zip(frames, found):
            alone = follow(pair[place])
            torch.testing.assert_close(
                alone.pred_instances.scores, samples[place].pred_instances.scores
            )
    both.reset([1])
    begun = both(list(frames[0]))
    torch.testing.assert_close(begun[1].pred_instances.scores, found[0][1].pred_instances.scores)
    with pytest.raises(ValueError, match='2 recordings go on side by side, and windows of 1 came'):
        both(frames[0, 0])
    both.reset()
    both(frames[0, 0])


def test_what_no_stream_takes(model):
    follow = stream(model)
    with pytest.raises(ValueError, match=r'a window is event frames .* shape \(3, 64, 96\)'):
        follow(torch.zeros(3, 64, 96))
    follow(windows(1)[0])
    with pytest.raises(ValueError, match='Reset the state before others come'):
        follow(torch.zeros(2, 4, 64, 64))
    model.train()
    with pytest.raises(ValueError, match='is in training mode and normalises each window'):
        follow(windows(1)[0])
    model.cfg.test_dataloader.dataset.pipeline[0].type = 'LoadImageFromFile'
    with pytest.raises(ValueError, match="doesn't begin with LoadEventWindow"):
        next(follow.follow('a_td.dat'))


def test_follow_a_recording(model, root):
    """The windows of the data set, from the file alone."""
    path = root / 'test' / 'b_td.dat'
    found = list(stream(model).follow(path))
    assert [sample.t for sample in found] == [LENGTH * (i + 1) for i in range(len(found))]
    assert len(found) == 10
    assert found[0].recording == str(path)
    part = list(stream(model).follow(path, start=0, end=300_000))
    assert len(part) == 3
    assert all(same(a, b) for a, b in zip(part, found))


# --- the data ------------------------------------------------------------------------------------


def test_windows_in_order(root):
    dataset = PropheseeDetection(str(root / 'val'), windows=LENGTH)
    infos = [dataset.get_data_info(i) for i in range(len(dataset))]
    assert [info['window'] for info in infos] == [i for n in WINDOWS.values() for i in range(n)]
    b = [info for info in infos if 'b_td' in info['recording']]
    # The first label ends a window; the last one is halfway between two.
    assert [info['t'] for info in b] == [50_000 + LENGTH * i for i in range(10)]
    assert [len(info['boxes']) for info in b] == [0, 0, 1, 0, 0, 0, 0, 0, 0, 1]
    assert [info['labelled'] for info in b] == [len(info['boxes']) > 0 for info in b]
    # Two labels for which one end is the nearest: both are evaluated, the nearer one is learnt.
    c = next(info for info in infos if len(info['boxes']) and 'c_td' in info['recording'])
    assert (c['t'], c['boxes']['t'].tolist()) == (600_000, [600_000])
    for wrong in (0, 1.5):
        with pytest.raises(ValueError, match='windows must be a whole number of microseconds'):
            PropheseeDetection(str(root / 'val'), windows=wrong)


class Sampler:
    def __init__(self, dataset, shuffle, seed=0):
        self.dataset, self.shuffle, self.seed, self.epoch = dataset, shuffle, seed, 0


def test_batches_for_evaluation(root):
    dataset = PropheseeDetection(str(root / 'val'), windows=LENGTH)
    batches = StreamBatchSampler(Sampler(dataset, False), 2)
    found = list(batches)
    assert len(batches) == len(found)
    assert sorted(i for batch in found for i in batch) == list(range(len(dataset)))
    assert [len(batch) for batch in found] == [2] * 10 + [1] * 3
    a, b, c = (list(range(start, start + n)) for start, n in ((0, 6), (6, 10), (16, 7)))
    assert [batch[0] for batch in found[:6]] == a
    assert [batch[1] for batch in found[:6]] + [batch[0] for batch in found[6:10]] == b
    assert [batch[-1] for batch in found[6:]] == c


def test_batches_for_training(root):
    dataset = PropheseeDetection(str(root / 'train'), windows=LENGTH)
    sampler = Sampler(dataset, True)
    batches = StreamBatchSampler(sampler, 2, windows=2)
    found = list(batches)
    assert len(batches) == len(found) == 5  # 3 + 5 + 3 chunks in two places
    for batch in found:
        for place in range(2):
            first, second = (dataset.get_data_info(batch[i]) for i in (place, place + 2))
            assert first['recording'] == second['recording']
            assert second['window'] == first['window'] + 1
    assert found == list(batches)
    sampler.epoch = 1
    assert found != list(batches)


def test_what_no_batches_are_made_of(root):
    plain = PropheseeDetection(str(root / 'val'))
    with pytest.raises(DatasetError, match='no windows in order: give it windows=LENGTH'):
        StreamBatchSampler(Sampler(plain, False), 2)
    dataset = PropheseeDetection(str(root / 'val'), windows=LENGTH)
    with pytest.raises(DatasetError, match='no recording has windows=11 windows'):
        StreamBatchSampler(Sampler(dataset, True), 2, windows=11)
    with pytest.raises(DatasetError, match='lower batch_size'):
        StreamBatchSampler(Sampler(dataset, True), 4, windows=6)
    with pytest.raises(ValueError, match='windows=2 is for training'):
        StreamBatchSampler(Sampler(dataset, False), 2, windows=2)
    with pytest.raises(ValueError, match='batch_size must be a whole number'):
        StreamBatchSampler(Sampler(dataset, True), 0)


# --- by config -----------------------------------------------------------------------------------


def test_training_and_evaluation_by_config(cfg, root, monkeypatch):
    cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1, val_interval=1)
    cfg.test_evaluator.protocols = ['prophesee']
    # As the stream: two recordings side by side have sums of convs in another order.
    cfg.test_dataloader.batch_size = 1
    runner = Runner.from_cfg(cfg)
    before = [param.detach().clone() for param in runner.model.parameters()]
    carried = []
    attach = Streaming.attach

    def watched(self, count=1):
        rows = [float(s.tensors[0].abs().sum()) for s in self.states.values() if s.tensors]
        carried.append((self.recordings, count, sum(rows)))
        attach(self, count)

    monkeypatch.setattr(Streaming, 'attach', watched)
    runner.train()
    assert any(not torch.equal(a, b) for a, b in zip(before, runner.model.parameters()))
    losses = runner.message_hub.log_scalars['train/loss'].data[0]
    assert np.isfinite(losses).all()
    training, validation = carried[:5], carried[5:]
    assert [(n, k) for n, k, _ in training] == [(2, 2)] * 5
    assert [(n, k) for n, k, _ in validation] == [(2, 1)] * 10 + [(1, 1)] * 3
    assert validation[0][2] == 0  # from rest, whatever training left
    assert any(total > 0 for *_, total in training[1:])

    # The test loop finds what a stream finds, in pixels of the sensor.
    found = {}
    process = type(runner.test_evaluator.metrics[0]).process

    def keep(self, batch, samples):
        for sample in samples:
            found[sample['recording'], sample['t']] = sample['pred_instances']
        process(self, batch, samples)

    monkeypatch.setattr(type(runner.test_evaluator.metrics[0]), 'process', keep)
    metrics = runner.test()
    assert 0 <= metrics['events/prophesee_mAP'] <= 1
    model = runner.model.eval()
    model.cfg = cfg
    path = str(root / 'test' / 'c_td.dat')
    for sample in stream(model).follow(path, start=0, end=700_000):
        expected = found[path, sample.t]
        torch.testing.assert_close(sample.pred_instances.scores, expected['scores'])
        torch.testing.assert_close(sample.pred_instances.bboxes, expected['bboxes'])


def test_windows_without_labels_are_not_learnt(cfg, root):
    """The loss is that of the others, and its gradient reaches all parameters."""
    runner = Runner.from_cfg(cfg)
    dataset, model = runner.train_dataloader.dataset, runner.model.eval()
    labels = [dataset[i]['data_samples'].labelled for i in range(len(dataset))]

    def loss(*indices):
        data = [dataset[i] for i in indices]
        batch = {key: [d[key] for d in data] for key in ('inputs', 'data_samples')}
        batch = model.data_preprocessor(batch, True)
        return model.parse_losses(model(**batch, mode='loss'))[0]

    with_one, without = labels.index(True), labels.index(False)
    torch.testing.assert_close(loss(without, with_one), loss(with_one))
    nothing = loss(without)
    nothing.backward()
    assert nothing == 0
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())


def test_what_no_stream_is_made_of(cfg):
    wrong = copy.deepcopy(cfg)
    wrong.model.type = 'RetinaNet'
    with pytest.raises(DatasetError, match='RetinaNet would learn that window as empty'):
        Runner.from_cfg(wrong).train()
    wrong = copy.deepcopy(cfg)
    del wrong.test_dataloader['batch_sampler']
    with pytest.raises(DatasetError, match=r'set test_dataloader\.batch_sampler='):
        Runner.from_cfg(wrong).test()


def test_batches_that_do_not_go_on(model):
    class Sample:
        def __init__(self, **meta):
            self.metainfo = meta

    def follow(mode, *metas):
        hook._before_iter(None, 0, dict(data_samples=[Sample(**m) for m in metas]), mode)
        hook._after_iter(None, 0, mode=mode)

    class FakeRunner:
        pass

    runner, hook = FakeRunner(), StreamHook()
    runner.model = model
    for mode in ('train', 'test'):
        hook._before_epoch(runner, mode)
    a0, a1, a2 = (dict(recording='a', window=i) for i in range(3))
    follow('test', a0)
    with pytest.raises(ValueError, match='got window 2 of a without the one before'):
        follow('test', a2)
    follow('train', a2)
    b0 = dict(recording='b', window=0)
    with pytest.raises(ValueError, match='got window 2 of a where window 1 of a belongs'):
        follow('train', a0, b0, a2, dict(b0, window=1))
    with pytest.raises(ValueError, match='got 3 windows of 2 recordings'):
        follow('train', a0, b0, a1)
    with pytest.raises(ValueError, match='got a sample without recording and window'):
        follow('train', dict(img_id=3))
    follow('train', dict(a0, flip=True))
    with pytest.raises(ValueError, match='window 1 of a is mirrored otherwise'):
        follow('train', dict(a1, flip=False))

"""The hook that watches firing rates, in real training runs."""

import json
import random
from pathlib import Path

import mmcv
import numpy as np
import pytest
import small_nets
import torch
from mmdet.registry import HOOKS, MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from torch.utils.data import DataLoader

import mmsnn.engine
import mmsnn.evaluation
import mmsnn.models  # noqa: F401
from mmsnn.engine import SpikeStatsHook
from mmsnn.engine.hooks import spike_stats_hook
from mmsnn.models.layers import LIFNeuron
from mmsnn.structures import ClsDataSample
from mmsnn.visualization import draw_spikes

ROOT = Path(__file__).resolve().parents[3]


def batches(samples):
    return dict(
        inputs=[image for image, _ in samples], data_samples=[sample for _, sample in samples]
    )


def classifier(threshold=0.1, gate='ResidualGate', norm='TDBN'):
    return small_nets.classifier(
        data_preprocessor=dict(type='ClsDataPreprocessor', mean=[127.5] * 3, std=[50.0] * 3),
        gate_cfg=dict(type=gate),
        norm_cfg=dict(type=norm),
        act_cfg=dict(type='LIFNeuron', v_threshold=threshold),
    )


def neurons_of(model):
    return {name: m for name, m in model.named_modules() if isinstance(m, LIFNeuron)}


class Wrapper(torch.nn.Module):
    """As that of a distributed run."""

    def __init__(self, module):
        super().__init__()
        self.module = module


class Images(list):
    """A validation set that would disturb the training's random numbers."""

    def __getitem__(self, i):
        random.random(), np.random.rand(), torch.rand(1)
        return super().__getitem__(i)


def train(
    work_dir,
    iterations=4,
    threshold=0.1,
    gate='ResidualGate',
    model=None,
    validate=False,
    backends=('LocalVisBackend',),
    **hook,
):
    generator = torch.Generator().manual_seed(0)
    data = []
    for i in range(4):
        image = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8, generator=generator)
        sample = ClsDataSample(metainfo=dict(img_path=f'folder/image.{i}.png'))
        data.append((image, sample.set_gt_label(i % 2)))
    validation = {}
    if validate:
        validation = dict(
            val_dataloader=DataLoader(Images(data), batch_size=2, collate_fn=batches),
            val_evaluator=dict(type='ClsMetric'),
            val_cfg=dict(),
        )
    model = model or classifier(threshold, gate)
    runner = Runner(
        model,
        str(work_dir),
        # Long enough: before it starts a data set again mmengine sleeps for two seconds.
        train_dataloader=DataLoader(data * iterations, batch_size=2, collate_fn=batches),
        train_cfg=dict(by_epoch=False, max_iters=iterations, val_interval=2),
        **validation,
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)),
        default_hooks=dict(checkpoint=None, timer=dict(type='IterTimerHook')),
        custom_hooks=[dict(type='SpikeStatsHook', **hook)],
        visualizer=dict(type='Visualizer', vis_backends=[dict(type=b) for b in backends]),
        experiment_name=f'{work_dir.name}_{len(MMLogger._instance_dict)}',
        default_scope='mmdet',
    )
    warnings = []
    runner.logger.warning = lambda message, *args: warnings.append(message)
    runner.train()
    return runner, [text for text in warnings if text.startswith('mmsnn: ')]


def test_rates_reach_the_message_hub_and_the_visualizer(tmp_path):
    runner, warnings = train(tmp_path, iterations=5, interval=2)
    scalars = runner.message_hub.log_scalars
    neurons = [n for n, m in runner.model.named_modules() if isinstance(m, LIFNeuron)]
    for name in neurons:
        rate = scalars[f'spikes/{name}/firing_rate'].data[0]
        assert len(rate) == 2  # iterations 2 and 4
        assert 0 < rate.min() <= rate.max() < 1
        assert f'spikes/{name}/dead' in scalars
        assert f'spikes/{name}/saturated' in scalars
    lines = [
        json.loads(line)
        for file in tmp_path.rglob('scalars.json')
        for line in file.read_text().splitlines()
    ]
    logged = [line for line in lines if f'spikes/{neurons[0]}/firing_rate' in line]
    assert [line['step'] for line in logged] == [2, 4]
    assert warnings == []
    assert all(not m._forward_hooks for m in runner.model.modules())
    assert all(m.observer is None for m in runner.model.modules() if isinstance(m, LIFNeuron))


def test_a_dying_network_is_reported_once(tmp_path):
    # tdBN makes currents proportional to its threshold: a network dies where neurons have another.
    model = small_nets.classifier(
        norm_cfg=dict(type='TDBN', v_threshold=1.0),
        act_cfg=dict(type='LIFNeuron', v_threshold=1e4),
    )
    runner, warnings = train(tmp_path, model=model, interval=1)
    assert len(warnings) == 1
    assert 'silent at iteration 1' in warnings[0]
    assert '\n' not in warnings[0]
    for name, module in runner.model.named_modules():
        if isinstance(module, LIFNeuron):
            assert name in warnings[0]
    assert runner.message_hub.get_scalar('spikes/backbone.stem.0.neuron/dead').current() == 1


def test_a_saturated_layer_is_reported(tmp_path):
    _, warnings = train(tmp_path, threshold=0.1, interval=1, saturated_above=1e-9)
    assert len(warnings) >= 1
    assert warnings[0].startswith('mmsnn: saturated at iteration 1')


def test_gates_at_rest_are_not_warned_about(tmp_path, monkeypatch):
    monkeypatch.setattr('mmsnn.models.layers.gates.START', 0.0)
    runner, warnings = train(tmp_path, iterations=1, gate='LearnedGate', interval=1)
    gate = runner.message_hub.get_scalar('spikes/backbone.layer1.0.gate.neuron/dead')
    assert gate.current() == 1
    assert warnings == []


@pytest.mark.parametrize('norm', ['TDBN', 'BN'])
def test_a_threshold_far_too_high_is_warned_about(tmp_path, norm):
    model = classifier(threshold=1.0, norm=norm)
    _, healthy = train(tmp_path / 'healthy', model=model, interval=1)
    for neuron in neurons_of(model).values():
        neuron.v_threshold = 50.0
    _, dying = train(tmp_path / 'dying', model=model, interval=1)
    assert healthy == []
    assert 'silent at iteration 1' in dying[0]
    assert 'v_threshold (too high?)' in dying[0]


@pytest.fixture
def small_sheets(monkeypatch):
    monkeypatch.setattr(spike_stats_hook, 'MAX_LAYERS', 1)


def test_it_draws_the_same_images_at_every_validation(tmp_path, small_sheets):
    runner, warnings = train(tmp_path, iterations=4, validate=True, num_images=2)
    files = sorted(tmp_path.rglob('vis_image/*.png'))
    names = [f'spikes_{i}_image.{i}_{step}.png' for i in (0, 1) for step in (2, 4)]
    assert [file.name for file in files] == names
    first, later, other, _ = (mmcv.imread(file) for file in files)
    assert first.shape == later.shape
    head = slice(0, first.shape[0] // 4)  # the picture and the text
    assert np.array_equal(first[head, :200], later[head, :200])
    assert not np.array_equal(first[head, :200], other[head, :200])
    assert not np.array_equal(first, later), 'the weights changed in between'
    assert warnings == []
    assert all(not m._forward_hooks for m in runner.model.modules())
    assert all(m.observer is None for m in neurons_of(runner.model).values())


def test_drawing_changes_nothing_else(tmp_path, small_sheets):
    states = []
    for num_images in (0, 1):
        random.seed(0), np.random.seed(0), torch.manual_seed(0)
        model = classifier()
        if num_images == 0:
            weights = {key: value.clone() for key, value in model.state_dict().items()}
        model.load_state_dict(weights)
        modes = []

        def note(module, args, modes=modes):
            modes.append(module.training)

        model.backbone.layer1[0].register_forward_pre_hook(note)
        runner, _ = train(
            tmp_path / str(num_images), model=model, validate=True, num_images=num_images
        )
        left = random.random(), np.random.rand(), torch.rand(1).item()
        states.append((runner.model.state_dict(), left, sum(modes)))
        assert len(modes) - sum(modes) == 2 * (2 + num_images)  # passes in eval mode
    assert states[0][1:] == states[1][1:]
    assert all(torch.equal(value, states[1][0][key]) for key, value in states[0][0].items())


def test_images_for_every_backend(tmp_path, small_sheets):
    pytest.importorskip('tensorboard')
    train(
        tmp_path,
        iterations=2,
        validate=True,
        num_images=1,
        backends=('LocalVisBackend', 'TensorboardVisBackend'),
    )
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (file,) = tmp_path.rglob('events.out.tfevents*')
    events = EventAccumulator(str(file)).Reload()
    assert 'spikes_0_image.0' in events.Tags()['images']
    (event,) = events.Images('spikes_0_image.0')
    (saved,) = tmp_path.rglob('vis_image/*.png')
    assert event.step == 2
    drawn = mmcv.imfrombytes(event.encoded_image_string)
    assert np.array_equal(drawn, mmcv.imread(saved))


def test_only_the_first_process_draws(monkeypatch):
    monkeypatch.setattr(spike_stats_hook, 'is_main_process', lambda: False)
    SpikeStatsHook(num_images=1).after_val_epoch(runner=None)  # looks at nothing


def test_a_detector_on_a_padded_image(tmp_path):
    config = ROOT / 'configs/digits/spiking-retinanet_sg-r10_asd_fpn_digits.py'
    init_default_scope('mmdet')
    model = MODELS.build(Config.fromfile(config).model)
    image = torch.full((3, 40, 64), 128, dtype=torch.uint8)
    meta = dict(img_shape=(40, 64), ori_shape=(40, 64), scale_factor=(1.0, 1.0))
    drawn = {}

    class Run:
        iter = 7
        val_loop = None
        val_dataloader = DataLoader(
            [dict(inputs=image, data_samples=DetDataSample(metainfo=meta))],
            collate_fn=pseudo_collate,
        )

        class visualizer:
            @staticmethod
            def add_image(name, picture, step):
                drawn[name] = picture, step

    Run.model = Wrapper(model.train())
    seen = {}

    def see(image, spikes, attention, title):
        seen.update(image=image, spikes=spikes, attention=attention)
        return draw_spikes(image, spikes, attention, title)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('mmsnn.engine.hooks.spike_stats_hook.draw_spikes', see)
        SpikeStatsHook(num_images=5).after_val_epoch(Run)
    assert list(drawn) == ['spikes_0']
    assert drawn['spikes_0'][1] == 7
    assert model.training
    # 40 rows at strides 2, 4, 8 and 16 of 48 padded ones: 20, 10, 5 and, in part, 3.
    assert seen['image'].shape == (40, 64, 3)
    assert len(seen['spikes']) == 8
    assert seen['spikes']['backbone.stem.0.neuron'].shape == (4, 16, 20, 32)
    assert seen['spikes']['backbone.layer3.0.neuron2'].shape[2:] == (3, 4)
    assert seen['attention']['neck.0.decoders.0'].spatial.shape == (4, 5, 8)


def test_drawing_without_validation_is_refused():
    class NoValidation:
        model = classifier()
        val_loop = None

    with pytest.raises(ValueError, match='num_images=0'):
        SpikeStatsHook(num_images=2).before_train(NoValidation)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(interval=0), 'interval'),
        (dict(num_images=-1), 'num_images'),
        (dict(num_images=1.5), 'num_images'),
        (dict(dead_below=-0.1), 'dead_below'),
        (dict(dead_below=0.5, saturated_above=0.5), 'dead_below'),
        (dict(saturated_above=1.5), 'saturated_above'),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        HOOKS.build(dict(type='SpikeStatsHook', **options))


def test_a_network_without_neurons_is_refused():
    class NoNeurons:
        model = torch.nn.Conv2d(1, 1, 1)

    with pytest.raises(ValueError, match='Conv2d has none'):
        SpikeStatsHook().before_train(NoNeurons())

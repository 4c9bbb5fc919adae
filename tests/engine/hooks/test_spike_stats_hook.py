"""The hook that watches firing rates, in real training runs."""

import json

import pytest
import torch
from mmdet.registry import HOOKS, MODELS
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from torch.utils.data import DataLoader

import mmsnn.engine
import mmsnn.models  # noqa: F401
from mmsnn.engine import SpikeStatsHook
from mmsnn.models.layers import LIFNeuron
from mmsnn.structures import ClsDataSample


def batches(samples):
    return dict(
        inputs=[image for image, _ in samples], data_samples=[sample for _, sample in samples]
    )


def train(work_dir, iterations=4, threshold=0.1, gate='ResidualGate', model=None, **hook):
    data = []
    for i in range(4):
        image = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8)
        data.append((image, ClsDataSample().set_gt_label(i % 2)))
    model = model or MODELS.build(
        dict(
            type='SpikingClassifier',
            data_preprocessor=dict(type='ClsDataPreprocessor', mean=[127.5] * 3, std=[50.0] * 3),
            backbone=dict(
                type='SGResNet',
                depth=10,
                base_channels=8,
                stem='cifar',
                gate_cfg=dict(type=gate),
                act_cfg=dict(type='LIFNeuron', v_threshold=threshold),
            ),
            head=dict(type='SpikingClsHead', num_classes=2, in_channels=64),
        )
    )
    runner = Runner(
        model,
        str(work_dir),
        train_dataloader=DataLoader(data, batch_size=2, collate_fn=batches),
        train_cfg=dict(by_epoch=False, max_iters=iterations),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)),
        default_hooks=dict(checkpoint=None, timer=dict(type='IterTimerHook')),
        custom_hooks=[dict(type='SpikeStatsHook', **hook)],
        visualizer=dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')]),
        experiment_name=f'{work_dir.name}_{len(MMLogger._instance_dict)}',
        default_scope='mmdet',
    )
    warnings = []
    runner.logger.warning = lambda message, *args: warnings.append(message)
    runner.train()
    return runner, [text for text in warnings if text.startswith('mmsnn: ')]


def low_norms(threshold):
    # tdBN makes currents proportional to its threshold: a network dies where neurons have another.
    return dict(type='TDBN', v_threshold=threshold)


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
    model = MODELS.build(
        dict(
            type='SpikingClassifier',
            backbone=dict(
                type='SGResNet',
                depth=10,
                base_channels=8,
                stem='cifar',
                norm_cfg=low_norms(1.0),
                act_cfg=dict(type='LIFNeuron', v_threshold=1e4),
            ),
            head=dict(type='SpikingClsHead', num_classes=2, in_channels=64),
        )
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


def test_gates_that_start_silent_are_not_warned_about(tmp_path):
    runner, warnings = train(tmp_path, iterations=1, gate='LearnedGate', interval=1)
    gate = runner.message_hub.get_scalar('spikes/backbone.layer1.0.gate.neuron/dead')
    assert gate.current() == 1
    assert warnings == []


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(interval=0), 'interval'),
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

"""Classes found and mixed up, and what no number can be given for."""

import json
from types import SimpleNamespace

import numpy as np
import torch

from mmsnn.analysis import SpikeProfiler, neuron_layers
from mmsnn.analysis.measured import plain_numbers
from mmsnn.models import SGResNet
from mmsnn.report.collect import _profile
from mmsnn.report.tasks import RecognitionTask
from mmsnn.structures import ClsDataSample

DATASET = SimpleNamespace(metainfo=dict(classes=('cat', 'dog', 'eel')))


def sample(label, *scores):
    return ClsDataSample().set_gt_label(label).set_pred_score(torch.tensor(scores))


def test_recognition():
    samples = [
        sample(0, 0.8, 0.1, 0.1),
        sample(0, 0.1, 0.7, 0.2),
        sample(1, 0.2, 0.5, 0.3),
        sample(2, 0.3, 0.4, 0.3),
        sample(0, 0.2, 0.6, 0.2),
    ]
    task = RecognitionTask(DATASET, samples)
    # Leads of the true class: 0.7, -0.6, 0.2, -0.1, -0.4.
    assert task.order() == [1, 4, 3, 2, 0]
    numbers = task.numbers()
    assert numbers['faultless'] == 2
    rows = [
        [row[k] for k in ('name', 'true', 'found', 'missed', 'wrong')]
        for row in numbers['by_class']
    ]
    assert rows == [['cat', 3, 1, 2, 0], ['dog', 1, 1, 0, 3], ['eel', 1, 0, 1, 0]]
    pairs = [tuple(pair.values()) for pair in numbers['confusions']]
    assert pairs == [('cat', 'dog', 2), ('eel', 'dog', 1)]
    entry = task.entry(1, (1, 1))
    assert entry['mistakes'] == ['cat taken for dog (0.70 against 0.10)']
    assert [guess['name'] for guess in entry['guesses']] == ['dog', 'eel', 'cat']
    assert task.entry(0, (1, 1))['mistakes'] == []


def test_scores_that_are_not_numbers():
    """A network that diverged gets its report all the same."""
    nan = float('nan')
    task = RecognitionTask(DATASET, [sample(0, nan, nan, nan), sample(1, 0.1, 0.8, 0.1)])
    assert sorted(task.order()) == [0, 1]
    entry = plain_numbers(task.entry(0, (1, 1)))
    assert json.loads(json.dumps(entry, allow_nan=False))['quality'] is None


def test_gates_are_no_dead_layers():
    """A learned gate may be at rest."""
    torch.manual_seed(0)
    net = SGResNet(10, base_channels=8, gate_cfg=dict(type='LearnedGate')).eval()
    for name, module in net.named_modules():
        if name.endswith('gate.neuron'):
            module.v_threshold = 1e6
    with SpikeProfiler(net) as profiler, torch.no_grad():
        net(torch.rand(2, 3, 32, 32) * 4)
    result = profiler.result()
    silent = [layer.name for layer in result.neuron_layers if layer.dead == 1]
    assert any('gate' in name for name in silent)
    numbers = _profile(result, result, neuron_layers(net))
    assert not any('gate' in name for name in [*numbers['dead_layers'], numbers['quietest']])
    marked = [layer['name'] for layer in numbers['layers'] if layer['in_gate']]
    assert marked
    assert all('gate' in name for name in marked)
    assert np.isclose(numbers['silent'], 1 - result.firing_rate)

"""The ablation: what its rows build, what it says of numbers, and its command on tiny batches."""

import json
import math
import pickle

import ablation
import numpy as np
import pytest
import seeds
import torch
from mmdet.registry import MODELS
from mmengine.logging import MMLogger

from mmsnn.models import ResNetCIFAR, SGResNet
from mmsnn.models.layers import LIFNeuron
from mmsnn.structures import ClsDataSample


def model_of(name):
    MMLogger.get_current_instance().setLevel('WARNING')
    return MODELS.build(ablation.build_config(name, 0, 'unused', None, []).model)


@pytest.mark.parametrize('name', ablation.VARIANTS)
def test_every_row_trains(name):
    model = model_of(name)
    x = torch.rand(2, 3, 32, 32)
    samples = [ClsDataSample().set_gt_label(i) for i in range(2)]
    model(x, samples, mode='loss')['loss'].backward()
    assert sum(float(p.grad.abs().sum()) for p in model.backbone.parameters() if p.grad is not None)


def test_rows_differ_in_what_they_name_alone():
    base = ablation.build_config('sg', 0, 'unused', None, [])
    for name, (_, options) in ablation.VARIANTS.items():
        cfg = ablation.build_config(name, 0, 'unused', None, [])
        for part in ('train_dataloader', 'val_dataloader', 'optim_wrapper', 'param_scheduler'):
            assert cfg[part] == base[part], name
        for key in options:
            cfg_part = cfg
            for step in key.split('.'):
                cfg_part = cfg_part[step]
            assert cfg_part == options[key]
    assert ablation.build_config('rate', 0, 'u', None, []).model.head.decoder == dict(
        type='RateDecoder'
    )


def test_twin_has_the_widths_of_the_spiking_network():
    def widths(backbone):
        return sorted(
            tuple(m.weight.shape) for m in backbone.modules() if hasattr(m, 'kernel_size')
        )

    spiking, twin = model_of('sg').backbone, model_of('ann').backbone
    assert isinstance(spiking, SGResNet)
    assert isinstance(twin, ResNetCIFAR)
    convs = [shape for shape in widths(spiking) if len(shape) == 4]
    assert [shape for shape in widths(twin) if len(shape) == 4] == convs
    assert not any(isinstance(m, LIFNeuron) for m in twin.modules())


def test_norms_of_the_pair_have_a_threshold_that_tells_them_apart():
    tdbn, bn = model_of('stbp-tdbn').backbone, model_of('stbp-bn').backbone
    assert tdbn.stem[0]['norm'].v_threshold == 0.5
    assert type(bn.stem[0]['norm']) is torch.nn.BatchNorm2d


def test_mean_and_spread():
    rows = seeds.summarise({'sg': [50.0, 52.0, 54.0], 'rate': [49.0], 'last': []})
    assert rows['sg'] == (52.0, 2.0, 3)
    assert rows['rate'][0] == 49
    assert math.isnan(rows['rate'][1])
    assert 'last' not in rows


@pytest.mark.parametrize(
    ('better', 'worse', 'margin', 'expected'),
    [
        ((50, 1, 3), (45, 1, 3), 0, r'\*\*supported\*\*: 50.0 against 45.0, \+5.0 points'),
        ((45, 1, 3), (50, 1, 3), 0, r'\*\*the opposite was found\*\*'),
        ((50, 1, 3), (48.5, 1, 3), 0, r'\*\*undecided\*\*, within the spread of 2.0'),
        ((50, 1, 1), (45, 1, 3), 0, r'one seed says nothing'),
        ((48.5, 1, 3), (50, 1, 3), 2, r'\*\*supported\*\*: 48.5 against 50.0, -1.5'),
        ((47.5, 1, 3), (50, 1, 3), 2, r'\*\*not supported\*\*'),
        (None, (50, 1, 3), 0, 'not run'),
    ],
)
def test_verdicts(better, worse, margin, expected):
    import re

    rows = {k: v for k, v in (('a', better), ('b', worse)) if v is not None}
    assert re.match(expected, seeds.verdict(seeds.Claim('x', 'a', 'b', margin), rows))


def test_only_what_lies_between_the_marks_is_replaced(tmp_path):
    path = tmp_path / 'results.md'
    path.write_text(f'before\n{ablation.MARKS.begin}\nold\n{ablation.MARKS.end}\nafter\n')
    seeds.write_docs(path, 'new', ablation.MARKS)
    assert path.read_text() == f'before\n{ablation.MARKS.begin}\nnew\n{ablation.MARKS.end}\nafter\n'


@pytest.fixture
def cifar(tmp_path):
    rng = np.random.default_rng(0)
    root = tmp_path / 'cifar-10-batches-py'
    root.mkdir()
    for name in [*(f'data_batch_{i}' for i in range(1, 6)), 'test_batch']:
        data = rng.integers(0, 256, (20, 3072), dtype=np.uint8)
        labels = [int(label) for label in rng.integers(0, 10, 20)]
        (root / name).write_bytes(pickle.dumps({b'data': data, b'labels': labels}, protocol=2))
    return root


def test_command(shell, cifar, tmp_path):
    out, docs = tmp_path / 'runs', tmp_path / 'results.md'
    docs.write_text(f'{ablation.MARKS.begin}\n{ablation.MARKS.end}\n')
    command = [
        'python', 'benchmarks/ablation.py', '--data', cifar, '--out', out, '--epochs', 1,
        '--jobs', 1, '--seeds', 0, 1, '--docs', docs, '--only', 'ann',
    ]  # fmt: skip
    first = shell(*command)
    assert first.returncode == 0, first.stdout[-1500:]
    runs = [json.loads(path.read_text()) for path in out.glob('*.json')]
    assert [run['images'] for run in runs] == [100, 100]
    mean = sum(run['top1'] for run in runs) / 2
    assert f'| ANN twin: ReLU, no time | {mean:.1f} ± ' in docs.read_text()
    assert '| not run |' in docs.read_text()

    again = shell(*command)
    assert '2 runs, 2 of them done before' in again.stdout
    # Runs of another budget are not mixed with these.
    other = shell(*command[:6], '--epochs', 2, '--jobs', 1, '--seeds', 0, 1, 2, '--only', 'ann')
    assert other.returncode != 0
    assert 'runs of different budgets' in other.stdout


@pytest.mark.parametrize(
    ('wrong', 'message'),
    [
        (['--data', 'no/such'], 'no/such is not a folder'),
        (['--epochs', '0'], '--epochs must be at least 1, got 0'),
        (['--docs', 'README.md'], 'has no line'),
    ],
)
def test_wrong_arguments(monkeypatch, capsys, tmp_path, wrong, message):
    monkeypatch.setattr('sys.argv', ['ablation.py', '--data', str(tmp_path), *wrong])
    with pytest.raises(SystemExit) as end:
        ablation.main()
    assert end.value.code == 2
    assert message in capsys.readouterr().err

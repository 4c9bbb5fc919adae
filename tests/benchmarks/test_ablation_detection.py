"""The ablation of detection: what its rows build and start from, and its command on tiny images."""

import json

import ablation_detection as detection
import pytest
import torch
from config_models import detection_data
from mmdet.models import ResNet
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope

from mmsnn.models import SGResNet
from mmsnn.models.layers import LIFNeuron

CONVERTED = [name for name, row in detection.ROWS.items() if row.start != 'scratch']


def config_of(of, name):
    return detection.build_config(of, name, 0, 'unused', [])


def model_of(of, name):
    init_default_scope('mmdet')
    torch.manual_seed(0)
    return MODELS.build(config_of(of, name).model)


@pytest.mark.parametrize('name', detection.ROWS)
def test_every_row_trains(name):
    cfg = config_of('digits', name)
    model = model_of('digits', name)
    model.init_weights()
    data = model.data_preprocessor(detection_data(cfg.model, train=True), True)
    losses = model(**data, mode='loss')
    sum(loss for values in losses.values() for loss in values).backward()
    assert sum(float(p.grad.abs().sum()) for p in model.backbone.parameters() if p.grad is not None)


@pytest.mark.parametrize('of', detection.DATA)
def test_twin_has_the_widths_of_the_spiking_detector(of):
    def convs(model):
        return sorted(
            tuple(m.weight.shape)
            for part in (model.backbone, model.bbox_head)
            for m in part.modules()
            if isinstance(m, torch.nn.Conv2d)
        )

    spiking, twin = model_of(of, 'scratch-t4'), model_of(of, 'ann')
    assert isinstance(spiking.backbone, SGResNet)
    assert type(twin.backbone) is ResNet
    assert convs(twin) == convs(spiking)
    assert not any(isinstance(m, LIFNeuron) for m in twin.modules())


@pytest.mark.parametrize('of', detection.DATA)
def test_budgets(of):
    """A row takes its part of the ANN's steps, of the same data in the same order."""
    ann = config_of(of, 'ann')
    for name, row in detection.ROWS.items():
        cfg = config_of(of, name)
        steps = cfg.train_cfg.max_iters
        assert steps * row.part == ann.train_cfg.max_iters
        assert cfg.param_scheduler[0].end == max(1, steps // 12)
        assert cfg.param_scheduler[1].T_max == cfg.param_scheduler[1].end == steps
        for part in (
            'train_dataloader', 'val_dataloader', 'val_evaluator', 'optim_wrapper', 'randomness',
        ):  # fmt: skip
            assert cfg[part] == ann[part], name


def test_a_budget_that_the_parts_do_not_divide():
    options = ['train_cfg.max_iters=100']
    for name, steps in (('ann', 100), ('quarter-t4', 25), ('twelfth-t4', 8)):
        cfg = detection.build_config('digits', name, 0, 'work', options)
        assert (cfg.train_cfg.max_iters, cfg.ann_steps) == (steps, 100)


def test_rows_of_one_kind_differ_in_what_they_name_alone():
    base = config_of('digits', 'quarter-t4')
    for name in CONVERTED:
        row, cfg = detection.ROWS[name], config_of('digits', name)
        backbone = cfg.model.backbone
        differs = {key for key in backbone if backbone[key] != base.model.backbone.get(key)}
        assert {f'model.backbone.{key}' for key in differs} <= set(row.options), name
    assert config_of('digits', 'quarter-rate').model.neck[0].type == 'RateNeck'
    assert config_of('digits', 'quarter-rate').model.neck[1] == base.model.neck[1]


def runs_of(ap):
    return [
        dict(row=row, seed=seed, ap=value)
        for row, values in ap.items()
        for seed, value in enumerate(values)
    ]


@pytest.mark.parametrize(
    ('values', 'expected'),
    [
        ([49, 30], r'**reached**: 0.99 (seeds: 0.98, 1.00), to be at least 0.98'),
        ([40, 30], r'**not reached**: 0.90 (seeds: 0.80, 1.00), to be at least 0.98'),
        ([], 'not run'),
    ],
)
def test_shares_of_the_ann(values, expected):
    share = detection.Share('x', 'quarter-t4', 0.98)
    runs = detection.by_row(runs_of({'ann': [50, 30], 'quarter-t4': values}), detection.ROWS)
    assert detection.share_verdict(share, runs) == expected


def test_command(shell, digits_root, tmp_path, monkeypatch, capsys):
    out, docs = tmp_path / 'runs', tmp_path / 'results.md'
    at = detection.marks('ablation, digits')
    docs.write_text(f'before\n{at.begin}\n{at.end}\nafter\n')
    command = [
        'python', 'benchmarks/ablation_detection.py', 'digits', '--data', digits_root, '--out', out,
        '--jobs', 1, '--seeds', 0, '--docs', docs, '--only', 'quarter-t1',
        '--cfg-options', 'train_cfg.max_iters=8',
    ]  # fmt: skip
    first = shell(*command)
    assert first.returncode == 0, first.stdout[-1500:]
    runs = {path.stem: json.loads(path.read_text()) for path in (out / 'digits').glob('*.json')}
    assert {name: run['steps'] for name, run in runs.items()} == {
        'ann-seed0': 8,
        'quarter-t1-seed0': 2,
    }
    assert (out / 'digits' / 'ann-seed0.pth').is_file()
    assert [run['images'] for run in runs.values()] == [32, 32]
    written = docs.read_text()
    assert '| SG, ASD, T = 1, from the ANN, calibrated, a quarter |' in written
    assert written.startswith('before\n')
    assert written.endswith('\nafter\n')

    monkeypatch.setattr('sys.argv', [str(word) for word in command[1:]])
    detection.main()
    assert capsys.readouterr().out.count('1 runs, 1 of them done before') == 2
    # More seeds are trained, or left out where the table of what is there is asked for.
    monkeypatch.setattr('sys.argv', [*map(str, command[1:]), '--seeds', '0', '1', '--done'])
    detection.main()
    assert '0 runs, 0 of them done before' in capsys.readouterr().out
    assert docs.read_text() == written
    monkeypatch.setattr('sys.argv', [*map(str, command[1:]), '--seeds', '1', '--done'])
    with pytest.raises(SystemExit, match='holds none of these runs'):
        detection.main()


@pytest.mark.parametrize(
    ('wrong', 'message'),
    [
        (['digits'], 'say where the data are: --data /path, or MMSNN_DIGITS_ROOT'),
        (['raccoon', '--data', 'no/such'], 'no/such is not a folder'),
        (['cats'], "invalid choice: 'cats'"),
        (['digits', '--data', '.', '--docs', 'README.md'], 'has no line <!-- ablation, digits'),
    ],
)
def test_wrong_arguments(monkeypatch, capsys, wrong, message):
    monkeypatch.delenv('MMSNN_DIGITS_ROOT', raising=False)
    monkeypatch.setattr('sys.argv', ['ablation_detection.py', *wrong])
    with pytest.raises(SystemExit) as end:
        detection.main()
    assert end.value.code == 2
    assert message in capsys.readouterr().err

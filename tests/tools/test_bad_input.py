"""What a user can get wrong ends before long work, with one message that says what to do."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from digits_detector import DIGITS, NARROW

DIGITS_ABSOLUTE = Path(__file__).resolve().parents[2] / DIGITS


@pytest.fixture
def train(tool, digits_root, tmp_path):
    """Start a training that must end with one message; give back that message."""

    def run(*options, root=digits_root, config=DIGITS, narrow=True):
        done = tool(
            'train.py',
            config,
            '--work-dir',
            tmp_path / 'run',
            *(NARROW if narrow else []),
            *options,
            check=False,
            MMSNN_DIGITS_ROOT=root,
        )
        return refusal(done, long_work='Epoch(train)')

    return run


def refusal(done, long_work):
    assert done.returncode != 0, done.stdout[-2000:]
    assert 'Traceback' not in done.stdout, done.stdout[-1500:]
    assert long_work not in done.stdout
    assert 'error: ' in done.stdout, done.stdout[-2000:]
    return done.stdout.rpartition('error: ')[2]


def test_missing_config(tool):
    done = tool('train.py', 'configs/no_such.py', check=False)
    assert 'configs/no_such.py is not there' in refusal(done, 'Epoch(train)')


def test_broken_config(tool, tmp_path):
    config = tmp_path / 'broken.py'
    config.write_text('model = dict(type="SpikingRetinaNet"\n')
    done = tool('train.py', config, check=False)
    assert 'broken.py' in refusal(done, 'Epoch(train)')


def test_missing_data_root(train, tmp_path):
    message = train(root=tmp_path / 'nowhere')
    assert 'nowhere' in message
    assert 'MMSNN_DIGITS_ROOT=/path/to/data' in message
    assert 'train_dataloader.dataset.data_root=' in message


def test_misspelt_key(train):
    message = train('--cfg-options', 'model.backbone.time_step=2')
    assert "unexpected keyword argument 'time_step'" in message
    assert "did you mean 'time_steps'?" in message


def test_annotation_file_that_is_not_json(train, digits_root, tmp_path):
    root = shutil.copytree(digits_root, tmp_path / 'set')
    (root / 'annotations/instances_train.json').write_text('{"images": [')
    assert 'instances_train.json' in train(root=root)


@pytest.mark.parametrize('box', [[1, 1, float('nan'), 5], [1, 1, -4, 5]])
def test_bad_box(train, digits_root, tmp_path, box):
    root = shutil.copytree(digits_root, tmp_path / 'set')
    path = root / 'annotations/instances_train.json'
    data = json.loads(path.read_text())
    data['annotations'][3]['bbox'] = box
    path.write_text(json.dumps(data))
    message = train(root=root)
    assert str(data['annotations'][3]['id']) in message
    assert 'bbox' in message


@pytest.mark.parametrize('damage', ['missing', 'truncated', 'empty'])
def test_bad_image(train, digits_root, tmp_path, damage):
    root = shutil.copytree(digits_root, tmp_path / 'set')
    image = sorted((root / 'train').iterdir())[5]
    content = image.read_bytes()
    if damage == 'missing':
        image.unlink()
    else:
        image.write_bytes(content[: len(content) // 2] if damage == 'truncated' else b'')
    message = train(root=root)
    assert image.name in message
    assert damage in message or 'zero bytes' in message


def test_classes_that_do_not_match_the_head(train):
    message = train('model.bbox_head.num_classes=7')
    assert '7' in message
    assert '10' in message
    assert 'num_classes' in message


@pytest.mark.parametrize(
    ('option', 'said'),
    [
        ('model.backbone.act_cfg.type=LIFNeuro', "unknown neuron 'LIFNeuro'"),
        ('model.backbone.act_cfg.surrogate=step', "unknown surrogate 'step'"),
        ('model.backbone.gate_cfg.type=NoGate', "unknown gate 'NoGate'"),
        ('model.backbone.time_steps=0', 'time_steps'),
        ('model.backbone.depth=19.5', 'unknown depth'),
        ('model.backbone.no_such=1', 'no_such'),
        ('model.neck.0.in_channels=[16,64]', 'channels do not match'),
    ],
)
def test_bad_model_settings(train, option, said):
    assert said in train(option)


@pytest.mark.parametrize(
    ('option', 'said'),
    [
        ('custom_hooks.1.sops=0', 'SpikeBudgetHook: sops must be a positive number, got 0'),
        ('custom_hooks.1.sop=1e6', "did you mean 'sops'"),
        ('model.backbone.with_cp=True', 'set with_cp=False'),
    ],
)
def test_a_budget_that_cannot_be_kept(train, tmp_path, option, said):
    config = tmp_path / 'budget.py'
    config.write_text(
        f"_base_ = '{DIGITS_ABSOLUTE}'\n"
        "custom_hooks = [dict(type='NonFiniteLossHook'), dict(type='SpikeBudgetHook', sops=1e6)]\n"
    )
    assert said in train(option, config=config)


@pytest.mark.parametrize(
    ('option', 'said'),
    [
        ('custom_hooks.1.precision=int7', "QuantizationAwareHook: unknown precision 'int7'"),
        ('model.backbone.gate_cfg.type=LearnedGate', 'gate (LearnedGate) cannot be exported'),
    ],
)
def test_what_cannot_train_for_whole_numbers(train, tmp_path, option, said):
    config = tmp_path / 'whole.py'
    config.write_text(
        f"_base_ = '{DIGITS_ABSOLUTE}'\n"
        "model = dict(backbone=dict(gate_cfg=dict(type='ResidualGate')))\n"
        "custom_hooks = [dict(type='NonFiniteLossHook'), dict(type='QuantizationAwareHook')]\n"
    )
    assert said in train(option, config=config)


def test_sync_bn_would_lose_the_threshold(train):
    message = train('sync_bn=torch')
    assert 'alpha * V_th' in message
    assert "norm_cfg=dict(type='SyncTDBN')" in message


def test_a_backbone_without_a_decoder(train, tmp_path):
    config = tmp_path / 'undecoded.py'
    config.write_text(
        f"_base_ = '{DIGITS_ABSOLUTE}'\n"
        "model = dict(neck=dict(_delete_=True, type='FPN', in_channels=[16, 32],\n"
        '                       out_channels=64, num_outs=2))\n'
    )
    message = train(config=config, narrow=False)
    assert 'needs a decoder' in message
    assert 'ASDNeck' in message


@pytest.fixture
def checkpoint(trained):
    return trained.checkpoint


@pytest.fixture
def evaluate(tool, digits_root, tmp_path):
    """Start an evaluation that must end with one message; give back that message."""

    def run(path, *options, script='test.py'):
        done = tool(
            script,
            DIGITS,
            path,
            '--work-dir',
            tmp_path / 'test',
            *options,
            check=False,
            MMSNN_DIGITS_ROOT=digits_root,
        )
        return refusal(done, long_work='Epoch(test)')

    return run


def test_missing_checkpoint(evaluate, tmp_path):
    assert 'nowhere.pth' in evaluate(tmp_path / 'nowhere.pth', *NARROW)


def test_truncated_checkpoint(evaluate, checkpoint, tmp_path):
    cut = tmp_path / 'cut.pth'
    cut.write_bytes(checkpoint.read_bytes()[:5000])
    message = evaluate(cut, *NARROW)
    assert 'cut.pth' in message
    assert 'truncated' in message


def test_checkpoint_of_another_architecture(evaluate, checkpoint):
    message = evaluate(checkpoint)  # without the options that made it narrow
    assert 'another architecture' in message
    assert 'wrong shape' in message


def test_checkpoint_that_could_run_code(evaluate, checkpoint, tool, digits_root, tmp_path):
    content = torch.load(checkpoint, weights_only=False)
    content['meta']['note'] = subprocess_like()
    path = tmp_path / 'code.pth'
    torch.save(content, path)
    message = evaluate(path, *NARROW)
    assert '--trust-checkpoint' in message
    trusted = tool(
        'test.py',
        DIGITS,
        path,
        '--work-dir',
        tmp_path / 'test',
        '--trust-checkpoint',
        *NARROW,
        MMSNN_DIGITS_ROOT=digits_root,
    )
    assert 'bbox_mAP' in trusted.stdout


def subprocess_like():
    """Something that only unrestricted unpickling can build."""
    from pathlib import PurePosixPath

    return PurePosixPath('/not/a/weight')


def test_classes_in_another_order_than_the_checkpoint(
    evaluate, train, checkpoint, digits_root, tmp_path
):
    content = torch.load(checkpoint, weights_only=False)
    names = list(content['meta']['dataset_meta']['classes'])
    content['meta']['dataset_meta']['classes'] = names[::-1]
    path = tmp_path / 'other.pth'
    torch.save(content, path)
    for message in (evaluate(path, *NARROW), train('--resume', path)):
        assert f'not those that {path} was trained on: it orders them anew' in message
        assert f'metainfo=dict(classes={tuple(names[::-1])!r})' in message


def test_output_that_is_not_a_pickle_file(evaluate, checkpoint):
    assert '--out' in evaluate(checkpoint, '--out', 'predictions.json')


def test_an_environment_that_means_nothing(evaluate, checkpoint, monkeypatch):
    monkeypatch.setenv('MMSNN_EVENTS_BELOW', '2')
    message = evaluate(checkpoint, *NARROW, '--fuse', 'fp32')
    assert "MMSNN_EVENTS_BELOW is a density from 0 to 1, got '2'" in message


def test_no_time_steps(evaluate, checkpoint):
    message = evaluate(checkpoint, '--time-steps', 0, *NARROW)
    assert '--time-steps must be at least 1, got 0' in message


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        (['--time-steps', 2, 0, *NARROW], '--time-steps must be at least 1, got 0'),
        (['--out', 'anytime.txt', *NARROW], '--out must name a .json file'),
        (
            [*NARROW, 'test_evaluator.format_only=True', 'test_evaluator.outfile_prefix=x'],
            'gives no number',
        ),
        ([], 'another architecture'),  # without the options that made it narrow
    ],
)
def test_anytime(evaluate, checkpoint, options, said):
    assert said in evaluate(checkpoint, *options, script='analysis_tools/anytime.py')


def test_anytime_keeps_pictures(evaluate, checkpoint, tmp_path):
    (tmp_path / 'kept.png').write_bytes(b'mine')
    options = ['--out', tmp_path / 'kept.json', *NARROW]
    message = evaluate(checkpoint, *options, script='analysis_tools/anytime.py')
    assert 'kept.png is there already' in message
    assert (tmp_path / 'kept.png').read_bytes() == b'mine'


def test_loss_that_is_not_finite(trained, tool, digits_root, tmp_path):
    """Stops, says so, and the checkpoint of before is the last one and is whole.

    It is found without `last_checkpoint`, behind a newer one that is damaged.
    """
    work_dir = tmp_path / 'run'
    work_dir.mkdir()
    shutil.copy(trained.work_dir / 'epoch_1.pth', work_dir)
    damaged = work_dir / 'epoch_2.pth'
    damaged.write_bytes(trained.checkpoint.read_bytes()[:5000])
    good = (work_dir / 'epoch_1.pth').read_bytes()
    done = tool(
        'train.py',
        DIGITS,
        '--work-dir',
        work_dir,
        '--resume',
        *NARROW,
        'train_cfg.max_epochs=3',
        'model.bbox_head.loss_cls.loss_weight=1e39',
        'model.bbox_head.loss_bbox.loss_weight=1e39',
        check=False,
        MMSNN_DIGITS_ROOT=digits_root,
    )
    assert done.returncode != 0
    message = done.stdout.rpartition('error: ')[2]
    assert 'became NaN or infinite' in message
    assert 'epoch 2' in message
    assert 'epoch_1.pth' in message
    assert 'Traceback' not in done.stdout
    assert (work_dir / 'epoch_1.pth').read_bytes() == good
    assert 'epoch_2.pth: not a readable checkpoint' in done.stdout
    assert damaged.stat().st_size == 5000
    state = torch.load(work_dir / 'epoch_1.pth', weights_only=False)['state_dict']
    assert all(torch.isfinite(value).all() for value in state.values())

"""Train, evaluate, stop, resume: end to end through the real tools."""

import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from digits_detector import DIGITS, NARROW

ROOT = Path(__file__).resolve().parents[2]
COCO_TINY = 'configs/coco_tiny/spiking-retinanet_sg-r10_asd_fpn_coco-tiny.py'


def coco_table(output):
    """The six mAP figures of the last COCO table in a log."""
    rows = re.findall(r'bbox_mAP_copypaste: (.*)', output)
    assert rows, output[-4000:]
    return rows[-1].split()


def logged_map(output):
    """The last bbox_mAP with its four decimals."""
    return re.findall(r'coco/bbox_mAP: (-?[\d.]+)', output)[-1]


def test_training_says_what_it_does(trained):
    work_dir, output = trained.work_dir, trained.output
    assert 'Epoch(train)' in output
    assert 'eta:' in output
    assert len(coco_table(output)) == 6
    assert trained.checkpoint.is_file()
    assert list(work_dir.glob('*.py')), 'the config is dumped beside the checkpoint'
    # SpikeStatsHook: two images at each of two validations, and nothing that it warns about.
    assert len(list(work_dir.glob('*/vis_data/vis_image/spikes_*.png'))) == 4
    assert 'mmsnn: silent' not in output


def test_few_lines_before_the_first_step(trained):
    """What is long stands in the log file; what isn't so, or can't be mended, nowhere."""
    before = trained.output.partition('Epoch(train)')[0].splitlines()
    assert len(before) <= 15, trained.output[:4000]
    untrue = 'deprecat|OneDL datasets|will not be computed|meshgrid|TORCH_FORCE'
    assert not re.search(untrue, trained.output)
    (log,) = trained.work_dir.glob('*/*.log')
    listed = log.read_text()
    for text in ('System environment:', 'Config:', 'Hooks will be executed', 'init_weights'):
        assert text in listed
        assert text not in trained.output


def test_test_prints_the_map_of_training(trained, tested):
    assert coco_table(tested.output) == coco_table(trained.output)
    assert logged_map(tested.output) == logged_map(trained.output)
    assert len(pickle.loads(tested.predictions.read_bytes())) == 8
    (folder,) = tested.work_dir.glob('*/shown')
    assert len(list(folder.iterdir())) == 8
    assert f'the pictures are in {folder}' in tested.output


@pytest.mark.parametrize('tta', [[], ['--tta']])
def test_any_number_of_time_steps_at_test_time(trained, tool, digits_root, tmp_path, tta):
    scores = []
    for i, (steps, configured) in enumerate([(['--time-steps', 1], 4), ([], 1), ([], 4)]):
        predictions = tmp_path / f'{i}.pkl'
        done = tool(
            'test.py',
            DIGITS,
            trained.checkpoint,
            '--work-dir',
            tmp_path,
            '--out',
            predictions,
            *steps,
            *tta,
            *NARROW,
            f'model.backbone.time_steps={configured}',
            MMSNN_DIGITS_ROOT=digits_root,
        )
        assert coco_table(done.stdout)
        scores.append(
            [p['pred_instances']['scores'] for p in pickle.loads(predictions.read_bytes())]
        )
    option, config, other = scores
    assert all(torch.equal(a, b) for a, b in zip(option, config))
    assert not all(torch.equal(a, b) for a, b in zip(option, other))


def test_anytime(trained, tool, digits_root, tmp_path):
    """One table of mAP and time by T; the JSON says the same, and test.py the same mAP."""
    out = tmp_path / 'new' / 'anytime.json'
    command = ['analysis_tools/anytime.py', DIGITS, trained.checkpoint, '--out', out]
    command += ['--work-dir', tmp_path / 'work', '--time-steps', 8, 1, 1, '--fuse', 'fp32', *NARROW]
    done = tool(*command, MMSNN_DIGITS_ROOT=digits_root)
    results = json.loads(out.read_text())
    assert results['config_time_steps'] == 4
    rows = results['results']
    assert [row['time_steps'] for row in rows] == [1, 8]
    columns = ['time_steps', 'bbox_mAP', 'bbox_mAP_50', 'ms_per_image', 'relative_time']
    printed = re.findall(r'^ +(\d+) +([\d.]+) +([\d.]+) +([\d.]+) +([\d.]+)$', done.stdout, re.M)
    assert [list(map(float, row)) for row in printed] == [[r[c] for c in columns] for r in rows]
    # Both are relative to the time at the config's T, which is measured too.
    at_4 = [row['ms_per_image'] / row['relative_time'] for row in rows]
    assert at_4[0] == pytest.approx(at_4[1], rel=0.02)
    assert out.with_suffix('.png').read_bytes().startswith(b'\x89PNG')

    for row in rows:
        tested = tool(
            'test.py',
            DIGITS,
            trained.checkpoint,
            '--work-dir',
            tmp_path / 'work',
            '--time-steps',
            row['time_steps'],
            '--fuse',
            'fp32',
            *NARROW,
            MMSNN_DIGITS_ROOT=digits_root,
        )
        said = dict(re.findall(r'coco/(bbox_\w+): (-?[\d.]+)', tested.stdout))
        assert {k: float(v) for k, v in said.items()} == {k: row[k] for k in said}
        assert len(said) == 6

    before = out.read_bytes()
    again = tool(*command, check=False, MMSNN_DIGITS_ROOT=digits_root)
    assert again.returncode != 0
    assert f'{out} is there already' in again.stdout
    assert 'Traceback' not in again.stdout
    assert 'Epoch(test)' not in again.stdout
    assert out.read_bytes() == before


def test_mmdet_tools_on_the_checkpoint(trained, tool, digits_root, tmp_path):
    """MMDetection's own tools, on what our training and testing left."""
    checkpoint = trained.checkpoint
    tool('model_converters/publish_model.py', checkpoint, tmp_path / 'published.pth')
    (published,) = tmp_path.glob('published*.pth')
    assert published.stat().st_size < checkpoint.stat().st_size, 'the optimiser is left out'

    predictions = tmp_path / 'predictions.pkl'
    env = dict(MMSNN_DIGITS_ROOT=digits_root)
    tested = tool(
        'test.py', DIGITS, published, '--work-dir', tmp_path, '--out', predictions, *NARROW, **env
    )
    assert coco_table(tested.stdout) == coco_table(trained.output)
    matrix = tmp_path / 'matrix'
    tool('analysis_tools/confusion_matrix.py', DIGITS, predictions, matrix, *NARROW, **env)
    assert [path.name for path in matrix.iterdir()] == ['confusion_matrix.png']

    (log,) = trained.work_dir.glob('*/vis_data/scalars.json')
    done = tool('analysis_tools/analyze_logs.py', 'cal_train_time', log)
    assert 'average iter time' in done.stdout


def test_fused(trained, tested, tool, digits_root, tmp_path):
    """The fused model finds the same boxes; with test-time augmentation it is fused inside."""
    command = ['test.py', DIGITS, trained.checkpoint, '--work-dir', tmp_path / 'work']
    assert 'testing the fused model in' not in tested.output
    files = dict(plain=tested.predictions)
    for name, options in dict(fp32=['--fuse', 'fp32'], auto=['--fuse']).items():
        files[name] = tmp_path / f'{name}.pkl'
        options += ['--out', files[name], *NARROW]
        done = tool(*command, *options, MMSNN_DIGITS_ROOT=digits_root)
        assert 'testing the fused model in' in done.stdout
    found = {
        name: [sample['pred_instances'] for sample in pickle.loads(file.read_bytes())]
        for name, file in files.items()
    }
    for name, share in (('fp32', 0.95), ('auto', 0.5)):
        same = [
            torch.isclose(a['scores'][:n], b['scores'][:n], atol=1e-3 if name == 'fp32' else 0.05)
            for a, b in zip(found['plain'], found[name])
            for n in [min(len(a['scores']), len(b['scores']))]
        ]
        assert torch.cat(same).float().mean() > share
    done = tool(*command, '--tta', '--fuse', 'fp32', *NARROW, MMSNN_DIGITS_ROOT=digits_root)
    assert 'testing the fused model in fp32' in done.stdout
    assert len(coco_table(done.stdout)) == 6


def test_never_overwrites_another_run(trained, tool, digits_root):
    before = trained.checkpoint.read_bytes()
    done = tool(
        'train.py',
        DIGITS,
        '--work-dir',
        trained.work_dir,
        *NARROW,
        check=False,
        MMSNN_DIGITS_ROOT=digits_root,
    )
    assert done.returncode != 0
    assert 'holds the checkpoints of another run' in done.stdout
    assert '--resume' in done.stdout
    assert 'Traceback' not in done.stdout
    assert trained.checkpoint.read_bytes() == before


def test_amp_on_cpu(tool, digits_root, tmp_path):
    done = tool(
        'train.py',
        DIGITS,
        '--work-dir',
        tmp_path,
        '--amp',
        '--auto-scale-lr',
        *NARROW,
        'train_cfg.max_epochs=1',
        'auto_scale_lr.base_batch_size=16',
        MMSNN_DIGITS_ROOT=digits_root,
    )
    state = torch.load(tmp_path / 'epoch_1.pth', weights_only=False)['state_dict']
    assert all(v.dtype == torch.float32 for v in state.values() if v.is_floating_point())
    assert 'BF16OptimWrapper' in next(tmp_path.glob('*.py')).read_text(), 'the config as it ran'
    assert coco_table(done.stdout)


def test_two_processes(shell, digits_root, tmp_path):
    work_dir = tmp_path / 'run'
    env = {'MMSNN_DIGITS_ROOT': digits_root, 'OMP_NUM_THREADS': 1}
    options = [*NARROW, 'model.backbone.norm_cfg.type=SyncTDBN']
    done = shell(
        'bash',
        'tools/dist_train.sh',
        DIGITS,
        2,
        '--work-dir',
        work_dir,
        *options,
        'train_cfg.max_epochs=1',
        PORT=29511,
        **env,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    # 32 images, 2 processes, 8 a batch: 2 iterations an epoch each.
    assert 'Epoch(train) [1][2/2]' in done.stdout.replace('  ', ' ')
    assert len(list(work_dir.glob('*/vis_data/vis_image/spikes_*.png'))) == 2
    tested = shell(
        'bash',
        'tools/dist_test.sh',
        DIGITS,
        work_dir / 'epoch_1.pth',
        2,
        '--work-dir',
        tmp_path / 'test',
        *options,
        PORT=29512,
        **env,
    )
    assert tested.returncode == 0, tested.stdout[-4000:]
    # With TDBN each process would keep norm statistics of its own, and only one's are saved.
    assert coco_table(tested.stdout) == coco_table(done.stdout)
    assert logged_map(tested.stdout) == logged_map(done.stdout)


def test_image_demo(trained, tool, digits_root, tmp_path):
    config = next(trained.work_dir.glob('spiking-*.py'))
    done = tool(
        'image_demo.py',
        digits_root / 'val',
        config,
        trained.checkpoint,
        '--out-dir',
        tmp_path,
        '--score-thr',
        0,
        MMSNN_DIGITS_ROOT=digits_root,
    )
    assert str(tmp_path) in done.stdout
    assert len(list((tmp_path / 'vis').iterdir())) == 8
    found = json.loads(next((tmp_path / 'preds').iterdir()).read_text())
    assert set(found) >= {'bboxes', 'scores', 'labels'}


@pytest.fixture(params=['digits', 'real COCO images'])
def small_set(request):
    """Config, environment and options of a set to stop and resume on."""
    if request.param == 'digits':
        root = request.getfixturevalue('digits_root')
        return DIGITS, {'MMSNN_DIGITS_ROOT': root}, [*NARROW, 'train_dataloader.batch_size=2']
    root = request.getfixturevalue('coco_tiny')
    return (
        COCO_TINY,
        {'MMSNN_COCO_ROOT': root},
        [
            '--cfg-options',
            'train_cfg.max_epochs=2',
            'train_dataloader.batch_size=4',
            'default_hooks.logger.interval=1',
            'model.test_cfg.score_thr=0.0',
        ],
    )


def test_killed_in_the_middle_of_an_epoch_and_resumed(small_set, tool, tmp_path):
    config, env, options = small_set
    command = [sys.executable, 'tools/train.py', config, '--work-dir', tmp_path, *options]
    log = tmp_path / 'output.txt'
    with log.open('w') as output:
        process = subprocess.Popen(
            [str(part) for part in command],
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **{key: str(value) for key, value in env.items()}},
        )
        deadline = time.time() + 400
        while not re.search(r'Epoch\(train\) *\[2\]\[ *[3-9]/', log.read_text()):
            assert process.poll() is None, log.read_text()[-4000:]
            assert time.time() < deadline, log.read_text()[-4000:]
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert (tmp_path / 'epoch_1.pth').is_file()
    assert not (tmp_path / 'epoch_2.pth').exists(), 'killed too late: the epoch had ended'

    resumed = tool('train.py', config, '--work-dir', tmp_path, '--resume', *options, **env)
    assert 'resumed from the latest checkpoint' in resumed.stdout
    assert not re.search(r'Epoch\(train\) *\[1\]', resumed.stdout), 'epoch 1 was not done again'
    assert re.search(r'Epoch\(train\) *\[2\]', resumed.stdout)

    tested = tool(
        'test.py',
        config,
        tmp_path / 'epoch_2.pth',
        '--work-dir',
        tmp_path / 'test',
        *options,
        **env,
    )
    assert logged_map(tested.stdout) == logged_map(resumed.stdout)
    assert coco_table(tested.stdout) == coco_table(resumed.stdout)

"""Recognition through the real tools: digits, event files of every format, and what goes wrong."""

import json
import pickle
import re
import time
from pathlib import Path

import event_files
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
DIGITS = 'configs/digits/sg-r10_asd_digits-cls.py'
CIFAR10_CONFIG = 'configs/ablation/sg-r10_asd_cifar10-subset.py'
DVS = 'configs/sg_resnet/sg-r19_asd_dvs-cifar10.py'
TINY = [
    'model.backbone.base_channels=4',
    'train_cfg.max_epochs=1',
    'train_cfg.val_interval=1',
    'default_hooks.logger.interval=1',
]


def top1(output):
    return float(re.findall(r'accuracy/top1: ([\d.]+)', output)[-1])


@pytest.fixture(scope='module')
def digits(tool, tmp_path_factory):
    """The data, and what is left of the training: its folder, output and seconds."""
    folder = tmp_path_factory.mktemp('digits-cls')
    tool('dataset_converters/digits_to_folder.py', folder / 'set')
    start = time.time()
    done = tool(
        'train.py', DIGITS, '--work-dir', folder / 'run', MMSNN_DIGITS_CLS_ROOT=folder / 'set'
    )
    return folder, done.stdout, time.time() - start


def test_digits_are_learnt(digits):
    """98 % of scikit-learn's digits within three minutes, start and validation included."""
    _, output, seconds = digits
    assert top1(output) >= 98
    assert seconds < 180


def test_the_checkpoint_says_the_same(digits, tool, tmp_path):
    folder, output, _ = digits
    done = tool(
        'test.py', DIGITS, folder / 'run/epoch_15.pth', '--work-dir', tmp_path,
        '--out', tmp_path / 'found.pkl', '--show-dir', 'shown',
        MMSNN_DIGITS_CLS_ROOT=folder / 'set',
    )  # fmt: skip
    assert top1(done.stdout) == top1(output)
    assert '| class | samples | top-1 (%)' in done.stdout
    found = pickle.loads((tmp_path / 'found.pkl').read_bytes())
    assert len(found) == 359
    right = sum(int(s['pred_label']) == int(s['gt_label']) for s in found)
    assert 100 * right / 359 == pytest.approx(top1(output), abs=1e-3)
    assert len(list(tmp_path.glob('*/shown/*.png'))) == 359
    counts = json.loads(
        next(tmp_path.glob('*/vis_data/vis_image/confusion_matrix*.json')).read_text()
    )
    assert np.trace(counts['confusion_matrix']) == right


def test_fused_and_at_another_t(digits, tool, tmp_path):
    folder, *_ = digits
    done = tool(
        'test.py', DIGITS, folder / 'run/epoch_15.pth', '--work-dir', tmp_path, '--fuse',
        '--time-steps', 6, MMSNN_DIGITS_CLS_ROOT=folder / 'set',
    )  # fmt: skip
    assert top1(done.stdout) > 95


def test_anytime(digits, tool, tmp_path):
    folder, output, _ = digits
    done = tool(
        'analysis_tools/anytime.py', DIGITS, folder / 'run/epoch_15.pth', '--time-steps', 1, 4,
        '--out', tmp_path / 'anytime.json', '--work-dir', tmp_path,
        MMSNN_DIGITS_CLS_ROOT=folder / 'set',
    )  # fmt: skip
    rows = json.loads((tmp_path / 'anytime.json').read_text())['results']
    assert [row['time_steps'] for row in rows] == [1, 4]
    assert rows[1]['top1'] == pytest.approx(top1(output), abs=1e-3)
    assert rows[0]['top1'] < rows[1]['top1']
    assert re.search(r'T +top-1 +ms/image', done.stdout)
    assert (tmp_path / 'anytime.png').is_file()


def test_image_demo(digits, tool, tmp_path):
    folder, *_ = digits
    done = tool(
        'image_demo.py', folder / 'set/test/7', DIGITS, folder / 'run/epoch_15.pth',
        '--out-dir', tmp_path / 'out', '--batch-size', 16,
    )  # fmt: skip
    assert f'pictures: {tmp_path / "out/vis"}' in done.stdout.replace('\n', '')
    found = [json.loads(path.read_text()) for path in (tmp_path / 'out/preds').iterdir()]
    assert len(found) == len(list((folder / 'set/test/7').iterdir()))
    assert np.mean([sample['class'] == '7' for sample in found]) > 0.9
    assert len(list((tmp_path / 'out/vis').iterdir())) == len(found)


def test_detection_starts_from_it(digits, tool, digits_root, tmp_path):
    """The detector's log names no backbone key that is missing, unexpected or of another shape."""
    folder, *_ = digits
    done = tool(
        'train.py', 'configs/digits/spiking-retinanet_sg-r10_asd_fpn_digits.py',
        '--work-dir', tmp_path / 'run', '--cfg-options', *TINY[1:],
        'model.backbone.stem=cifar', 'model.backbone.stem_channels=16',
        'model.backbone.base_channels=16', 'model.neck.0.in_channels=[32,64]',
        'model.neck.1.in_channels=[32,64]', 'model.backbone.init_cfg.type=Pretrained',
        f'model.backbone.init_cfg.checkpoint={folder / "run/epoch_15.pth"}',
        'model.backbone.init_cfg.prefix=backbone.',
        MMSNN_DIGITS_ROOT=digits_root,
    )  # fmt: skip
    assert f'load backbone. in model from: {folder / "run/epoch_15.pth"}' in done.stdout
    for trouble in ('missing key', 'unexpected key', 'size mismatch', 'do not match exactly'):
        assert trouble not in done.stdout
    assert (tmp_path / 'run/epoch_1.pth').is_file()


# --- events ------------------------------------------------------------------------------------

FORMATS = {
    '.aedat': (event_files.write_aedat2, (128, 128)),
    '.aedat4': (event_files.write_aedat4, (128, 128)),
    '.bin': (event_files.write_bin, (34, 34)),
    '.dat': (event_files.write_dat, (640, 480)),
}


@pytest.fixture(scope='module')
def dvs_cifar10(tmp_path_factory):
    """Twenty recordings in the official layout: 18 train, 2 test of two classes; 8 more classes."""
    from mmsnn.datasets import DVSCIFAR10

    root = tmp_path_factory.mktemp('dvs') / 'cifar10-dvs'
    for i, name in enumerate(DVSCIFAR10.METAINFO['classes']):
        (root / name).mkdir(parents=True)
        for j in range(10 if i < 2 else 2):
            rows = event_files.draw(200, seed=10 * i + j)
            event_files.write_aedat2(root / name / f'cifar10_{name}_{j}.aedat', rows)
    return root


def test_dvs_cifar10_trains(dvs_cifar10, tool, tmp_path):
    env = dict(MMSNN_DVSCIFAR10_ROOT=dvs_cifar10, MMSNN_EVENT_CACHE=tmp_path / 'cache')
    done = tool(
        'train.py', DVS, '--work-dir', tmp_path / 'run', '--cfg-options', *TINY,
        'model.head.in_channels=16', 'train_dataloader.batch_size=8', **env,
    )  # fmt: skip
    assert 'Epoch(train) [1][4/4]' in re.sub(' +', ' ', done.stdout), done.stdout[-2000:]
    assert 0 <= top1(done.stdout) <= 100
    # 26 recordings to train on and 10 to test on, each framed once.
    assert len([path for path in (tmp_path / 'cache').rglob('*') if path.is_file()]) == 36

    done = tool(
        'test.py', DVS, tmp_path / 'run/epoch_1.pth', '--work-dir', tmp_path / 'test',
        '--time-steps', 2, '--cfg-options', *TINY, 'model.head.in_channels=16',
        'test_dataloader.dataset.pipeline.0.time_steps=2', **env,
    )  # fmt: skip
    assert 0 <= top1(done.stdout) <= 100


def test_every_format_trains(tool, tmp_path):
    pytest.importorskip('aedat', reason="needs pip install 'mmsnn[events]'")
    root = tmp_path / 'recordings'
    for i, name in enumerate(('left', 'right')):
        (root / name).mkdir(parents=True)
        for suffix, (write, size) in FORMATS.items():
            for j in range(2):
                rows = event_files.draw(300, size, end=2**20, seed=i)
                write(root / name / f'{suffix[1:]}-{j}{suffix}', rows)
    config = tmp_path / 'events.py'
    config.write_text(
        f'_base_ = {str(ROOT / DVS)!r}\n'
        + ''.join(
            f"{key}_dataloader = dict(dataset=dict(_delete_=True, type='EventFolder', "
            f'data_root={str(root)!r}, pipeline=_base_.{pipeline}_pipeline))\n'
            for key, pipeline in (('train', 'train'), ('val', 'test'), ('test', 'test'))
        )
    )
    done = tool(
        'train.py', config, '--work-dir', tmp_path / 'run', '--cfg-options', *TINY,
        'model.head.in_channels=16', 'model.head.num_classes=2',
        'train_dataloader.batch_size=8', MMSNN_EVENT_CACHE=tmp_path / 'cache',
    )  # fmt: skip
    assert 'Epoch(train) [1][2/2]' in re.sub(' +', ' ', done.stdout), done.stdout[-2000:]


# --- what goes wrong ----------------------------------------------------------------------------


@pytest.fixture
def refused(tool, tmp_path):
    """Start a training that must end with one message; give back that message."""

    def run(config, *options, **env):
        done = tool(
            'train.py', config, '--work-dir', tmp_path / 'run',
            *(['--cfg-options', *options] if options else []), check=False, **env,
        )  # fmt: skip
        assert done.returncode != 0
        assert 'Traceback' not in done.stdout, done.stdout[-1500:]
        assert 'Epoch(train)' not in done.stdout
        return done.stdout.rpartition('error: ')[2]

    return run


def test_labels_outside_the_heads_classes(digits, refused):
    message = refused(DIGITS, 'model.head.num_classes=8', MMSNN_DIGITS_CLS_ROOT=digits[0] / 'set')
    assert 'model.head.num_classes is 8' in message
    assert 'has the label 8' in message


def test_truncated_batch(refused, tmp_path):
    from mmsnn.datasets import CIFAR10

    for split in CIFAR10.FILES.values():
        for name in split:
            data = np.zeros((4, 3072), np.uint8)
            content = pickle.dumps({b'data': data, b'labels': [0, 1, 2, 3]}, protocol=2)
            (tmp_path / name).write_bytes(content)
    broken = tmp_path / 'data_batch_3'
    broken.write_bytes(broken.read_bytes()[:-50])
    message = refused(CIFAR10_CONFIG, MMSNN_CIFAR10_ROOT=tmp_path)
    assert str(broken) in message.replace('\n', '')
    assert 'truncated' in message


def test_time_steps_that_disagree(dvs_cifar10, refused):
    message = refused(DVS, 'model.backbone.time_steps=6', MMSNN_DVSCIFAR10_ROOT=dvs_cifar10)
    assert 'pipeline.0.time_steps is 4, but the model has T = 6' in message.replace('\n', ' ')


def test_tta_is_for_detectors(digits, tool):
    done = tool(
        'test.py', DIGITS, digits[0] / 'run/epoch_15.pth', '--tta', check=False,
        MMSNN_DIGITS_CLS_ROOT=digits[0] / 'set',
    )  # fmt: skip
    assert done.returncode != 0
    assert 'give the config a tta_model' in done.stdout
    assert 'Traceback' not in done.stdout

"""Moving digits before the simulated camera: files, splits and boxes that follow."""

import json
import shutil

import numpy as np
import pytest

from mmsnn.datasets import PropheseeDetection
from mmsnn.datasets.events import open_recording, read_boxes
from mmsnn_cli import digits_to_events

pytest.importorskip('sklearn')

SMALL = ['--train', '2', '--train-duration', '700', '--val', '1', '--val-duration', '600']


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp('digits') / 'set'
    digits_to_events.main([str(out), *SMALL])
    return out


def all_files(root):
    return {p.relative_to(root): p.read_bytes() for p in sorted(root.rglob('*')) if p.is_file()}


def test_same_seed_gives_the_same_files(made, tmp_path, capsys):
    digits_to_events.main([str(tmp_path / 'again'), *SMALL])
    assert all_files(tmp_path / 'again') == all_files(made)
    digits_to_events.main([str(tmp_path / 'again'), *SMALL])
    assert 'already there' in capsys.readouterr().out
    digits_to_events.main([str(tmp_path / 'other'), *SMALL, '--seed', '1'])
    other = all_files(tmp_path / 'other')
    assert all(other[name] != data for name, data in all_files(made).items())


def test_the_data_set_reads_it(made):
    dataset = PropheseeDetection(str(made), dict(img='train/'), generation='digits')
    dataset.check_files()
    times = sorted({dataset.get_data_info(i)['t'] for i in range(len(dataset))})
    assert times == [100_000 * i for i in range(1, 8)]
    boxes = np.concatenate([dataset.get_data_info(i)['boxes'] for i in range(len(dataset))])
    assert (boxes['w'] >= 5).all()
    assert (boxes['h'] >= 20).all()
    assert (boxes['x'] >= -1).all()
    assert (boxes['x'] + boxes['w'] <= 129).all()


def test_boxes_follow_the_digits(made):
    """Around a label, most events lie in a box, and few of as many pixels elsewhere."""
    for path in sorted((made / 'train').glob('*_bbox.npy')):
        boxes = read_boxes(path)
        with open_recording(str(path).replace('_bbox.npy', '_td.dat')) as recording:
            assert recording.sensor_size == (128, 128)
            for t in np.unique(boxes['t'])[:-1]:
                events = recording.window(int(t) - 5_000, int(t) + 5_000)
                inside, area = np.zeros(len(events), bool), np.zeros((128, 128), bool)
                for box in boxes[boxes['t'] == t]:
                    x, y = box['x'] - 3, box['y'] - 3
                    x2, y2 = x + box['w'] + 6, y + box['h'] + 6
                    inside |= (events.x >= x) & (events.x < x2) & (events.y >= y) & (events.y < y2)
                    area[max(int(y), 0) : int(y2), max(int(x), 0) : int(x2)] = True
                assert inside.mean() > 0.7
                assert inside.mean() > 1.5 * area.mean()


def test_the_last_label_is_the_end(tmp_path):
    options = '--train', '3', '--train-duration', '160', '--val', '1', '--val-duration', '600'
    digits_to_events.main([str(tmp_path / 'set'), *options])
    for path in (tmp_path / 'set' / 'train').glob('*_bbox.npy'):
        assert np.unique(read_boxes(path)['t']).tolist() == [60_000, 160_000]


def test_digits_never_meet_and_never_stop(made):
    for path in made.rglob('*_bbox.npy'):
        boxes = read_boxes(path)
        for t in np.unique(boxes['t']):
            here = boxes[boxes['t'] == t]
            x1, y1 = here['x'], here['y']
            x2, y2 = x1 + here['w'], y1 + here['h']
            w = np.minimum.outer(x2, x2) - np.maximum.outer(x1, x1)
            h = np.minimum.outer(y2, y2) - np.maximum.outer(y1, y1)
            assert ((w > 0) & (h > 0)).sum() == len(here)
        for track in np.unique(boxes['track_id']):
            own = boxes[boxes['track_id'] == track]
            centers = np.stack([own['x'] + own['w'] / 2, own['y'] + own['h'] / 2], 1)
            assert (np.abs(np.diff(centers, axis=0)).max(1) > 0).all()


def test_train_and_val_show_other_scans():
    _, labels = digits_to_events.load_scans()
    pools = digits_to_events.split_digits(labels, 0)
    assert not set(pools['train']) & set(pools['val'])


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--train', '0'], '--train is 0; give 1 or more'),
        (['--seed', '-1'], '--seed is -1'),
        (['--train-duration', '40'], '--train-duration is 40; give 50 or more'),
        (['--val-duration', '655'], '--val-duration is 655; give a multiple of 10 ms'),
        (['--val-duration', '500'], 'the metric leaves the first half second out'),
        (['--min-size', '60'], 'give sizes from 8 to 128, the smaller one first'),
    ],
)
def test_bad_options(tmp_path, options, message):
    with pytest.raises(SystemExit, match=message):
        digits_to_events.main([str(tmp_path / 'set'), *options])


def test_a_set_that_lost_a_recording_is_not_there(made, tmp_path):
    part = shutil.copytree(made, tmp_path / 'part')
    next((part / 'val').glob('*_td.dat')).unlink()
    with pytest.raises(SystemExit, match='does not hold the data set of these options'):
        digits_to_events.main([str(part), *SMALL])


def test_nothing_is_overwritten(made, tmp_path):
    before = all_files(made)
    with pytest.raises(SystemExit, match='does not hold the data set of these options'):
        digits_to_events.main([str(made), *SMALL, '--seed', '5'])
    assert all_files(made) == before
    about = json.loads((made / 'about.json').read_text())
    assert about['options']['train_duration'] == 700

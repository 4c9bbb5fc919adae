"""mmsnn follow: animations, sheets and boxes of recordings, by a detector that streams."""

import json

import numpy as np
import pytest
import torch
from event_files import write_dat
from PIL import Image

from mmsnn.apis import init_detector
from mmsnn.datasets.events import make_boxes
from mmsnn.visualization import draw_course, draw_window, event_picture, save_animation
from mmsnn_cli import follow

CONFIG = 'configs/digits/spiking-retinanet_sg-r10_asd_fpn_digits-events.py'


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """A checkpoint, and a folder of two recordings of 0.55 s."""
    root = tmp_path_factory.mktemp('follow')
    torch.manual_seed(0)
    torch.save(dict(state_dict=init_detector(CONFIG).state_dict(), meta={}), root / 'a.pth')
    (root / 'data').mkdir()
    for seed, name in enumerate('ab'):
        rng = np.random.default_rng(seed)
        t = np.sort(rng.integers(0, 550_000, 3000))
        rows = np.stack([*rng.integers(0, 128, (2, 3000)), t, rng.integers(0, 2, 3000)], 1)
        write_dat(root / 'data' / f'{name}_td.dat', rows.tolist(), b'% Width 128\n% Height 128\n')
        boxes = make_boxes(2)
        boxes['t'], boxes['x'], boxes['y'] = (150_000, 400_000), 20, 30
        boxes['w'], boxes['h'], boxes['class_id'] = 30, 40, 7
        np.save(root / 'data' / f'{name}_bbox.npy', boxes)
    return root


def run(files, out, *options, path='data'):
    follow.main([CONFIG, str(files / 'a.pth'), str(files / path), '--out-dir', str(out), *options])


def test_a_folder(files, tmp_path, capsys):
    run(files, tmp_path, '--score-thr', '0.0', '--num', '2')
    assert '2 recordings: animations (.webp)' in capsys.readouterr().out
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {f'{name}.{suffix}' for name in 'ab' for suffix in ('webp', 'png', 'json')}
    found = json.loads((tmp_path / 'a.json').read_text())
    assert {box['t'] % 50_000 for box in found} == {found[0]['t'] % 50_000}
    assert all(len(box['bbox']) == 4 and box['class'] in '0123456789' for box in found)
    with Image.open(tmp_path / 'a.webp') as film:
        assert film.n_frames == 11
        assert film.size == (384, 384)


def test_a_part_as_gif(files, tmp_path):
    options = '--start', '0.1', '--end', '0.45', '--format', 'gif'
    run(files, tmp_path, *options, path='data/b_td.dat')
    assert {path.name for path in tmp_path.iterdir()} == {'b.gif', 'b.png', 'b.json'}
    with Image.open(tmp_path / 'b.gif') as film:
        assert film.n_frames == 7


def test_true_boxes_are_those_of_their_window(files, tmp_path, monkeypatch):
    drawn = []

    def watched(frames, true, found, title):
        drawn.append(list(true))
        return draw_window(frames, title=title)

    monkeypatch.setattr(follow, 'draw_window', watched)
    run(files, tmp_path, '--start', '0.3', '--end', '0.5', path='data/a_td.dat')
    # Labels at 0.15 s, before the first window, and at 0.4 s, with which the second ends.
    assert drawn == [[], [([20, 30, 50, 70], '7')], [], []]


def test_by_products_and_two_of_a_name(files, tmp_path, capsys):
    folder = files / 'others'
    folder.mkdir()
    data = (files / 'data' / 'a_td.dat').read_bytes()
    (folder / 'a_td.dat').write_bytes(data)
    (folder / '._a_td.dat').write_bytes(b'left by macOS')
    run(files, tmp_path, '--end', '0.2', path='others')
    assert '1 recordings' in capsys.readouterr().out
    (folder / 'a.dat').write_bytes(data)
    with pytest.raises(SystemExit, match=r'has the recording a\.dat also as a_td\.dat'):
        run(files, tmp_path, path='others')


@pytest.mark.parametrize(
    ('options', 'path', 'message'),
    [
        ([], 'nowhere', 'nowhere is not there'),
        (['--num', '0'], 'data', '--num must be at least 1'),
        (['--start', '0.5', '--end', '0.54'], 'data', 'has no whole window from --start to --end'),
    ],
)
def test_what_cannot_be_followed(files, tmp_path, options, path, message):
    with pytest.raises(SystemExit, match=message):
        run(files, tmp_path / 'out', *options, path=path)
    (files / 'empty').mkdir(exist_ok=True)
    with pytest.raises(SystemExit, match='empty holds no recordings'):
        run(files, tmp_path / 'out', path='empty')


def test_pictures():
    frames = np.zeros((2, 4, 20, 30))
    frames[0, 3, 5, 7] = frames[1, 0, 6, 8] = 3  # ON, and OFF, of two bins each
    picture = event_picture(frames)
    assert picture.shape == (20, 30, 3)
    assert picture[5, 7].tolist() == [255, 0, 0]
    assert picture[6, 8].tolist() == [0, 0, 255]
    assert picture[0, 0].tolist() == [255, 255, 255]
    with pytest.raises(ValueError, match='frames of 3 channels have none of OFF and ON'):
        event_picture(frames[:, :3])
    plain = draw_window(frames, side=40)
    assert plain.shape == (40, 60, 3)
    boxes = [((4, 4, 20, 15), 'box')]
    for options in (dict(true=boxes), dict(found=boxes)):
        drawn = draw_window(frames, side=40, **options)
        # On the rim of the box, twice enlarged, and not inside of it.
        assert (drawn[8, 10:38] != plain[8, 10:38]).any(-1).all()
        assert np.array_equal(drawn[14:24, 20:30], plain[14:24, 20:30])
    figure = draw_course([plain] * 3, {'a': [0.1, 0.2]}, [3, 4], [0.0, 0.1], 'title')
    assert figure.axes[3].lines[0].get_ydata().tolist() == [10, 20]


def test_animations(tmp_path):
    pictures = [np.full((8, 8, 3), value, np.uint8) for value in (0, 120, 250)]
    for name in ('a.gif', 'a.webp'):
        save_animation(pictures, tmp_path / name, 50)
        with Image.open(tmp_path / name) as film:
            assert film.n_frames == 3
            film.seek(1)
            assert abs(int(np.asarray(film.convert('RGB')).mean()) - 120) < 8
    with pytest.raises(ValueError, match=r'suffix \.gif or \.webp'):
        save_animation(pictures, tmp_path / 'a.mp4', 50)
    with pytest.raises(ValueError, match='got 0 for'):
        save_animation([], tmp_path / 'b.gif', 50)

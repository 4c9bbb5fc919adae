import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmsnn_cli import digits_to_coco

pytest.importorskip('sklearn')

SCRIPT = Path(__file__).parents[2] / 'tools' / 'dataset_converters' / 'digits_to_coco.py'
SMALL = ['--train-images', '12', '--val-images', '6']
OPTIONS = {
    'train_images': 12,
    'val_images': 6,
    'image_size': 128,
    'min_size': 16,
    'max_size': 56,
    'max_digits': 5,
    'seed': 0,
}


@pytest.fixture(scope='module')
def converter():
    return digits_to_coco


@pytest.fixture(scope='module')
def made(converter, tmp_path_factory):
    out = tmp_path_factory.mktemp('digits') / 'set'
    converter.main([str(out), *SMALL])
    return out


def load(root, split):
    return json.loads((root / 'annotations' / f'instances_{split}.json').read_text())


def all_files(root):
    return {p.relative_to(root): p.read_bytes() for p in sorted(root.rglob('*')) if p.is_file()}


def fails(converter, *argv):
    with pytest.raises(SystemExit) as caught:
        converter.main([str(a) for a in argv])
    message = caught.value.code
    assert isinstance(message, str)
    assert '\n' not in message
    return message


def test_same_seed_gives_the_same_files(converter, made, tmp_path):
    converter.main([str(tmp_path / 'again'), *SMALL])
    assert all_files(tmp_path / 'again') == all_files(made)

    converter.main([str(tmp_path / 'other'), *SMALL, '--seed', '1'])
    name = 'train/000000000001.png'
    assert (tmp_path / 'other' / name).read_bytes() != (made / name).read_bytes()


def test_an_image_does_not_depend_on_the_count(converter, made, tmp_path):
    converter.main([str(tmp_path / 'few'), '--train-images', '3', '--val-images', '1'])
    few = all_files(tmp_path / 'few' / 'train')
    assert len(few) == 3
    assert few.items() <= all_files(made / 'train').items()


@pytest.mark.parametrize(('split', 'count'), [('train', 12), ('val', 6)])
def test_pycocotools_reads_it(made, split, count):
    coco_api = pytest.importorskip('pycocotools.coco')
    coco = coco_api.COCO(str(made / 'annotations' / f'instances_{split}.json'))
    assert [(c['id'], c['name']) for c in coco.loadCats(coco.getCatIds())] == [
        (i + 1, str(i)) for i in range(10)
    ]
    assert len(coco.getImgIds()) == count
    for entry in coco.loadImgs(coco.getImgIds()):
        image = cv2.imread(str(made / split / entry['file_name']))
        assert image.shape == (entry['height'], entry['width'], 3) == (128, 128, 3)
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=entry['id']))
        assert 1 <= len(annotations) <= 5
        for annotation in annotations:
            x, y, w, h = annotation['bbox']
            assert all(isinstance(v, float) for v in (x, y, w, h))
            assert x >= 0
            assert y >= 0
            assert x + w <= 128
            assert y + h <= 128
            assert 15 <= max(w, h) <= 57
            assert annotation['area'] == w * h
            assert annotation['iscrowd'] == 0


def test_boxes_hold_the_strokes_tightly(converter):
    scans, _ = converter.load_scans()
    pool = np.arange(len(scans))
    sides = []
    for number in range(40):
        rng = np.random.default_rng(number)
        _, digits, alphas = converter.compose_image(rng, scans, pool, OPTIONS)
        for (_, (x, y, w, h)), alpha in zip(digits, alphas):
            ink = alpha > converter.ALPHA_THRESHOLD
            inside = ink[y : y + h, x : x + w]
            assert inside.sum() == ink.sum()
            for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]):
                assert edge.any()
            assert alpha.max() > 0.9  # a stroke, not a shade
            sides.append(max(w, h))
        boxes = [box for _, box in digits]
        for i, box in enumerate(boxes):
            assert not any(converter.covers(box, other) for other in boxes[:i])
    # Within a pixel of what was asked, and spread over the whole range.
    assert 15 <= min(sides) <= 20
    assert 50 <= max(sides) <= 57


def test_ink_stands_out(converter):
    rng = np.random.default_rng(0)
    for _ in range(200):
        under = rng.uniform(0, 160, 3)
        ink = converter.pick_ink(rng, under)
        assert (ink - under) @ converter.LUMA >= converter.MIN_CONTRAST


def test_validation_shows_only_unseen_digits(converter, made):
    _, labels = converter.load_scans()
    split = converter.split_digits(labels, 0)
    assert not set(split['train']) & set(split['val'])
    assert sorted([*split['train'], *split['val']]) == list(range(1797))
    assert set(labels[split['val']]) == set(range(10))
    for name in ('train', 'val'):
        for annotation in load(made, name)['annotations']:
            assert annotation['digit_index'] in split[name]
            assert labels[annotation['digit_index']] == annotation['category_id'] - 1


def test_already_there(converter, made, capsys):
    before = all_files(made)
    converter.main([str(made), *SMALL])
    assert 'already there' in capsys.readouterr().out
    assert all_files(made) == before


def test_never_overwrites(converter, made, tmp_path):
    before = all_files(made)
    message = fails(converter, made, *SMALL, '--seed', 1)
    assert str(made) in message
    assert 'give another folder' in message
    assert all_files(made) == before

    mine = tmp_path / 'mine'
    mine.mkdir()
    (mine / 'notes.txt').write_text('keep')
    assert 'not empty' in fails(converter, mine)
    assert all_files(mine) == {Path('notes.txt'): b'keep'}
    assert 'is a file' in fails(converter, mine / 'notes.txt')


def test_an_empty_folder_is_filled(converter, tmp_path, capsys):
    out = tmp_path / 'empty'
    out.mkdir()
    converter.main([str(out), '--train-images', '2', '--val-images', '1'])
    last = capsys.readouterr().out.splitlines()[-1]
    boxes = sum(len(load(out, split)['annotations']) for split in ('train', 'val'))
    assert last == f'made: {out} (3 images, {boxes} boxes)'


def test_cut_off_leaves_nothing(converter, tmp_path, monkeypatch):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(converter, 'compose_image', stop)
    with pytest.raises(KeyboardInterrupt):
        converter.main([str(tmp_path / 'out'), *SMALL])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ('flags', 'parts'),
    [
        (['--min-size', 70], ['--min-size 70', '--max-size 60']),
        (['--max-size', 200], ['--max-size 200', '--image-size 128']),
        (['--min-size', 4], ['--min-size', '8 or more']),
        (['--val-images', 0], ['--val-images', '1 or more']),
        (['--seed', -1], ['--seed', '0 or more']),
    ],
)
def test_impossible_options(converter, tmp_path, flags, parts):
    message = fails(converter, tmp_path / 'out', *flags)
    assert all(part in message for part in parts)
    assert list(tmp_path.iterdir()) == []


def test_scikit_learn_missing(converter, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'sklearn.datasets', None)
    message = fails(converter, tmp_path / 'out')
    assert 'pip install mmsnn[demo]' in message
    assert list(tmp_path.iterdir()) == []


def test_largest_digit_fills_the_image(converter, tmp_path):
    flags = ['--image-size', '64', '--min-size', '64', '--max-size', '64', '--max-digits', '1']
    converter.main([str(tmp_path / 'full'), *SMALL, *flags])
    boxes = [a['bbox'] for a in load(tmp_path / 'full', 'train')['annotations']]
    assert len(boxes) == 12
    assert all(max(w, h) >= 63 for _, _, w, h in boxes)


def test_help_teaches():
    run = subprocess.run(
        [sys.executable, str(SCRIPT), '--help'], capture_output=True, text=True, check=True
    )
    assert 'COCO format' in run.stdout
    assert 'default: 1200' in run.stdout
    assert 'Example:' in run.stdout

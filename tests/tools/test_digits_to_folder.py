import cv2
import numpy as np
import pytest

from mmsnn_cli import digits_to_folder

pytest.importorskip('sklearn')


@pytest.fixture(scope='module')
def converter():
    return digits_to_folder


@pytest.fixture(scope='module')
def made(converter, tmp_path_factory):
    out = tmp_path_factory.mktemp('digits') / 'set'
    converter.main([str(out)])
    return out


def files(root):
    return {p.relative_to(root): p.read_bytes() for p in root.rglob('*.png')}


def fails(converter, *argv):
    with pytest.raises(SystemExit) as caught:
        converter.main([str(part) for part in argv])
    assert '\n' not in caught.value.code
    return caught.value.code


def test_every_scan_is_in_one_place(made):
    from sklearn.datasets import load_digits

    labels = load_digits().target
    train, test = ([p for p in files(made) if p.parts[0] == s] for s in ('train', 'test'))
    numbers = [int(path.stem) for path in (*train, *test)]
    assert sorted(numbers) == list(range(1797))
    assert all(int(path.parent.name) == labels[int(path.stem)] for path in (*train, *test))
    for label in range(10):
        share = sum(path.parent.name == str(label) for path in test) / (labels == label).sum()
        assert 0.19 < share < 0.21


def test_images_show_their_scans(made):
    from sklearn.datasets import load_digits

    digits = load_digits()
    for path in list(files(made))[::97]:
        image = cv2.imread(str(made / path), cv2.IMREAD_UNCHANGED)
        assert image.shape == (16, 16)
        scan = digits.images[int(path.stem)] * 255 / 16
        small = image.reshape(8, 2, 8, 2).mean((1, 3))
        assert np.corrcoef(small.ravel(), scan.ravel())[0, 1] > 0.95


def test_no_image_is_in_both(made):
    train, test = (
        {content for path, content in files(made).items() if path.parts[0] == split}
        for split in ('train', 'test')
    )
    assert not train & test


def test_same_options_same_files(converter, made, tmp_path):
    (tmp_path / 'again').mkdir()  # empty, so it may be taken
    converter.main([str(tmp_path / 'again')])
    assert files(tmp_path / 'again') == files(made)
    converter.main([str(tmp_path / 'other'), '--seed', '1', '--size', '8'])
    other = files(tmp_path / 'other')
    assert set(other) != set(files(made))
    assert cv2.imread(str(tmp_path / 'other' / next(iter(other)))).shape == (8, 8, 3)
    assert sorted(p.name for p in tmp_path.iterdir()) == ['again', 'other']


def test_refuses(converter, tmp_path):
    (tmp_path / 'mine').write_text('mine')
    assert f'{tmp_path} is not empty' in fails(converter, tmp_path)
    assert 'mine is a file' in fails(converter, tmp_path / 'mine')
    assert '--size is 7' in fails(converter, tmp_path / 'x', '--size', 7)
    assert '--seed is -1' in fails(converter, tmp_path / 'x', '--seed', -1)
    assert [p.name for p in tmp_path.iterdir()] == ['mine']


def test_starts_by_its_name(tool):
    done = tool('dataset_converters/digits_to_folder.py', '--help')
    assert 'OUT_DIR' in done.stdout

import hashlib
import os
import pickle
import resource
from pathlib import Path

import numpy as np
import pytest
from event_files import corrupt
from mmdet.registry import DATASETS

from mmsnn.datasets import CIFAR10, CIFAR100, DatasetError
from mmsnn.datasets.cifar import OfficialFile, load_batch

REAL = os.environ.get('MMSNN_CIFAR10')
TRAIN = [f'data_batch_{i}' for i in range(1, 6)]


def dump(path, content, protocol=2):
    path.write_bytes(pickle.dumps(content, protocol=protocol))


def pixels(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)


def write_cifar10(root, count=4):
    """Small batches in the form of the official ones; returns all pixels and labels in order."""
    root.mkdir(parents=True, exist_ok=True)
    data, labels = [], []
    for i, name in enumerate([*TRAIN, 'test_batch']):
        data.append(pixels(count + i, seed=i))
        labels.append([(3 * i + j) % 10 for j in range(count + i)])
        dump(root / name, {b'batch_label': b'x', b'labels': labels[-1], b'data': data[-1]})
    return np.concatenate(data[:5]), np.concatenate(labels[:5]).tolist()


def write_cifar100(root):
    root.mkdir()
    content = {
        b'data': pixels(3),
        b'fine_labels': [99, 0, 5],
        b'coarse_labels': [1, 2, 3],
        b'filenames': [b'a', b'b', b'c'],
    }
    for name in ('train', 'test'):
        dump(root / name, content)


@pytest.fixture
def root(tmp_path):
    write_cifar10(tmp_path / 'cifar-10-batches-py')
    return tmp_path / 'cifar-10-batches-py'


def message(root, split='train', cls=CIFAR10):
    with pytest.raises(DatasetError) as caught:
        cls(data_root=str(root), split=split)
    assert '\n' not in str(caught.value)
    return str(caught.value)


# --- good data -----------------------------------------------------------------------------------


def test_items(tmp_path):
    data, labels = write_cifar10(tmp_path / 'set')
    dataset = CIFAR10(data_root=str(tmp_path / 'set'))
    assert len(dataset) == len(data) == 30
    for i in (0, 3, 4, 8, 9, 29):
        item = dataset.get_data_info(i)
        red, green, blue = data[i].reshape(3, 32, 32)
        assert item['img'].dtype == np.uint8
        for channel, plane in enumerate((blue, green, red)):  # BGR, as mmcv loads
            np.testing.assert_array_equal(item['img'][..., channel], plane)
        assert item['gt_label'] == labels[i]
        assert isinstance(item['gt_label'], int)
        assert item['ori_shape'] == item['img_shape'] == (32, 32)
        assert (item['height'], item['width'], item['sample_idx']) == (32, 32, i)
    # Batches hold 4, 5, 6, 7 and 8 images.
    places = [Path(dataset.get_data_info(i)['img_path']).name for i in (0, 3, 4, 8, 9, 29)]
    assert places == [
        'data_batch_1:0',
        'data_batch_1:3',
        'data_batch_2:0',
        'data_batch_2:4',
        'data_batch_3:0',
        'data_batch_5:7',
    ]
    assert dataset.get_data_info(-1)['sample_idx'] == 29
    np.testing.assert_array_equal(dataset.get_gt_labels(), labels)
    assert dataset.get_cat_ids(5) == [labels[5]]


def test_registered_and_splits(root):
    test = DATASETS.build(dict(type='CIFAR10', data_root=str(root), split='test', test_mode=True))
    assert len(test) == 9
    assert test.metainfo['classes'][3] == 'cat'
    with pytest.raises(ValueError, match="split must be one of train, test: got 'val'"):
        CIFAR10(data_root=str(root), split='val')


def test_parent_folder_will_do(root):
    assert len(CIFAR10(data_root=str(root.parent))) == 30
    assert len(CIFAR10(data_root=f'{root}/')) == 30


def test_cifar100(tmp_path):
    write_cifar100(tmp_path / 'cifar-100-python')
    dataset = CIFAR100(data_root=str(tmp_path))
    assert dataset.get_gt_labels().tolist() == [99, 0, 5]  # the fine ones
    classes = dataset.metainfo['classes']
    assert len(set(classes)) == 100
    assert list(classes) == sorted(classes)
    assert (classes[0], classes[99]) == ('apple', 'worm')


@pytest.mark.parametrize('protocol', [0, 2, 4, 5])
def test_batches_written_by_any_python(tmp_path, protocol):
    data = pixels(3)
    for array in (data, np.asfortranarray(data)):
        dump(tmp_path / 'batch', {'data': array, 'labels': [1, 2, 3]}, protocol)
        content, is_official = load_batch(str(tmp_path / 'batch'))
        np.testing.assert_array_equal(content['data'], data)
        assert content['labels'] == [1, 2, 3]
        assert not is_official


def test_batches_in_the_text_of_python_2(tmp_path):
    text = ''.join(rf'\x{value:02x}' for value in range(256))
    (tmp_path / 'batch').write_bytes(f"(dp0\nS'data'\np1\nS'{text}'\np2\ns.".encode())
    content, _ = load_batch(str(tmp_path / 'batch'))
    assert content['data'] == bytes(range(256))


def test_pipelines_cannot_write_into_the_data(root):
    dataset = CIFAR10(data_root=str(root), pipeline=[blacken])
    before = dataset.images.copy()
    assert dataset[2]['img'].max() == 0
    np.testing.assert_array_equal(dataset.images, before)


def blacken(results):
    results['img'][:] = 0
    return results


def test_subsets_share_the_images(root):
    dataset = CIFAR10(data_root=str(root))
    subset = dataset.get_subset([7, 2])
    assert subset.images is dataset.images
    assert [subset.get_data_info(i)['gt_label'] for i in range(2)] == [
        dataset.get_data_info(i)['gt_label'] for i in (7, 2)
    ]
    assert subset.get_gt_labels().tolist() == dataset.labels[[7, 2]].tolist()
    assert len(CIFAR10(data_root=str(root), indices=3)) == 3
    assert dataset.images.flags['C_CONTIGUOUS']


# --- the official files --------------------------------------------------------------------------


def test_a_corrupt_official_file_is_told_from_a_subset(root, monkeypatch):
    path = root / 'data_batch_2'
    content = path.read_bytes()
    official = OfficialFile(len(content), hashlib.md5(content).hexdigest())
    monkeypatch.setitem(CIFAR10.FILES['train'], 'data_batch_2', official)
    assert load_batch(str(path), official).is_official
    CIFAR10(data_root=str(root))
    broken = bytearray(content)
    broken[-500] ^= 1  # one bit of one pixel
    path.write_bytes(broken)
    text = message(root)
    assert f'{path} is corrupt' in text
    assert official.md5 in text
    assert 'https://www.cs.toronto.edu/~kriz/cifar.html' in text


def test_a_subset_is_logged_once(root, monkeypatch):
    lines = []
    monkeypatch.setattr('mmsnn.datasets.cifar.print_log', lambda text, **_: lines.append(text))
    CIFAR10(data_root=str(root))
    assert len(lines) == 1
    assert str(root) in lines[0]
    assert 'subset of 30 train images' in lines[0]
    for name in TRAIN:
        content = (root / name).read_bytes()
        official = OfficialFile(len(content), hashlib.md5(content).hexdigest())
        monkeypatch.setitem(CIFAR10.FILES['train'], name, official)
    CIFAR10(data_root=str(root))
    assert len(lines) == 1


# --- bad data ------------------------------------------------------------------------------------


def test_missing(root, tmp_path):
    text = message(tmp_path / 'gone')
    assert f'data root {tmp_path / "gone"} does not exist' in text
    (tmp_path / 'empty').mkdir()
    text = message(tmp_path / 'empty')
    assert 'no data_batch_1 to data_batch_5' in text
    assert 'https://www.cs.toronto.edu/~kriz/cifar.html' in text
    (root / 'data_batch_4').unlink()
    assert f'{root / "data_batch_4"} does not exist' in message(root)
    assert len(CIFAR10(data_root=str(root), split='test')) == 9


@pytest.mark.parametrize('keep', [0, 1, 700, -1])
def test_truncated(root, keep):
    path = root / 'data_batch_3'
    path.write_bytes(path.read_bytes()[:keep])
    text = message(root)
    assert f'{path} is truncated or not a batch file' in text
    assert f'{path.stat().st_size} bytes; the official file has 31035999' in text


def test_random_bytes_end_in_a_message(tmp_path):
    rng = np.random.default_rng(0)
    whole = pickle.dumps({'data': pixels(1), 'labels': [1]}, protocol=2)
    ends = {'read': 0, 'refused': 0}
    for _ in range(200):
        content = bytearray(whole)
        for at in rng.integers(0, 160, 4):
            content[at] = rng.integers(256)
        (tmp_path / 'batch').write_bytes(content)
        try:  # anything but a DatasetError fails the test
            load_batch(str(tmp_path / 'batch'))
            ends['read'] += 1
        except DatasetError:
            ends['refused'] += 1
    assert ends['refused'] > 100


class Touch:
    """Unpickled by an ordinary unpickler, it makes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, 'w')


class Call:
    def __init__(self, function, *args):
        self.content = function, args

    def __reduce__(self):
        return self.content


def test_nothing_in_a_file_is_run(root, tmp_path):
    mark = tmp_path / 'mark'
    for evil in (
        Touch(mark),
        Call(os.system, f'touch {mark}'),
        Call(eval, f'open({str(mark)!r}, "w")'),
        Call(getattr, dict, 'get'),
        Call(np.load, str(mark)),
    ):
        for key in ('data', 'labels', 'filenames'):
            batch = {'data': pixels(2), 'labels': [1, 2], key: evil}
            dump(root / 'data_batch_1', batch)
            text = message(root)
            assert str(root / 'data_batch_1') in text
            assert 'is not opened: it asks for ' in text
            assert 'could run code' in text
        dump(root / 'data_batch_1', evil)
        assert 'is not opened' in message(root)
    assert not mark.exists()
    # An ordinary unpickler would have made the mark.
    dump(root / 'data_batch_1', Touch(mark))
    pickle.loads((root / 'data_batch_1').read_bytes()).close()
    assert mark.exists()


def test_arrays_of_objects_are_refused(root):
    batch = {'data': np.array([None, 'x'], object), 'labels': [1, 2]}
    dump(root / 'data_batch_1', batch)
    assert "array of 'O8', not of uint8" in message(root)
    dump(root / 'data_batch_1', {'data': pixels(2).astype(np.float32), 'labels': [1, 2]})
    assert "array of 'f4', not of uint8" in message(root)


@pytest.mark.parametrize(
    ('batch', 'said'),
    [
        ([1, 2], 'it holds a list, not a dict'),
        ({'labels': [1]}, "it has no 'data' (it has 'labels')"),
        ({'data': pixels(1), 'fine_labels': [1]}, "it has no 'labels'"),
        ({'data': pixels(2)[:, :3000], 'labels': [1, 2]}, 'got (2, 3000)'),
        ({'data': 'text', 'labels': [1, 2]}, 'got str'),
        ({'data': pixels(3), 'labels': [1, 2]}, 'one label for each of the 3 images'),
        ({'data': pixels(3), 'labels': 7}, 'got int'),
        ({'data': pixels(0), 'labels': []}, 'at least one, got 0'),
        ({'data': pixels(3), 'labels': [1, 10, 2]}, 'image 1 has the label 10'),
        ({'data': pixels(3), 'labels': [1, 2, -1]}, 'image 2 has the label -1'),
        ({'data': pixels(1), 'labels': [True]}, 'image 0 has the label True'),
        ({'data': pixels(1), 'labels': ['3']}, "image 0 has the label '3'"),
    ],
)
def test_wrong_structure(root, batch, said):
    dump(root / 'data_batch_2', batch, protocol=4)
    text = message(root)
    assert str(root / 'data_batch_2') in text
    assert said in text


def test_classes_of_another_set(root):
    names = [name.encode() for name in CIFAR10.METAINFO['classes']]
    dump(root / 'batches.meta', {b'label_names': names})
    CIFAR10(data_root=str(root))
    names[1] = b'hamster'
    dump(root / 'batches.meta', {b'label_names': names})
    assert 'batches.meta: label_names are not the classes of CIFAR10' in message(root)


# --- real images ---------------------------------------------------------------------------------


@pytest.mark.skipif(not REAL, reason='set MMSNN_CIFAR10 to a folder cifar-10-batches-py')
def test_real_images():
    test = CIFAR10(data_root=REAL, split='test')
    assert len(CIFAR10(data_root=REAL)) == 5 * len(test)
    # The first test images are a cat, two ships, an aeroplane and two frogs; the sea is blue.
    assert test.get_gt_labels()[:6].tolist() == [3, 8, 8, 0, 6, 6]
    blue, _, red = test.get_data_info(1)['img'].reshape(-1, 3).mean(0)
    assert blue > red


# --- files that take more than they have ---------------------------------------------------------


@pytest.mark.parametrize(
    ('raw', 'said'),
    [
        (b'\x80\x02}r\xff\xff\xff\x0f.', 'operation 2 has place 268435455 in the memo'),
        (b'}p268435455\n.', 'operation 1 has place 268435455 in the memo'),
        # numpy's _frombuffer(2 ** 31 - 1, None, (1,))
        (
            b'\x80\x02}X\x04\0\0\0datacnumpy.core.numeric\n_frombuffer\n(J\xff\xff\xff\x7fN'
            b'K\x01\x85tRs.',
            'an array has int for its content',
        ),
    ],
)
def test_claims_of_a_batch_take_no_memory(tmp_path, raw, said):
    (tmp_path / 'batch').write_bytes(raw)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DatasetError, match=said):
        load_batch(str(tmp_path / 'batch'))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024


def test_pipes_are_no_batches(root):
    (root / TRAIN[1]).unlink()
    os.mkfifo(root / TRAIN[1])
    assert 'data_batch_2 cannot be read: it is no regular file' in message(root)


def test_class_names_that_are_an_array(root):
    dump(root / 'batches.meta', {b'label_names': np.zeros(10, np.uint8)})
    assert 'label_names are not the classes' in message(root)


def test_corrupted_batches(root):
    rng = np.random.default_rng(0)
    names = TRAIN[:2]
    whole = {name: (root / name).read_bytes() for name in names}
    said = []
    for i in range(200):
        name = names[i % 2]
        (root / name).write_bytes(corrupt(whole[name], rng))
        try:
            assert len(CIFAR10(data_root=str(root)).images) == 30
        except DatasetError as error:
            said.append((name, str(error)))
        (root / name).write_bytes(whole[name])
    assert len(said) > 100
    assert all(name in text for name, text in said)

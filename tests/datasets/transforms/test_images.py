import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.registry import DATASETS, TRANSFORMS
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope
from torch.utils.data import DataLoader

from mmsnn.datasets import ClsDataset
from mmsnn.datasets.transforms import PackClsInputs, RandomPadCrop, RandomResizedCrop
from mmsnn.structures import ClsDataSample


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmdet')
    np.random.seed(0)


def image(height, width, channels=3, seed=0):
    shape = (height, width, channels) if channels else (height, width)
    return np.random.default_rng(seed).integers(1, 256, shape, dtype=np.uint8)


# --- RandomPadCrop -------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    pad_y=st.integers(0, 4),
    pad_x=st.integers(0, 4),
    channels=st.sampled_from([None, 1, 3]),
    data=st.data(),
)
def test_pad_crop_is_a_window_of_the_padded_image(height, width, pad_y, pad_x, channels, data):
    size = (
        data.draw(st.integers(1, height + 2 * pad_y)),
        data.draw(st.integers(1, width + 2 * pad_x)),
    )
    img = image(height, width, channels)
    out = RandomPadCrop(size, padding=(pad_y, pad_x), pad_val=7)(dict(img=img.copy()))
    assert out['img_shape'] == out['img'].shape[:2] == size
    assert out['img'].dtype == np.uint8
    around = [(pad_y, pad_y), (pad_x, pad_x), (0, 0)][: img.ndim]
    padded = np.pad(img, around, constant_values=7)
    assert any(
        np.array_equal(out['img'], padded[y : y + size[0], x : x + size[1]])
        for y in range(len(padded) - size[0] + 1)
        for x in range(padded.shape[1] - size[1] + 1)
    )


def test_pad_crop_draws_every_place_alike():
    img = np.arange(1, 17, dtype=np.uint8).reshape(4, 4)
    crop = RandomPadCrop(4, padding=1)
    seen = {}
    for _ in range(1800):
        out = crop(dict(img=img))['img']
        seen[out.tobytes()] = seen.get(out.tobytes(), 0) + 1
    assert len(seen) == 9
    # 200 each; 6 standard deviations are 80.
    assert min(seen.values()) > 120
    assert max(seen.values()) < 280


def test_pad_crop_pads_by_channel():
    out = RandomPadCrop((5, 5), padding=1, pad_val=(1, 2, 3))(dict(img=image(3, 3)))
    assert out['img'][0, 0].tolist() == [1, 2, 3]


def test_pad_crop_refuses():
    with pytest.raises(ValueError, match=r'2x2 pixels \(a.png\), which is smaller than the window'):
        RandomPadCrop(8, padding=2)(dict(img=image(2, 2), img_path='a.png'))
    with pytest.raises(ValueError, match='size must be a whole number'):
        RandomPadCrop(0)
    with pytest.raises(ValueError, match='padding must be a whole number'):
        RandomPadCrop(8, padding=-1)


# --- RandomResizedCrop ---------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(
    height=st.integers(1, 400),
    width=st.integers(1, 400),
    area=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)).map(sorted),
    ratio=st.tuples(st.floats(0.2, 5), st.floats(0.2, 5)).map(sorted),
    seed=st.integers(0, 10**6),
)
def test_window_lies_within_and_keeps_its_ranges(height, width, area, ratio, seed):
    np.random.seed(seed)
    crop = RandomResizedCrop(8, area=area, ratio=ratio)
    top, left, crop_h, crop_w = crop.draw_window(height, width)
    assert top >= 0
    assert left >= 0
    assert crop_h >= 1
    assert crop_w >= 1
    assert top + crop_h <= height
    assert left + crop_w <= width
    # Rounding moves each side by at most half a pixel; the window in the centre is as large as
    # the image in one direction, and within the ratios if a pixel's width allows it.
    if crop_h not in (height, 1) and crop_w not in (width, 1):
        low = area[0] * height * width
        assert (crop_h + 0.5) * (crop_w + 0.5) >= low - 1e-6
        assert (crop_h - 0.5) * (crop_w - 0.5) <= area[1] * height * width + 1e-6
        assert (crop_w + 0.5) / (crop_h - 0.5) >= ratio[0] - 1e-6
        assert (crop_w - 0.5) / (crop_h + 0.5) <= ratio[1] + 1e-6


def test_window_is_drawn_from_the_whole_of_its_ranges():
    crop = RandomResizedCrop(8)
    windows = np.array([crop.draw_window(1000, 1000) for _ in range(3000)])
    area = windows[:, 2] * windows[:, 3] / 1e6
    ratio = windows[:, 3] / windows[:, 2]
    assert area.min() < 0.1
    assert area.max() > 0.9
    assert ratio.min() < 0.76
    assert ratio.max() > 1.31
    assert abs(np.log(ratio).mean()) < 0.02  # wide as often as tall: log-uniform
    # Uniform would be 0.54; the largest windows of extreme ratios do not fit and are drawn anew.
    assert 0.45 < area.mean() < 0.54
    assert (windows[:, 0] > 300).any()
    assert (windows[:, 1] > 300).any()


@pytest.mark.parametrize('max_attempts', [0, 10])
def test_images_no_window_fits(max_attempts):
    crop = RandomResizedCrop(8, area=(1, 1), max_attempts=max_attempts)
    assert crop.draw_window(100, 400) == (0, 133, 100, 133)
    assert crop.draw_window(400, 100) == (133, 0, 133, 100)


def test_resized_crop_resizes_the_window():
    img = image(40, 60)
    crop = RandomResizedCrop((16, 24), area=(0.3, 0.3))
    np.random.seed(3)
    top, left, height, width = crop.draw_window(40, 60)
    np.random.seed(3)
    out = crop(dict(img=img))
    assert out['img_shape'] == out['img'].shape[:2] == (16, 24)
    window = img[top : top + height, left : left + width]
    np.testing.assert_array_equal(out['img'], cv2.resize(window, (24, 16)))


@pytest.mark.parametrize(
    ('kwargs', 'said'),
    [
        (dict(size=(1, 2, 3)), 'size must be'),
        (dict(size=8, area=(0, 1)), 'area must be'),
        (dict(size=8, area=(0.5, 1.1)), 'at most 1'),
        (dict(size=8, ratio=(2, 1)), 'ratio must be'),
        (dict(size=8, max_attempts=-1), 'max_attempts'),
    ],
)
def test_resized_crop_refuses(kwargs, said):
    with pytest.raises(ValueError, match=said):
        RandomResizedCrop(**kwargs)


# --- PackClsInputs -------------------------------------------------------------------------------


def test_pack():
    img = image(5, 7)
    results = dict(img=img, gt_label=3, img_path='a.png', flip=True, other=1)
    packed = PackClsInputs()(results)
    assert packed['inputs'].dtype == torch.uint8
    assert packed['inputs'].is_contiguous()
    np.testing.assert_array_equal(packed['inputs'].numpy(), img.transpose(2, 0, 1))
    sample = packed['data_samples']
    assert isinstance(sample, ClsDataSample)
    assert sample.gt_label.tolist() == [3]
    assert sample.metainfo == dict(img_path='a.png', flip=True)
    assert PackClsInputs(meta_keys=('other',))(results)['data_samples'].metainfo == dict(other=1)


def test_pack_grey_and_unlabelled():
    packed = PackClsInputs()(dict(img=image(5, 7, None).astype(np.float32)))
    assert packed['inputs'].shape == (1, 5, 7)
    assert packed['inputs'].dtype == torch.float32
    assert 'gt_label' not in packed['data_samples']


@pytest.mark.parametrize('name', ['RandomPadCrop', 'RandomResizedCrop'])
def test_registered_and_prints_itself(name):
    transform = TRANSFORMS.build(dict(type=name, size=8))
    assert repr(transform).startswith(f'{name}(size=(8, 8), ')
    assert repr(TRANSFORMS.build(dict(type='PackClsInputs'))).startswith('PackClsInputs(meta_keys')


# --- with what MMDetection and mmcv have ---------------------------------------------------------


def test_imagenet_test_pipeline():
    pipeline = Compose(
        [
            dict(type='ResizeShortestEdge', scale=64),
            dict(type='CenterCrop', crop_size=56),
            dict(type='PackClsInputs'),
        ]
    )
    for shape in ((90, 130), (130, 90), (30, 31)):
        img = cv2.GaussianBlur(image(*shape), (0, 0), 5)
        out = pipeline(dict(img=img, img_shape=shape, ori_shape=shape, gt_label=0))
        assert out['inputs'].shape == (3, 56, 56)
        # The centre stays the centre, the shorter edge becomes 64.
        scale = 64 / min(shape)
        large = cv2.resize(img, (round(shape[1] * scale), round(shape[0] * scale)))
        top, left = (large.shape[0] - 56) // 2, (large.shape[1] - 56) // 2
        window = large[top : top + 56, left : left + 56].astype(int)
        assert np.abs(out['inputs'].permute(1, 2, 0).numpy() - window).mean() < 3


class Noise(ClsDataset):
    """Items as CIFAR10 gives them."""

    def load_data_list(self):
        return [
            dict(img=image(32, 32, seed=1), gt_label=4, img_shape=(32, 32), ori_shape=(32, 32))
        ] * 8


STRONG = [
    dict(type='RandomPadCrop', size=32, padding=4),
    dict(type='RandomFlip', prob=0.5),
    dict(
        type='AutoAugment',
        policies=[
            [dict(type='ShearX', prob=0.9, level=4), dict(type='Invert', prob=0.5)],
            [dict(type='Rotate', prob=0.7, level=2), dict(type='Color', prob=0.6, level=9)],
        ],
    ),
    dict(type='RandAugment', aug_num=2),
    dict(type='CutOut', n_holes=1, cutout_shape=(16, 16)),
    dict(type='PackClsInputs'),
]


def test_strong_augmentation_runs_on_items_without_boxes():
    dataset = Noise(data_prefix={}, pipeline=STRONG)
    batches = [dataset[i % 8] for i in range(100)]
    assert all(b['inputs'].shape == (3, 32, 32) for b in batches)
    assert all(b['inputs'].dtype == torch.uint8 for b in batches)
    assert all(b['data_samples'].gt_label.tolist() == [4] for b in batches)
    assert len({b['inputs'].numpy().tobytes() for b in batches}) > 95


def test_every_operation_of_randaugment_runs():
    from mmdet.datasets.transforms.augment_wrappers import RANDAUG_SPACE

    for operation in RANDAUG_SPACE:
        pipeline = Compose([*operation, dict(type='PackClsInputs')])
        out = pipeline(dict(img=image(32, 32), img_shape=(32, 32), gt_label=1))
        assert out['inputs'].shape == (3, 32, 32), operation
        assert out['inputs'].dtype == torch.uint8


@pytest.mark.filterwarnings('ignore:This process')
def test_forked_workers_draw_different_augmentations():
    """Each item is the same image: workers with the same random state would give equal batches."""
    dataset = Noise(data_prefix={}, pipeline=STRONG)
    loader = DataLoader(dataset, 4, num_workers=2, collate_fn=list, multiprocessing_context='fork')
    first, second = ([item['inputs'] for item in batch] for batch in loader)
    assert all(not torch.equal(a, b) for a in first for b in second)


def test_registry_has_the_data_sets():
    assert all(DATASETS.get(n) for n in ('CIFAR10', 'CIFAR100', 'ImageFolder', 'ImageNet'))

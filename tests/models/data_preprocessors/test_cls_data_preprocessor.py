"""Batches of images and event frames, and what mixes them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsnn.models import BatchCutMix, BatchMixUp, ClsDataPreprocessor
from mmsnn.structures import ClsDataSample


def image_batch(n=4):
    inputs = [torch.full((3, 6, 5), 40 * i, dtype=torch.uint8) for i in range(n)]
    for x in inputs:
        x[0] += 1
    return dict(inputs=inputs, data_samples=[ClsDataSample().set_gt_label(i) for i in range(n)])


def test_images():
    preprocess = ClsDataPreprocessor(mean=[1, 2, 3], std=[2, 4, 8], bgr_to_rgb=True)
    batch = preprocess(image_batch())
    assert batch['inputs'].shape == (4, 3, 6, 5)
    assert batch['inputs'].dtype == torch.float32
    # Red, which mean[0] is for, came last.
    assert batch['inputs'][2, :, 0, 0].tolist() == [(80 - 1) / 2, (80 - 2) / 4, (81 - 3) / 8]
    assert [int(sample.gt_label) for sample in batch['data_samples']] == [0, 1, 2, 3]


def test_event_frames_have_time_first():
    frames = [torch.arange(5.0).view(5, 1, 1, 1).expand(5, 2, 4, 4) + 10 * b for b in range(3)]
    batch = ClsDataPreprocessor()(dict(inputs=frames))['inputs']
    assert batch.shape == (5, 3, 2, 4, 4)
    assert batch[3, 2].unique().tolist() == [23]


def test_a_batch_stays_one():
    batch = torch.rand(2, 3, 4, 4)
    assert torch.equal(ClsDataPreprocessor()(dict(inputs=batch))['inputs'], batch)


def test_augments_only_in_training():
    preprocess = ClsDataPreprocessor(
        batch_augments=[dict(type='BatchMixUp'), dict(type='BatchCutMix')], num_classes=4
    )
    plain = preprocess(image_batch())
    assert 'gt_score' not in plain['data_samples'][0]
    np.random.seed(0)
    mixed = preprocess(image_batch(), training=True)
    assert not torch.equal(mixed['inputs'], plain['inputs'])
    scores = torch.stack([sample.gt_score for sample in mixed['data_samples']])
    torch.testing.assert_close(scores.sum(1), torch.ones(4))


def test_probabilities():
    np.random.seed(0)
    preprocess = ClsDataPreprocessor(
        batch_augments=[dict(type='BatchMixUp', prob=0.2), dict(type='BatchCutMix', prob=0.3)],
        num_classes=4,
    )
    drawn = [0, 0]
    for i, augment in enumerate(preprocess.batch_augments):

        def count(inputs, scores, i=i, mix=augment.__call__):
            drawn[i] += 1
            return mix(inputs, scores)

        preprocess.batch_augments[i] = count
    for _ in range(1000):
        preprocess(image_batch(), training=True)
    assert 150 < drawn[0] < 250
    assert 250 < drawn[1] < 350


# An image of one value each: what is in the mix can be read from it.
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6), alpha=st.floats(0.1, 3), batch=st.integers(1, 5), time=st.booleans()
)
@pytest.mark.parametrize('kind', [BatchMixUp, BatchCutMix])
def test_classes_follow_the_pixels(kind, seed, alpha, batch, time):
    np.random.seed(seed)
    labels = torch.eye(batch)
    x = labels.view(batch, batch, 1, 1).expand(batch, batch, 7, 9).contiguous()
    if time:
        x = torch.stack([x, 2 * x])
    mixed, scores = kind(alpha)(x, labels)
    torch.testing.assert_close(scores.sum(1), torch.ones(batch))
    # Channel k holds how much of sample k is in there.
    share = (mixed[0] if time else mixed).mean((2, 3))
    torch.testing.assert_close(share, scores, rtol=1e-4, atol=1e-5)
    if time:
        torch.testing.assert_close(mixed[1], 2 * mixed[0])


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(mean=[1.0]), 'give mean and std'),
        (dict(batch_augments=[dict(type='BatchMixUp')]), 'num_classes'),
        (
            dict(batch_augments=[dict(type='BatchMixUp', prob=1.5)], num_classes=2),
            r'at most 1, got \[1.5\]',
        ),
        (dict(batch_augments=[dict(type='BatchMixUp', alpha=0)], num_classes=2), 'positive alpha'),
    ],
)
def test_bad_settings(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        ClsDataPreprocessor(**arguments)


def test_samples_of_different_shapes():
    with pytest.raises(ValueError, match=r'different shapes.*\(3, 4, 4\), \(3, 4, 5\)'):
        ClsDataPreprocessor()(dict(inputs=[torch.zeros(3, 4, 4), torch.zeros(3, 4, 5)]))
    with pytest.raises(ValueError, match=r'different shapes.*\(4, 2, 8, 8\), \(5, 2, 8, 8\)'):
        ClsDataPreprocessor()(dict(inputs=[torch.zeros(4, 2, 8, 8), torch.zeros(5, 2, 8, 8)]))
    with pytest.raises(ValueError, match=r'an image .* or event frames'):
        ClsDataPreprocessor()(dict(inputs=[torch.zeros(4, 4)]))

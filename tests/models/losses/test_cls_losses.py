"""Cross entropy against its formula in float64."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmsnn.models import ClsLoss, TETLoss


def by_hand(z, y, smoothing):
    q = torch.full_like(z, smoothing / z.shape[-1], dtype=torch.float64)
    for i, label in enumerate(y):
        q[i, label] += 1 - smoothing
    z = z.double()
    return -(q * (z - z.exp().sum(-1, keepdim=True).log())).sum(-1).mean()


@given(
    batch=st.integers(1, 5),
    classes=st.integers(2, 7),
    smoothing=st.floats(0, 0.9),
    seed=st.integers(0, 99),
)
def test_label_smoothing(batch, classes, smoothing, seed):
    rng = torch.Generator().manual_seed(seed)
    z = torch.randn(batch, classes, generator=rng)
    y = torch.randint(classes, (batch,), generator=rng)
    found = ClsLoss(label_smoothing=smoothing)(z, y).double()
    torch.testing.assert_close(found, by_hand(z, y, smoothing), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('smoothing', [0.0, 0.1])
def test_tet_is_the_mean_over_time(smoothing):
    z, y = torch.randn(4, 3, 5), torch.tensor([0, 4, 2])
    expected = torch.stack([by_hand(step, y, smoothing) for step in z]).mean()
    loss = TETLoss(label_smoothing=smoothing)
    torch.testing.assert_close(loss(z, y).double(), expected, rtol=1e-5, atol=1e-6)
    assert loss(z, y) > ClsLoss(smoothing)(z.mean(0), y), 'the logarithm is concave'


def test_distributions_as_targets():
    z, y = torch.randn(4, 3, 5), torch.tensor([0, 4, 2])
    scores = torch.nn.functional.one_hot(y, 5).float()
    torch.testing.assert_close(ClsLoss()(z[0], scores), ClsLoss()(z[0], y))
    torch.testing.assert_close(TETLoss()(z, scores), TETLoss()(z, y))


def test_weight():
    z, y = torch.randn(3, 5), torch.tensor([0, 4, 2])
    torch.testing.assert_close(ClsLoss(loss_weight=3)(z, y), 3 * ClsLoss()(z, y))

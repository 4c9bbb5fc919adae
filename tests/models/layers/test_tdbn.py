import pytest
import torch
from mmcv.cnn import build_norm_layer
from mmengine.registry import init_default_scope
from torch import nn

from mmsnn.models import TDBN


@pytest.fixture
def drifting():
    """Currents whose mean and spread grow with time."""
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(4, 3, 5, 6, 7, generator=rng, dtype=torch.float64)
    t = torch.arange(4.0).view(-1, 1, 1, 1, 1)
    channel = torch.arange(5.0).view(1, 1, -1, 1, 1)
    return x * (1 + t) + 3 * t - channel


def joint(x, eps=1e-5):
    """Normalised over (T, B, H, W), one channel at a time."""
    out = torch.empty_like(x)
    for c in range(x.shape[2]):
        values = x[:, :, c]
        mean = values.sum() / values.numel()
        var = ((values - mean) ** 2).sum() / values.numel()
        out[:, :, c] = (values - mean) / (var + eps) ** 0.5
    return out


def test_by_hand():
    # T = 2, one image, one channel, 1 x 2 pixels: 1, 3 | 5, 7. Over time and space the mean is 4
    # and the variance (9 + 1 + 1 + 9) / 4 = 5; alpha V_th = 0.5 * 0.6 = 0.3, lambda 2, beta 0.1.
    x = torch.tensor([1.0, 3.0, 5.0, 7.0], dtype=torch.float64).view(2, 1, 1, 1, 2)
    norm = TDBN(1, eps=0.2, v_threshold=0.6, alpha=0.5).double()
    nn.init.constant_(norm.weight, 2.0)
    nn.init.constant_(norm.bias, 0.1)
    expected = [2 * 0.3 * d / 5.2**0.5 + 0.1 for d in (-3, -1, 1, 3)]
    assert norm(x).flatten().tolist() == pytest.approx(expected, rel=1e-12)
    # One batch at momentum 0.1, from 0 and 1; the running variance is unbiased, 20 / 3.
    assert norm.running_mean.item() == pytest.approx(0.4)
    assert norm.running_var.item() == pytest.approx(0.9 + 0.1 * 20 / 3)
    assert norm.num_batches_tracked.item() == 1


@pytest.mark.parametrize(('v_threshold', 'alpha'), [(1.0, 1.0), (0.5, 1.0), (1.5, 2**-0.5)])
def test_statistics_are_joint_over_time(drifting, v_threshold, alpha):
    norm = TDBN(5, v_threshold=v_threshold, alpha=alpha).double()
    out = norm(drifting)
    torch.testing.assert_close(out, v_threshold * alpha * joint(drifting), rtol=1e-10, atol=1e-10)
    # Each step on its own gives another answer, so the above tells the two apart.
    per_step = torch.cat([joint(x[None]) for x in drifting]) * v_threshold * alpha
    assert (out - per_step).abs().max() > 0.5 * v_threshold * alpha


def test_gradient_is_that_of_the_formula(drifting):
    norm = TDBN(5, v_threshold=0.7, alpha=0.6).double()
    g = torch.sin(torch.arange(drifting.numel(), dtype=torch.float64)).view_as(drifting)
    grads = []
    for call in (norm, lambda x: 0.42 * joint(x)):
        x = drifting.clone().requires_grad_()
        call(x).backward(g)
        grads.append(x.grad)
    torch.testing.assert_close(*grads, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(norm.weight.grad, (g * 0.42 * joint(drifting)).sum((0, 1, 3, 4)))
    torch.testing.assert_close(norm.bias.grad, g.sum((0, 1, 3, 4)))


@pytest.mark.parametrize('training', [True, False])
def test_five_axes_are_four_folded(drifting, training):
    outs, norms = [], []
    for x in (drifting, drifting.flatten(0, 1)):
        norm = TDBN(5, v_threshold=0.5).double()
        norm(x)
        outs.append(norm.train(training)(x))
        norms.append(norm)
    assert outs[0].shape == drifting.shape
    assert torch.equal(outs[0].flatten(0, 1), outs[1])
    for a, b in zip(norms[0].buffers(), norms[1].buffers()):
        assert torch.equal(a, b)
    assert norms[0].num_batches_tracked.item() == 1 + training


def test_eval_mode_uses_running_statistics(drifting):
    norm = TDBN(5, v_threshold=0.5, momentum=1.0).double()
    norm(drifting)
    before = {k: v.clone() for k, v in norm.state_dict().items()}
    n = drifting.numel() // 5
    values = drifting.transpose(0, 2).flatten(1)
    mean = values.mean(1)
    var = ((values - mean[:, None]) ** 2).sum(1) / (n - 1)
    torch.testing.assert_close(norm.running_mean, mean)
    torch.testing.assert_close(norm.running_var, var)
    x = drifting[:1] + 10
    shape = (1, 1, 5, 1, 1)
    expected = 0.5 * (x - mean.view(shape)) / (var.view(shape) + 1e-5).sqrt()
    torch.testing.assert_close(norm.eval()(x), expected, rtol=1e-10, atol=1e-10)
    for key, value in norm.state_dict().items():
        assert torch.equal(value, before[key])


def test_it_is_batch_norm_with_a_scaled_affine(drifting):
    plain, norm = nn.BatchNorm2d(5).double(), TDBN(5, v_threshold=0.25, alpha=0.5).double()
    x = drifting.flatten(0, 1)
    torch.testing.assert_close(norm(x), plain(x) / 8)
    norm.load_state_dict(plain.state_dict())
    assert list(norm.state_dict()) == list(plain.state_dict())


def test_as_an_mmcv_norm():
    init_default_scope('mmdet')
    name, norm = build_norm_layer(
        dict(type='TDBN', v_threshold=0.5, requires_grad=False), 8, postfix=2
    )
    assert name == 'bn2'
    assert type(norm) is TDBN
    assert norm.v_threshold == 0.5
    assert not any(p.requires_grad for p in norm.parameters())


@pytest.mark.parametrize(
    'kwargs', [dict(v_threshold=0), dict(v_threshold=-1.0), dict(alpha=0), dict(alpha=float('nan'))]
)
def test_threshold_and_alpha_are_positive(kwargs):
    with pytest.raises(ValueError, match='TDBN needs a positive v_threshold and alpha, got'):
        TDBN(4, **kwargs)


@pytest.mark.parametrize('shape', [(4, 5), (4, 5, 6), (2, 2, 2, 5, 6, 7)])
def test_rank(shape):
    with pytest.raises(ValueError, match=r'takes \(T\*B, C, H, W\) or \(T, B, C, H, W\), got'):
        TDBN(5)(torch.zeros(shape))

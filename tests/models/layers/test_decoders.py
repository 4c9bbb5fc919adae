import pytest
import torch

from mmsnn.models.layers import AttentionSpikeDecoder, LastDecoder, RateDecoder


def spikes(time_steps, batch=2, channels=8, size=6, seed=0):
    rng = torch.Generator().manual_seed(seed)
    rate = torch.rand(time_steps, 1, channels, 1, 1, generator=rng)
    return (torch.rand(time_steps, batch, channels, size, size, generator=rng) < rate).float()


def randomised(decoder, seed=0):
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in decoder.parameters():
            p.copy_(torch.randn(p.shape, generator=rng, dtype=p.dtype))
    return decoder


def asd_by_hand(decoder, s):
    """D = sum_t a_T a_C a_S s, one time step and image after the other."""
    state = decoder.state_dict()

    def linear(name, x):
        return state[f'{name}.weight'] @ x + state[f'{name}.bias']

    def mlp(name, x):
        return linear(f'{name}.2', linear(f'{name}.0', x).clamp_min(0))

    def sigmoid(x):
        return 1 / (1 + (-x).exp())

    steps, batch, channels, height, width = s.shape
    pad = state['spatial.weight'].shape[-1] // 2
    out = torch.zeros(batch, channels, height, width, dtype=s.dtype)
    for b in range(batch):
        rates = [s[t, b].mean() for t in range(steps)]
        mean = sum(rates) / steps
        scores = [mlp('temporal', torch.stack([r, r - mean]))[0].exp() for r in rates]
        for t in range(steps):
            a_t = scores[t] / sum(scores)
            a_c = 2 * sigmoid(mlp('channel', s[t, b].mean((1, 2))))
            seen = torch.zeros(2, height + 2 * pad, width + 2 * pad, dtype=s.dtype)
            seen[0, pad : pad + height, pad : pad + width] = s[t, b].mean(0)
            seen[1, pad : pad + height, pad : pad + width] = s[t, b].max(0).values
            for h in range(height):
                for w in range(width):
                    window = seen[:, h : h + 2 * pad + 1, w : w + 2 * pad + 1]
                    a_s = 2 * sigmoid(
                        (window * state['spatial.weight'][0]).sum() + state['spatial.bias'][0]
                    )
                    out[b, :, h, w] += a_t * a_c * a_s * s[t, b, :, h, w]
    return out


def test_rate_and_last():
    s = spikes(4)
    assert torch.equal(RateDecoder(8)(s), (s[0] + s[1] + s[2] + s[3]) / 4)
    assert torch.equal(LastDecoder(8)(s), s[3])


@pytest.mark.parametrize('time_steps', [1, 2, 3, 4, 6, 8])
def test_asd_starts_as_the_mean_over_time(time_steps):
    torch.manual_seed(0)
    s = spikes(time_steps)
    out = AttentionSpikeDecoder(8)(s)
    if time_steps in (1, 2, 4, 8):
        assert torch.equal(out, s.mean(0))
    else:
        torch.testing.assert_close(out, s.mean(0), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(('time_steps', 'kernel_size'), [(1, 3), (3, 1), (4, 7)])
def test_asd_formula(time_steps, kernel_size):
    s = spikes(time_steps, channels=5, size=4).double()
    decoder = AttentionSpikeDecoder(5, reduction=2, kernel_size=kernel_size).double()
    out = randomised(decoder)(s)
    torch.testing.assert_close(out, asd_by_hand(decoder, s), rtol=1e-10, atol=1e-10)
    assert not torch.allclose(out, s.mean(0), rtol=0.1)


def test_asd_weights():
    a_t, a_c, a_s = randomised(AttentionSpikeDecoder(8)).attention(spikes(5, batch=3))
    assert a_t.shape == (5, 3)
    assert a_c.shape == (5, 3, 8)
    assert a_s.shape == (5, 3, 6, 6)
    torch.testing.assert_close(a_t.sum(0), torch.ones(3))
    assert a_t.min() >= 0
    for weights in (a_c, a_s):
        assert 0 <= weights.min() < 1 < weights.max() <= 2


@pytest.mark.parametrize('decoder', [RateDecoder, LastDecoder, AttentionSpikeDecoder])
@pytest.mark.parametrize('grad', [True, False])
def test_spikes_may_be_bytes(decoder, grad):
    s = spikes(4)
    decode = randomised(decoder(8))
    with torch.set_grad_enabled(grad):
        out = decode(s.to(torch.uint8))
        torch.testing.assert_close(out, decode(s))
    assert out.dtype == torch.float32


@pytest.mark.parametrize('grad', [True, False])
@pytest.mark.parametrize('dtype', [torch.uint8, torch.bfloat16, torch.float32])
def test_maps_take_the_dtype_of_the_weights(grad, dtype):
    s = spikes(4)
    decoder = randomised(AttentionSpikeDecoder(8))
    expected = decoder(s).detach()
    with torch.set_grad_enabled(grad):
        assert decoder(s.to(dtype)).dtype == torch.float32
        out = decoder.bfloat16()(s.to(dtype))
    assert out.dtype == torch.bfloat16
    assert (out - expected).abs().max() < 0.05 * expected.abs().max()


def test_autocast_trains_and_predicts_alike():
    s = spikes(4).bfloat16()
    decoder = randomised(AttentionSpikeDecoder(8))
    with torch.autocast('cpu', torch.bfloat16):
        out = decoder(s)
        with torch.no_grad():
            torch.testing.assert_close(decoder(s), out, rtol=1e-2, atol=1e-2)
    assert out.dtype == torch.bfloat16
    out.sum().backward()
    assert all(p.grad is not None for p in decoder.parameters())


def test_images_do_not_meet():
    decoder = randomised(AttentionSpikeDecoder(8))
    s = spikes(4, batch=3)
    alone = torch.cat([decoder(s[:, i : i + 1]) for i in range(3)])
    torch.testing.assert_close(decoder(s), alone)


def test_trained_at_four_steps_it_runs_at_any():
    torch.manual_seed(0)
    decoder = AttentionSpikeDecoder(8)
    start = {k: v.clone() for k, v in decoder.state_dict().items()}
    optim = torch.optim.Adam(decoder.parameters(), lr=0.02)
    target = torch.rand(2, 8, 6, 6)
    for i in range(5):
        optim.zero_grad()
        (decoder(spikes(4, seed=i)) - target).square().mean().backward()
        assert all(torch.isfinite(p.grad).all() for p in decoder.parameters())
        optim.step()
    # Every weight takes part: nothing is cut off by the zeros it starts from. The temporal MLP's
    # last bias is the exception, softmax does not see what all steps share.
    for name, p in decoder.named_parameters():
        if name != 'temporal.2.bias':
            assert not torch.equal(p, start[name]), name
    for time_steps in (1, 2, 4, 8):
        s = spikes(time_steps)
        out = decoder(s)
        assert out.shape == (2, 8, 6, 6)
        assert torch.isfinite(out).all()
        assert (out - s.mean(0)).abs().max() > 1e-3


def test_gradients_of_asd():
    torch.manual_seed(0)
    decoder = AttentionSpikeDecoder(2, reduction=1, kernel_size=3).double()
    decoder = randomised(decoder, seed=1)
    # Real values: at spikes the maximum over channels has ties, and no one derivative.
    x = torch.rand(2, 1, 2, 2, 3, dtype=torch.float64, requires_grad=True)
    parameters = tuple(decoder.parameters())
    names = [name for name, _ in decoder.named_parameters()]

    def call(x, *values):
        return torch.func.functional_call(decoder, dict(zip(names, values)), (x,))

    assert torch.autograd.gradcheck(call, (x, *parameters))
    s = spikes(4).requires_grad_()
    randomised(AttentionSpikeDecoder(8))(s).sum().backward()
    assert torch.isfinite(s.grad).all()


@pytest.mark.parametrize('decoder', [RateDecoder, LastDecoder, AttentionSpikeDecoder])
def test_rank_and_channels(decoder):
    decode = decoder(8)
    with pytest.raises(
        ValueError,
        match=rf'{decoder.__name__} decodes spikes of shape '
        r'\(T, B, C, H, W\), got a tensor of shape \(2, 8, 6, 6\)',
    ):
        decode(torch.zeros(2, 8, 6, 6))
    with pytest.raises(ValueError, match=r'built for 8 channels, got 9 .* \(4, 2, 9, 6, 6\)'):
        decode(torch.zeros(4, 2, 9, 6, 6))


@pytest.mark.parametrize(
    ('kwargs', 'match'),
    [
        (dict(kernel_size=4), 'kernel_size must be odd and positive, got 4'),
        (dict(kernel_size=-1), 'got -1'),
        (dict(reduction=0), 'reduction must be at least 1, got 0'),
    ],
)
def test_refusals(kwargs, match):
    with pytest.raises(ValueError, match=match):
        AttentionSpikeDecoder(8, **kwargs)

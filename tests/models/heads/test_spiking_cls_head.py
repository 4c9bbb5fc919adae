"""The head: logits by hand, every decoder, both losses."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmsnn.models import SpikingClsHead
from mmsnn.structures import ClsDataSample

DECODERS = ('AttentionSpikeDecoder', 'RateDecoder', 'MembraneDecoder')


def spikes(time_steps=4, channels=8, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return (torch.rand(time_steps, 3, channels, 5, 4, generator=rng) < 0.3).float()


def samples(labels):
    return [ClsDataSample().set_gt_label(label) for label in labels]


def trained(head):
    """Attention maps that are not those of the start."""
    for param in head.parameters():
        nn.init.normal_(param, std=0.5)
    return head.eval()


def test_rate_by_hand():
    head = trained(SpikingClsHead(5, 8, decoder=dict(type='RateDecoder')))
    s = spikes()
    expected = s.double().mean((0, 3, 4)) @ head.fc.weight.double().T + head.fc.bias.double()
    torch.testing.assert_close(head([s]).double(), expected, rtol=1e-5, atol=1e-6)


def test_membrane_by_hand():
    """The mean potential of output neurons that never fire, where the linear layer has no bias."""
    head = trained(SpikingClsHead(5, 8, decoder=dict(type='MembraneDecoder', decay=0.7)))
    nn.init.zeros_(head.fc.bias)
    s = spikes()
    u, potentials = torch.zeros(3, 5, dtype=torch.float64), []
    for step in s.double():
        u = 0.7 * u + step.mean((2, 3)) @ head.fc.weight.double().T
        potentials.append(u)
    expected = torch.stack(potentials).mean(0)
    torch.testing.assert_close(head([s]).double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('decoder', DECODERS)
@pytest.mark.parametrize('time_steps', [1, 2, 5])
def test_steps_average_to_the_output(decoder, time_steps):
    head = trained(SpikingClsHead(5, 8, decoder=dict(type=decoder)))
    s = spikes(time_steps)
    steps = head.step_logits([s])
    assert steps.shape == (time_steps, 3, 5)
    torch.testing.assert_close(steps.mean(0), head([s]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('decoder', [*DECODERS, 'LastDecoder'])
def test_bytes_are_spikes_too(decoder):
    head = trained(SpikingClsHead(5, 8, decoder=dict(type=decoder)))
    s = spikes()
    torch.testing.assert_close(head([s.to(torch.uint8)]), head([s]))


def test_hidden_layer_fires():
    head = SpikingClsHead(5, 8, decoder=dict(type='RateDecoder'), hidden_channels=16)
    seen = []
    head.decoder.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    assert head.train()([spikes()]).shape == (3, 5)
    assert seen[0].shape == (4, 3, 16, 1, 1)
    assert seen[0].unique().tolist() == [0, 1]
    assert head.hidden['norm'].v_threshold == head.hidden['neuron'].v_threshold


def test_cross_entropy_and_tet():
    labels = [1, 4, 0]
    for decoder in DECODERS:
        head = trained(SpikingClsHead(5, 8, decoder=dict(type=decoder)))
        s = spikes()
        loss = head.loss([s], samples(labels))['loss']
        torch.testing.assert_close(loss, F.cross_entropy(head([s]), torch.tensor(labels)))

        head.loss_module = SpikingClsHead(5, 8, loss=dict(type='TETLoss')).loss_module
        steps = head.step_logits([s])
        expected = torch.stack([F.cross_entropy(z, torch.tensor(labels)) for z in steps]).mean()
        torch.testing.assert_close(head.loss([s], samples(labels))['loss'], expected)


def test_mixed_samples_count_by_their_shares():
    head = trained(SpikingClsHead(5, 8, decoder=dict(type='RateDecoder')))
    score = torch.tensor([[0.7, 0.3, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0.5, 0, 0, 0.5]])
    mixed = [sample.set_gt_score(row) for sample, row in zip(samples([0, 2, 1]), score)]
    expected = -(score * head([spikes()]).log_softmax(-1)).sum(-1).mean()
    torch.testing.assert_close(head.loss([spikes()], mixed)['loss'], expected)


def test_features_without_time():
    head = trained(SpikingClsHead(5, 8, decoder=None))
    x = torch.randn(3, 8, 5, 4)
    torch.testing.assert_close(head([x]), head.fc(x.mean((2, 3))))


def test_prediction_keeps_what_is_known():
    head = trained(SpikingClsHead(5, 8))
    found = head.predict([spikes()], samples([1, 4, 0]))
    assert [int(sample.gt_label) for sample in found] == [1, 4, 0]
    for sample, z in zip(found, head([spikes()])):
        torch.testing.assert_close(sample.pred_score, z.softmax(-1))
        assert int(sample.pred_label) == int(z.argmax())


def test_init_weights_keeps_rate_coding():
    head = SpikingClsHead(5, 8)
    head.init_weights()
    rate = SpikingClsHead(5, 8, decoder=dict(type='RateDecoder'))
    rate.fc.load_state_dict(head.fc.state_dict())
    torch.testing.assert_close(head([spikes()]), rate([spikes()]))
    assert 0.005 < head.fc.weight.std() < 0.02


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(num_classes=1), 'num_classes must be at least 2, got 1'),
        (dict(decoder=None, hidden_channels=4), 'hidden_channels=4 needs features with a time'),
        (dict(decoder=None, loss=dict(type='TETLoss')), 'loss TETLoss needs features with a time'),
        (dict(decoder=dict(type='NoDecoder')), "unknown decoder 'NoDecoder'.*MembraneDecoder"),
        (dict(decoder=dict(type='MembraneDecoder', decay=2)), 'decay must lie in .0, 1., got 2'),
        (dict(loss=dict(type='ClsLoss', label_smoothing=1)), 'label_smoothing must lie in'),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        SpikingClsHead(**{'num_classes': 5, 'in_channels': 8, **settings})


def test_bad_features():
    with pytest.raises(ValueError, match=r'\(T, B, C, H, W\) with C = 8.*got \(3, 8, 5, 4\)'):
        SpikingClsHead(5, 8)([torch.zeros(3, 8, 5, 4)])
    head = SpikingClsHead(5, 8, decoder=dict(type='LastDecoder'), loss=dict(type='TETLoss'))
    with pytest.raises(NotImplementedError, match='LastDecoder has no contribution of every'):
        head.loss([spikes()], samples([0, 1, 2]))

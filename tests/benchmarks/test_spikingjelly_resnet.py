"""The network that ours is timed against computes the same, forward and backward."""

import cases
import pytest
import torch

pytest.importorskip(
    'spikingjelly', reason='needs SpikingJelly: `make bench` or benchmarks/bench.py --help say how'
)
# Behind the skip: it imports SpikingJelly.
import spikingjelly_resnet


def pair(depth, block, size=64, batch=2):
    s = cases.Setting('', 'cpu', depth, (size, size), batch, 3, block)
    ours = cases.our_backbone(s, s.time_steps)
    return ours, spikingjelly_resnet.SpikingJellyResNet.like(ours, block), cases.image(s)


@pytest.mark.parametrize('block', ['sg', 'sew'])
@pytest.mark.parametrize('depth', [18, 34, 50])
def test_same_spikes(depth, block):
    # In float32, sums in another order move a current across the threshold now and then, and an
    # untrained network makes others of it.
    ours, theirs, x = (v.double() for v in pair(depth, block))
    with torch.no_grad():
        levels = list(zip(ours(x), theirs(x)))
    for a, b in levels:
        assert a.shape == b.shape
        assert 0.05 < (a > 0).float().mean() < 0.95, 'equal, but for a poor reason'
        assert torch.equal(a, b)


@pytest.mark.parametrize('block', ['sg', 'sew'])
def test_same_gradients(block):
    ours, theirs, x = pair(18, block)
    for net in (ours, theirs):
        net.train()
        cases.level_loss(net(x)).backward()
    pairs = list(zip(ours.parameters(), theirs.parameters()))
    assert len(pairs) == len(list(theirs.parameters()))
    for a, b in pairs:
        cosine = torch.nn.functional.cosine_similarity(a.grad.flatten(), b.grad.flatten(), dim=0)
        assert cosine > 0.999
        assert a.grad.norm().item() == pytest.approx(b.grad.norm().item(), rel=1e-2)


def test_folding_keeps_the_spikes():
    ours, theirs, x = pair(18, 'sg')
    with torch.no_grad():
        levels = zip(ours(x), spikingjelly_resnet.folded(theirs)(x))
        assert all((a == b).float().mean() > 0.999 for a, b in levels)


def test_share_of_equal_spikes():
    s = cases.Setting('', 'cpu', 18, (64, 64), 1, 4)
    assert cases.equal_spikes(s) > 0.999

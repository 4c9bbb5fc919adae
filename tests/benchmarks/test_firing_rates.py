import cases
import firing_rates
import pytest
import rates
import torch

from mmsnn.analysis import profile
from mmsnn.models import SGResNet


@torch.no_grad()
def test_every_neuron_fires_near_the_rate():
    torch.manual_seed(0)
    net, x = SGResNet(10, base_channels=16), torch.randn(1, 3, 64, 64)
    net(torch.randn(4, 3, 64, 64))
    net.eval()
    rates.set_rates(net, x, 0.1)
    pooled = []
    net.layer1[0].register_forward_pre_hook(lambda m, args: pooled.append(args[0].mean().item()))
    found = profile(net, [x])
    stem, *others = [layer.firing_rate for layer in found.layers if layer.kind == 'neuron']
    assert len(others) > 8
    assert all(rate == pytest.approx(0.1, abs=0.04) for rate in others)
    assert pooled[0] == pytest.approx(0.1, abs=0.04)
    assert 0.01 < stem < 0.06


@pytest.mark.slow
def test_the_table(monkeypatch, capsys, tmp_path):
    options = ['--rates', '0.1', '--depth', '18', '--size', '64', '--rounds', '2']
    options += ['--plot', str(tmp_path / 'rates.svg')]
    monkeypatch.setattr('sys.argv', ['firing_rates.py', *options])
    with torch.no_grad():
        firing_rates.main()
    lines = capsys.readouterr().out.splitlines()
    (row,) = [line for line in lines if line.startswith('| 0.1 |')]
    assert row.count('(') == 4 + cases.has_spikingjelly()
    assert 'firing rate of the neurons' in (tmp_path / 'rates.svg').read_text()
    assert lines[-1].startswith('convs in float32 go by events below a density of')

"""The conv layer of spikes: PyTorch's, with less kept."""

import pytest
import torch
from saved_bytes import saved_bytes
from torch import nn

from mmsnn.models import SGResNet
from mmsnn.models.layers import SpikeConv2d, build_conv


@pytest.mark.parametrize(
    'options',
    [dict(), dict(stride=2), dict(padding='same'), dict(padding=1, padding_mode='reflect')],
)
def test_as_conv2d(options):
    conv = SpikeConv2d(4, 6, 3, **options)
    plain = nn.Conv2d(4, 6, 3, **options)
    plain.load_state_dict(conv.state_dict())
    x = (torch.rand(2, 4, 9, 8) > 0.7).float()
    for values in (x, x + 0.5):
        grads = []
        for layer in (conv, plain):
            layer.zero_grad()
            out = layer(values)
            out.square().sum().backward()
            grads.append((out, layer.weight.grad, layer.bias.grad))
        torch.testing.assert_close(*grads)
    compiled = torch.compile(conv, fullgraph=True, backend='aot_eager')
    torch.testing.assert_close(compiled(x + 0.5), plain(x + 0.5))


def test_keeps_a_bit_a_value_and_the_memory_format():
    conv = SpikeConv2d(4, 8, 1, 2)
    x = (torch.rand(6, 4, 8, 8) > 0.7).float().contiguous(memory_format=torch.channels_last)
    kept, out = saved_bytes(lambda: conv(x))
    assert kept < x.nbytes / 8
    assert out.is_contiguous(memory_format=torch.channels_last)


def test_convs_of_blocks():
    net = SGResNet(depth=18, base_channels=8)
    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert [type(m) for m in convs] == [nn.Conv2d, *[SpikeConv2d] * (len(convs) - 1)]
    assert type(build_conv(dict(type='Conv2d'), 4, 4, 1)) is nn.Conv2d

"""SGResNet's mathematics built from SpikingJelly's layers, as its documentation advises.

Multi-step mode throughout, the image repeated T times in front, ``reset_net`` after every step.
"""

import torch
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from spikingjelly.activation_based.functional import conv_bn_fusion
from torch import Tensor, nn

from mmsnn.models import SGResNet


def lif() -> neuron.LIFNode:
    """The neuron of SGResNet's default config: decay 0.5, threshold 1, arctan of width 1."""
    return neuron.LIFNode(tau=2.0, decay_input=False, surrogate_function=surrogate.ATan(alpha=2.0))


def conv_norm(c_in: int, c_out: int, kernel: int, stride: int) -> list[nn.Module]:
    """Conv and norm."""
    return [
        layer.Conv2d(c_in, c_out, kernel, stride, padding=kernel // 2, bias=False),
        layer.BatchNorm2d(c_out),
    ]


class Block(nn.Module):
    """Convs, norms and neurons of a branch, and the gate that joins it with the shortcut.

    Args:
        c_in: Channels of the input.
        channels: Channels of the 3x3 conv.
        bottleneck: Whether the branch is 1x1, 3x3, 1x1 instead of 3x3, 3x3.
        stride: Stride of the block.
        gate: ``'sg'`` (or) or ``'sew'`` (add).
    """

    def __init__(self, c_in: int, channels: int, bottleneck: bool, stride: int, gate: str):
        super().__init__()
        self.out_channels = 4 * channels if bottleneck else channels
        if bottleneck:
            convs = [
                (c_in, channels, 1, 1),
                (channels, channels, 3, stride),
                (channels, self.out_channels, 1, 1),
            ]
        else:
            convs = [(c_in, channels, 3, stride), (channels, channels, 3, 1)]
        self.branch = nn.Sequential(*(m for conv in convs for m in (*conv_norm(*conv), lif())))
        self.shortcut = nn.Sequential()
        if stride != 1 or c_in != self.out_channels:
            self.shortcut = nn.Sequential(*conv_norm(c_in, self.out_channels, 1, stride), lif())
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        """Spikes to spikes."""
        residual, shortcut = self.branch(x), self.shortcut(x)
        if self.gate == 'sew':
            return residual + shortcut
        # r + s - r s in two passes over the data instead of three.
        return torch.addcmul(residual + shortcut, residual, shortcut, value=-1)


class SpikingJellyResNet(nn.Module):
    """Spiking ResNet of the shapes, the order of weights and the outputs of SGResNet.

    Args:
        depth: As of SGResNet.
        time_steps: T.
        block: ``'sg'`` or ``'sew'``.
    """

    def __init__(self, depth: int, time_steps: int = 4, block: str = 'sg'):
        super().__init__()
        bottleneck, stage_blocks = SGResNet.arch_settings[depth]
        self.time_steps = time_steps
        self.stem = nn.Sequential(*conv_norm(3, 64, 7, 2), lif(), layer.MaxPool2d(3, 2, 1))
        self.stages = nn.ModuleList()
        c_in = 64
        for i, num_blocks in enumerate(stage_blocks):
            stage = nn.Sequential()
            for j in range(num_blocks):
                stride = 2 if i > 0 and j == 0 else 1
                stage.append(Block(c_in, 64 * 2**i, bottleneck, stride, block))
                c_in = stage[-1].out_channels
            self.stages.append(stage)
        functional.set_step_mode(self, 'm')

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Images (B, 3, H, W) to the spikes (T, B, C, H, W) of every stage."""
        x = self.stem(x.unsqueeze(0).repeat(self.time_steps, 1, 1, 1, 1))
        outs = []
        for stage in self.stages:
            x = stage(x)
            outs.append(x)
        return tuple(outs)

    @classmethod
    def like(cls, net: SGResNet, block: str = 'sg') -> 'SpikingJellyResNet':
        """The same network, with copies of the weights of ``net`` and in its mode.

        Args:
            net: SGResNet with its default neuron and norm; only so are the two the same.
            block: Its block.
        """
        depth = next(
            depth
            for depth, (bottleneck, blocks) in SGResNet.arch_settings.items()
            if blocks == tuple(len(getattr(net, name)) for name in net.res_layers)
            and bottleneck == (net.layer1[0].num_convs == 3)
        )
        theirs = cls(depth, net.time_steps, block)
        # Both register convs and norms in the order in which they run, so weights pair up in order.
        theirs.load_state_dict(dict(zip(theirs.state_dict(), net.state_dict().values())))
        return theirs.to(next(net.parameters()).device).train(net.training)


def folded(net: nn.Module) -> nn.Module:
    """SpikingJelly's own folding of norms into convs, for inference."""
    return conv_bn_fusion.fuse_conv_bn_eval_modules(net)


def reset(net: nn.Module) -> None:
    """What SpikingJelly asks for between two batches."""
    functional.reset_net(net)


def neuron_kernel(device: str) -> str:
    """Name of the implementation that SpikingJelly chose for its neurons."""
    return functional.neuron_implementation('lif', torch.device(device))['implementation']

"""Norms folded into the convs in front of them."""

from collections import Counter
from typing import TYPE_CHECKING, Optional, Union

from mmcv.cnn.bricks import wrappers
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from ..models.layers import TDBN, SpikeConv2d

if TYPE_CHECKING:  # Python 3.9 has no TypeGuard
    from typing import TypeGuard

#: Convs that compute with their weights as they are; others may norm them first.
CONVS = (
    nn.Conv2d,
    nn.ConvTranspose2d,
    SpikeConv2d,
    wrappers.Conv2d,
    wrappers.ConvTranspose2d,
)


def fold(model: nn.Module) -> None:
    r"""Fold every tdBN and batch norm into the conv registered right before it, in place.

    .. math::
        w' = w \frac{\lambda \alpha V_{th}}{\sqrt{\sigma^2 + \epsilon}}, \qquad
        b' = (b - \mu) \frac{\lambda \alpha V_{th}}{\sqrt{\sigma^2 + \epsilon}} + \beta

    The norm becomes ``nn.Identity``. This is what makes STBP-tdBN cheap on neuromorphic hardware
    (Zheng et al. 2021, section 3). mmcv's ``fuse_conv_bn`` knows ``weight`` alone, and would lose
    alpha * V_th. As there, a norm is taken to follow the conv that is registered before it. A norm
    that keeps no running statistics, or stands behind a conv that several layers share or one that
    norms its weights itself (mmcv's ConvWS2d), stays.

    Args:
        model: Any model, in eval mode.

    Raises:
        ValueError: A model in training mode, whose norms go by the batch.

    Example:
        >>> import torch
        >>> from mmsnn.deploy import fold
        >>> from mmsnn.models import SGResNet
        >>> net = SGResNet(10, base_channels=8).eval()
        >>> fold(net)
        >>> net.stem[0].norm, net.stem[0].conv.bias is not None
        (Identity(), True)
    """
    parents = list(model.modules())
    uses = Counter(id(child) for parent in parents for child in parent._modules.values())
    for parent in parents:
        conv: Optional[nn.Conv2d] = None
        for name, child in list(parent.named_children()):
            if conv is not None and _follows(child, conv):
                if child.training:
                    raise ValueError(
                        f'fold takes a model in eval mode, but norm {name!r} of a '
                        f'{type(parent).__name__} is training: call model.eval() first'
                    )
                assert child.running_mean is not None  # _follows looked, and the
                assert child.running_var is not None  # variance is kept with the mean
                scale = child.scale if isinstance(child, TDBN) else child.weight
                conv.weight, conv.bias = fuse_conv_bn_weights(
                    conv.weight, conv.bias, child.running_mean, child.running_var, child.eps,
                    scale, child.bias,
                )  # fmt: skip
                setattr(parent, name, nn.Identity())
            alone = type(child) in CONVS and uses[id(child)] == 1
            conv = child if alone and isinstance(child, nn.Conv2d) else None


def _follows(
    norm: nn.Module, conv: nn.Conv2d
) -> 'TypeGuard[Union[nn.BatchNorm2d, nn.SyncBatchNorm]]':
    return (
        isinstance(norm, (nn.BatchNorm2d, nn.SyncBatchNorm))
        and norm.running_mean is not None
        and norm.num_features == conv.out_channels
    )

"""Whether a spiking backbone fits the detector that it is built into, whichever that is.

PyTorch calls :func:`check_detector` wherever a module gets a child. So a detector of MMDetection's
is checked as it is built, by any tool, and nobody has to ask for it; nothing of MMDetection is
changed. What can't be known then, as of a detector or a neck of one's own, is said at the first
forward pass (:class:`~mmsnn.models.layers.Spikes`).
"""

from collections.abc import Sequence
from typing import Optional

from mmdet.models.necks import FPN, ChannelMapper
from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook

from ..backbones import SGResNet
from ..layers import why_a_decoder
from ..necks import DecoderNeck


def check_detector(owner: nn.Module, name: str, part: Optional[nn.Module]) -> None:
    """Refuse a detector that would fail at its first image, as it gets a head.

    Args:
        owner: Any module.
        name: What its new child is called.
        part: The child.

    Raises:
        ValueError: MMDetection's layers right behind a spiking backbone, or channels that disagree.
    """
    backbone = owner._modules.get('backbone')
    if not name.endswith('head') or part is None or not isinstance(backbone, SGResNet):
        return
    # Where either is somebody's own, spikes may be decoded there.
    own = type(backbone).forward is not SGResNet.forward
    if own or not _is_mmdets(getattr(type(owner), 'extract_feat', None)):
        return
    necks = list_necks(owner._modules.get('neck'))
    if necks and isinstance(necks[0], DecoderNeck):
        check_channels(backbone, necks, (DecoderNeck, FPN, ChannelMapper))
    elif _is_mmdets(type(necks[0] if necks else part)):
        raise ValueError(why_no_decoder(backbone, necks))


def _is_mmdets(thing) -> bool:
    return getattr(thing, '__module__', '').partition('.')[0] == 'mmdet'


def list_necks(neck: Optional[nn.Module]) -> list[nn.Module]:
    """The necks of a detector, in their order.

    Args:
        neck: One, several in an ``nn.Sequential``, or None.

    Returns:
        A list, empty for None.
    """
    return [] if neck is None else list(neck) if isinstance(neck, nn.Sequential) else [neck]


def why_no_decoder(backbone: nn.Module, necks: Sequence[nn.Module]) -> str:
    """What to say of a spiking backbone and necks that don't begin with a decoder.

    Args:
        backbone: The backbone.
        necks: The necks.

    Returns:
        One line.
    """
    found = f'a {type(necks[0]).__name__}' if necks else 'no neck'
    channels = getattr(backbone, 'out_channels', None) or ()
    return why_a_decoder(type(backbone).__name__, channels, found)


def check_channels(backbone: nn.Module, necks: Sequence[nn.Module], kinds: tuple) -> None:
    """Refuse a decoder, and what follows it, that was built for other channels than come in.

    Args:
        backbone: The backbone.
        necks: The necks; the last that is looked at is the first behind the decoders.
        kinds: Classes whose ``in_channels``, where they are a list, are those of all levels.

    Raises:
        ValueError: Names both and their channels.
    """
    gives, channels = type(backbone).__name__, getattr(backbone, 'out_channels', None)
    for neck in necks:
        takes = getattr(neck, 'in_channels', None)
        if (
            isinstance(neck, kinds)
            and isinstance(takes, (list, tuple))
            and channels
            and list(takes) != list(channels)
        ):
            raise ValueError(
                f'channels do not match: {gives} gives {list(channels)}, but '
                f'{type(neck).__name__} was built with in_channels={list(takes)}'
            )
        if not isinstance(neck, DecoderNeck):
            break
        gives, channels = type(neck).__name__, neck.out_channels


register_module_module_registration_hook(check_detector)

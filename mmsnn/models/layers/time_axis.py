"""Where time stands: event frames on their way in, spikes on their way out of a backbone."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

#: Of an image's layers, those that stand first in MMDetection's necks and heads. All of them fail
#: on spikes, or take time for depth.
_OF_IMAGES = frozenset(
    {
        F.adaptive_avg_pool2d,
        F.adaptive_max_pool2d,
        F.avg_pool2d,
        F.conv2d,
        F.conv_transpose2d,
        F.interpolate,
        F.max_pool2d,
        torch.conv2d,
        torch.max_pool2d,
    }
)


def fold_frames(frames: Tensor) -> Tensor:
    """Event frames with time in the channels, where batch and time can't be taken for each other.

    Args:
        frames: (T, B, C, H, W).

    Returns:
        (B, T * C, H, W), the channels of the first frame first.

    Example:
        >>> import torch
        >>> from mmsnn.models.layers import fold_frames
        >>> fold_frames(torch.zeros(4, 1, 2, 8, 8)).shape
        torch.Size([1, 8, 8, 8])
    """
    return frames.transpose(0, 1).flatten(1, 2)


def unfold_frames(folded: Tensor, time_steps: int) -> Tensor:
    """The inverse of :func:`fold_frames`.

    Args:
        folded: (B, T * C, H, W).
        time_steps: Number of time steps, T.

    Returns:
        (T, B, C, H, W).
    """
    return folded.unflatten(1, (time_steps, -1)).transpose(0, 1)


def in_a_row(frames: Tensor, windows: int) -> Tensor:
    """Windows of a batch as one long time.

    Args:
        frames: (T, windows * B, ...), all first windows first.
        windows: How many there are of each recording.

    Returns:
        (windows * T, B, ...).

    Raises:
        ValueError: A batch that ``windows`` doesn't divide.
    """
    if frames.shape[1] % windows:
        raise ValueError(
            f'windows={windows} does not divide a batch of {frames.shape[1]}: it should hold as '
            'many windows of every recording'
        )
    return frames.unflatten(1, (windows, -1)).transpose(0, 1).flatten(0, 1)


def side_by_side(spikes: Tensor, windows: int) -> Tensor:
    """The inverse of :func:`in_a_row`.

    Args:
        spikes: (windows * T, B, ...).
        windows: How many windows of each recording there are.

    Returns:
        (T, windows * B, ...).
    """
    return spikes.unflatten(0, (windows, -1)).transpose(0, 1).flatten(1, 2)


class Spikes(Tensor):
    """What a spiking backbone gives, (T, B, C, H, W): a tensor that knows that it isn't an image.

    Whatever is computed from it is an ordinary tensor. A layer of images that takes it as it is
    says that a decoder is missing; PyTorch would speak of a conv's "3D or 4D input", or take time
    for depth. Copied or saved, it is an ordinary tensor too.
    """

    #: Who gave it, and the channels of all levels.
    source: tuple[str, Sequence[int]]

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func in _OF_IMAGES and args and isinstance(args[0], cls) and 'source' in vars(args[0]):
            raise ValueError(why_a_decoder(*args[0].source))
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    def __deepcopy__(self, memo):
        return self.as_subclass(Tensor).__deepcopy__(memo)

    def __reduce_ex__(self, protocol):
        return self.as_subclass(Tensor).__reduce_ex__(protocol)


def mark_spikes(levels: Sequence[Tensor], name: str, channels: Sequence[int]) -> tuple:
    """Let a backbone's spikes say what they are.

    Args:
        levels: One tensor (T, B, C, H, W) a level.
        name: Who gives them.
        channels: Channels of the levels.

    Returns:
        The same values as :class:`Spikes`; under torch.compile, the tensors as they are.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return tuple(levels)
    marked = tuple(level.as_subclass(Spikes) for level in levels)
    for level in marked:
        level.source = (name, channels)
    return marked


def why_a_decoder(name: str, channels: Sequence[int], found: str = '') -> str:
    """What to say where spikes meet a layer of images.

    Args:
        name: The backbone's class.
        channels: Channels of its levels; empty where they aren't known.
        found: What stands in the decoder's place, where that is known.

    Returns:
        One line.
    """
    levels = f'in_channels={list(channels)}' if channels else 'in_channels=[...]'
    found = f', found {found}' if found else ''
    return (
        f'the model needs a decoder right behind its backbone{found}: {name} gives spikes '
        '(T, B, C, H, W). Put one in front: '
        f"neck=[dict(type='ASDNeck', {levels}), dict(type='FPN', ...)], or "
        f"neck=dict(type='ASDNeck', {levels}) where there is no other neck"
    )

"""One call that makes a trained model fast."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Optional

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..models.backbones.sg_resnet import SpikingBlock
from ..models.layers import Gate, LevelsDecoder, SpikeDecoder, SpikingNeuron
from ..models.layers.spike_conv import is_plain_conv
from ..ops import choose, has_amx
from .event_conv import EventConv2d
from .fold import CONVS, fold
from .integer_conv import WEIGHT_BITS, IntegerConv2d, integer_convs, integer_operators
from .winograd_conv import WinogradConv2d

#: What :func:`fuse` takes to be fast: ``'auto'`` is the best for the machine.
PRECISIONS = ('auto', 'fp32', 'bf16', 'int16', 'int8')
#: What it takes to see what a chip with such weights would give: no faster than ``'int8'``.
FEW_BITS = ('int4', 'int2')


def fuse(model: nn.Module, precision: str = 'auto') -> nn.Module:
    """A copy of a trained model, ready for inference: the same detections, several times faster.

    - Every tdBN and batch norm is folded into its conv (:func:`mmsnn.deploy.fold`).
    - Everything runs in channels_last memory.
    - In lower precision only weights of convs on spikes are rounded: spikes, and whole numbers of
      them up to 255, are exact in all.

    ========= ================================ ==============================================
    precision convs on spikes                  neck and head
    ========= ================================ ==============================================
    ``fp32``  float32; on a CPU by events      float32; on a CPU with a quarter of the products
    ``bf16``  bfloat16                         bfloat16
    ``int16`` 16-bit weights, sums exact (CPU) bfloat16 with AMX, else float32
    ``int8``  8-bit weights, sums exact (CPU)  bfloat16 with AMX, else 8-bit weights and inputs
                                               of 8 bits, or without VNNI of 7
    ``int4``  4-bit weights, sums exact (CPU)  as ``int8``, and in the same time
    ``int2``  weights -1, 0 and 1 (CPU)        likewise
    ========= ================================ ==============================================

    By events (:class:`mmsnn.deploy.EventConv2d`), the time of a conv is in proportion to the spikes
    that it gets; so are those of ``int16`` and ``int8`` on a CPU without VNNI. In float32 the dense
    conv is taken where there are too many. Convs of 3x3 on real values have fewer products
    (:class:`mmsnn.deploy.WinogradConv2d`), whose sums are rounded otherwise, by some 1e-5 of them.

    Membrane potentials are float32 in all of them. A norm is taken to follow the conv that is
    registered before it, as in mmcv's ``fuse_conv_bn``.

    Args:
        model: A backbone, a classifier or a whole detector of MMDetection's; it isn't changed.
        precision: One of ``PRECISIONS`` or ``FEW_BITS``; see :func:`resolve_precision`.

    Returns:
        The copy, in eval mode, without gradients.

    Raises:
        ValueError: An unknown precision, or one that this machine cannot compute, or not for this
            model.

    Example:
        >>> import torch
        >>> from mmsnn.deploy import fuse
        >>> from mmsnn.models import SGResNet
        >>> fast = fuse(SGResNet(18, base_channels=8), 'fp32')
        >>> [tuple(level.shape) for level in fast(torch.rand(1, 3, 64, 64))][0]
        (4, 1, 8, 16, 16)
    """
    device = next((p.device for p in model.parameters()), None)
    precision = resolve_precision(precision, device, model)
    bits = WEIGHT_BITS.get(precision)
    model = folded_copy(model)
    for module in model.modules():
        # Convs of other classes, as mmcv's ConvWS2d, take views of their weights.
        if type(module) in CONVS:
            # PyTorch's own annotations leave memory_format out.
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    low = precision == 'bf16' or (bits is not None and has_amx())
    # Boxes and scores are decoded in float32: a coordinate needs more than eight bits.
    backbone, rest = _parts(model)
    # Those of a backbone that become integers are rounded once, from what they are.
    if precision == 'bf16':
        backbone.to(torch.bfloat16)
    backbone.register_forward_pre_hook(_InputTo(torch.bfloat16 if precision == 'bf16' else None))
    for part in rest if low else ():
        part.to(torch.bfloat16)
        _decode_to(torch.bfloat16, part)
    if rest:
        rest[-1].register_forward_hook(_output_as_expected)
    if bits is not None and not integer_convs():
        _use_bytes(backbone, partial(IntegerConv2d, bits=bits))
    elif bits is not None or _goes_by_events(model, precision, device):
        _use_bytes(backbone, partial(EventConv2d, bits=bits))
        if backbone is model and bits is None:
            backbone.register_forward_hook(_in_float32)
    if not low and (device is None or device.type == 'cpu'):
        in_bytes = bits is not None and bits <= 8 and not integer_operators()
        for part in rest:
            (_use_integers if in_bytes else _use_winograd)(part)
    return model


def folded_copy(model: nn.Module) -> nn.Module:
    """A copy in eval mode and without gradients, its norms folded into its convs.

    Args:
        model: Any model; it isn't changed.

    Returns:
        The copy.
    """
    with _DetachedCopies():
        model = copy.deepcopy(model).requires_grad_(False)
    model.eval()  # alone: in MMDetection's ResNet it returns None
    fold(model)
    return model


def is_fused(model: nn.Module) -> bool:
    """Whether a model is what :func:`fuse` gives.

    Args:
        model: Any model.
    """
    return any(
        isinstance(hook, _InputTo)
        for module in model.modules()
        for hook in module._forward_pre_hooks.values()
    )


def resolve_precision(
    precision: str = 'auto',
    device: Optional[torch.device] = None,
    model: Optional[nn.Module] = None,
) -> str:
    """Name the precision to compute in.

    ``'auto'`` is the fastest whose results hold (docs/performance.md): ``'int8'`` on a CPU for a
    model whose spikes can be bytes, else ``'bf16'`` where CPU or GPU have units for it, else
    ``'fp32'``.

    Args:
        precision: One of ``PRECISIONS`` or ``FEW_BITS``.
        device: Device; default the CPU.
        model: What it is for; default a model of mmsnn's own layers.

    Returns:
        A value of either other than ``'auto'``.

    Raises:
        ValueError: An unknown precision, or one that the device cannot compute, or not for this
            model.
    """
    if precision not in (*PRECISIONS, *FEW_BITS):
        known = [*PRECISIONS, *FEW_BITS]
        raise ValueError(f'unknown precision {precision!r}: choose one of {known}')
    kind = 'cpu' if device is None else device.type
    why_no_integers = f'they are for CPUs, not {kind}' if kind != 'cpu' else ''
    if not why_no_integers and integer_convs():
        why_no_integers = event_convs() and integer_convs()
    if precision in WEIGHT_BITS and why_no_integers:
        raise ValueError(
            f'precision {precision!r} needs integer convs: {why_no_integers}. Take '
            "'auto', 'fp32' or 'bf16'"
        )
    no_bytes = '' if model is None else why_no_bytes(model)
    if precision in WEIGHT_BITS and no_bytes:
        raise ValueError(
            f'precision {precision!r} needs spikes in bytes: {no_bytes}. Take '
            "'auto', 'fp32' or 'bf16'"
        )
    if precision != 'auto':
        return precision
    if not why_no_integers and not no_bytes:
        return 'int8'
    if kind == 'cuda':
        return 'bf16' if torch.cuda.get_device_capability(device) >= (8, 0) else 'fp32'
    return 'bf16' if kind == 'cpu' and has_amx() else 'fp32'


def why_no_bytes(model: nn.Module) -> str:
    """Why the spikes of a model can't be bytes, or '' if they can."""
    levels, sums = 1, 1
    for name, module in model.named_modules():
        kind = type(module).__name__
        if isinstance(module, SpikingNeuron):
            levels = max(levels, module.levels)
            if module.values == 'signed':
                return f'those of {name} ({kind}) have signs'
        if isinstance(module, SpikingBlock) and not module.takes_bytes:
            return (
                f'{name} ({kind}) does not say that it takes them, by takes_bytes = True in its '
                'class'
            )
        if isinstance(module, Gate) and module.takes_bytes:
            sums += not module.binary
    if levels * sums > 255:
        return f'{sums} sums of up to {levels} spikes each are more than the 255 of a byte'
    return ''


def _parts(model: nn.Module) -> tuple[nn.Module, list]:
    """The backbone, and what follows it as far as it is a plain map of tensors to tensors.

    A head is left out where other parts stand between it and the neck, or beside it, as the
    encoder and decoder of the DETR family or a head for masks: they take the neck's maps as well,
    or call parts of the head, and all of it stays in float32.
    """
    backbone = getattr(model, 'backbone', None)
    if not isinstance(backbone, nn.Module):
        return model, []
    known = ('backbone', 'neck', 'bbox_head', 'head')
    alone = all(name.split('.')[0] in known for name, _ in model.named_parameters())
    following = (getattr(model, name, None) for name in (known[1:] if alone else ('neck',)))
    return backbone, [part for part in following if isinstance(part, nn.Module)]


class _DetachedCopies(TorchFunctionMode):
    """Lets models be copied whose heads keep tensors of the last training step."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is Tensor.__deepcopy__ and not args[0].is_leaf:
            args = (args[0].detach(), *args[1:])
        return func(*args, **(kwargs or {}))


class _InputTo:
    """Forward pre-hook: the input in channels_last and, where given, another dtype."""

    def __init__(self, dtype: Optional[torch.dtype]):
        self.dtype = dtype

    def __call__(self, module: nn.Module, args: tuple) -> tuple:
        x, *others = args
        x = x if self.dtype is None else x.to(self.dtype)
        return (x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x, *others)


def _decode_to(dtype: torch.dtype, part: nn.Module) -> None:
    """Decoders without weights can't tell from bytes what stands behind them."""

    def cast(module: nn.Module, args: tuple, output):
        return _each(output, lambda x: x.to(dtype))

    for module in part.modules():
        if isinstance(module, (SpikeDecoder, LevelsDecoder)):
            module.register_forward_hook(cast)


def _each(output, convert: Callable[[Tensor], Tensor]):
    """A tensor, or lists and tuples of some, converted; anything else is handed on."""
    if isinstance(output, Tensor):
        return convert(output)
    if isinstance(output, (list, tuple)):
        return type(output)(_each(value, convert) for value in output)
    return output


def _output_as_expected(module: nn.Module, args: tuple, output):
    """Forward hook: maps as what decodes them takes them, in float32 and in rows of pixels.

    CenterNet's head takes views of its maps, which channels_last doesn't have.
    """
    return _each(output, lambda x: (x.float() if x.dtype == torch.bfloat16 else x).contiguous())


def event_convs() -> str:
    """Why this machine has no fast convs by events, or '' if it has."""
    backend = choose('event_conv_lif', torch.zeros(1, dtype=torch.uint8))
    return '' if backend.name != 'reference' else 'no kernels for convs by events'


def _goes_by_events(model: nn.Module, precision: str, device: Optional[torch.device]) -> bool:
    on_cpu = device is None or device.type == 'cpu'
    real = all(p.dtype == torch.float32 for p in model.parameters())
    fits = precision == 'fp32' and on_cpu and real and not event_convs()
    return fits and not why_no_bytes(model)


def _use_bytes(backbone: nn.Module, convert: Callable[[nn.Conv2d], nn.Module]) -> None:
    """Neurons give bytes, and the convs that ``convert`` makes take them."""
    for module in list(backbone.modules()):
        if isinstance(module, SpikingNeuron):
            module.spike_dtype = torch.uint8
        for name, child in list(module.named_children()):
            if is_plain_conv(child):
                setattr(module, name, convert(child))
            elif isinstance(child, nn.Conv2d):
                child.register_forward_pre_hook(_spikes_to_weights)


def _use_integers(part: nn.Module) -> None:
    """Convs round what they get to bytes, but those of a few channels, which are little work."""
    for module, name, conv in _plain_convs(part):
        if conv.in_channels >= 16:
            setattr(module, name, IntegerConv2d(conv, 8, real=True))


def _use_winograd(part: nn.Module) -> None:
    """Convs of 3x3 have fewer products."""
    for module, name, conv in _plain_convs(part):
        if WinogradConv2d.suits(conv):
            setattr(module, name, WinogradConv2d(conv))


def _plain_convs(part: nn.Module) -> list[tuple[nn.Module, str, nn.Conv2d]]:
    """Each with the module that has it, and its name there."""
    return [
        (module, name, child)
        for module in part.modules()
        for name, child in module.named_children()
        if is_plain_conv(child)
    ]


def _in_float32(backbone: nn.Module, args: tuple, output):
    """Forward hook of a backbone by itself: its spikes in the dtype that they had."""
    return _each(output, lambda x: x.float() if x.dtype == torch.uint8 else x)


def _spikes_to_weights(conv: nn.Module, args: tuple) -> tuple:
    """Forward pre-hook of a conv that isn't one in integers: spikes in the dtype of its weights."""
    x, *others = args
    return (x.to(conv.weight.dtype) if x.dtype == torch.uint8 else x, *others)

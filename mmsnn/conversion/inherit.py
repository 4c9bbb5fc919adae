"""An ANN's state dict as that of a spiking model: names, scales, and an account of every tensor."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Optional

import torch
from torch import Tensor, nn

from ..models import SGResNet
from ..models.backbones.sg_resnet import AddBlock
from ..models.detectors.checks import list_necks
from ..models.layers import TDBN, SpikingNeuron
from ..models.necks import DecoderNeck

#: Keys under which files nest a state dict.
NESTS = ('state_dict', 'model', 'model_state_dict')
#: The tensor by which a ResNet is known, in all layouts.
FIRST_CONV = 'layer1.0.conv1.weight'
#: Parts of a model of which the table shows the parts.
PACKED = ('backbone', 'neck', 'roi_head')
#: By stem of SGResNet, what to call it.
STEM_WORDS = {
    'imagenet': 'conv 7x7/2 and pooling',
    'deep': 'three convs 3x3 and pooling',
    'cifar': 'conv 3x3 without pooling',
}


class InheritError(ValueError):
    """A state dict doesn't fit the model; the message says why, and what would fit."""


class Structure(NamedTuple):
    """What the tensors of a ResNet say about it.

    Args:
        in_channels: Channels of the images.
        kernels: Kernel size of each conv of the stem.
        stem_channels: Channels behind the stem.
        base_channels: Channels of the first stage's first conv.
        bottleneck: Whether the blocks have three convs.
        blocks: Blocks of each stage.
    """

    in_channels: int
    kernels: tuple[int, ...]
    stem_channels: int
    base_channels: int
    bottleneck: bool
    blocks: tuple[int, ...]

    @property
    def stem(self) -> Optional[str]:
        """The ``stem`` of SGResNet that has such convs; None for one that none has."""
        for name, (convs, _) in SGResNet.stem_settings.items():
            if self.kernels == tuple(kernel for kernel, _ in convs):
                return name
        return None

    @property
    def depths(self) -> list[int]:
        """Depths of SGResNet that begin with such stages."""
        return [
            depth
            for depth, (bottleneck, blocks) in SGResNet.arch_settings.items()
            if bottleneck == self.bottleneck and blocks[: len(self.blocks)] == self.blocks
        ]

    def __str__(self) -> str:
        kind = 'bottlenecks' if self.bottleneck else 'basic blocks'
        stages = ', '.join(map(str, self.blocks))
        depths = ' or '.join(f'ResNet-{depth}' for depth in self.depths)
        return f'{depths or "a ResNet"} (stages of {stages} {kind})'


class Target(NamedTuple):
    """What a spiking model takes.

    Args:
        shapes: Shape of every entry of its state dict, by name.
        backbone: What the names of its backbone's entries begin with; empty for a backbone alone.
        norms: For each norm of the backbone the factors on an ANN's weight and bias.
        decoders: How many decoders stand in front of its list of necks; None where it has no list.
        notes: What weights can't make exact in this model.
    """

    shapes: dict[str, torch.Size]
    backbone: str
    norms: dict[str, tuple[float, float]]
    decoders: Optional[int]
    notes: Sequence[str] = ()


class Account(NamedTuple):
    """What became of every tensor.

    Args:
        used: By name in the ANN, the name in the model.
        left: By name in the ANN, why it was left out.
        missing: Names in the model that the ANN has nothing for.
        notes: Where the weights fit and the function differs.
    """

    used: dict[str, str]
    left: dict[str, str]
    missing: list[str]
    notes: list[str]


def target_of(model: nn.Module) -> Target:
    r"""Look at what a model takes from an ANN.

    A spiking neuron fires at a rate of 1 where its current is V_th at every step. So that a rate
    stands for the same value as in the ANN, whatever V_th is, the current in front of a neuron is
    V_th times what stands in front of the ANN's ReLU. With batch norm's
    :math:`\gamma (x - \mu) / \sigma + \beta` and tdBN's
    :math:`\lambda\, \alpha V_{th} (x - \mu) / \sigma + \beta'`, that is

    .. math::
        \lambda = \frac{\gamma}{\alpha} \qquad \beta' = V_{th}\, \beta

    while weights of convs, means and variances stay as they are. Where a norm was given another
    threshold than its neurons have, :math:`\lambda = \gamma V_{th} / (\alpha V_{norm})`; a plain
    batch norm has :math:`\gamma' = V_{th} \gamma`.

    Args:
        model: An ``SGResNet``, or a detector or classifier with one.

    Returns:
        Names, shapes and factors.

    Raises:
        InheritError: It has no ``SGResNet``.

    Example:
        >>> from mmsnn.conversion import target_of
        >>> from mmsnn.models import SGResNet
        >>> net = SGResNet(18, block='tdbn', act_cfg=dict(type='LIFNeuron', v_threshold=0.5))
        >>> [round(factor, 3) for factor in target_of(net).norms['layer1.0.bn2']]  # 1/alpha, V_th
        [1.414, 0.5]
    """
    prefix = '' if isinstance(model, SGResNet) else 'backbone.'
    backbone = getattr(model, 'backbone', None) if prefix else model
    if not isinstance(backbone, SGResNet):
        raise InheritError(
            f"{type(model).__name__} has no SGResNet, and only that one takes an ANN's weights: "
            'set the init_cfg on an SGResNet, or on a detector or classifier with one'
        )
    neurons = [m for m in backbone.modules() if isinstance(m, SpikingNeuron)]
    v_threshold = neurons[0].v_threshold
    norms = {}
    for name, module in backbone.named_modules():
        if isinstance(module, TDBN):
            scale = v_threshold / (module.alpha * module.v_threshold)
            norms[prefix + name] = scale, v_threshold
        elif isinstance(module, nn.modules.batchnorm._BatchNorm):
            norms[prefix + name] = v_threshold, v_threshold
    neck = getattr(model, 'neck', None)
    decoders = None
    if isinstance(neck, nn.Sequential):
        necks = list_necks(neck)
        decoders = next((i for i, n in enumerate(necks) if not isinstance(n, DecoderNeck)), 0)
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    notes = []
    added = [m for m in backbone.modules() if isinstance(m, AddBlock) and m.downsample is None]
    if v_threshold != 1 and added:
        notes.append(
            f'{prefix}layer*: identity shortcuts add spikes of 1 to currents whose unit is the '
            f'threshold, {v_threshold}; at v_threshold=1.0 they weigh what they do in the ANN'
        )
    return Target(shapes, prefix, norms, decoders, notes)


def inherit(checkpoint: Mapping[str, Any], target: Target) -> tuple[dict[str, Tensor], Account]:
    """Rename and scale an ANN's tensors so that they are a spiking model's.

    Layouts of ResNets that are known: torchvision, timm, MMDetection and MMPreTrain, with the stem
    of one conv or the deep one, behind any prefix, nested under ``state_dict`` or ``model``. A neck
    goes behind the decoders, heads keep their names, and a classifier's ``fc`` goes to its head.

    Args:
        checkpoint: What a file holds, or a bare state dict. It stays as it is.
        target: What the model takes.

    Returns:
        A part of the model's state dict, and the account of both sides.

    Raises:
        InheritError: There is no ResNet in it, there are several, or it is of another depth, stem
            or width than the model's.

    Example:
        >>> from mmdet.models import ResNet
        >>> from mmsnn.conversion import inherit, target_of
        >>> from mmsnn.models import SGResNet
        >>> state, account = inherit(ResNet(18).state_dict(), target_of(SGResNet(18)))
        >>> len(account.used), account.left, account.missing
        (120, {}, [])
        >>> account.used['conv1.weight']
        'stem.0.conv.weight'
    """
    state = flat_state(checkpoint)
    prefix = _prefix(state)
    inside = {k[len(prefix) :]: k for k in state if k.startswith(prefix)}
    names, notes = _resnet_names({name: state[key] for name, key in inside.items()})
    ann = structure({new: state[inside[old]].shape for old, new in names.items()})
    _check_structure(ann, structure(_below(target.shapes, target.backbone)))
    whole = target.backbone and prefix.endswith('backbone.')
    root = prefix[: -len('backbone.')] if prefix.endswith('backbone.') else prefix
    taken: dict[str, Tensor] = {}
    used: dict[str, str] = {}
    left: dict[str, str] = {}
    for key, value in state.items():
        old = key[len(prefix) :] if key.startswith(prefix) else None
        if old in names:
            name = target.backbone + names[old]
        elif whole and key.startswith(root):
            name = _name_outside(key[len(root) :], target)
        elif target.backbone and old is not None and old.startswith('fc.'):
            name = f'head.{old}'
        else:
            name = ''
        why = _why_left(key, name, value, target, old in names)
        if why:
            left[key] = why
        else:
            used[key] = name
            taken[name] = _scaled(name, value, target.norms)
    if ann.bottleneck and "style='caffe'" in _config_text(checkpoint):
        notes.append(
            "layer*.0: the ANN has style='caffe', the stride in the first conv of a bottleneck; "
            "SGResNet's has it in the second"
        )
    missing = [
        name
        for name in target.shapes
        if name not in taken and not name.endswith('num_batches_tracked')
    ]
    return taken, Account(used, left, missing, [*notes, *target.notes])


def flat_state(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The state dict that a checkpoint holds.

    Args:
        checkpoint: What a file holds, or a bare state dict.

    Returns:
        Its tensors by name.

    Raises:
        InheritError: It holds none.
    """
    found: Any = checkpoint
    for nest in NESTS:
        if isinstance(found.get(nest), Mapping):
            found = found[nest]
    state = {str(key): value for key, value in found.items() if torch.is_tensor(value)}
    if not state:
        raise InheritError(
            'holds no weights: neither a bare state dict, nor one under '
            f'{" or ".join(map(repr, NESTS))}'
        )
    return state


def _config_text(checkpoint: Mapping[str, Any]) -> str:
    """The config with which MMEngine saved it, as text; empty where there is none."""
    meta = checkpoint.get('meta')
    meta = meta if isinstance(meta, Mapping) else {}
    return next((meta[k] for k in ('cfg', 'config') if isinstance(meta.get(k), str)), '')


def _prefix(state: Mapping[str, Tensor]) -> str:
    """What stands in front of the names of the ResNet."""
    found = [key[: -len(FIRST_CONV)] for key in state if key.endswith(FIRST_CONV)]
    # `xlayer1.0...` is no ResNet's.
    found = [prefix for prefix in found if not prefix or prefix.endswith('.')]
    if len(found) == 1:
        return found[0]
    if found:
        raise InheritError(
            f'holds several ResNets, {", ".join(map(repr, found))}: save the tensors of the one '
            'that is meant as a file of its own'
        )
    some = ', '.join(list(state)[:3])
    raise InheritError(
        f'holds no ResNet: it begins with {some}, and has no {FIRST_CONV}. ANNPretrained takes '
        'ResNet-18, 34, 50, 101 and 152 in the layouts of torchvision, timm, MMDetection and '
        'MMPreTrain'
    )


def _resnet_names(state: Mapping[str, Tensor]) -> tuple[dict[str, str], list[str]]:
    """Names in SGResNet of the stem's and the stages' entries, and what differs in function."""
    if 'stem.0.norm.weight' in state:
        raise InheritError(
            'is of an SGResNet, not of an ANN: load it by '
            "init_cfg=dict(type='Pretrained', checkpoint=..., prefix='backbone.')"
        )
    last = 2 if 'conv1.0.weight' in state else 0
    averaged = []
    names = {}
    for key, value in state.items():
        name = None
        if re.fullmatch(r'conv1\.weight', key):
            name = 'stem.0.conv.weight'
        elif found := re.fullmatch(r'bn1\.(\w+)', key):
            name = f'stem.{last}.norm.{found[1]}'
        elif found := re.fullmatch(r'stem\.([0-2])\.(conv|bn)\.(\w+)', key):
            part = 'conv' if found[2] == 'conv' else 'norm'
            name = f'stem.{found[1]}.{part}.{found[3]}'
        elif found := re.fullmatch(r'(?:conv1|stem)\.([0-7])\.(\w+)', key):
            i, role = divmod(int(found[1]), 3)
            name = f'stem.{i}.{("conv", "norm")[role]}.{found[2]}' if role < 2 else None
        elif found := re.fullmatch(r'(layer\d+\.\d+\.downsample)\.(\d+)\.(\w+)', key):
            place = int(found[2])
            if f'{found[1]}.1.weight' in state and state[f'{found[1]}.1.weight'].dim() == 4:
                place -= 1
                if value.dim() == 4:
                    averaged.append(found[1])
            name = f'{found[1]}.{place}.{found[3]}'
        elif re.match(r'layer\d+\.\d+\.', key):
            name = key
        if name is not None:
            names[key] = name
    notes = []
    # That of the first stage has nothing to average, but in networks without a pool in the stem.
    strided = [name for name in averaged if not name.startswith('layer1.')]
    if strided:
        notes.append(
            f'{", ".join(strided)}: the ANN averages 2x2 cells in front of the conv; '
            "SGResNet's conv takes every other cell instead"
        )
    return names, notes


def structure(shapes: Mapping[str, torch.Size]) -> Structure:
    """Read what a ResNet is like off its shapes.

    Args:
        shapes: By names as SGResNet has them.

    Returns:
        The structure.

    Raises:
        InheritError: A conv of the stem is missing.
    """
    kernels: list[int] = []
    stem_channels = 0
    while f'stem.{len(kernels)}.conv.weight' in shapes:
        stem_channels, _, kernel, _ = shapes[f'stem.{len(kernels)}.conv.weight']
        kernels.append(kernel)
    if not kernels:
        raise InheritError(
            'has the stages of a ResNet and no stem that is known: conv1.weight, conv1.0.weight, '
            'stem.0.weight or stem.0.conv.weight'
        )
    blocks: dict[int, set[int]] = {}
    for name in shapes:
        found = re.match(r'layer(\d+)\.(\d+)\.', name)
        if found:
            blocks.setdefault(int(found[1]), set()).add(int(found[2]))
    return Structure(
        shapes['stem.0.conv.weight'][1],
        tuple(kernels),
        stem_channels,
        shapes[FIRST_CONV][0],
        'layer1.0.conv3.weight' in shapes,
        tuple(len(blocks[stage]) for stage in sorted(blocks)),
    )


def _check_structure(ann: Structure, own: Structure) -> None:
    """Refuse an ANN of another shape than the backbone, with the setting that would fit."""
    stages = len(own.blocks)
    if (ann.bottleneck, ann.blocks[:stages]) != (own.bottleneck, own.blocks):
        way = ''
        if ann.bottleneck == own.bottleneck and ann.blocks == own.blocks[: len(ann.blocks)]:
            way = f': set num_stages={len(ann.blocks)} in the backbone, or take a whole checkpoint'
        elif ann.depths:
            way = f': set depth={ann.depths[0]} in the backbone, or take a checkpoint of its depth'
        raise InheritError(f'is of another depth: it is {ann}, the backbone is {own}{way}')
    if ann.stem != own.stem:
        theirs = STEM_WORDS.get(ann.stem or '', f'convs of {ann.kernels} cells a side')
        way = f"set stem='{ann.stem}' in the backbone" if ann.stem else 'no setting has that'
        raise InheritError(
            f"has another stem: {theirs}; the backbone's stem={own.stem!r} is "
            f'{STEM_WORDS[own.stem or ""]}: {way}, or take a checkpoint with its stem'
        )
    for key in ('in_channels', 'stem_channels', 'base_channels'):
        theirs, ours = getattr(ann, key), getattr(own, key)
        if theirs != ours:
            raise InheritError(
                f'has {key}={theirs}, the backbone {ours}: set {key}={theirs} in the backbone, or '
                'take a checkpoint of its width'
            )


def _name_outside(name: str, target: Target) -> str:
    """The name in the model of what is outside the backbone."""
    found = re.match(r'neck\.(?:(\d+)\.)?', name)
    if found is None or target.decoders is None:
        return name
    return f'neck.{int(found[1] or 0) + target.decoders}.{name[found.end() :]}'


def _why_left(key: str, name: str, value: Tensor, target: Target, of_resnet: bool) -> str:
    """Why a tensor has no place in the model; empty where it has one."""
    shape = target.shapes.get(name)
    if shape == value.shape:
        return ''
    words = f'its shape is {tuple(value.shape)}, that of {name} {tuple(shape or ())}'
    if shape is not None and of_resnet:
        grouped = ' (grouped convs, as of a ResNeXt?)' if value.dim() == 4 else ''
        raise InheritError(f'{key} does not fit: {words}{grouped}. Take the weights of a ResNet')
    if shape is not None:
        return words
    found = re.search(r'layer(\d+)\.', name) if of_resnet else None
    if found and f'{target.backbone}layer{found[1]}.0.conv1.weight' not in target.shapes:
        return f'the backbone ends before layer{found[1]} (num_stages)'
    if not name:
        return 'it is not of the backbone'
    return f'the model has no {name}'


def _scaled(name: str, value: Tensor, norms: Mapping[str, tuple[float, float]]) -> Tensor:
    module, _, kind = name.rpartition('.')
    if module not in norms or kind not in ('weight', 'bias'):
        return value
    return value * norms[module][kind == 'bias']


def _below(shapes: Mapping[str, torch.Size], prefix: str) -> dict[str, torch.Size]:
    return {k[len(prefix) :]: shape for k, shape in shapes.items() if k.startswith(prefix)}


def account_rows(account: Account, how: Mapping[str, str]) -> list[list[str]]:
    """An account as rows of a table: what was used by part, and all else by name.

    Args:
        account: The account.
        how: By name in the model, how a missing tensor was initialised.

    Returns:
        Rows of what became of it, where, which tensors, and more about it.

    Example:
        >>> from mmsnn.conversion import Account, account_rows
        >>> account = Account({'bn1.bias': 'stem.0.norm.bias'}, {'fc.bias': 'no place'}, [], [])
        >>> for row in account_rows(account, {}):
        ...     print(row)
        ['used', 'stem', '1', 'bn1.bias']
        ['left out', 'fc', 'bias', 'no place']
    """
    rows = []
    for part, names in _grouped((new, old) for old, new in account.used.items()):
        ends = names[0] if len(names) == 1 else f'{names[0]} to {names[-1]}'
        rows.append(['used', part, str(len(names)), ends])
    for what, tensors in (
        ('left out', account.left),
        ('not in the ANN', {name: how.get(name, '') for name in account.missing}),
    ):
        groups: dict[tuple[str, str], list[str]] = {}
        for name, why in tensors.items():
            module, _, kind = name.rpartition('.')
            groups.setdefault((module, why), []).append(kind)
        rows += [[what, module, ', '.join(kinds), why] for (module, why), kinds in groups.items()]
    for note in account.notes:
        where, _, why = note.partition(': ')
        rows.append(['not the same', where, '', why])
    return rows


def _grouped(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, list[str]]]:
    """Names in the ANN by the part of the model that they went to."""
    groups: dict[str, list[str]] = {}
    for new, old in pairs:
        parts = new.split('.')
        groups.setdefault('.'.join(parts[: 1 + (parts[0] in PACKED)]), []).append(old)
    return list(groups.items())

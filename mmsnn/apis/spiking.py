"""Any detector of MMDetection with a spiking backbone and decoders, as changes of its config."""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Optional

import torch
from mmdet.models.backbones import ResNet
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from ..config_types import find_type, forget_pretrained, loads_weights, plain_values, type_name
from ..models import SGResNet

#: Side of the images on which maps are measured, in pixels: a multiple of every stride.
SIZE = 128
#: Strides of the stages that are tried, in this order, where the old backbone is no ResNet.
STAGE_STRIDES = ((1, 2, 2, 2), (2, 2, 2, 2))
#: Depths of SGResNet that have as many stages as MMDetection's ResNets.
DEPTHS = [d for d, (_, blocks) in SGResNet.arch_settings.items() if len(blocks) == 4]
#: Depth where the old backbone is no ResNet.
DEPTH = 18
#: Norms that share statistics between processes.
SYNC_NORMS = ('SyncBN', 'MMSyncBN', 'NaiveSyncBN')
#: Arguments of old backbones that leave the maps' shapes alone, and need compiled operators.
DEFORMABLE = ('dcn', 'stage_with_dcn', 'sac', 'stage_with_sac')

#: What becomes of a whole detector's checkpoint.
WHOLE = (
    "the weights of the whole ANN; model.init_cfg=dict(type='ANNPretrained', ...) takes them over"
)


class CannotSpikeError(ValueError):
    """The detector can't be made to spike; the message says why."""


class Level(NamedTuple):
    """A feature map.

    Args:
        channels: Channels.
        stride: Pixels of the image a cell, along one side.
    """

    channels: int
    stride: int


class Spiking(NamedTuple):
    """How a detector's config has to change.

    Args:
        changes: Settings to merge into the config, as another config that has it for ``_base_``
            would write them, ``_delete_`` included.
        notes: What was done and what to look at, in lines.
    """

    changes: dict
    notes: list[str]


class Trial(NamedTuple):
    """What one training step and one prediction on random data gave.

    Args:
        losses: Losses of the step, by name.
        reached: How many of the backbone's parameters got a gradient that isn't 0.
        parameters: How many of them there are that learn.
        found: What was found in one image: how many ``boxes``, ``masks``, ``segments``.
    """

    losses: dict[str, float]
    reached: int
    parameters: int
    found: dict[str, int]


def make_spiking(cfg: Config, depth: Optional[int] = None, time_steps: int = 4) -> Spiking:
    """Put a spiking backbone and decoders into a detector.

    The levels of the old backbone are measured on an image. An ``SGResNet`` with
    levels of the same strides takes its place, an ``ASDNeck`` stands behind it,
    and the neck, or the head where there is no neck, is told the new channels.

    Args:
        cfg: The detector's config; it stays as it is.
        depth: Depth of the SGResNet; default that of a ResNet, 18 for any other backbone.
        time_steps: Number of time steps, T.

    Returns:
        The changes.

    Raises:
        CannotSpikeError: The detector can't be made to spike; the message says why.

    Example:
        >>> from mmengine.config import Config
        >>> from mmsnn.apis import make_spiking
        >>> backbone = dict(type='ResNet', depth=18, out_indices=(2, 3))
        >>> neck = dict(type='ChannelMapper', in_channels=[256, 512], out_channels=64, num_outs=2)
        >>> made = make_spiking(Config(dict(model=dict(backbone=backbone, neck=neck))), depth=34)
        >>> made.changes['model']['backbone']['depth']
        34
        >>> [part['in_channels'] for part in made.changes['model']['neck']]
        [[256, 512], [256, 512]]
    """
    init_default_scope(cfg.get('default_scope') or 'mmdet')
    model = cfg.get('model')
    if depth is not None and depth not in DEPTHS:
        raise CannotSpikeError(f'unknown depth {depth}: choose one of {DEPTHS}')
    _check_parts(model)
    old, necks = model['backbone'], _necks(model)
    levels = measure_levels(old)
    used = _used_levels(necks[0] if necks else None, levels)
    backbone = spiking_backbone(old, [levels[i] for i in used], used, depth, time_steps)
    new = measure_levels(backbone)
    name = type_name(old)
    for i, level in zip(used, new):
        if level.stride != levels[i].stride:
            raise CannotSpikeError(
                f'SGResNet gives a level of stride {level.stride} where {name} gives one of '
                f'{levels[i].stride}'
            )
    channels = [level.channels for level in new]
    decoder = dict(type='ASDNeck', in_channels=channels)
    changed: dict = dict(backbone=dict(_delete_=True, **backbone))
    if necks:
        first = _fitted_neck(necks[0], levels, used, channels)
        changed['neck'] = [decoder, first, *necks[1:]]
    else:
        changed['neck'] = decoder
        changed.update(_fitted_heads(model, [levels[i].channels for i in used], channels))
    changes: dict = dict(model=changed)
    check_maps(model, merged(cfg, changes).model)
    strides = ', '.join(str(level.stride) for level in new)
    notes = [
        f'backbone: {_words(old)} -> SGResNet-{backbone["depth"]}, T = {time_steps}: levels of '
        f'strides {strides} with {", ".join(map(str, channels))} channels',
        f'decoder: ASDNeck in front of {type_name(necks[0]) if necks else "the head"}',
    ]
    notes += _left_behind(cfg, changes)
    return Spiking(changes, notes)


def merged(cfg: Config, changes: Mapping) -> Config:
    """A config with changes, as another config that inherits it and makes them.

    Args:
        cfg: The config; it stays as it is.
        changes: The changes, ``_delete_`` included.

    Returns:
        The new config.
    """
    new = copy.deepcopy(cfg)
    new.merge_from_dict(copy.deepcopy(dict(changes)))
    return new


def measure_levels(backbone: Mapping) -> list[Level]:
    """Run a backbone on an image.

    Args:
        backbone: Its config.

    Returns:
        Its levels.

    Raises:
        CannotSpikeError: It can't be built or run, or gives something else than feature maps.
    """
    name = type_name(backbone)
    image = torch.zeros(1, backbone.get('in_channels', 3), SIZE, SIZE)
    try:
        maps = _run(_build(backbone), image)
    except Exception as error:  # whatever its author didn't foresee
        raise CannotSpikeError(f'the backbone {name} does not run: {_reason(error)}') from error
    if not isinstance(maps, (list, tuple)) or any(
        not isinstance(level, Tensor) or level.dim() not in (4, 5) for level in maps
    ):
        raise CannotSpikeError(f'the backbone {name} gives something else than feature maps')
    return [Level(level.shape[-3], math.ceil(SIZE / level.shape[-1])) for level in maps]


def spiking_backbone(
    old: Mapping,
    levels: Sequence[Level],
    used: Sequence[int],
    depth: Optional[int],
    time_steps: int,
) -> dict:
    """The SGResNet that gives levels of the strides that an old backbone gives.

    Args:
        old: Config of the old backbone.
        levels: Its levels that are used.
        used: Which of all its levels these are.
        depth: Depth; None for that of a ResNet, or 18.
        time_steps: Number of time steps, T.

    Returns:
        Its config. What a ResNet says of its shape is kept: ``strides``, the deep stem,
        ``in_channels``, and, at its own depth, ``base_channels`` and ``stem_channels``. What
        belongs to weights that are there before the training isn't: ``frozen_stages``,
        ``norm_eval``, ``init_cfg``.

    Raises:
        CannotSpikeError: No SGResNet has such strides.
    """
    cls = find_type(old, MODELS)
    resnet = isinstance(cls, type) and issubclass(cls, ResNet)
    kept = {}
    if old.get('in_channels', 3) != 3:
        kept['in_channels'] = old['in_channels']
    if resnet:
        stages = old.get('num_stages', 4)
        strides = tuple(old.get('strides', STAGE_STRIDES[0]))[:stages]
        indices = [old.get('out_indices', range(stages))[i] for i in used]
        if _build(old).deep_stem:
            kept['stem'] = 'deep'
        own = old.get('depth')
        if depth is None and own in DEPTHS:
            depth = own
            kept.update((k, old[k]) for k in ('stem_channels', 'base_channels') if old.get(k))
    else:
        strides, indices = _stages_of(levels, type_name(old))
    last = indices[-1] + 1
    if last != 4:
        kept['num_stages'] = last
    if strides[:last] != STAGE_STRIDES[0]:
        kept['strides'] = strides[:last]
    if type_name(old.get('norm_cfg')) in SYNC_NORMS:
        kept['norm_cfg'] = dict(type='SyncTDBN')
    if old.get('with_cp'):
        kept['with_cp'] = True
    return dict(
        type='SGResNet',
        depth=DEPTH if depth is None else depth,
        time_steps=time_steps,
        out_indices=tuple(indices),
        **kept,
    )


def _stages_of(levels: Sequence[Level], name: str) -> tuple[tuple[int, ...], list[int]]:
    """Strides of the stages, and which of them give levels of the strides that are wanted."""
    wanted = [level.stride for level in levels]
    for strides in STAGE_STRIDES:
        given = [4 * math.prod(strides[: i + 1]) for i in range(len(strides))]
        if wanted == sorted(set(wanted) & set(given)):
            return strides, [given.index(stride) for stride in wanted]
    raise CannotSpikeError(
        f'{name} gives levels of strides {wanted}; those of SGResNet grow, from 4 to 32 or from 8 '
        'to 64'
    )


def _check_parts(model: Optional[Mapping]) -> None:
    """Refuse detectors whose backbone is more than the giver of feature maps."""
    if not isinstance(model, Mapping) or not isinstance(model.get('backbone'), Mapping):
        raise CannotSpikeError(
            f'there is no model.backbone to replace (model.type: {type_name(model) or "none"}): '
            'give the config of a detector'
        )
    name = type_name(model['backbone'])
    if name == SGResNet.__name__:
        raise CannotSpikeError('its backbone is an SGResNet: it spikes already')
    necks = _necks(model)
    neck = type_name(necks[0]) if necks else ''
    if neck == 'SSDNeck':
        raise CannotSpikeError(
            f'this is SSD: its neck hands the levels of {name} on to the head as they are, '
            'rescaled for their own magnitudes, and grows the others out of its extra layers. Take '
            'a detector with a feature pyramid, such as RetinaNet'
        )
    if isinstance(model.get('roi_head'), Mapping) and model['roi_head'].get('shared_head'):
        raise CannotSpikeError(
            "this is a C4 detector: roi_head.shared_head is the backbone's own last stage, run on "
            'every region, behind maps that a decoder has already made of the spikes. Take the '
            "detector's FPN or DC5 config"
        )
    inner = next((key for part in necks for key in part if key.endswith('backbone')), None)
    if inner:
        raise CannotSpikeError(
            f'its neck {neck} has a backbone of its own ({inner}), which feeds on the images again'
        )


def _necks(model: Mapping) -> list[dict]:
    """The neck's parts as plain dicts, one behind the other."""
    neck = model.get('neck')
    if neck is None:
        return []
    parts = neck if isinstance(neck, (list, tuple)) else [neck]
    return [plain_values(part) for part in parts]


def _used_levels(neck: Optional[dict], levels: Sequence[Level]) -> list[int]:
    """Which levels of the backbone the neck reads; decoders of others would never learn."""
    every = list(range(len(levels)))
    if neck is None:
        return every
    if isinstance(neck.get('in_channels'), int):  # these read the last level alone
        return every[-1:]
    end = neck.get('end_level', -1)
    return every[neck.get('start_level', 0) : None if end == -1 else end + 1]


def _fitted_neck(
    neck: dict, levels: Sequence[Level], used: Sequence[int], channels: Sequence[int]
) -> dict:
    """The neck for levels of other channels, and for those alone that it reads."""
    takes = neck.get('in_channels')
    gives = [level.channels for level in levels]
    if isinstance(takes, int) and takes == gives[-1]:
        fitted: Any = channels[-1]
    elif isinstance(takes, Sequence) and list(takes) == gives:
        fitted = list(channels)
    elif isinstance(takes, Sequence) and list(takes) == gives[::-1] and len(used) == len(levels):
        fitted = list(channels)[::-1]  # YOLOv3's takes the coarsest first
    else:
        raise CannotSpikeError(
            f'{type_name(neck)} has in_channels={takes}, but its backbone gives levels of {gives} '
            'channels: which of them it reads is not known'
        )
    kept = {k: v for k, v in neck.items() if k not in ('start_level', 'end_level')}
    return {**kept, 'in_channels': fitted}


def _fitted_heads(model: Mapping, old: Sequence[int], new: Sequence[int]) -> dict:
    """Where heads without a neck name the backbone's channels, the new ones."""

    def changed(part: Mapping) -> dict:
        found: dict[str, Any] = {}
        roi = type_name(part).endswith('RoIExtractor')
        for key, value in part.items():
            if isinstance(value, Mapping):
                inner = changed(value)
                if inner:
                    found[key] = inner
            elif key == 'in_channels' or (roi and key == 'out_channels'):
                if isinstance(value, int) and [value] == list(old) != list(new):
                    found[key] = new[0]
                elif isinstance(value, Sequence) and list(value) == list(old) != list(new):
                    found[key] = list(new)
        return found

    aside = ('backbone', 'data_preprocessor', 'train_cfg', 'test_cfg')
    return changed({k: v for k, v in model.items() if k not in aside})


def _left_behind(cfg: Config, changes: dict) -> list[str]:
    """What belonged to the ANN's weights: taken out of the config, or said."""
    old, notes = cfg.model['backbone'], []
    frozen = [
        f'{key}={old[key]}'
        for key, value in (('frozen_stages', -1), ('norm_eval', False))
        if old.get(key, value) != value
    ]
    if frozen:
        notes.append(
            f'left out: {", ".join(frozen)}, which hold pretrained layers still; these begin with '
            "random weights, unless an ANN's come along"
        )
    if 'init_cfg' in old:
        cls = find_type(old, MODELS)
        if isinstance(cls, type) and issubclass(cls, ResNet):
            way = "; dict(type='ANNPretrained', checkpoint=...) takes a ResNet's weights over"
        else:
            way = f'; weights of {type_name(old)} do not fit an SGResNet'
        notes.append(f'left out: init_cfg{way}')
    lost = [key for key in DEFORMABLE[::2] if old.get(key)]
    lost += ['dilations'] if set(old.get('dilations') or [1]) != {1} else []
    lost += ['plugins'] if old.get('plugins') else []
    if lost:
        notes.append(f'left out: {", ".join(lost)}, which SGResNet does not have')
    if loads_weights(cfg.model.get('init_cfg')):
        changes['model']['init_cfg'] = None
        notes.append(f'left out: model.init_cfg, {WHOLE}')
    if cfg.get('load_from'):
        changes['load_from'] = None
        notes.append(f'left out: load_from, {WHOLE}')
    keys = (cfg.get('optim_wrapper', {}).get('paramwise_cfg') or {}).get('custom_keys') or {}
    slow = {k: v['lr_mult'] for k, v in keys.items() if 'backbone' in k and v.get('lr_mult', 1) < 1}
    if slow:
        notes.append(
            'look at optim_wrapper.paramwise_cfg.custom_keys: '
            + ', '.join(f'{key} learns at {mult:g} of the rate' for key, mult in slow.items())
            + ', as suits pretrained weights'
        )
    return notes


def check_maps(old: Mapping, new: Mapping) -> list[Level]:
    """See that behind the neck everything is as it was.

    Args:
        old: Config of the old model.
        new: Config of the spiking one.

    Returns:
        The levels that the head sees.

    Raises:
        CannotSpikeError: Other levels than before.
    """
    seen = []
    for model in (old, new):
        image = torch.zeros(1, model['backbone'].get('in_channels', 3), SIZE, SIZE)
        maps = _run(_build(model['backbone']), image)
        for neck in _necks(model):
            try:
                maps = _run(_build(neck), maps)
            except Exception as error:  # whatever its author didn't foresee
                name = type_name(neck)
                raise CannotSpikeError(f'the neck {name} does not run: {_reason(error)}') from error
        seen.append([Level(level.shape[1], math.ceil(SIZE / level.shape[-1])) for level in maps])
    before, after = seen
    if _necks(old):
        same = before == after
    else:  # the head takes other channels
        same = [level.stride for level in before] == [level.stride for level in after]
    if not same:
        raise CannotSpikeError(f'the head would see {after} (channels, stride), it saw {before}')
    return after


def try_spiking(cfg: Config, size: int = SIZE) -> Trial:
    """Take one training step and make one prediction, on random images and boxes.

    Args:
        cfg: Config of the detector that spikes.
        size: Side of the images, in pixels.

    Returns:
        What came out.

    Raises:
        CannotSpikeError: It fails, a loss isn't finite, or the backbone gets no gradient.
    """
    init_default_scope(cfg.get('default_scope') or 'mmdet')
    settings = copy.deepcopy(cfg.model)
    # They pad to sizes of hundreds of pixels.
    settings.get('data_preprocessor', {}).pop('batch_augments', None)
    forget_pretrained(settings)
    optim = dict(copy.deepcopy(cfg.get('optim_wrapper') or {}))
    for key in ('loss_scale', 'dtype', 'accumulative_counts'):  # of half precision on a GPU
        optim.pop(key, None)
    optim['type'] = 'OptimWrapper'
    optim.setdefault('optimizer', dict(type='SGD', lr=0.01))
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = MODELS.build(settings)
            model.init_weights()
            reached: set[str] = set()
            watched = _watch(model.backbone, reached)
            data = _random_data(cfg, size, batch=2)
            losses = model.train().train_step(data, build_optim_wrapper(model, optim))
            with torch.no_grad():
                result = model.eval().test_step(_random_data(cfg, size, batch=1))[0]
    except Exception as error:  # whatever a detector's author didn't foresee
        raise CannotSpikeError(_reason(error)) from error
    values = {key: value.item() for key, value in losses.items()}
    if not all(map(math.isfinite, values.values())):
        raise CannotSpikeError(f'the first losses are not finite: {values}')
    if not reached:
        raise CannotSpikeError('no gradient reaches the backbone')
    return Trial(values, len(reached), watched, _count(result))


def _watch(backbone: nn.Module, reached: set[str]) -> int:
    """Note the parameters that get a gradient; how many could."""
    watched = [(name, param) for name, param in backbone.named_parameters() if param.requires_grad]
    for name, param in watched:
        param.register_hook(lambda grad, name=name: reached.add(name) if grad.any() else None)
    return len(watched)


def _random_data(cfg: Config, size: int, batch: int) -> dict:
    """Images of noise with what the detector learns from, as MMDetection tests its own with."""
    model = cfg.model
    if model.get('as_two_stage'):
        # The queries are the best cells of all maps, of strides 8 and more: 4/3 of the first one.
        cells = model.get('num_queries', 0)
        size = max(size, 32 * math.ceil(math.sqrt(cells * 64 * 3 / 4) / 32))
    channels = model['backbone'].get('in_channels', 3)
    data = demo_mm_inputs(
        batch,
        [[channels, size, size]] * batch,
        num_items=[2] * batch,
        num_classes=min([n for n in _values_of(model, 'num_classes') if n > 1] or [2]),
        with_mask=_learns_masks(cfg),
        with_semantic=True,
    )
    for sample in data['data_samples']:
        # Boxes of noise may have no area.
        side = size / 2
        boxes = [[0, 0, side, side], [side / 2, side / 2, size, size]]
        sample.gt_instances.bboxes = torch.tensor(boxes, dtype=torch.float32)
    return data


def _learns_masks(cfg: Config) -> bool:
    """Whether its data come with masks, which some detectors of boxes alone do not take."""
    data = cfg.get('train_dataloader')
    if data is None:
        return any('mask' in key or 'panoptic' in key for key in _keys_of(cfg.model))
    return any(_values_of(data, 'with_mask'))


def _keys_of(cfg: Any) -> Iterator[str]:
    """All keys, at any depth of dicts."""
    if isinstance(cfg, Mapping):
        for key, value in cfg.items():
            yield key
            yield from _keys_of(value)


def _values_of(cfg: Any, key: str) -> Iterator[int]:
    """All integers by that name, at any depth."""
    if isinstance(cfg, Mapping):
        if isinstance(cfg.get(key), int):
            yield cfg[key]
        cfg = list(cfg.values())
    if isinstance(cfg, (list, tuple)):
        for value in cfg:
            yield from _values_of(value, key)


def _count(sample: Any) -> dict[str, int]:
    """What a prediction holds."""
    found = {}
    instances = sample.get('pred_instances')
    for key, name in (('bboxes', 'boxes'), ('masks', 'masks')):
        if instances is not None and key in instances:
            found[name] = len(instances[key])
    if 'pred_panoptic_seg' in sample:
        found['segments'] = len(sample.pred_panoptic_seg.sem_seg.unique())
    return found


def _build(cfg: Mapping) -> nn.Module:
    """A backbone or neck with random weights, deformable convs as ordinary ones."""
    plain = plain_values(cfg)
    forget_pretrained(plain)
    for key in DEFORMABLE:
        plain.pop(key, None)
    with torch.random.fork_rng(devices=[]):
        return MODELS.build(plain)


def _run(module: nn.Module, x: Any) -> Any:
    module.eval()  # that of MMDetection's backbones gives back None
    with torch.no_grad():
        return module(x)


def _words(backbone: Mapping) -> str:
    """A backbone in a word."""
    depth = backbone.get('depth')
    return f'{type_name(backbone)}-{depth}' if depth else type_name(backbone)


def _reason(error: Exception) -> str:
    """The first sentence of what an exception says."""
    # A KeyError shows the repr of what it was given.
    text = str(error.args[0] if isinstance(error, KeyError) and error.args else error).strip()
    text = (text or type(error).__name__).partition('. Please check')[0]  # registries' advice
    if isinstance(error, NotImplementedError) and 'compiled operators' in text:
        return text.partition(', which')[0]
    return text.splitlines()[0]

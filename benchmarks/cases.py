"""What the benchmark times: networks, their steps, and the convs alone."""

import copy
import importlib.util
import logging
import math
import os.path as osp
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import NamedTuple, Optional

# First: without mmcv's compiled ops, MMDetection's models import only behind it.
from mmsnn.models import SGResNet  # isort: skip

import torch
import torch.nn.functional as F
from mmdet.models import ResNet
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from rates import set_rates
from torch import Tensor, nn

from mmsnn import ops
from mmsnn.deploy import fuse, has_amx, resolve_precision

ROOT = osp.dirname(osp.dirname(osp.abspath(__file__)))
DETECTOR = osp.join(ROOT, 'configs/_base_/models/spiking_retinanet_sg-r18_asd_fpn.py')
#: Time steps of the training step whose memory stands against SpikingJelly's at the usual T.
LONG_TIME_STEPS = 16
#: Boxes above the score threshold that NMS gets from each image.
CANDIDATES = 300

#: Of ``mmsnn.deploy.fuse``; one that this machine or device can't compute is left out by name.
PRECISIONS = ('fp32', 'bf16', 'int16', 'int8')
#: Of the convs alone and of autocast.
DTYPES = dict(fp32=torch.float32, bf16=torch.bfloat16)

OURS = 'mmsnn'
OURS_FUSED = 'mmsnn fused'
SPIKINGJELLY = 'SpikingJelly'
SPIKINGJELLY_FOLDED = 'SpikingJelly folded'
ANN = 'MMDetection ANN'
CONVS = 'convs alone'
COPY = 'copy'


@dataclass(frozen=True)
class Setting:
    """What all rows of a group share."""

    what: str
    device: str
    depth: int
    size: tuple[int, int]
    batch: int
    time_steps: int
    block: str = 'sg'
    #: At which the neurons of spiking backbones fire; None where there is no backbone.
    rate: Optional[float] = 0.12

    @property
    def title(self) -> str:
        """What stands above its rows."""
        height, width = self.size
        images = f'{self.batch} image{"s" if self.batch > 1 else ""}'
        rate = '' if self.rate is None else f'neurons fire at {self.rate:g}, '
        return f'{self.what}: depth {self.depth}, {height}x{width}, {images}, {rate}{self.device}'


class Key(NamedTuple):
    """What tells the rows of a group apart."""

    network: str
    dtype: str
    time_steps: int


#: The networks of a group are built when their turn comes, and one that can't be costs one row.
Builders = dict[Key, Callable[[], Callable[[], None]]]


def has_spikingjelly() -> bool:
    """Whether SpikingJelly is installed."""
    return importlib.util.find_spec('spikingjelly') is not None


def spikingjelly_resnet():
    """The module of SpikingJelly's network."""
    # Where there is no Triton, importing SpikingJelly makes PyTorch warn of it, into the progress.
    logging.getLogger('torch._library.triton').setLevel(logging.ERROR)
    import spikingjelly_resnet

    return spikingjelly_resnet


# ---- steps ---------------------------------------------------------------------------------------


def channels_last(x):
    """A module or a tensor in channels_last."""
    return x.to(memory_format=torch.channels_last)


@contextmanager
def precision(dtype: str, device: str) -> Iterator[None]:
    """Autocast where ``dtype`` is bf16."""
    with torch.autocast(device, torch.bfloat16, enabled=dtype == 'bf16'):
        yield


def inference(forward: Callable, dtype: str, device: str, after: Callable = lambda: None):
    """A forward pass without gradients."""

    def run() -> None:
        with torch.no_grad(), precision(dtype, device):
            forward()
        after()

    return run


def training(net: nn.Module, loss: Callable, dtype: str, device: str, after=lambda: None):
    """Forward, backward and a step of SGD.

    Gradients are dropped at the end of the step, so that its memory counts them.
    """
    net.train()
    # The rate is too small to change the network from round to round.
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-6, momentum=0.9)

    def run() -> None:
        with precision(dtype, device):
            value = loss(net)
        value.backward()
        optimizer.step()
        optimizer.zero_grad()
        after()

    return run


def level_loss(levels: tuple[Tensor, ...]) -> Tensor:
    """A scalar that every level takes part in."""
    return sum(level.float().square().mean() for level in levels)


def calibrate(net: nn.Module, forward: Callable) -> nn.Module:
    """Give every norm the statistics of this input, so that an untrained network's neurons fire."""
    norms = [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    net.train()
    with torch.no_grad():
        forward()
    for norm, momentum in zip(norms, momenta):
        norm.momentum = momentum
    return net.eval()


# ---- one neuron --------------------------------------------------------------------------------


def neuron(s: Setting) -> Builders:
    """One layer of neurons on currents like the first stage's: 64 channels, a quarter of the size.

    The yardstick is a copy of the same tensor: nothing that reads and writes it takes less.
    """
    shape = (s.time_steps * s.batch, 64, s.size[0] // 4, s.size[1] // 4)
    builders = {}
    for name, dtype in DTYPES.items():

        def tensor(make=torch.randn, dtype=dtype):
            x = channels_last(make(shape)).to(s.device, dtype)
            return x.unflatten(0, (s.time_steps, -1))

        def fired(shape):
            return (torch.rand(shape) > 0.8).float()

        def copy_of(tensor=tensor):
            x, to = tensor(), tensor()
            return lambda: to.copy_(x)

        def forward(lif, tensor=tensor, **options):
            x = tensor()
            return inference(lambda: lif(x, **options), 'fp32', s.device)

        def both(lif, tensor=tensor, **options):
            x, grad = tensor().requires_grad_(), tensor()
            return lambda: torch.autograd.grad(lif(x, **options), x, grad)

        def reference(x):
            with ops.use_backend('reference'):
                return ops.lif(x)

        def normed(x, **options):
            one, running = torch.ones(64, device=s.device), torch.ones(64, device=s.device)
            training = torch.is_grad_enabled()
            return ops.norm_lif(x, one, one, running, running, training, gate='or', **options)

        def theirs(x):
            layer = spikingjelly_resnet().lif().to(s.device)
            layer.step_mode = 'm'
            return layer(x)

        kinds = {f'{OURS} LIF': ops.lif, f'{OURS} in PyTorch operations': reference}
        if has_spikingjelly():
            kinds[f'{SPIKINGJELLY} LIF'] = theirs
        builders[Key(COPY, name, s.time_steps)] = copy_of
        for kind, lif in kinds.items():
            builders[Key(kind, name, s.time_steps)] = partial(forward, lif)
            key = Key(f'{kind}, and backward', name, s.time_steps)
            builders[key] = partial(both, lif)
        shortcut = tensor(fired)
        key = f'{OURS} norm + LIF + or'
        builders[Key(key, name, s.time_steps)] = partial(forward, normed, shortcut=shortcut)
        key = Key(f'{key}, and backward', name, s.time_steps)
        builders[key] = partial(both, normed, shortcut=shortcut)
    return builders


# ---- backbones -----------------------------------------------------------------------------------


def image(s: Setting) -> Tensor:
    """Normalised images."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(s.batch, 3, *s.size, generator=generator).to(s.device)


def our_backbone(s: Setting, time_steps: int) -> nn.Module:
    """SGResNet with statistics of the images, whose neurons fire at the rate, in eval mode."""
    return copy.deepcopy(_our_backbone(replace(s, what='', batch=1, time_steps=time_steps)))


# Setting the rate takes seconds, and a group asks for the same network several times.
@cache
def _our_backbone(s: Setting) -> nn.Module:
    torch.manual_seed(0)
    net = SGResNet(s.depth, s.time_steps, block=s.block).to(s.device)
    x = image(s)
    return at_rate(calibrate(net, lambda: net(x)), s)


def at_rate(net: nn.Module, s: Setting) -> nn.Module:
    """Let the neurons of a backbone fire at the setting's rate, on a small image to save time."""
    smaller = replace(s, batch=1, size=tuple(min(160, n) for n in s.size))
    set_rates(net, image(smaller), s.rate)
    return net


def ann_backbone(s: Setting) -> nn.Module:
    """MMDetection's ResNet, with every layer and norm trained, as ours are."""
    net = ResNet(s.depth, norm_eval=False).to(s.device)
    net.eval()  # alone: it returns None
    return net


def equal_spikes(s: Setting) -> float:
    """Share of spikes that ours and SpikingJelly's network agree on, same weights, fp32."""
    net, x = our_backbone(s, s.time_steps), image(replace(s, batch=1))
    theirs = spikingjelly_resnet().SpikingJellyResNet.like(net, s.block)
    with torch.no_grad():
        pairs = list(zip(net(x), theirs(x)))
    return sum((a == b).sum().item() for a, b in pairs) / sum(a.numel() for a, _ in pairs)


def backbone_inference(s: Setting, all_time_steps: Sequence[int] = ()) -> Builders:
    """One forward pass of the backbone.

    Args:
        s: The setting.
        all_time_steps: Several T, in place of the setting's one.
    """
    x = image(s)
    builders = {}

    def ann(dtype):
        net = ann_backbone(s)
        return inference(lambda: net(x), dtype, s.device)

    def ours(net):
        return inference(lambda: net(x), 'fp32', s.device)

    def ours_fused(net, dtype):
        deployed = fuse(net, dtype)
        return inference(lambda: deployed(x), 'fp32', s.device)  # its precision is its own

    def spikingjelly(net, dtype, folded=False):
        sj = spikingjelly_resnet()
        theirs = sj.SpikingJellyResNet.like(net, s.block)
        theirs = sj.folded(theirs) if folded else theirs
        return inference(lambda: theirs(x), dtype, s.device, lambda: sj.reset(theirs))

    def convs(net, dtype):
        return convs_inference(conv_shapes(net, x), dtype, s.device)

    for t in all_time_steps or [s.time_steps]:
        net = our_backbone(s, t)
        builders[Key(OURS, 'fp32', t)] = partial(ours, net)
        for dtype in PRECISIONS:
            builders[Key(OURS_FUSED, dtype, t)] = partial(ours_fused, net, dtype)
        if has_spikingjelly():
            for dtype in DTYPES:
                builders[Key(SPIKINGJELLY, dtype, t)] = partial(spikingjelly, net, dtype)
                builders[Key(SPIKINGJELLY_FOLDED, dtype, t)] = partial(
                    spikingjelly, net, dtype, folded=True
                )
        for dtype in PRECISIONS:
            builders[Key(CONVS, dtype, t)] = partial(convs, net, dtype)
    for dtype in DTYPES:
        builders[Key(ANN, dtype, 1)] = partial(ann, dtype)
    return builders


def backbone_training(s: Setting, their_time_steps: int = 0) -> Builders:
    """One training step of the backbone.

    Args:
        s: The setting.
        their_time_steps: T of SpikingJelly's, where it is another.
    """
    x = image(s)
    t = s.time_steps

    def ours(dtype):
        x_last = channels_last(x)
        net = channels_last(our_backbone(s, t))
        return training(net, lambda net: level_loss(net(x_last)), dtype, s.device)

    def ann(dtype):
        return training(ann_backbone(s), lambda net: level_loss(net(x)), dtype, s.device)

    def spikingjelly(dtype):
        sj = spikingjelly_resnet()
        net = our_backbone(s, their_time_steps or t)
        theirs = sj.SpikingJellyResNet.like(net, s.block)
        return training(
            theirs, lambda net: level_loss(net(x)), dtype, s.device, lambda: sj.reset(theirs)
        )

    def convs(dtype):
        return convs_training(conv_shapes(our_backbone(s, t), x), dtype, s.device)

    builders = {}
    for dtype in DTYPES:
        builders[Key(OURS, dtype, t)] = partial(ours, dtype)
        if has_spikingjelly():
            builders[Key(SPIKINGJELLY, dtype, their_time_steps or t)] = partial(spikingjelly, dtype)
        if not their_time_steps:
            builders[Key(ANN, dtype, 1)] = partial(ann, dtype)
            builders[Key(CONVS, dtype, t)] = partial(convs, dtype)
    return builders


# ---- the floor: the convs alone ------------------------------------------------------------------


class Conv(NamedTuple):
    """Shapes of one call of a conv; the first of a network takes the image, the others spikes."""

    x: tuple[int, ...]
    weight: tuple[int, ...]
    y: tuple[int, ...]
    stride: tuple[int, int]
    padding: tuple[int, int]


def conv_shapes(net: nn.Module, x: Tensor) -> list[Conv]:
    """The convs of a forward pass, in order."""
    convs = []

    def note(m, inputs, y):
        shapes = (tuple(v.shape) for v in (inputs[0], m.weight, y))
        convs.append(Conv(*shapes, tuple(m.stride), tuple(m.padding)))

    hooks = [m.register_forward_hook(note) for m in net.modules() if isinstance(m, nn.Conv2d)]
    with torch.no_grad():
        net(x)
    for hook in hooks:
        hook.remove()
    return convs


def _shared(make: Callable[[tuple], Tensor]) -> Callable[[tuple], Tensor]:
    """One tensor a shape: convs of the same shape read the same input, to save memory."""
    made = {}

    def get(shape):
        if shape not in made:
            made[shape] = make(shape)
        return made[shape]

    return get


def some_spikes(dtype: torch.dtype, device: str) -> Callable[[tuple], Tensor]:
    """Spikes of any shape, a fifth of them 1, in channels_last."""
    return _shared(lambda shape: channels_last((torch.rand(shape, device=device) > 0.8).to(dtype)))


def convs_inference(convs: list[Conv], dtype: str, device: str) -> Callable[[], None]:
    """Every conv once, in channels_last."""
    if dtype not in DTYPES:
        return _convs_of_bytes(convs, 1 if dtype == 'int8' else 2, device)
    spikes = some_spikes(DTYPES[dtype], device)
    calls = [
        (spikes(conv.x), channels_last(torch.randn(conv.weight).to(device, DTYPES[dtype])), conv)
        for conv in convs
    ]

    def run() -> None:
        with torch.no_grad():
            for x, weight, conv in calls:
                F.conv2d(x, weight, None, conv.stride, conv.padding)

    return run


def _convs_of_bytes(convs: list[Conv], times: int, device: str) -> Callable[[], None]:
    """Byte spikes meet byte weights, twice where the weights have 16 bits; the image does not."""
    resolve_precision('int8', torch.device(device))  # says why where there are no integer convs
    first = convs_inference(convs[:1], 'bf16' if has_amx() else 'fp32', device)
    onednn, spikes = torch.ops.onednn, some_spikes(torch.uint8, device)
    end = 1.0, 0, torch.float32, 'none', [], ''
    calls = []
    for conv in convs[1:]:
        x, weight = spikes(conv.x), torch.randint(-127, 128, conv.weight, dtype=torch.int8)
        scales = torch.ones(len(weight))
        zeros = torch.zeros(len(weight), dtype=torch.int32)
        if conv.weight[2:] == (1, 1):  # what is faster, as in mmsnn.deploy
            rows, columns = conv.stride
            x = x[:, :, ::rows, ::columns].permute(0, 2, 3, 1).contiguous()
            multiply, geometry = onednn.qlinear_pointwise, ()
            packed = onednn.qlinear_prepack(weight.flatten(1), None)
        else:
            multiply, geometry = onednn.qconv2d_pointwise, (conv.stride, conv.padding, (1, 1), 1)
            packed = onednn.qconv_prepack(weight, scales, 1.0, 0, *geometry)
        calls.append(partial(multiply, x, 1.0, 0, packed, scales, zeros, None, *geometry, *end))

    def run() -> None:
        first()
        for call in calls:
            for _ in range(times):
                call()

    return run


def convs_training(convs: list[Conv], dtype: str, device: str) -> Callable[[], None]:
    """Every conv and its backward pass, in channels_last; the image needs no gradient."""
    spikes = some_spikes(DTYPES[dtype], device)
    grads = _shared(lambda shape: channels_last(torch.randn(shape).to(device, DTYPES[dtype])))
    calls = []
    for i, conv in enumerate(convs):
        weight = channels_last(torch.randn(conv.weight).to(device, DTYPES[dtype]))
        x = spikes(conv.x).requires_grad_(i > 0)
        calls.append((x, weight.requires_grad_(), grads(conv.y), conv))

    def run() -> None:
        for x, weight, grad, conv in calls:
            y = F.conv2d(x, weight, None, conv.stride, conv.padding)
            torch.autograd.grad(y, [v for v in (x, weight) if v.requires_grad], grad)

    return run


# ---- whole detectors -----------------------------------------------------------------------------


def our_detector(s: Setting) -> nn.Module:
    """Spiking RetinaNet of the base config."""
    return copy.deepcopy(_our_detector(s))


@cache
def _our_detector(s: Setting) -> nn.Module:
    cfg = _detector_config(s)
    cfg.backbone.update(time_steps=s.time_steps, block=s.block)
    if s.block != 'sg':
        del cfg.backbone.gate_cfg
    return _build_detector(cfg, s)


def ann_detector(s: Setting) -> nn.Module:
    """MMDetection's RetinaNet: the same but for the backbone and the decoder.

    Every layer is trained, as ours are; MMDetection's own configs freeze the first.
    """
    cfg = _detector_config(s)
    cfg.type = 'RetinaNet'
    cfg.backbone = dict(
        type='ResNet', depth=s.depth, out_indices=cfg.backbone.out_indices, norm_eval=False
    )
    cfg.neck = cfg.neck[1]
    return _build_detector(cfg, s)


def _detector_config(s: Setting):
    cfg = Config.fromfile(DETECTOR).model
    expansion = 4 if SGResNet.arch_settings[s.depth][0] else 1
    cfg.backbone.depth = s.depth
    for neck in cfg.neck:
        neck.in_channels = [expansion * c for c in (128, 256, 512)]
    return cfg


def _build_detector(cfg, s: Setting) -> nn.Module:
    """Build it, and let it find about as many candidates as a trained one does.

    At random every score lies below the threshold, and boxes would cost nothing.
    """
    init_default_scope('mmdet')
    torch.manual_seed(0)
    model = MODELS.build(cfg).to(s.device)
    inputs = model.data_preprocessor(photos(replace(s, batch=1)))['inputs']
    calibrate(model, lambda: model(inputs, mode='tensor'))
    if isinstance(model.backbone, SGResNet):
        at_rate(model.backbone, s)
    with torch.no_grad():
        logits = torch.cat([level.flatten() for level in model(inputs, mode='tensor')[0]])
        threshold = model.test_cfg.score_thr
        wanted = math.log(threshold / (1 - threshold))
        model.bbox_head.retina_cls.bias += wanted - logits.topk(CANDIDATES).values[-1]
    return model


def photos(s: Setting) -> dict:
    """A batch as MMDetection's pipelines give it: bytes, and two true boxes an image."""
    generator = torch.Generator().manual_seed(0)
    height, width = s.size
    meta = dict(
        img_shape=s.size, ori_shape=s.size, pad_shape=s.size, scale_factor=(1.0, 1.0), img_id=0
    )
    boxes = torch.tensor([[0.1, 0.1, 0.5, 0.6], [0.4, 0.3, 0.9, 0.9]])
    boxes = boxes * torch.tensor([width, height, width, height])
    samples = []
    for _ in range(s.batch):
        sample = DetDataSample(metainfo=meta)
        sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.tensor([0, 1]))
        samples.append(sample)
    images = [
        torch.randint(256, (3, *s.size), generator=generator, dtype=torch.uint8) for _ in samples
    ]
    return dict(inputs=images, data_samples=samples)


def detector_inference(s: Setting) -> Builders:
    """``test_step``, as tools/test.py calls it: preprocessing, network, boxes and NMS."""
    t = s.time_steps
    data = photos(s)

    def test(model, dtype='fp32'):
        return inference(lambda: model.test_step(copy.deepcopy(data)), dtype, s.device)

    def ours_fused(dtype):
        return test(fuse(our_detector(s), dtype))

    def ann(dtype):
        return test(ann_detector(s), dtype)

    builders = {Key(OURS, 'fp32', t): lambda: test(our_detector(s))}
    for dtype in PRECISIONS:
        builders[Key(OURS_FUSED, dtype, t)] = partial(ours_fused, dtype)
    for dtype in DTYPES:
        builders[Key(ANN, dtype, 1)] = partial(ann, dtype)
    return builders


def detector_training(s: Setting) -> Builders:
    """A training step of the detector, with its own losses."""
    t = s.time_steps
    data = photos(s)

    def loss(model):
        batch = model.data_preprocessor(copy.deepcopy(data), True)
        return model.parse_losses(model(**batch, mode='loss'))[0]

    def ours(dtype):
        return training(channels_last(our_detector(s)), loss, dtype, s.device)

    def ann(dtype):
        return training(ann_detector(s), loss, dtype, s.device)

    builders = {}
    for dtype in DTYPES:
        builders[Key(OURS, dtype, t)] = partial(ours, dtype)
        builders[Key(ANN, dtype, 1)] = partial(ann, dtype)
    return builders

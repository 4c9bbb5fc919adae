"""The classifier: modes, folding of the papers' networks, and detection that starts from it."""

import logging
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.model import initialize
from mmengine.optim import build_optim_wrapper
from torch import nn

from mmsnn.deploy import fold, fuse
from mmsnn.models import ClsLoss, SGResNet, SpikingClassifier
from mmsnn.models.layers import LIFNeuron, RateDecoder, SpikeConv2d
from mmsnn.structures import ClsDataSample

ROOT = Path(__file__).resolve().parents[3]
STBP = dict(
    type='LIFNeuron', decay=0.25, v_threshold=0.5, surrogate='rectangle', surrogate_width=1.0
)


@pytest.fixture(autouse=True)
def quiet():
    """init_weights logs a paragraph a parameter."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel('WARNING')
    yield
    logger.setLevel(level)


def small(**backbone):
    backbone = dict(type='SGResNet', depth=10, base_channels=8, stem='cifar', **backbone)
    return SpikingClassifier(backbone, dict(type='SpikingClsHead', num_classes=5, in_channels=64))


def tdbn_resnet19():
    """STBP-tdBN's ResNet-19, an eighth of its width."""
    model = SpikingClassifier(
        dict(
            type='SGResNet', depth=19, base_channels=16, num_stages=3, strides=(1, 2, 2),
            stem='cifar', out_indices=(2,), block='tdbn', act_cfg=STBP,
        ),
        dict(
            type='SpikingClsHead', num_classes=10, in_channels=64, hidden_channels=32,
            act_cfg=STBP, decoder=dict(type='RateDecoder'),
        ),
    )  # fmt: skip
    model.init_weights()
    return model


def images():
    """Bright and dark ones: the hidden layer sees averages over space, and noise has but one."""
    return torch.rand(6, 3, 1, 1) * torch.rand(6, 3, 32, 32)


def in_use(model, x):
    """Norm statistics of the data, as after training."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(x)
    return model.eval()


def test_modes():
    model = small().eval()
    x = torch.rand(2, 3, 16, 16)
    known = [ClsDataSample().set_gt_label(i) for i in range(2)]
    assert model(x).shape == (2, 5)
    found = model(x, known, mode='predict')
    assert found[1] is known[1]
    torch.testing.assert_close(found[1].pred_score, model(x)[1].softmax(-1))
    loss = model(x, known, mode='loss')['loss']
    loss.backward()
    assert all(p.grad is not None for p in model.head.parameters())
    with pytest.raises(ValueError, match=r"mode must be .* got 'train'"):
        model(x, mode='train')


def test_train_step_and_test_step_take_what_a_loader_gives():
    model = small()
    wrapper = build_optim_wrapper(model, dict(optimizer=dict(type='SGD', lr=0.1)))
    data = dict(
        inputs=[torch.zeros(3, 16, 16, dtype=torch.uint8) + i for i in range(4)],
        data_samples=[ClsDataSample().set_gt_label(i) for i in range(4)],
    )
    before = model.head.fc.bias.clone()
    assert torch.isfinite(model.train_step(data, wrapper)['loss'])
    assert not torch.equal(before, model.head.fc.bias)
    assert len(model.eval().test_step(data)) == 4


def test_event_frames():
    model = small(in_channels=2, time_steps=6).eval()
    assert model(torch.rand(6, 3, 2, 16, 16)).shape == (3, 5)
    with pytest.raises(ValueError, match=r'come in 4 frames, but model.backbone.time_steps is 6'):
        model(torch.rand(4, 3, 2, 16, 16))
    # As many samples as frames: the data preprocessor has said which is which.
    frames = torch.rand(6, 6, 2, 16, 16)
    torch.testing.assert_close(model(frames)[2:3], model(frames[:, 2:3]))


def test_parts_that_do_not_fit():
    with pytest.raises(ValueError, match=r'SGResNet gives 64 .* SpikingClsHead .* in_channels=32'):
        SpikingClassifier(
            dict(type='SGResNet', depth=10, base_channels=8),
            dict(type='SpikingClsHead', num_classes=5, in_channels=32),
        )


def test_a_decoder_neck_and_a_plain_head():
    model = SpikingClassifier(
        dict(type='SGResNet', depth=10, base_channels=8, out_indices=(3,)),
        neck=dict(type='ASDNeck', in_channels=[64]),
        head=dict(type='SpikingClsHead', num_classes=5, in_channels=64, decoder=None),
    )
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 5)


def test_resnet19_is_the_papers():
    """3 blocks of 128, 3 of 256, 2 of 512, alpha on both joined branches, FC 256."""
    cfg = Config.fromfile(ROOT / 'configs/stbp_tdbn/tdbn-r19_cifar10.py')
    model = MODELS.build(cfg.model)
    convs = [
        (conv.in_channels, conv.out_channels, conv.kernel_size[0], conv.stride[0])
        for conv in model.backbone.modules()
        if isinstance(conv, nn.Conv2d) and conv.kernel_size != (1, 1)
    ]
    assert convs == [
        (3, 128, 3, 1),
        *[(128, 128, 3, 1)] * 6,
        (128, 256, 3, 2), *[(256, 256, 3, 1)] * 5,
        (256, 512, 3, 2), *[(512, 512, 3, 1)] * 3,
    ]  # fmt: skip
    assert model.head.hidden['conv'].out_channels == 256
    assert (model.head.fc.in_features, model.head.fc.out_features) == (256, 10)
    blocks = [
        block for name in model.backbone.res_layers for block in getattr(model.backbone, name)
    ]
    assert [len(getattr(model.backbone, name)) for name in model.backbone.res_layers] == [3, 3, 2]
    for block in blocks:
        assert block.last_norm.alpha == pytest.approx(2**-0.5)
        if block.downsample is not None:
            assert block.downsample[1].alpha == pytest.approx(2**-0.5)
    for module in model.modules():
        if isinstance(module, LIFNeuron):
            assert (module.decay, module.v_threshold, module.surrogate) == (0.25, 0.5, 'rectangle')


def test_resnet19_folds_into_convs_and_neurons():
    """In float64, where no rounding turns a spike that the next layers would multiply."""
    x = images().double()
    model = in_use(tdbn_resnet19().double(), x)
    expected = model(x)
    assert expected.abs().max() > 1e-3, 'a silent network would prove nothing'
    fold(model)
    modules = [*model.backbone.modules(), *model.head.modules()]
    kinds = {type(module) for module in modules if not list(module.children())}
    convs = {nn.Conv2d, SpikeConv2d}
    assert kinds <= convs | {nn.Linear, LIFNeuron, nn.Identity, RateDecoder, ClsLoss}
    torch.testing.assert_close(model(x), expected, rtol=1e-9, atol=1e-12)
    assert torch.equal(model(x).argmax(1), expected.argmax(1))


@pytest.mark.parametrize('precision', ['fp32', 'bf16', 'auto'])
def test_fused_whole(precision):
    x = images()
    model = small()
    model.init_weights()
    in_use(model, x)
    fast = fuse(model, precision)
    found, expected = fast(x), model(x).detach()
    assert found.dtype == torch.float32
    if precision == 'fp32':
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
    else:
        # A rounded weight turns a spike here and there.
        assert (found - expected).norm() < 0.5 * expected.norm()


@pytest.mark.parametrize('block', ['sg', 'ms'])
def test_a_detector_starts_from_its_checkpoint(block, tmp_path, caplog):
    torch.manual_seed(0)
    act_cfg = dict(type='PLIFNeuron')  # neurons with weights must arrive as well
    gate_cfg = dict(type='LearnedGate') if block == 'sg' else None
    common = dict(depth=10, base_channels=8, block=block, act_cfg=act_cfg, gate_cfg=gate_cfg)
    model = SpikingClassifier(
        dict(type='SGResNet', out_indices=(0, 1, 2, 3) if block == 'ms' else (3,), **common),
        dict(type='SpikingClsHead', num_classes=5, in_channels=64),
    )
    in_use(model, torch.rand(2, 3, 64, 64))
    path = tmp_path / 'classifier.pth'
    torch.save(dict(state_dict=model.state_dict(), meta={}), path)

    init_cfg = dict(type='Pretrained', checkpoint=str(path), prefix='backbone.')
    backbone = SGResNet(out_indices=(0, 1, 2, 3), init_cfg=init_cfg, **common)
    logger = MMLogger.get_current_instance()
    logger.setLevel(logging.INFO)
    logger.addHandler(caplog.handler)
    try:
        initialize(backbone, init_cfg)
        backbone.init_weights()
    finally:
        logger.removeHandler(caplog.handler)
    assert 'unexpected key' not in caplog.text
    assert 'missing keys' not in caplog.text
    assert 'size mismatch' not in caplog.text
    ours = model.backbone.state_dict()
    assert set(ours) == set(backbone.state_dict())
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, ours[name]), name

"""ONNX files: the same boxes and classes in ONNX Runtime, from operators that anyone has."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import small_nets
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from onnx_files import assert_plain_onnx, assert_same, batch, detector, run

import mmsnn
from mmsnn import ops
from mmsnn.deploy import ExportError, export_onnx, fuse
from mmsnn.deploy.dense_boxes import DenseBoxes, box_settings
from mmsnn.deploy.plain import MOST, UnrolledNeuron, plain, trace
from mmsnn.deploy.whole_graph import describe
from mmsnn.models.layers import IFNeuron, ILIFNeuron, LIFNeuron, PLIFNeuron
from mmsnn_cli.export import main

onnx = pytest.importorskip('onnx', reason="needs onnx: pip install 'mmsnn[test]'")
pytest.importorskip('onnxscript', reason="needs onnxscript: pip install 'mmsnn[test]'")
pytest.importorskip('onnxruntime', reason='needs onnxruntime to run ONNX files')

ROOT = Path(__file__).resolve().parents[2]
NAME = 'spiking-retinanet_sg-r10_asd_fpn_digits'


@pytest.mark.parametrize(
    'neuron',
    [
        LIFNeuron(),
        LIFNeuron(tau=1.7, reset='soft', v_threshold=0.7),
        LIFNeuron(decay=0.0),
        IFNeuron(reset='soft'),
        PLIFNeuron(decay=0.3),
        PLIFNeuron(tau=3.0),
    ],
    ids=repr,
)
def test_unrolled_neuron(neuron):
    """The reference's spikes, bit for bit, whichever way time is laid out."""
    x = 2 * torch.randn(5, 2, 7, generator=torch.Generator().manual_seed(0))
    with ops.use_backend('reference'), torch.no_grad():
        spikes = neuron(x)
    unrolled = UnrolledNeuron(neuron)
    assert 0 < spikes.mean() < 1
    assert torch.equal(unrolled(x), spikes)
    assert torch.equal(unrolled(x.flatten(0, 1), 5), spikes.flatten(0, 1))


def test_whole_numbers_of_spikes():
    neuron, x = ILIFNeuron(D=4), 6 * torch.rand(3, 2, 5, generator=torch.Generator().manual_seed(0))
    spikes = trace(plain(neuron), (x,)).module()(x)
    assert spikes.unique().tolist() == [0, 1, 2, 3, 4]
    assert torch.equal(spikes, neuron(x))


@pytest.mark.parametrize('gate', ['ResidualGate', 'LearnedGate', 'SEWAddGate', 'SEWIAndGate'])
def test_plain_backbone(gate):
    net = small_nets.backbone(gate_cfg=dict(type=gate))
    images = small_nets.images()
    with ops.use_backend('reference'), torch.no_grad():
        for own, other in zip(net(images), plain(net)(images)):
            assert own.mean() > 0
            # Folded weights round otherwise, and a potential may lie on the threshold.
            assert (own == other).float().mean() > 0.999


@pytest.mark.parametrize('head', ['retina', 'fcos', 'atss'])
@pytest.mark.parametrize(
    'test_cfg',
    [
        dict(),
        dict(nms_pre=1000, max_per_img=1000),
        dict(nms=dict(type='nms', iou_threshold=0.3, class_agnostic=True)),
    ],
    ids=['few', 'all', 'agnostic'],
)
def test_dense_boxes(head, test_cfg):
    """Boxes are those of MMDetection's own decoding, in images that are padded too."""
    model = detector(head, test_cfg)
    images, sizes, found = batch(model)
    with torch.no_grad():
        assert_same(DenseBoxes(plain(model))(images, sizes), found)


@pytest.fixture(scope='module')
def detector_file(tmp_path_factory):
    model = detector()
    path = tmp_path_factory.mktemp('onnx') / 'detector.onnx'
    export_onnx(model, path, shape=(64, 64), batch_size=2)
    return model, str(path)


def test_detector_file(detector_file):
    model, path = detector_file
    images, sizes, found = batch(fuse(model, 'fp32'))
    assert_same(run(path, images, sizes), found)
    operators = assert_plain_onnx(path)
    assert operators.count('NonMaxSuppression') == 1
    # One conv of the stem, whose current is the same at every time step.
    convs = sum(isinstance(m, torch.nn.Conv2d) for m in model.backbone.modules())
    rest = sum(isinstance(m, torch.nn.Conv2d) for m in model.neck.modules())
    head = sum(isinstance(m, torch.nn.Conv2d) for m in model.bbox_head.modules())
    assert operators.count('Conv') == convs + rest + 2 * head


def test_metadata(detector_file):
    path = detector_file[1]
    told = {p.key: json.loads(p.value) for p in onnx.load(path).metadata_props}
    assert told['mmsnn.version'] == mmsnn.__version__
    assert told['mmsnn.time_steps'] == 2
    assert told['mmsnn.classes'] is None
    about = told['mmsnn.preprocessing']
    assert (about['mean'], about['std'], about['order']) == ([127.0] * 3, [64.0] * 3, 'BGR')
    assert (about['channels'], about['pad_size_divisor'], about['pipeline']) == (3, 1, None)


@pytest.mark.parametrize(
    ('config', 'channels', 'loads'),
    [
        ('sg_resnet/sg-r19_asd_dvs-cifar10.py', 2, 'LoadEventFrames'),
        ('digits/spiking-retinanet_sg-r10_asd_fpn_digits-events.py', 4, 'LoadEventWindow'),
    ],
)
def test_description_of_a_config_of_events(config, channels, loads):
    init_default_scope('mmdet')
    cfg = Config.fromfile(ROOT / 'configs' / config)
    model = MODELS.build(cfg.model)
    model.cfg = cfg
    about = describe(model)['preprocessing']
    assert about['channels'] == channels * model.backbone.time_steps
    assert about['order'] == 'events'
    assert about['pipeline'][0]['type'] == loads


def test_classifier_file_of_any_batch(tmp_path):
    torch.manual_seed(0)
    model = small_nets.lower_thresholds(
        small_nets.classifier(
            dict(in_channels=16), time_steps=2, num_stages=2, strides=(1, 2), out_indices=(1,)
        )
    )
    with torch.no_grad():
        model.head.fc.weight.mul_(50)
    path = str(tmp_path / 'classifier.onnx')
    export_onnx(model, path, shape=(32, 32))
    for size in (1, 3):
        images = small_nets.images(size)
        with torch.no_grad():
            scores = torch.stack(
                [s.pred_score for s in fuse(model, 'fp32')(images, mode='predict')]
            )
        assert scores.std(1).min() > 1e-3
        np.testing.assert_allclose(run(path, images)[0], scores, rtol=0, atol=1e-4)
    assert_plain_onnx(path)


# ---- bad input -----------------------------------------------------------------------------------


def refused(model, words, **options):
    with pytest.raises(ExportError, match=words) as error:
        export_onnx(model, '/never/written.onnx', **options)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (dict(shape=(0, 32)), r'padded to multiples of 1, .* got \(0, 32\)'),
        (dict(batch_size=0), 'at least 1, got 0'),
    ],
)
def test_bad_options(options, words):
    refused(detector(), words, **options)


def test_no_time_step():
    model = detector()
    model.backbone.time_steps = 0
    refused(model, 'at least one time step, got time_steps=0')


def test_fused_model():
    refused(fuse(detector(), 'fp32'), 'fused already')


@pytest.mark.parametrize(
    ('test_cfg', 'words'),
    [
        (dict(nms=dict(type='soft_nms', iou_threshold=0.5)), 'soft_nms.*plain'),
        (dict(nms_pre=-1), 'nms_pre must be at least 1'),
        (dict(min_bbox_size=4), 'min_bbox_size=4'),
    ],
)
def test_settings_that_onnx_has_no_word_for(test_cfg, words):
    model = detector()
    model.bbox_head.test_cfg.update(test_cfg)
    refused(model, words)


def test_detector_of_another_kind():
    init_default_scope('mmdet')
    cfg = Config.fromfile(ROOT / 'configs/faster_rcnn/faster-rcnn_sg-r18_asd_fpn_1x_coco.py')
    with pytest.raises(ExportError, match=r'boxes of a FasterRCNN .* RetinaNet, FCOS and ATSS'):
        box_settings(MODELS.build(cfg.model))


class Fixed(torch.nn.Module):
    """A layer for one size, as one with learned positions."""

    def __init__(self):
        super().__init__()
        self.positions = torch.nn.Parameter(torch.zeros(1, 3, 32, 32))

    def forward(self, x):
        return x + self.positions


def test_size_that_the_model_cannot_have():
    rows = torch.export.Dim('rows', min=2, max=MOST)
    with pytest.raises(ExportError, match=r'--shape, --batch\): .*rows') as error:
        trace(Fixed(), (torch.zeros(1, 3, 32, 32),), ({2: rows},))
    assert '\n' not in str(error.value)


class Small(torch.nn.Module):
    """Another layer for large images."""

    def forward(self, x):
        return x + 1 if x.shape[2] > 128 else x


def test_size_that_changes_the_model():
    rows = 32 * torch.export.Dim('rows', min=2, max=MOST)
    with pytest.raises(ExportError, match='--shape, --batch') as error:
        trace(Small(), (torch.zeros(1, 3, 96, 32),), ({2: rows},))
    assert '\n' not in str(error.value)


def test_operator_of_someone_else():
    library = torch.library.Library('my_chip', 'DEF')
    library.define('twice(Tensor x) -> Tensor')
    library.impl('twice', lambda x: 2 * x, 'CompositeExplicitAutograd')
    torch.library.register_fake('my_chip::twice', torch.empty_like, lib=library)

    class Net(torch.nn.Module):
        def forward(self, x):
            return torch.ops.my_chip.twice(x)

    with pytest.raises(ExportError, match='calls my_chip::twice, which cannot be exported'):
        trace(Net(), (torch.zeros(2),))


def test_missing_package(monkeypatch):
    monkeypatch.setitem(sys.modules, 'onnxscript', None)
    refused(detector(), r"onnxscript.*pip install 'mmsnn\[onnx\]'")


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (['-o', 'model.pt'], '--out must name a .onnx file, got model.pt'),
        (['-o', 'model.onnx', '--time-steps', '0'], '--time-steps must be at least 1, got 0'),
        (['-o', 'there.onnx'], 'there.onnx is there already'),
    ],
)
def test_command_says_what_is_wrong(options, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'there.onnx').touch()
    with pytest.raises(SystemExit) as ended:
        main(['onnx', NAME, f'mmsnn://{NAME}', *options])
    assert words in str(ended.value.code)
    assert ended.value.code.strip().count('\n') == 0

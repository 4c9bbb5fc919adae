"""Whole models in ONNX Runtime and OpenVINO: boxes, mAP, any size, and a place without mmsnn."""

import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest
import small_nets
import torch
from mmdet.evaluation import CocoMetric
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from onnx_files import assert_plain_onnx, assert_same, batch, run, spread

from mmsnn.apis import init_detector
from mmsnn.checkpoints import DIGITS_DETECTOR
from mmsnn.compat import quiet_coco
from mmsnn.deploy import export_onnx, fuse
from mmsnn.deploy.fuse import folded_copy

pytest.importorskip('onnx', reason="needs onnx: pip install 'mmsnn[test]'")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / 'docs/examples/run_onnx.py'


@pytest.fixture(scope='module')
def digits(tmp_path_factory, tool):
    """The detector that comes with mmsnn, its file, and 20 pictures that it was not trained on."""
    folder = tmp_path_factory.mktemp('digits')
    options = '--train-images', 1, '--val-images', 20
    tool('dataset_converters/digits_to_coco.py', folder / 'set', *options)
    root = {'test_dataloader.dataset.data_root': f'{folder / "set"}/'}
    model = init_detector(DIGITS_DETECTOR, cfg_options=root)
    export_onnx(model, folder / 'model.onnx')
    with quiet_coco():
        dataset = DATASETS.build(model.cfg.test_dataloader.dataset)
    assert len(dataset) == 20
    return model, dataset, str(folder / 'model.onnx')


def scores_of(dataset, found):
    """COCO's numbers."""
    annotations = Path(dataset.data_root) / dataset.ann_file.rpartition('set/')[2]
    metric = CocoMetric(ann_file=str(annotations), metric='bbox')
    metric.dataset_meta = dataset.metainfo
    metric.process({}, found)
    with quiet_coco():
        return metric.evaluate(len(found))


def sample(info, boxes, scores, labels):
    instances = dict(
        bboxes=torch.as_tensor(boxes),
        scores=torch.as_tensor(scores),
        labels=torch.as_tensor(labels),
    )
    return dict(img_id=info['img_id'], ori_shape=info['ori_shape'], pred_instances=instances)


def test_digits(digits):
    """20 pictures, one by one and in one batch, and COCO's numbers of them."""
    model, dataset, path = digits
    fast = fuse(model, 'fp32')
    ours, theirs, inputs, all_found = [], [], [], []
    for data in dataset:
        data = pseudo_collate([data])
        images = model.data_preprocessor(data)['inputs']
        with torch.no_grad():
            (found,) = fast.test_step(data)
        sizes = torch.tensor([found.img_shape])
        assert found.scale_factor == (1.0, 1.0)
        outputs = run(path, images, sizes)
        own = found.pred_instances
        assert_same(outputs, [own])
        inputs.append((images, sizes))
        all_found.append(own)
        there = outputs[2][0] >= 0
        ours.append(sample(found.metainfo, own.bboxes, own.scores, own.labels))
        theirs.append(sample(found.metainfo, *(output[0][there] for output in outputs)))
    assert_same(run(path, *(torch.cat(parts) for parts in zip(*inputs))), all_found)
    mine, other = scores_of(dataset, ours), scores_of(dataset, theirs)
    assert mine['coco/bbox_mAP'] > 0.6
    assert mine == pytest.approx(other, abs=5e-4)
    print(f'mAP: {mine["coco/bbox_mAP"]} by mmsnn, {other["coco/bbox_mAP"]} by ONNX Runtime')
    assert_plain_onnx(path)


def test_without_mmsnn(digits, tmp_path):
    """The example of the docs, in an environment that has neither mmsnn nor torch."""
    model, dataset, path = digits
    venv.create(tmp_path / 'venv', with_pip=True)
    python = str(tmp_path / 'venv/bin/python')
    install = ['-m', 'pip', 'install', '--quiet', 'numpy', 'onnxruntime', 'pillow']
    subprocess.run([python, *install], check=True)
    picture = dataset.get_data_info(0)['img_path']
    told = subprocess.run(
        [python, str(EXAMPLE), path, picture], check=True, text=True, capture_output=True
    ).stdout.splitlines()
    with torch.no_grad():
        (found,) = fuse(model, 'fp32').test_step(pseudo_collate([dataset[0]]))
    own = found.pred_instances
    assert len(told) == len(own) > 0
    for line, box, score, label in zip(told, own.bboxes, own.scores, own.labels):
        name, seen, rest = line.split(' ', 2)
        assert name == dataset.metainfo['classes'][label]
        assert float(seen) == pytest.approx(score.item(), abs=1e-4)
        assert np.array(eval(rest)) == pytest.approx(box.numpy(), abs=0.02)
    gone = subprocess.run([python, '-c', 'import mmsnn'], capture_output=True)
    assert gone.returncode != 0


def test_openvino(digits):
    openvino = pytest.importorskip('openvino', reason='needs openvino: pip install openvino')
    model, dataset, path = digits
    compiled = openvino.Core().compile_model(path, 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'})
    fast = fuse(model, 'fp32')
    for data in dataset:
        data = pseudo_collate([data])
        images = model.data_preprocessor(data)['inputs']
        with torch.no_grad():
            (found,) = fast.test_step(data)
        outputs = compiled([images.numpy(), np.array([found.img_shape])])
        assert_same([outputs[i] for i in range(3)], [found.pred_instances])


def fire(model, images, run):
    """Let an untrained model's neurons fire at 0.12, by weights whose sums have no rounding.

    In a random network some potentials lie so near the threshold that the order of a sum decides,
    and what follows differs. With weights and images in multiples of powers of two every order
    gives the same, so that all spikes have to be equal.
    """
    sys.path.insert(0, str(ROOT / 'benchmarks'))
    from cases import calibrate
    from rates import set_rates

    calibrate(model, run)
    # Each layer's bias is looked for in many passes: a part of an image is enough.
    set_rates(model.backbone, images[:1, :, :160, :160], 0.12)
    model = folded_copy(model)
    for conv in model.backbone.modules():
        if isinstance(conv, torch.nn.Conv2d):
            for values in (conv.weight, conv.bias):
                values.mul_(512).round_().div_(512)
    with torch.no_grad():
        # They fire up to the last level, and a gate's OR lets more through from block to block.
        rates = [level.mean().item() for level in model.backbone(images)]
    assert all(0.02 < rate < 0.7 for rate in rates), rates
    return model


def fired(config):
    """A config's detector with random weights, whose neurons fire and whose scores differ."""
    cfg = Config.fromfile(ROOT / 'configs' / config).model
    cfg.backbone.init_cfg = None
    cfg.data_preprocessor.update(mean=[128.0] * 3, std=[64.0] * 3)
    init_default_scope('mmdet')
    torch.manual_seed(0)
    model = MODELS.build(cfg)
    model.bbox_head.test_cfg.score_thr = 0.5
    images = small_nets.images(2, 320)
    model = fire(model, images, lambda: model(images, mode='tensor'))
    return spread(model, images, 0.5)


@pytest.mark.parametrize(
    'config',
    [
        'spiking_retinanet/spiking-retinanet_sg-r18_asd_fpn_1x_coco.py',
        'fcos/fcos_sg-r18_asd_fpn_1x_coco.py',
        'atss/atss_sg-r18_asd_fpn_1x_coco.py',
    ],
    ids=['retinanet', 'fcos', 'atss'],
)
def test_coco_shaped(config, tmp_path):
    """T = 4, 320x320: 20 images, some smaller; and one graph takes other sizes."""
    model = fired(config)
    path = str(tmp_path / 'model.onnx')
    export_onnx(model, path)
    fast = fuse(model, 'fp32')
    for i in range(10):
        images, sizes, found = batch(fast, [(3, 320, 320), (3, 320 - 8 * i, 300)], seed=i)
        assert_same(run(path, images, sizes), found)
    for shape in ((3, 64, 64), (3, 96, 416)):
        images, sizes, found = batch(fast, [shape])
        assert_same(run(path, images, sizes), found)
    assert_plain_onnx(path)


def test_classifier(tmp_path):
    """SG ResNet-18 as for CIFAR-10: 20 images."""
    cfg = Config.fromfile(ROOT / 'configs/sg_resnet/sg-r18_asd_cifar10.py').model
    init_default_scope('mmdet')
    torch.manual_seed(0)
    model = MODELS.build(cfg)
    images = (64 * small_nets.images(20, 32)).round() / 64
    model = fire(model, images, lambda: model(images))
    with torch.no_grad():
        model.head.fc.weight.mul_(2 / model(images).std())
        scores = torch.stack([s.pred_score for s in fuse(model, 'fp32')(images, mode='predict')])
    path = str(tmp_path / 'model.onnx')
    export_onnx(model, path, shape=(32, 32))
    np.testing.assert_allclose(run(path, images)[0], scores, rtol=0, atol=1e-4)
    assert scores.std(0).max() > 1e-2

"""Detectors whose boxes an ONNX file has to give, and what is run and asked of the file."""

import copy

import numpy as np
import small_nets
import torch
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.registry import init_default_scope
from scipy.optimize import linear_sum_assignment

from mmsnn.deploy.onnx_file import OPSET

TWO = [(3, 64, 64), (3, 48, 56)]


def heads():
    """Small heads of the three families, on two levels."""
    retina = small_nets.detector_config(3).bbox_head
    common = dict(num_classes=3, in_channels=8, feat_channels=8, stacked_convs=1, norm_cfg=None)
    fcos = dict(type='FCOSHead', strides=(4, 8), regress_ranges=((-1, 32), (32, 1e8)), **common)
    atss = dict(
        type='ATSSHead',
        anchor_generator=retina.anchor_generator,
        loss_centerness=dict(type='CrossEntropyLoss', use_sigmoid=True, loss_weight=1.0),
        **common,
    )
    return dict(retina=retina, fcos=fcos, atss=atss)


def detector(head='retina', test_cfg=(), **backbone):
    """A detector that fires, and whose scores are not all the same."""
    init_default_scope('mmdet')
    torch.manual_seed(0)
    cfg = small_nets.detector_config(2, **backbone)
    cfg.type = dict(retina='SpikingRetinaNet', fcos='FCOS', atss='ATSS')[head]
    cfg.bbox_head = heads()[head]
    if head == 'atss':
        cfg.train_cfg.assigner = dict(type='ATSSAssigner', topk=9)
    cfg.test_cfg.update(score_thr=0.5, min_bbox_size=0, **dict(test_cfg))
    model = small_nets.lower_thresholds(MODELS.build(cfg))
    return spread(model, small_nets.images(2, 64))


def spread(model, images, deviation=1.0):
    """Scores as far apart as those of a trained detector, by the last convs of its head."""
    convs = [m for m in model.bbox_head.modules() if isinstance(m, torch.nn.Conv2d)]
    last = [conv for conv in convs if conv.out_channels != model.bbox_head.feat_channels]
    with torch.no_grad():
        for conv in last:
            seen = []
            hook = conv.register_forward_hook(lambda m, args, out, seen=seen: seen.append(out))
            model(images, mode='tensor')
            hook.remove()
            values = torch.cat([out.flatten() for out in seen])
            conv.weight.mul_(deviation / values.std())
            conv.bias.zero_()
    return model


def noise(shapes=TWO, seed=0):
    """Pictures."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(256, s, generator=generator, dtype=torch.uint8) for s in shapes]


def batch(model, shapes=TWO, seed=0):
    """As :func:`batch_of`, of noise."""
    return batch_of(model, noise(shapes, seed))


def batch_of(model, pictures):
    """Normalised images, their sizes, and what the model finds in them, in pixels of the input."""
    shapes = [list(picture.shape) for picture in pictures]
    data = demo_mm_inputs(len(shapes), shapes, num_classes=model.bbox_head.num_classes)
    data['inputs'] = pictures
    for sample in data['data_samples']:
        sample.set_metainfo(dict(scale_factor=(1.0, 1.0)))
    with torch.no_grad():
        images = model.data_preprocessor(copy.deepcopy(data))['inputs']
        found = [sample.pred_instances for sample in model.test_step(data)]
    return images, torch.tensor([shape[1:] for shape in shapes]), found


def assert_same(outputs, found, pixels=1e-2, score=1e-4):
    """Boxes (B, N, 4), scores and labels are those that mmsnn finds, and nothing behind them.

    Boxes whose scores differ by less than rounding may stand in another order.
    """
    for boxes, scores, labels, own in zip(*map(torch.as_tensor, outputs), found):
        n = len(own)
        assert n > 0
        assert (scores[n:] == 0).all()
        assert (labels[n:] == -1).all()
        assert (scores[:n] - own.scores).abs().max() <= score
        same = (
            ((boxes[:n, None] - own.bboxes).abs().amax(2) <= pixels)
            & ((scores[:n, None] - own.scores).abs() <= score)
            & (labels[:n, None] == own.labels)
        ).numpy()
        assert same[linear_sum_assignment(same, maximize=True)].all()


def run(path, *inputs):
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    names = [i.name for i in session.get_inputs()]
    return session.run(None, {n: np.asarray(x) for n, x in zip(names, inputs)})


def assert_plain_onnx(path):
    """Only operators of ai.onnx, of one version, and nothing behind functions."""
    import onnx

    graph = onnx.load(path)
    onnx.checker.check_model(graph, full_check=True)
    assert [(o.domain, o.version) for o in graph.opset_import] == [('', OPSET)]
    assert not graph.functions
    assert {node.domain for node in graph.graph.node} == {''}
    return [node.op_type for node in graph.graph.node]

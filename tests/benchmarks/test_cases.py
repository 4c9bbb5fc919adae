"""What is timed does what its row says."""

import cases
import pytest
import torch
from cases import ANN, CONVS, OURS, Key

from mmsnn.ops.units import has_vnni

SETTING = cases.Setting('', 'cpu', 18, (64, 64), 2, 2)


def test_training_rows_take_a_step():
    builders = cases.backbone_training(SETTING)
    for network in (OURS, ANN, CONVS):
        for dtype in cases.DTYPES:
            builders[Key(network, dtype, 1 if network == ANN else 2)]()()


@pytest.mark.parametrize('dtype', list(cases.DTYPES))
def test_a_step_changes_weights_and_keeps_no_gradient(dtype):
    net = torch.nn.Conv2d(3, 4, 3)
    before = net.weight.detach().clone()
    x = cases.image(SETTING)
    cases.training(net, lambda net: 1e6 * cases.level_loss((net(x),)), dtype, 'cpu')()
    assert not torch.equal(net.weight, before)
    assert net.weight.grad is None


def test_detectors_train():
    for build in cases.detector_training(SETTING).values():
        build()()


@pytest.mark.parametrize('make', [cases.our_detector, cases.ann_detector])
def test_detectors_find_boxes(make):
    model = make(SETTING)
    with torch.no_grad():
        found = model.test_step(cases.photos(SETTING))
    assert len(found) == SETTING.batch
    assert all(len(sample.pred_instances) > 10 for sample in found), 'NMS would cost nothing'


def test_convs_alone_are_all_convs():
    net = cases.our_backbone(SETTING, 2)
    convs = cases.conv_shapes(net, cases.image(SETTING))
    assert len(convs) == sum(isinstance(m, torch.nn.Conv2d) for m in net.modules())
    assert convs[0].x == (2, 3, 64, 64), 'the stem sees each image once'
    assert all(conv.x[0] == 4 for conv in convs[1:]), 'the others at every time step'
    weights = [tuple(m.weight.shape) for m in net.modules() if isinstance(m, torch.nn.Conv2d)]
    # Modules are registered in another order than they run in: projections come first.
    assert sorted(weights) == sorted(conv.weight for conv in convs)


@pytest.mark.parametrize('dtype', cases.PRECISIONS)
def test_convs_alone_run(dtype):
    if dtype not in cases.DTYPES and not has_vnni():
        pytest.skip('no VNNI')
    net = cases.our_backbone(SETTING, 2)
    cases.convs_inference(cases.conv_shapes(net, cases.image(SETTING)), dtype, 'cpu')()

"""Event frames of detectors."""

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

from mmsnn.models import EventDetDataPreprocessor
from mmsnn.models.layers import unfold_frames

MODEL = 'configs/_base_/models/spiking_retinanet_sg-r18_asd_fpn.py'


def batch(sizes=((64, 64), (32, 64)), time_steps=3):
    inputs, samples = [], []
    for i, (h, w) in enumerate(sizes):
        inputs.append(torch.arange(time_steps * 2.0).view(-1, 2, 1, 1).repeat(1, 1, h, w) + 10 * i)
        meta = dict(img_shape=(h, w), ori_shape=(h, w), scale_factor=(1.0, 1.0))
        found = InstanceData(bboxes=torch.tensor([[4.0, 4, 28, 28]]), labels=torch.tensor([1]))
        samples.append(DetDataSample(metainfo=meta, gt_instances=found))
    return dict(inputs=inputs, data_samples=samples)


def test_frames_and_the_sizes_of_images():
    data = EventDetDataPreprocessor(pad_size_divisor=16, pad_value=-1)(batch(((40, 60), (30, 64))))
    samples = data['data_samples']
    assert data['inputs'].shape == (2, 6, 48, 64)
    inputs = unfold_frames(data['inputs'], 3)
    for t in range(3):
        for b in range(2):
            assert inputs[t, b, :, 0, 0].tolist() == [2 * t + 10 * b, 2 * t + 1 + 10 * b]
    assert (inputs[:, 1, :, 30:] == -1).all()
    assert [sample.pad_shape for sample in samples] == [(48, 64), (32, 64)]
    assert [sample.batch_input_shape for sample in samples] == [(48, 64)] * 2


@pytest.mark.parametrize(
    ('inputs', 'match'),
    [
        ([torch.zeros(2, 8, 8)], r'takes event frames \(T, C, H, W\), got a sample of shape'),
        ([torch.zeros(3, 2, 8, 8), torch.zeros(4, 2, 8, 8)], r'time steps \[3, 4\] cannot be one'),
    ],
)
def test_refusals(inputs, match):
    with pytest.raises(ValueError, match=match):
        EventDetDataPreprocessor()(dict(inputs=inputs, data_samples=None))


@pytest.fixture
def detector(request):
    init_default_scope('mmdet')
    model = Config.fromfile(request.config.rootpath / MODEL).model
    channels = [c // 16 for c in model.neck[0].in_channels]
    model.backbone.update(depth=10, base_channels=4, in_channels=2, time_steps=3)
    model.neck[0].in_channels = channels
    model.neck[1].update(in_channels=channels, out_channels=8)
    model.bbox_head.update(num_classes=3, in_channels=8, feat_channels=8, stacked_convs=1)
    model.test_cfg.score_thr = 0.0

    def build(preprocessor):
        model.data_preprocessor = dict(type=preprocessor)
        torch.manual_seed(0)
        return MODELS.build(model)

    return build


@pytest.mark.parametrize('samples', [2, 3], ids=['other numbers', 'as many as frames'])
def test_behind_mmdetections_own_a_detector_refuses(detector, samples):
    model = detector('DetDataPreprocessor')
    data = model.data_preprocessor(batch([(64, 64)] * samples), True)
    with pytest.raises(ValueError, match="type='EventDetDataPreprocessor'"):
        model(**data, mode='loss')


def test_a_detector_of_events_finds_the_same_alone_and_in_a_batch(detector):
    # In a batch of as many samples as frames, where axes could be taken for each other.
    model = detector('EventDetDataPreprocessor')
    losses = model(**model.data_preprocessor(batch(), True), mode='loss')
    assert torch.isfinite(sum(sum(value) for value in losses.values()))
    model.eval()
    data = batch([(64, 64)] * 3)
    with torch.no_grad():
        together = model.test_step(data)
        for i, found in enumerate(together):
            alone = batch([(64, 64)] * 3)
            alone = {key: values[i : i + 1] for key, values in alone.items()}
            expected = model.test_step(alone)[0].pred_instances
            assert len(expected) > 0
            torch.testing.assert_close(found.pred_instances.bboxes, expected.bboxes)
            torch.testing.assert_close(found.pred_instances.scores, expected.scores)

"""AP by hand for each filter, for tolerance and empty times; and COCOeval's own numbers."""

import contextlib
import io
import json
import math

import numpy as np
import pytest
import torch
from mmdet.registry import METRICS
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmsnn.datasets.events import make_boxes
from mmsnn.evaluation import PropheseeMetric, box_ap, filter_boxes, find_protocol

GEN1, MPX = (304, 240), (1280, 720)
OFFICIAL = find_protocol('prophesee', 'gen1')


def boxes(*rows):
    """Rows of t, x, y, w, h, class and score."""
    made = make_boxes(len(rows))
    for i, row in enumerate(rows):
        names = ('t', 'x', 'y', 'w', 'h', 'class_id', 'class_confidence')
        for name, value in zip(names, row):
            made[name][i] = value
    return made


def ap(truth, predictions, protocol=OFFICIAL, classes=2, size=GEN1):
    return box_ap([truth], [predictions], protocol, classes, size)


T = 600_000


def test_a_perfect_prediction_and_none():
    truth = boxes((T, 10, 10, 40, 40, 0))
    assert ap(truth, truth)['mAP'] == pytest.approx(1)
    assert ap(truth, boxes())['mAP'] == 0
    found = ap(boxes(), truth)
    assert math.isnan(found['mAP'])
    assert (found['boxes'], found['times']) == (0, 0)


def test_the_first_half_second_counts_on_neither_side():
    seen = boxes((500_001, 10, 10, 40, 40, 0))
    early = boxes((500_000, 10, 10, 40, 40, 0), (500_001, 10, 10, 40, 40, 0))
    assert ap(early, seen)['mAP'] == pytest.approx(1)  # the early truth isn't missed
    assert ap(early, seen)['boxes'] == 1
    # Of two predictions of one box, the better one lies before and within the tolerance.
    better = boxes((500_000, 150, 10, 40, 40, 0, 0.9), (500_001, 10, 10, 40, 40, 0, 0.5))
    assert ap(seen, better)['mAP'] == pytest.approx(1)
    assert ap(seen, better, find_protocol('spikeyolo', 'gen1'))['mAP'] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ('generation', 'counts', 'not_counts'),
    [
        # 18^2 + 24^2 = 30^2; a side of 10 with a diagonal above 30.
        ('gen1', [(18, 24), (10, 29), (30, 10)], [(18, 23.9), (9.9, 40), (40, 9.9)]),
        ('1mpx', [(36, 48), (20, 57), (60, 20)], [(36, 47.9), (19.9, 80), (80, 19.9)]),
    ],
)
def test_small_boxes_count_on_neither_side(generation, counts, not_counts):
    protocol = find_protocol('prophesee', generation)
    rows = [(T, 0, 0, w, h, 0, 0.9) for w, h in counts + not_counts]
    kept = filter_boxes(boxes(*rows), protocol)
    assert list(zip(kept['w'], kept['h'])) == counts
    (w, h), (small_w, small_h) = counts[0], not_counts[0]
    truth = boxes((T, 10, 10, w, h, 0), (T, 100, 100, small_w, small_h, 0))
    # The small truth isn't missed; the small prediction is no false alarm, though it scores more.
    found = boxes((T, 10, 10, w, h, 0, 0.5), (T, 200, 20, small_w, small_h, 0, 0.9))
    assert ap(truth, found, protocol, size=MPX)['mAP'] == pytest.approx(1)


def test_tolerance():
    truth = boxes((T, 10, 10, 40, 40, 0))
    for shift, expected in ((0, 1), (50_000, 1), (-50_000, 1), (50_001, 0), (-50_001, 0)):
        found = boxes((T + shift, 10, 10, 40, 40, 0))
        assert ap(truth, found)['mAP'] == pytest.approx(expected)


def test_times_without_a_true_box_are_no_pictures():
    truth = boxes((T, 10, 10, 40, 40, 0))
    found = boxes((T + 200_000, 80, 80, 40, 40, 0, 0.9), (T, 10, 10, 40, 40, 0, 0.5))
    assert ap(truth, found)['mAP'] == pytest.approx(1)
    # Within the tolerance it is a false alarm, in front of the right one: precision 1/2.
    found['t'][0] = T + 50_000
    assert ap(truth, found)['mAP'] == pytest.approx(0.5)
    # A true box there that is too small makes no picture of that time.
    small = boxes((T, 10, 10, 40, 40, 0), (T + 200_000, 80, 80, 5, 5, 0))
    found['t'][0] = T + 200_000
    assert ap(small, found)['mAP'] == pytest.approx(1)
    assert ap(small, found)['times'] == 1


def test_classes():
    truth = boxes((T, 10, 10, 40, 40, 0), (T, 100, 100, 40, 40, 1))
    found = boxes((T, 10, 10, 40, 40, 0, 0.9), (T, 100, 100, 40, 40, 0, 0.8))
    result = ap(truth, found)
    assert result['classes'] == pytest.approx([1, 0])
    assert result['mAP'] == pytest.approx(0.5)
    result = ap(truth, found, classes=3)  # a class without a true box has none, and weighs nothing
    assert result['classes'][:2] == pytest.approx([1, 0])
    assert math.isnan(result['classes'][2])
    assert result['mAP'] == pytest.approx(0.5)
    for wrong in (2, -1):
        with pytest.raises(ValueError, match=rf'the class id {wrong} is none of 0 to 1'):
            ap(boxes((T, 10, 10, 40, 40, wrong)), found)


def test_recordings_are_apart():
    truth = boxes((T, 10, 10, 40, 40, 0))
    other = boxes((T, 100, 100, 40, 40, 0))
    assert box_ap([truth, other], [truth, other], OFFICIAL, 1, GEN1)['mAP'] == pytest.approx(1)
    assert box_ap([truth, other], [other, truth], OFFICIAL, 1, GEN1)['mAP'] == 0
    with pytest.raises(ValueError, match='1 recordings have true boxes and 2 predicted ones'):
        box_ap([truth], [truth, other], OFFICIAL, 1, GEN1)


def test_each_rival_differs_from_the_official_protocol():
    def of(name, truth, found):
        return ap(truth, found, find_protocol(name, 'gen1'))['mAP']

    # RVT: the true box reaches out by 20 pixels. Cut to 40x40, the prediction of that is right in
    # all; uncut, IoU is 1600 / 2400 = 0.67, right at 4 of 10 thresholds (0.5 to 0.65).
    truth, found = boxes((T, -20, 10, 60, 40, 0)), boxes((T, 0, 10, 40, 40, 0))
    assert of('rvt', truth, found) == pytest.approx(1)
    assert of('prophesee', truth, found) == pytest.approx(0.4)
    # SFOD: a missed box of side 15 counts only officially. One of two: recall 0.5, at 51 of 101.
    truth = boxes((T, 10, 10, 40, 40, 0), (T, 100, 100, 15, 60, 0))
    assert of('sfod', truth, truth[:1]) == pytest.approx(1)
    assert of('prophesee', truth, truth[:1]) == pytest.approx(51 / 101)
    # SpikeYOLO: a missed box in the first half second counts.
    truth = boxes((T, 10, 10, 40, 40, 0), (T - 200_000, 100, 100, 40, 40, 0))
    assert of('spikeyolo', truth, truth[:1]) == pytest.approx(51 / 101)
    assert of('prophesee', truth, truth[:1]) == pytest.approx(1)
    assert find_protocol('prophesee', (346, 260)) == find_protocol('prophesee', 'gen1')
    with pytest.raises(ValueError, match="no protocol 'sfod' is known for 1mpx"):
        find_protocol('sfod', '1mpx')
    with pytest.raises(
        ValueError, match="generation is 'gen2', expected one of gen1, 1mpx, digits"
    ):
        find_protocol('rvt', 'gen2')


def coco_numbers(truth, found, number, tmp_path):
    """COCOeval from files, as anybody would call it; frames are recordings and times."""
    frames = sorted({(i, int(t)) for i, part in enumerate(truth) for t in part['t']})
    ids = {frame: i for i, frame in enumerate(frames, 1)}

    def rows(parts):
        return [
            dict(
                id=i * 10_000 + k + 1,
                image_id=ids[i, int(box['t'])],
                category_id=int(box['class_id']) + 1,
                bbox=[float(box[name]) for name in 'xywh'],
                area=float(box['w']) * float(box['h']),
                iscrowd=0,
                score=float(box['class_confidence']),
            )
            for i, part in enumerate(parts)
            for k, box in enumerate(part)
        ]

    data = dict(
        images=[dict(id=i, width=304, height=240) for i in ids.values()],
        categories=[dict(id=i + 1, name=str(i)) for i in range(number)],
        annotations=rows(truth),
    )
    (tmp_path / 'truth.json').write_text(json.dumps(data))
    (tmp_path / 'found.json').write_text(json.dumps(rows(found)))
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(tmp_path / 'truth.json'))
        evaluation = COCOeval(coco, coco.loadRes(str(tmp_path / 'found.json')), 'bbox')
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats[:6].tolist()


@pytest.mark.parametrize('protocol', ['spikeyolo', 'prophesee', 'sfod', 'rvt'])
def test_cocoevals_own_numbers(tmp_path, protocol):
    rng, truth, found = np.random.default_rng(3), [], []
    for _ in range(4):
        number = 60
        part = make_boxes(number)
        part['t'] = T + 250_000 * rng.integers(0, 12, number)
        part['w'], part['h'] = rng.uniform(25, 110, (2, number))
        part['x'] = rng.uniform(0, 304 - part['w'])
        part['y'] = rng.uniform(0, 240 - part['h'])
        part['class_id'] = rng.integers(0, 2, number)
        seen = part[rng.random(number) < 0.8].copy()
        for name in 'xywh':
            seen[name] += rng.normal(0, 3, len(seen))
        # No filter may apply.
        for name in 'wh':
            seen[name] = np.maximum(seen[name], 25)
        seen['class_confidence'] = rng.random(len(seen))
        seen['class_id'][:3] = 1 - seen['class_id'][:3]
        truth.append(part)
        found.append(seen)
    expected = coco_numbers(truth, found, 2, tmp_path)
    result = box_ap(truth, found, find_protocol(protocol, 'gen1'), 2, GEN1)
    names = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l')
    assert 0.2 < expected[0] < 0.9
    for name, value in zip(names, expected):
        assert result[name] == pytest.approx(value, abs=5e-7) or (
            value == -1 and math.isnan(result[name])
        )
    assert result['boxes'] == 240


# --- the metric ----------------------------------------------------------------------------------


def sample(truth, found, t=T, recording='a_td.dat'):
    corners = np.stack(
        [found['x'], found['y'], found['x'] + found['w'], found['y'] + found['h']], axis=1
    )
    pred = dict(
        bboxes=torch.tensor(corners, dtype=torch.float32),
        scores=torch.tensor(found['class_confidence']),
        labels=torch.tensor(found['class_id']),
    )
    return dict(recording=recording, t=t, boxes=truth, pred_instances=pred)


def test_the_metric_of_a_config():
    metric = METRICS.build(
        dict(
            type='PropheseeMetric',
            generation='gen1',
            protocols=['prophesee', 'sfod'],
            classwise=True,
        )
    )
    metric.dataset_meta = dict(classes=('car', 'pedestrian'))
    truth = boxes((T, 10, 10, 40, 40, 0), (T, 100, 100, 15, 60, 0))
    late = boxes((T + 300_000, 10, 10, 40, 40, 1))
    metric.process(None, [sample(truth, truth[:1])])
    metric.process(None, [sample(late, late, T + 300_000)])
    metric.process(None, [sample(truth, truth[:1])])  # again, as several processes may
    found = metric.evaluate(2)
    assert found['events/prophesee_mAP'] == pytest.approx((51 / 101 + 1) / 2)
    assert found['events/sfod_mAP'] == pytest.approx(1)
    assert found['events/prophesee_car_mAP'] == pytest.approx(51 / 101)
    assert found['events/prophesee_pedestrian_mAP'] == pytest.approx(1)


def test_predictions_between_labels_of_a_stream():
    """Windows of 50 ms, a label in one of three: what is found in the others doesn't count."""
    truth = boxes((T, 10, 10, 40, 40, 0))
    values = []
    for labelled in (False, True):
        metric = PropheseeMetric('gen1')
        metric.dataset_meta = dict(classes=('car', 'pedestrian'))
        metric.process(None, [sample(truth, truth)])
        for t in (T - 50_000, T + 50_000):
            elsewhere = boxes((t, 40, 10, 40, 40, 0))
            elsewhere['class_confidence'] = 2
            metric.process(None, [dict(sample(truth[:0], elsewhere, t), labelled=labelled)])
        values.append(metric.evaluate(3)['events/prophesee_mAP'])
    assert values == pytest.approx([1, 1 / 3])  # the third best of three


def test_what_the_metric_refuses():
    metric = PropheseeMetric('gen1')
    metric.dataset_meta = dict(classes=('car',))
    truth = boxes((T, 10, 10, 40, 40, 0))
    whole = sample(truth, truth)
    for key in ('recording', 't', 'boxes', 'pred_instances'):
        with pytest.raises(ValueError, match=rf'got a sample without {key}'):
            metric.process(None, [{k: v for k, v in whole.items() if k != key}])
    metric.process(None, [dict(whole, ori_shape=(240, 304), flip=False)])
    with pytest.raises(ValueError, match='got windows of 1280x720 pixels, expected 304x240'):
        metric.process(None, [dict(whole, ori_shape=(720, 1280))])
    with pytest.raises(ValueError, match='got a mirrored sample'):
        metric.process(None, [dict(whole, flip=True)])
    whole['pred_instances']['bboxes'][0, 0] = math.nan
    with pytest.raises(
        ValueError, match=r'a_td\.dat: a predicted box at 600000 us is not a number'
    ):
        metric.process(None, [whole])
    with pytest.raises(ValueError, match='got no samples'):
        metric.compute_metrics([])
    with pytest.raises(ValueError, match='protocols must be a list of names'):
        PropheseeMetric('gen1', protocols='rvt')

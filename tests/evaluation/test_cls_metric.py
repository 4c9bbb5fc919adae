import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.registry import METRICS
from mmengine.evaluator import Evaluator
from mmengine.logging import MessageHub
from mmengine.visualization import Visualizer

from mmsnn.evaluation import ClsMetric
from mmsnn.evaluation.cls_metric import draw_confusion_matrix
from mmsnn.structures import ClsDataSample


def samples(scores, labels):
    return [
        ClsDataSample().set_gt_label(label).set_pred_score(torch.as_tensor(score)).to_dict()
        for score, label in zip(scores, labels)
    ]


def evaluate(scores, labels, classes=None, batch=3, **kwargs):
    metric = ClsMetric(**kwargs)
    metric.dataset_meta = {} if classes is None else {'classes': classes}
    data = samples(scores, labels)
    for i in range(0, len(data), batch):
        metric.process(None, data[i : i + batch])
    return metric.evaluate(len(data))


def naive_topk(scores, labels, k):
    """Sort the classes of each sample by hand: higher score first, then lower index."""
    hits = 0
    for score, label in zip(scores, labels):
        order = sorted(range(len(score)), key=lambda c: (-score[c], c))
        hits += label in order[:k]
    return 100 * hits / len(labels)


@st.composite
def cases(draw):
    classes = draw(st.integers(1, 7))
    count = draw(st.integers(1, 9))
    # Few values, so that many are equal.
    score = st.lists(st.sampled_from([0.0, 0.125, 0.25, 0.5]), min_size=classes, max_size=classes)
    scores = draw(st.lists(score, min_size=count, max_size=count))
    labels = draw(st.lists(st.integers(0, classes - 1), min_size=count, max_size=count))
    return scores, labels


@settings(max_examples=100, deadline=None)
@given(cases(), st.integers(1, 9))
def test_topk_is_that_of_sorting_by_hand(case, k):
    scores, labels = case
    result = evaluate(scores, labels, topk=(1, k))
    assert result['accuracy/top1'] == pytest.approx(naive_topk(scores, labels, 1))
    assert result[f'accuracy/top{k}'] == pytest.approx(naive_topk(scores, labels, k))


@settings(max_examples=50, deadline=None)
@given(case=cases())
def test_confusion_is_that_of_counting_by_hand(tmp_path_factory, case):
    scores, labels = case
    out = tmp_path_factory.mktemp('confusion') / 'out.json'
    result = evaluate(scores, labels, out_file=str(out), classwise=True)
    counts = [[0] * len(scores[0]) for _ in scores[0]]
    for score, label in zip(scores, labels):
        counts[label][score.index(max(score))] += 1
    written = json.loads(out.read_text())
    assert written['confusion_matrix'] == counts
    for index, row in enumerate(counts):
        key = f'accuracy/{index}_top1'
        if sum(row):
            assert result[key] == pytest.approx(100 * row[index] / sum(row))
        else:
            assert math.isnan(result[key])
            assert written['metrics'][f'{index}_top1'] is None
    total = sum(row[i] for i, row in enumerate(counts))
    assert result['accuracy/top1'] == pytest.approx(100 * total / len(labels))


def test_as_an_evaluator_uses_it():
    evaluator = Evaluator([METRICS.build(dict(type='ClsMetric'))])
    evaluator.dataset_meta = {'classes': tuple('abcdef')}
    scores = torch.eye(6)[[0, 1, 2, 2]]
    data = [
        ClsDataSample().set_gt_label(label).set_pred_score(score)
        for score, label in zip(scores, [0, 1, 3, 2])
    ]
    evaluator.process(data[:3], None)
    evaluator.process(data[3:], None)
    assert evaluator.evaluate(4) == {'accuracy/top1': 75.0, 'accuracy/top5': 100.0}
    evaluator.process(data[:1], None)  # nothing is left from before
    assert evaluator.evaluate(1)['accuracy/top1'] == 100.0


def test_samples_that_pad_the_last_batch_do_not_count():
    metric = ClsMetric(topk=1)
    metric.process(None, samples(np.eye(3), [0, 1, 0]))
    assert metric.evaluate(2) == {'accuracy/top1': 100.0}


def test_half_precision_scores():
    scores = torch.eye(3, dtype=torch.bfloat16)
    assert evaluate(list(scores), [0, 1, 0], topk=1)['accuracy/top1'] == pytest.approx(200 / 3)


def test_not_a_number_is_never_right(tmp_path):
    nan = math.nan
    scores = [[nan, nan, nan], [nan, 0.2, 0.1], [0.1, nan, 0.9], [0.3, 0.2, nan]]
    labels = [0, 0, 2, 2]
    out = tmp_path / 'out.json'
    result = evaluate(scores, labels, topk=(1, 3), out_file=str(out))
    assert result['accuracy/top1'] == 0
    # Only the third has a score for its class, and one NaN before it.
    assert result['accuracy/top3'] == 25
    assert np.trace(json.loads(out.read_text())['confusion_matrix']) == 0


def test_table(monkeypatch):
    lines = []

    class Logger:
        def info(self, text):
            lines.append(text)

    monkeypatch.setattr(
        'mmsnn.evaluation.cls_metric.MMLogger.get_current_instance', lambda: Logger()
    )
    scores = np.eye(3)[[0, 0, 1, 0, 0]]
    result = evaluate(scores, [0, 1, 1, 1, 0], classes=('cat', 'dog', 'emu'), classwise=True)
    table = lines[0]
    rows = {row.split()[1]: row.split()[3::2] for row in table.splitlines() if row.count('|') > 3}
    assert rows['cat'][:2] == ['2', '100.00']
    assert rows['dog'][:2] == ['3', '33.33']
    assert 'cat (2)' in table
    assert rows['emu'][:2] == ['0', 'nan']
    assert result['accuracy/dog_top1'] == pytest.approx(100 / 3)


# --- the picture ---------------------------------------------------------------------------------


@pytest.fixture
def visualizer(tmp_path):
    folder = tmp_path / 'vis'
    visualizer = Visualizer.get_instance(
        f'cls_metric_{tmp_path.name}',
        vis_backends=[dict(type='LocalVisBackend')],
        save_dir=str(folder),
    )
    hub = MessageHub.get_instance(f'cls_metric_{tmp_path.name}')
    hub.update_info('iter', 12)
    yield folder
    Visualizer._instance_dict.pop(visualizer.instance_name)
    MessageHub._instance_dict.pop(hub.instance_name)


def test_confusion_matrix_goes_to_the_visualizer(visualizer, tmp_path):
    out = tmp_path / 'deep/out.json'
    scores = np.eye(3)[[0, 0, 1]]
    names = ('cat', 'dog', 'emu')
    evaluate(scores, [0, 1, 1], classes=names, confusion_matrix=True, out_file=str(out))
    pictures = list(visualizer.rglob('*.png'))
    assert [path.name for path in pictures] == ['confusion_matrix_12.png']
    beside = json.loads(pictures[0].with_suffix('.json').read_text())
    assert beside == json.loads(out.read_text())
    assert beside['confusion_matrix'] == [[1, 0, 0], [1, 1, 0], [0, 0, 0]]
    assert beside['classes'] == list(names)
    assert beside['metrics']['top1'] == pytest.approx(200 / 3)
    image = cv2.imread(str(pictures[0]))
    assert min(image.shape[:2]) >= 500
    np.testing.assert_array_equal(image, cv2.imread(str(out.with_suffix('.png'))))


def test_no_picture_unless_asked_for(visualizer, tmp_path):
    evaluate(np.eye(3), [0, 1, 1], out_file=str(tmp_path / 'out.json'))
    assert not list(tmp_path.rglob('*.png'))
    assert not list(visualizer.rglob('*.json'))


def test_picture_without_a_visualizer(tmp_path):
    out = tmp_path / 'out.json'
    saved = dict(Visualizer._instance_dict)
    Visualizer._instance_dict.clear()
    try:
        evaluate(np.eye(3), [0, 1, 1], confusion_matrix=True, out_file=str(out))
    finally:
        Visualizer._instance_dict.update(saved)
    assert out.with_suffix('.png').is_file()


@pytest.mark.parametrize('number', [2, 10, 250])
def test_picture_shows_each_cell(number):
    """Rows are true classes: what the first class is taken for stands at the top."""

    def draw(row, column):
        counts = np.zeros((number, number), np.int64)
        counts[row, column] = 7
        return draw_confusion_matrix(counts, [f'a class named {i}' for i in range(number)])

    top_right, bottom_left = draw(0, number - 1).astype(int), draw(number - 1, 0).astype(int)
    assert top_right.shape[2] == 3
    assert 500 <= top_right.shape[0] <= 2200
    darker = (bottom_left - top_right)[..., 0]  # red, of which dark blue has least
    for mask, is_top_right in ((darker > 100, True), (darker < -100, False)):
        rows, columns = np.nonzero(mask)
        assert len(rows) >= 9
        middle = [side / 2 for side in mask.shape]
        assert (rows.max() < middle[0]) == is_top_right or number == 2
        assert (columns.min() > middle[1]) == is_top_right or number == 2
        assert (rows.mean() < middle[0]) == is_top_right
        assert (columns.mean() > middle[1]) == is_top_right


def test_picture_of_one_class():
    assert draw_confusion_matrix(np.array([[3]]), ['x']).dtype == np.uint8


def test_picture_leaves_pyplot_alone():
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    draw_confusion_matrix(np.eye(3, dtype=np.int64), 'abc')
    assert plt.get_fignums() == before


# --- what it refuses -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('kwargs', 'said'),
    [
        (dict(topk=()), 'at least one'),
        (dict(topk=(0,)), 'from 1 on'),
        (dict(topk=1.5), 'topk must be whole numbers'),
        (dict(out_file='out.txt'), r'must name a \.json file'),
    ],
)
def test_refuses_settings(kwargs, said):
    with pytest.raises(ValueError, match=said):
        ClsMetric(**kwargs)


def test_refuses_samples():
    metric = ClsMetric()
    score = torch.tensor([0.5, 0.5])
    with pytest.raises(ValueError, match=r'without pred_score \(a.png\)'):
        metric.process(None, [dict(gt_label=torch.tensor([0]), img_path='a.png')])
    with pytest.raises(ValueError, match='without gt_label'):
        metric.process(None, [dict(pred_score=score)])
    sample = dict(pred_score=score, gt_label=torch.tensor([2]), img_path='b.png')
    with pytest.raises(ValueError, match=r'label 2 \(b.png\) is not one of the 2 classes'):
        metric.process(None, [sample])
    with pytest.raises(ValueError, match='no samples'):
        metric.evaluate(0)


# --- distributed ---------------------------------------------------------------------------------


def _rank(rank, port, out):
    import os

    import torch.distributed as dist

    os.environ.update(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
    dist.init_process_group('gloo', rank=rank, world_size=2)
    metric = ClsMetric(topk=(1, 2))
    # 5 samples on 2 processes: the second one's last is a repetition.
    labels = [[0, 1, 2], [1, 1, 0]][rank]
    scores = [[0, 1, 1], [0, 1, 2]][rank]
    metric.process(None, samples(np.eye(3)[scores], labels))
    result = metric.evaluate(5)
    Path(out, f'{rank}.json').write_text(json.dumps(result))
    dist.destroy_process_group()


def test_two_processes(tmp_path):
    import socket

    with socket.socket() as sock:
        sock.bind(('127.0.0.1', 0))
        port = sock.getsockname()[1]
    context = torch.multiprocessing.get_context('fork')
    ranks = [context.Process(target=_rank, args=(r, port, tmp_path)) for r in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(60)
        assert process.exitcode == 0
    results = [json.loads((tmp_path / f'{r}.json').read_text()) for r in range(2)]
    # Right: 0, 1 of the first; 1 of the second. Wrong: 2 taken for 1, 1 taken for 0.
    assert results[0] == results[1]
    assert results[0]['accuracy/top1'] == pytest.approx(60)

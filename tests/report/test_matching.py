"""Verdicts against hand-made boxes, and against COCO's own evaluation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmsnn.report.matching import (
    Matches,
    best_threshold,
    count_states,
    count_verdicts,
    f1_score,
    match_boxes,
)

A, B = [0.0, 0, 10, 10], [20.0, 20, 40, 40]
A_NEAR = [0.0, 0, 10, 4]  # IoU 0.4 with A
NOWHERE = [80.0, 80, 90, 90]


def match(found, true, crowd=None):
    boxes, labels, scores = zip(*found) if found else ([], [], [])
    true_boxes, true_labels = zip(*true) if true else ([], [])
    return match_boxes(boxes, labels, scores, true_boxes, true_labels, crowd or [False] * len(true))


@pytest.mark.parametrize(
    ('found', 'verdict', 'partner'),
    [
        ((A, 1, 0.9), 'correct', 0),
        ((A, 2, 0.9), 'wrong class', 0),
        ((A_NEAR, 1, 0.9), 'badly placed', 0),
        ((A_NEAR, 2, 0.9), 'wrong class and place', 0),
        ((NOWHERE, 1, 0.9), 'nothing there', -1),
    ],
)
def test_verdicts(found, verdict, partner):
    matches = match([found], [(A, 1), (B, 1)])
    assert matches.verdicts == [verdict]
    assert matches.partners.tolist() == [partner]
    assert matches.found_by.tolist() == [0 if verdict == 'correct' else -1, -1]


def test_the_higher_score_comes_first():
    matches = match([(A, 1, 0.5), (A, 1, 0.9)], [(A, 1)])
    assert matches.verdicts == ['double', 'correct']
    assert matches.counts(0.6) == (1, 0, 0)
    assert matches.counts(0.5) == (1, 0, 1)
    assert matches.counts(0.95) == (0, 1, 0)


def test_crowds_are_neither_right_nor_wrong():
    matches = match([(A_NEAR, 1, 0.9), (A_NEAR, 2, 0.8)], [(A, 1)], crowd=[True])
    assert matches.verdicts == ['ignored', 'nothing there']  # of another class
    assert matches.counts(0.5) == (0, 0, 1)


def test_nothing_at_all():
    assert match([], []).counts(0.5) == (0, 0, 0)
    assert f1_score(0, 0, 0) == 1
    assert match([(A, 1, 0.9)], []).verdicts == ['nothing there']
    assert match([], [(A, 1)]).counts(0.5) == (0, 1, 0)


def test_threshold_with_the_best_f1():
    """Right boxes at 0.8, wrong ones at 0.4: the middle of what is between them."""
    matches = [match([(A, 1, 0.8), (NOWHERE, 1, 0.4)], [(A, 1)])] * 3
    assert best_threshold(matches) == 0.65  # of 0.45 to 0.80
    assert best_threshold([match([], [(A, 1)])]) == 0.3
    assert count_verdicts(matches, 0.3)['nothing there'] == 3
    assert count_verdicts(matches, 0.6)['nothing there'] == 0
    assert count_verdicts(matches, 0.9)['correct'] == 0
    assert count_states(matches, 0.9)['not seen'] == 3


def test_states_of_true_boxes():
    """The best that can be said of a true box, and of boxes above the least score only."""
    true = [(A, 1), (B, 1)]
    found = [(A, 2, 0.9), (A_NEAR, 1, 0.8), (A, 1, 0.7), (B, 2, 0.6)]
    matches = match(found, true)
    assert matches.verdicts == ['wrong class', 'badly placed', 'correct', 'wrong class']
    assert matches.states(0.5) == ['found', 'taken for another']
    assert matches.states(0.75) == ['taken for another', 'not seen']
    assert matches.states(0.95) == ['not seen', 'not seen']
    assert match([(A_NEAR, 1, 0.8)], true).states(0.5) == ['badly placed', 'not seen']
    assert count_states([matches, matches], 0.5) == {
        'found': 2, 'taken for another': 2, 'badly placed': 0, 'not seen': 0,
    }  # fmt: skip


box = st.tuples(*[st.integers(0, 8)] * 2, *[st.integers(1, 8)] * 2).map(
    lambda b: [float(b[0]), float(b[1]), float(b[0] + b[2]), float(b[1] + b[3])]
)
label = st.integers(1, 2)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(box, label), max_size=6),
    st.lists(st.tuples(box, label), max_size=5),
    st.booleans(),
)
def test_right_boxes_are_those_of_coco(found, true, crowd):
    """True positives at IoU 0.5 as pycocotools finds them, with all scores different."""
    found = [(b, c, 0.9 - 0.1 * i) for i, (b, c) in enumerate(found)]
    crowds = [crowd and i == 0 for i in range(len(true))]

    def xywh(b):
        return [b[0], b[1], b[2] - b[0], b[3] - b[1]]

    coco = COCO()
    coco.dataset = dict(
        images=[dict(id=1)],
        categories=[dict(id=1), dict(id=2)],
        annotations=[
            dict(
                id=i + 1, image_id=1, category_id=c, bbox=xywh(b), iscrowd=int(crowds[i]),
                area=xywh(b)[2] * xywh(b)[3],
            )
            for i, (b, c) in enumerate(true)
        ],
    )  # fmt: skip
    coco.createIndex()
    matches = match(found, true, crowds)
    if not found:
        assert matches.verdicts == []
        return
    results = coco.loadRes(
        [dict(image_id=1, category_id=c, bbox=xywh(b), score=s) for b, c, s in found]
    )
    evaluation = COCOeval(coco, results, 'bbox')
    evaluation.params.iouThrs = np.array([0.5])
    evaluation.params.areaRng = [[0, 1e10]]
    evaluation.params.maxDets = [100]
    evaluation.evaluate()
    expected = {}
    for image in filter(None, evaluation.evalImgs):
        for i, taken, ignored in zip(image['dtIds'], image['dtMatches'][0], image['dtIgnore'][0]):
            expected[i - 1] = 'ignored' if ignored else 'correct' if taken else 'wrong'
    kinds = [v if v in ('correct', 'ignored') else 'wrong' for v in matches.verdicts]
    assert kinds == [expected[i] for i in range(len(found))]


def test_true_boxes_are_counted_without_crowds():
    matches = match([(B, 1, 0.9)], [(A, 1), (B, 1)], crowd=[True, False])
    assert isinstance(matches, Matches)
    assert matches.found_by.tolist() == [0]

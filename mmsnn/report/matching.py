"""Which found boxes are right, and what is wrong with the others."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from mmdet.structures.bbox import bbox_overlaps

#: What can be said of a found box, and what it means.
VERDICTS = {
    'correct': 'class and place of a true box',
    'wrong class': 'place of a true box, but of another class',
    'badly placed': 'class of a true box, which it overlaps by less than half',
    'wrong class and place': 'neither class nor place of a true box, but overlaps one',
    'double': 'a true box that a box of a higher score has found already',
    'nothing there': 'no true box near it',
}
#: Overlaps (IoU) from which on a box is in the right place, and near it.
IOU_RIGHT, IOU_NEAR = 0.5, 0.1

#: What became of a true box.
STATES = {
    'found': 'by a correct box',
    'taken for another': 'a box has its place, but another class',
    'badly placed': 'a box has its class, but overlaps it by less than half',
    'not seen': 'no box stands for it',
}


@dataclass
class Matches:
    """Found boxes of one image beside its true ones.

    Attributes:
        verdicts: Of each found box, a key of :data:`VERDICTS`; ``'ignored'`` where it lies in a
            region that the annotations mark as a crowd.
        partners: Of each found box, the true box that the verdict speaks of; -1 for none.
        scores: Of each found box.
        found_by: Of each true box, the found box that is correct; -1 where it is missed.
    """

    verdicts: list[str]
    partners: np.ndarray
    scores: np.ndarray
    found_by: np.ndarray

    def counts(self, score_thr: float) -> tuple[int, int, int]:
        """Right and wrong boxes, with those below a score left out.

        A box takes its true box whatever comes after it, so that the verdicts hold for any
        threshold.

        Args:
            score_thr: Least score.

        Returns:
            True boxes found, true boxes missed, found boxes that are wrong.
        """
        kept = [v for v, s in zip(self.verdicts, self.scores) if s >= score_thr]
        found = kept.count('correct')
        wrong = len(kept) - found - kept.count('ignored')
        return found, len(self.found_by) - found, wrong

    def states(self, score_thr: float) -> list[str]:
        """What became of each true box, with found boxes below a score left out.

        Args:
            score_thr: Least score.

        Returns:
            Keys of :data:`STATES`.
        """
        states = ['not seen'] * len(self.found_by)
        # The later one counts: a box that is right settles it, whatever else is there.
        for verdict, state in (
            ('badly placed', 'badly placed'),
            ('wrong class', 'taken for another'),
            ('correct', 'found'),
        ):
            for partner, own, score in zip(self.partners, self.verdicts, self.scores):
                if own == verdict and score >= score_thr:
                    states[partner] = state
        return states


def match_boxes(
    boxes: np.ndarray,
    labels: np.ndarray,
    scores: np.ndarray,
    true_boxes: np.ndarray,
    true_labels: np.ndarray,
    crowd: np.ndarray,
) -> Matches:
    """Judge the found boxes of an image, as COCO's evaluation at one IoU does.

    In the order of their scores, each found box takes the true box of its class that it overlaps
    most, if that is at least ``IOU_RIGHT`` and nobody has taken it. What is left over gets its
    reason as in TIDE: a true box for the second time; the right place but another class; the right
    class but an overlap between ``IOU_NEAR`` and ``IOU_RIGHT``; both wrong; or nothing at all.
    Source: Bolya et al. 2020, *TIDE: a general toolbox for identifying object detection errors*.

    Args:
        boxes: (N, 4), x1, y1, x2, y2.
        labels: (N,).
        scores: (N,).
        true_boxes: (M, 4).
        true_labels: (M,).
        crowd: (M,), True for regions that stand for many objects; what lies in them by half is
            neither right nor wrong.

    Returns:
        The verdicts. True boxes are numbered without the crowds.

    Example:
        >>> import numpy as np
        >>> from mmsnn.report.matching import match_boxes
        >>> one = np.array([[0.0, 0, 10, 10]])
        >>> match_boxes(one, [3], [0.9], one, [3], [False]).verdicts
        ['correct']
        >>> match_boxes(one, [3], [0.9], one, [5], [False]).verdicts
        ['wrong class']
    """
    boxes, true_boxes = (np.asarray(b, np.float32).reshape(-1, 4) for b in (boxes, true_boxes))
    labels, true_labels = np.asarray(labels, int), np.asarray(true_labels, int)
    scores, crowd = np.asarray(scores, float), np.asarray(crowd, bool)
    single = ~crowd
    iou = _overlaps(boxes, true_boxes[single], 'iou')
    within = _overlaps(boxes, true_boxes[crowd], 'iof')
    same = labels[:, None] == true_labels[single]
    in_crowd = ((within >= IOU_RIGHT) & (labels[:, None] == true_labels[crowd])).any(1)

    verdicts = [''] * len(boxes)
    partners = np.full(len(boxes), -1)
    found_by = np.full(int(single.sum()), -1)
    # Stable: of equal scores the first one counts first, as in COCO's evaluation.
    verdict: str
    partner: int
    for i in np.argsort(-scores, kind='stable'):
        free = np.where(same[i] & (found_by < 0), iou[i], 0)
        if free.size and free.max() >= IOU_RIGHT:
            verdict, partner = 'correct', int(free.argmax())
            found_by[partner] = i
        elif in_crowd[i]:
            verdict, partner = 'ignored', -1
        else:
            verdict, partner = _mistake(iou[i], same[i])
        verdicts[i], partners[i] = verdict, partner
    return Matches(verdicts, partners, scores, found_by)


def _overlaps(a: np.ndarray, b: np.ndarray, mode: str) -> np.ndarray:
    return bbox_overlaps(torch.from_numpy(a), torch.from_numpy(b), mode).numpy()


def _mistake(iou: np.ndarray, same: np.ndarray) -> tuple[str, int]:
    kinds = (
        ('double', same, IOU_RIGHT),
        ('wrong class', ~same, IOU_RIGHT),
        ('badly placed', same, IOU_NEAR),
        ('wrong class and place', ~same, IOU_NEAR),
    )
    for verdict, candidates, least in kinds:
        overlap = np.where(candidates, iou, 0)
        if overlap.size and overlap.max() >= least:
            return verdict, int(overlap.argmax())
    return 'nothing there', -1


def best_threshold(matches: Sequence[Matches]) -> float:
    """The least score with the best F1 = 2 found / (2 found + missed + wrong) over all images.

    Args:
        matches: Of each image.

    Returns:
        One of 0.05, 0.10, ... 0.95; of equals the one in their middle; 0.3 where there is nothing
        to choose by.
    """
    thresholds = [round(0.05 * i, 2) for i in range(1, 20)]
    f1 = [f1_score(*map(sum, zip(*(m.counts(t) for m in matches)))) for t in thresholds]
    best = [t for t, score in zip(thresholds, f1) if score == max(f1)]
    return best[len(best) // 2] if max(f1) > 0 else 0.3


def f1_score(found: int, missed: int, wrong: int) -> float:
    """F1 of true boxes found and missed, and wrong boxes; 1 where there is nothing at all.

    Args:
        found: True boxes found.
        missed: True boxes missed.
        wrong: Wrong boxes.

    Returns:
        In [0, 1].
    """
    total = 2 * found + missed + wrong
    return 2 * found / total if total else 1.0


def count_verdicts(matches: Sequence[Matches], score_thr: float) -> dict[str, int]:
    """How often each verdict is given.

    Args:
        matches: Of each image.
        score_thr: Least score of a box.

    Returns:
        Numbers by the keys of :data:`VERDICTS`.
    """
    kept = Counter(
        verdict for m in matches for verdict, s in zip(m.verdicts, m.scores) if s >= score_thr
    )
    return {verdict: kept[verdict] for verdict in VERDICTS}


def count_states(matches: Sequence[Matches], score_thr: float) -> dict[str, int]:
    """How often each thing happens to true boxes.

    Args:
        matches: Of each image.
        score_thr: Least score of a found box.

    Returns:
        Numbers by the keys of :data:`STATES`.
    """
    counts = Counter(state for m in matches for state in m.states(score_thr))
    return {state: counts[state] for state in STATES}

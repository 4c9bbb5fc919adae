"""What differs between detection and recognition: what is right, and which image went worst."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Optional, Union

import numpy as np
from mmdet.structures import DetDataSample
from mmengine.runner import Runner

from .matching import (
    VERDICTS,
    Matches,
    best_threshold,
    count_states,
    count_verdicts,
    f1_score,
    match_boxes,
)

#: Least scores of the curves of precision and recall.
SCORES = [i / 100 for i in range(101)]
#: Boxes below the least score that pictures keep: those of at least this score, and so many.
FAINT, MOST_FAINT = 0.05, 40


class DetectionTask:
    """Found boxes beside true ones.

    Args:
        dataset: The test data set, in the order of the samples.
        samples: Predictions.
        score_thr: Least score of a box; None for the one with the best F1.
    """

    name = 'detection'

    def __init__(self, dataset, samples: Sequence[DetDataSample], score_thr: Optional[float]):
        self.classes = dataset.metainfo['classes']
        self.samples = samples
        true = [_true_boxes(dataset.get_data_info(i)) for i in range(len(samples))]
        self.matches = [
            match_boxes(*_found_boxes(sample), *boxes) for sample, boxes in zip(samples, true)
        ]
        # Boxes and labels without crowds, as the matches number them.
        self.true = [(boxes[~crowd], labels[~crowd]) for boxes, labels, crowd in true]
        self.chosen = score_thr is None
        self.score_thr = best_threshold(self.matches) if score_thr is None else score_thr

    def order(self) -> list[int]:
        """Images from the worst to the best: by F1, then mistakes, then boxes found."""

        def quality(i: int) -> tuple:
            found, missed, wrong = self.matches[i].counts(self.score_thr)
            return f1_score(found, missed, wrong), -(missed + wrong), found

        return sorted(range(len(self.samples)), key=quality)

    def numbers(self) -> dict[str, Any]:
        """Mistakes by kind and by class, over all images."""
        counts = [m.counts(self.score_thr) for m in self.matches]
        found, missed, wrong = map(sum, zip(*counts))
        return dict(
            score_thr=self.score_thr,
            score_thr_chosen=self.chosen,
            precision=found / (found + wrong) if found + wrong else None,
            recall=found / (found + missed) if found + missed else None,
            f1=f1_score(found, missed, wrong),
            true_boxes=found + missed,
            faultless=sum(not missed and not wrong for _, missed, wrong in counts),
            verdicts=count_verdicts(self.matches, self.score_thr),
            beside_correct=sum(map(self._beside_correct, self.matches)),
            states=count_states(self.matches, self.score_thr),
            curves=self._curves(),
            **self._by_class(),
        )

    def _curves(self) -> list[dict[str, Any]]:
        """Right and wrong boxes by least score, in steps of :data:`SCORES`: all, then by class.

        A box takes its true box whatever the least score is (:func:`match_boxes`), so that one
        matching gives all of them.
        """
        right: dict[int, list[float]] = {i: [] for i in range(len(self.classes))}
        wrong: dict[int, list[float]] = {i: [] for i in right}
        true: dict[int, list[int]] = {i: [] for i in right}
        for sample, (_, labels), m in zip(self.samples, self.true, self.matches):
            for label in labels:
                true[int(label)].append(1)
            for label, verdict, score in zip(_found_boxes(sample)[1], m.verdicts, m.scores):
                if verdict != 'ignored':
                    (right if verdict == 'correct' else wrong)[int(label)].append(score)
        rows = [('all', sorted(true))] + [(str(self.classes[i]), [i]) for i in true]
        return [
            dict(
                name=name,
                true=sum(len(true[i]) for i in members),
                right=_at_least([score for i in members for score in right[i]]),
                wrong=_at_least([score for i in members for score in wrong[i]]),
            )
            for name, members in rows
            if any(true[i] or right[i] or wrong[i] for i in members)
        ]

    def _beside_correct(self, m: Matches) -> int:
        """Boxes of the wrong class on true boxes that a correct box has found as well."""
        states = m.states(self.score_thr)
        return sum(
            verdict == 'wrong class' and score >= self.score_thr and states[partner] == 'found'
            for verdict, partner, score in zip(m.verdicts, m.partners, m.scores)
        )

    def _by_class(self) -> dict[str, Any]:
        rows: dict[int, Counter] = {i: Counter() for i in range(len(self.classes))}
        pairs: Counter = Counter()
        for sample, (_, labels), m in zip(self.samples, self.true, self.matches):
            for label, state in zip(labels, m.states(self.score_thr)):
                rows[int(label)].update(['true', 'found' if state == 'found' else 'missed'])
            found = zip(_found_boxes(sample)[1], m.verdicts, m.partners, m.scores)
            for label, verdict, partner, score in found:
                if score >= self.score_thr and verdict not in ('correct', 'ignored'):
                    rows[int(label)]['wrong'] += 1
                    if verdict == 'wrong class':
                        pairs[int(labels[partner]), int(label)] += 1
        keys = ('true', 'found', 'missed', 'wrong')
        by_class = [
            dict(name=str(self.classes[i]), **{key: row[key] for key in keys})
            for i, row in rows.items()
            if any(row.values())
        ]
        return dict(by_class=by_class, confusions=_confusions(pairs, self.classes))

    def entry(self, i: int, scale: Sequence[float]) -> dict[str, Any]:
        """One image: its boxes, and its mistakes in words.

        Args:
            i: Number of the image.
            scale: Factors from the image's own pixels to those of the picture, (x, y).
        """
        m = self.matches[i]
        boxes, labels, scores = _found_boxes(self.samples[i])
        factor = np.array([*scale, *scale])
        every = [
            dict(
                box=(box * factor).round(1).tolist(),
                name=str(self.classes[label]),
                score=float(score),
                verdict=verdict,
                partner=int(partner),
            )
            for box, label, score, verdict, partner in zip(
                boxes, labels, scores, m.verdicts, m.partners
            )
        ]
        found = [box for box in every if box['score'] >= self.score_thr]
        # What a lower least score would show.
        faint = [box for box in every if FAINT <= box['score'] < self.score_thr]
        faint = sorted(faint, key=lambda box: -box['score'])[:MOST_FAINT]
        true = [
            dict(
                box=(box * factor).round(1).tolist(),
                name=str(self.classes[label]),
                state=state,
            )
            for box, label, state in zip(*self.true[i], m.states(self.score_thr))
        ]
        right, missed, wrong = m.counts(self.score_thr)
        return dict(
            quality=f1_score(right, missed, wrong),
            found=found,
            faint=faint,
            true=true,
            mistakes=_in_words(found, true),
        )


def _at_least(scores: Sequence[float]) -> list[int]:
    """How many scores reach each of :data:`SCORES`."""
    # Scores are float32, and a least score is what is written on the page.
    ordered = np.sort(np.asarray(scores, dtype=float))
    return (len(ordered) - np.searchsorted(ordered, SCORES)).tolist()


def _in_words(found: list[dict], true: list[dict]) -> list[str]:
    missed = Counter(box['name'] for box in true if box['state'] == 'not seen')
    lines = [f'not seen: {_counted(missed)}'] if missed else []
    kinds: dict[str, Counter] = {}
    for box in found:
        verdict = box['verdict']
        if verdict in ('correct', 'ignored'):
            continue
        text = f'{box["name"]} ({box["score"]:.2f})'
        if verdict in ('wrong class', 'wrong class and place'):
            text = f'{true[box["partner"]]["name"]} taken for {text}'
        kinds.setdefault(verdict, Counter())[text] += 1
    lines += [f'{verdict}: {_counted(kinds[verdict])}' for verdict in VERDICTS if verdict in kinds]
    return lines


def _confusions(pairs: Counter, classes: Sequence[str]) -> list[dict[str, Any]]:
    """The dozen pairs of true and found class that are mixed up most often."""
    return [
        dict(true=str(classes[true]), found=str(classes[found]), times=n)
        for (true, found), n in pairs.most_common(12)
    ]


def _counted(names: Counter) -> str:
    return ', '.join(name if n == 1 else f'{n} x {name}' for name, n in names.items())


def _found_boxes(sample: DetDataSample) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    found = sample.pred_instances
    return tuple(found[key].numpy() for key in ('bboxes', 'labels', 'scores'))


def _true_boxes(info: dict) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    instances = info['instances']
    return (
        np.array([x['bbox'] for x in instances], np.float32).reshape(-1, 4),
        np.array([x['bbox_label'] for x in instances], int),
        np.array([x.get('ignore_flag', 0) for x in instances], bool),
    )


class RecognitionTask:
    """Found classes beside true ones.

    Args:
        dataset: The test data set.
        samples: Predictions.
    """

    name = 'recognition'

    def __init__(self, dataset, samples: Sequence):
        self.classes = dataset.metainfo['classes']
        self.scores = np.stack([sample.pred_score.numpy() for sample in samples])
        self.labels = np.array([int(sample.gt_label) for sample in samples])
        self.preds = np.array([int(sample.pred_label) for sample in samples])

    def order(self) -> list[int]:
        """Images from the worst to the best: by what the true class is ahead of all others."""
        own = self.scores[np.arange(len(self.labels)), self.labels]
        others = self.scores.copy()
        others[np.arange(len(self.labels)), self.labels] = 0
        return np.argsort(own - others.max(1), kind='stable').tolist()

    def numbers(self) -> dict[str, Any]:
        """Mistakes by class, over all images."""
        rows = []
        for i, name in enumerate(self.classes):
            true, found = int((self.labels == i).sum()), int((self.preds == i).sum())
            right = int((self.preds[self.labels == i] == i).sum())
            if true or found:
                counts = dict(true=true, found=right, missed=true - right, wrong=found - right)
                rows.append(dict(name=str(name), **counts))
        wrong = self.preds != self.labels
        pairs = Counter(zip(self.labels[wrong].tolist(), self.preds[wrong].tolist()))
        return dict(
            faultless=int((~wrong).sum()),
            by_class=rows,
            confusions=_confusions(pairs, self.classes),
        )

    def entry(self, i: int, scale: Sequence[float]) -> dict[str, Any]:
        """One image: its true class, the three most probable ones, and the mistake in words.

        Args:
            i: Number of the image.
            scale: Not used.
        """
        first = np.argsort(-self.scores[i], kind='stable')[:3]
        guesses = [dict(name=str(self.classes[c]), score=float(self.scores[i, c])) for c in first]
        label, pred = self.labels[i], self.preds[i]
        mistakes = []
        if label != pred:
            scores = f'{self.scores[i, pred]:.2f} against {self.scores[i, label]:.2f}'
            mistakes = [f'{self.classes[label]} taken for {self.classes[pred]} ({scores})']
        return dict(
            quality=float(self.scores[i, label]),
            true_class=str(self.classes[label]),
            guesses=guesses,
            mistakes=mistakes,
        )


def task_of(
    runner: Runner, samples: Sequence, score_thr: Optional[float]
) -> Union[DetectionTask, RecognitionTask]:
    """The task of what a test run found.

    Args:
        runner: The runner, for its test data set.
        samples: Predictions, in the order of the data set.
        score_thr: Least score of a box; None for the one with the best F1.

    Returns:
        :class:`DetectionTask` or :class:`RecognitionTask`.
    """
    dataset = runner.test_dataloader.dataset
    if isinstance(samples[0], DetDataSample):
        return DetectionTask(dataset, samples, score_thr)
    return RecognitionTask(dataset, samples)

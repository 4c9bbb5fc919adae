"""Which scores, and whose files."""

import numpy as np
import pytest
from mmdet.evaluation import CocoMetric, DumpDetResults, VOCMetric
from mmengine.evaluator import Evaluator

from mmsnn.evaluation import ClsMetric
from mmsnn.utils import ToolError, main_score, plain_metrics, score_names
from mmsnn.utils.anytime import _copy


def coco(**kwargs):
    return CocoMetric(**dict(dict(metric='bbox'), **kwargs))


@pytest.mark.parametrize(
    ('metrics', 'names'),
    [
        ([coco()], ['mAP', 'mAP_50']),
        ([coco(metric_items=['mAP_50', 'mAP_s'])], ['mAP_50']),
        ([VOCMetric()], ['mAP']),
        ([coco(metric='proposal'), ClsMetric(topk=(1, 3))], ['top-1', 'top-3']),
    ],
)
def test_scores(metrics, names):
    assert list(score_names(Evaluator(metrics)).values()) == names


def test_a_metric_of_another_kind_gives_its_first_number():
    """LVIS's metric, a kind of COCO's, names its numbers otherwise."""

    class OfAnotherName(CocoMetric):
        default_prefix = 'lvis'

    for metric in (coco(metric_items=['mAP_s']), OfAnotherName(metric='bbox')):
        assert score_names(Evaluator([metric])) == {}
    found = plain_metrics({'lvis/bbox_AP': np.float32(0.5), 'lvis/note': 'x', 'lvis/AP50': 1}, ())
    assert found == {'bbox_AP': 0.5, 'AP50': 1}
    assert type(found['bbox_AP']) is float
    assert main_score(found) == {'bbox_AP': 'bbox_AP'}


def test_no_score():
    only_files = [coco(format_only=True, outfile_prefix='x'), DumpDetResults('c.pkl')]
    with pytest.raises(ToolError, match='gives no number'):
        score_names(Evaluator(only_files))
    with pytest.raises(ToolError, match='gave no number'):
        main_score({})


def test_files_of_the_config_stay(tmp_path):
    """What is evaluated at another T goes into no file that is meant for the config's."""
    own = Evaluator(
        [
            ClsMetric(topk=(1,), out_file=str(tmp_path / 'a.json'), confusion_matrix=True),
            coco(outfile_prefix=str(tmp_path / 'b')),
            DumpDetResults(out_file_path=str(tmp_path / 'c.pkl')),
        ]
    )
    first, second = _copy(own).metrics
    assert first.out_file is None
    assert not first.confusion_matrix
    assert second.outfile_prefix is None
    assert own.metrics[0].out_file.endswith('a.json'), 'the original is as it was'
    assert len(own.metrics) == 3

"""Which scores, and whose files."""

import pytest
from mmdet.evaluation import CocoMetric, DumpDetResults
from mmengine.evaluator import Evaluator

from mmsnn.evaluation import ClsMetric
from mmsnn.utils import ToolError, score_names
from mmsnn.utils.anytime import _copy


def coco(**kwargs):
    return CocoMetric(**dict(dict(metric='bbox'), **kwargs))


@pytest.mark.parametrize(
    ('metrics', 'names'),
    [
        ([coco()], ['mAP', 'mAP_50']),
        ([coco(metric_items=['mAP_50', 'mAP_s'])], ['mAP_50']),
        ([coco(metric='proposal'), ClsMetric(topk=(1, 3))], ['top-1', 'top-3']),
    ],
)
def test_scores(metrics, names):
    assert list(score_names(Evaluator(metrics)).values()) == names


def test_no_score():
    """LVIS's metric, a kind of COCO's, names its numbers otherwise."""

    class OfAnotherName(CocoMetric):
        default_prefix = 'lvis'

    for metric in (coco(metric_items=['mAP_s']), OfAnotherName(metric='bbox')):
        with pytest.raises(ToolError, match='gives no bbox mAP'):
            score_names(Evaluator([metric]))


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

"""Curves from logs."""

import json

from mmsnn.report.training import read_curves

SCORES = dict(bbox_mAP='mAP')


def write(folder, name, rows):
    folder = folder / name / 'vis_data'
    folder.mkdir(parents=True)
    text = '\n'.join(row if isinstance(row, str) else json.dumps(row) for row in rows)
    (folder / 'scalars.json').write_text(text)


def test_a_resumed_run(tmp_path):
    """The later log counts where both have a step; no test's log, torn line or NaN does."""
    train = [
        dict(loss=9.0 - s, loss_cls=1.0, lr=0.1, epoch=1 + s // 3, step=s) for s in range(1, 6)
    ]
    write(
        tmp_path, '1', [*train[:2], {'coco/bbox_mAP': 0.1, 'step': 1}, *train[2:4], '{"loss": 3.']
    )
    write(
        tmp_path,
        '2',
        [
            dict(train[3], loss=2.0),
            dict(train[4], loss_cls=float('nan')),
            {'coco/bbox_mAP': 0.3, 'step': 2},
        ],
    )
    write(tmp_path, '3', [{'coco/bbox_mAP': 0.9, 'step': 7}])
    curves = read_curves(str(tmp_path), SCORES)
    assert curves['losses']['loss'] == [[1, 8.0], [2, 7.0], [3, 6.0], [4, 2.0], [5, 4.0]]
    assert curves['losses']['loss_cls'] == [[s, 1.0] for s in range(1, 5)]
    # Epochs 1 and 2 ended after iterations 2 and 5.
    assert curves['scores'] == dict(bbox_mAP=[[2, 0.1], [5, 0.3]])
    assert curves['epochs'] == 2
    assert curves['iterations'] == 5
    assert curves['last_loss'] == 4.0
    assert curves['late_change'] == 0  # iteration 5 is all of the last tenth


def test_no_log(tmp_path):
    assert read_curves(str(tmp_path), SCORES) is None
    write(tmp_path, '3', [{'coco/bbox_mAP': 0.9, 'step': 7}])
    assert read_curves(str(tmp_path), SCORES) is None

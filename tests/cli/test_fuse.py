"""mmsnn fuse: every precision of the machine, on the checkpoint that comes with mmsnn."""

import json

import pytest
import torch
from mmengine.structures import InstanceData

from mmsnn.deploy import PRECISIONS
from mmsnn.samples import DIGITS
from mmsnn.structures import ClsDataSample
from mmsnn_cli.fuse import agreement, main

NAME = 'spiking-retinanet_sg-r10_asd_fpn_digits'


def test_table(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('MMSNN_DIGITS_ROOT', str(DIGITS))
    main([NAME, '--checkpoint', f'mmsnn://{NAME}', '--num', '4', '--out', str(tmp_path / 'a.json')])
    report = json.loads((tmp_path / 'a.json').read_text())
    rows = {row['precision']: row for row in report['rows']}
    assert {*rows, *report['not_here']} == {'unfused', *PRECISIONS} - {'auto'}
    assert report['images'] == 4
    assert report['auto'] in rows
    assert rows['fp32']['same'] == 1
    assert rows['fp32']['score_change'] < 1e-3
    printed = capsys.readouterr().out
    assert f'| {report["auto"]} (auto) ' in printed
    assert "4 images: the config's test data" in printed


def boxes(*rows):
    values = torch.tensor(rows).reshape(-1, 6)
    data = InstanceData(bboxes=values[:, :4], scores=values[:, 4], labels=values[:, 5].long())

    class Sample:
        pred_instances = data

    return Sample


def test_agreement():
    before = boxes([0, 0, 10, 10, 0.9, 1], [20, 20, 30, 30, 0.5, 2], [0, 0, 5, 5, 0.1, 1])
    after = boxes([0, 0, 10, 10, 0.8, 1], [20, 20, 30, 30, 0.5, 3])
    found = agreement([before], [after])
    assert found == dict(same=0.5, score_change=pytest.approx(0.1))
    assert agreement([boxes()], [after])['same'] is None
    one, other = (ClsDataSample().set_pred_score(torch.tensor(s)) for s in ([0.7, 0.3], [0.4, 0.6]))
    assert agreement([one, one], [one, other]) == dict(same=0.5, score_change=pytest.approx(0.3))

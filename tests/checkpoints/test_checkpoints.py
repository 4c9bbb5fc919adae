"""Checkpoints that come with the package: found by name, whole, small, and as good as is said."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmdet.apis import DetInferencer
from mmengine.config import Config
from mmengine.fileio import load
from mmengine.runner import CheckpointLoader

from mmsnn import checkpoints
from mmsnn.apis import init_detector
from mmsnn.checkpoints import (
    SCHEME,
    ShippedCheckpointError,
    shipped_checkpoint,
    shipped_checkpoints,
)
from mmsnn.compat import CheckpointError, load_checkpoint_file
from mmsnn.samples import DIGITS
from mmsnn.utils import ToolError, fetch_checkpoint

ROOT = Path(__file__).resolve().parents[2]
NAME = 'spiking-retinanet_sg-r10_asd_fpn_digits'


@pytest.mark.parametrize('name', shipped_checkpoints())
def test_every_one(name):
    path = Path(shipped_checkpoint(name))
    assert path.stat().st_size <= 4 * 2**20
    assert set(torch.load(path, weights_only=True)) == {'meta', 'state_dict'}
    (row,) = [row for file in load(ROOT / 'model-index.yml')['Import']
              for row in load(ROOT / file)['Models'] if row['Name'] == name]  # fmt: skip
    assert row['Weights'] == SCHEME + name
    assert Path(row['Config']).stem == name
    assert (ROOT / row['Config']).is_file()


@pytest.mark.parametrize('name', shipped_checkpoints())
def test_the_zoo_says_what_the_metafile_says(name):
    """The row of its README, and the command under it, are those that a slow test runs."""
    (row,) = [row for file in load(ROOT / 'model-index.yml')['Import']
              for row in load(ROOT / file)['Models'] if row['Name'] == name]  # fmt: skip
    page = (ROOT / row['Config']).with_name('README.md').read_text(encoding='utf-8')
    (line,) = [line for line in page.splitlines() if line.endswith(f'`{row["Weights"]}` |')]
    cells = [cell.strip() for cell in line.split('|')]
    assert str(row['Results'][0]['Metrics']['box AP']) in cells
    assert str(row['Metadata']['Epochs']) in cells
    for command in ('Data Command', 'Evaluation Command'):
        assert f'\n{row["Metadata"][command]}\n' in page


def test_by_name_everywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    weights = load_checkpoint_file(SCHEME + NAME)['state_dict']
    theirs = CheckpointLoader.load_checkpoint(SCHEME + NAME, 'cpu')['state_dict']
    assert fetch_checkpoint(SCHEME + NAME) == shipped_checkpoint(NAME)
    models = [
        init_detector(NAME),
        init_detector(f'{NAME}.py'),
        init_detector(NAME, SCHEME + NAME),
        init_detector(ROOT / f'configs/digits/{NAME}.py', SCHEME + NAME),
    ]
    # MMDetection's own: the scope is where it looks for the name.
    models.append(DetInferencer(NAME, device='cpu', scope='mmsnn').model)
    for other in (theirs, *(model.state_dict() for model in models)):
        assert all(torch.equal(value, other[key]) for key, value in weights.items())


def test_a_path_or_a_config_has_no_weights_of_its_own():
    weights = load_checkpoint_file(SCHEME + NAME)['state_dict']
    path = ROOT / f'configs/digits/{NAME}.py'
    for config in (path, Config.fromfile(path)):
        torch.manual_seed(0)
        key = 'backbone.stem.0.conv.weight'
        assert not torch.equal(init_detector(config).state_dict()[key], weights[key])


def test_what_is_refused(tmp_path, monkeypatch):
    with pytest.raises(CheckpointError, match=f"no checkpoint 'mmsnn://other'.*mmsnn://{NAME}"):
        load_checkpoint_file('mmsnn://other')
    with pytest.raises(ToolError, match="no checkpoint 'mmsnn://other'"):
        fetch_checkpoint('mmsnn://other')
    original = Path(shipped_checkpoint(NAME))
    shutil.copy(original, tmp_path)
    changed = tmp_path / original.name
    changed.write_bytes(changed.read_bytes()[:-1] + b'x')
    monkeypatch.setattr(checkpoints, '__file__', str(tmp_path / '__init__.py'))
    shipped_checkpoint.cache_clear()
    with pytest.raises(ShippedCheckpointError, match='not the file that was shipped'):
        shipped_checkpoint(NAME)
    shipped_checkpoint.cache_clear()


def test_the_samples_are_a_data_root():
    made = json.loads((DIGITS / 'annotations/instances_val.json').read_text())
    assert {image['file_name'] for image in made['images']} == {
        path.name for path in (DIGITS / 'val').iterdir()
    }
    assert made['licenses'][0]['name'] == 'CC BY 4.0'


@pytest.mark.slow
@pytest.mark.parametrize('name', shipped_checkpoints())
def test_as_good_as_its_row_says(name, tmp_path, monkeypatch):
    """The command of the row prints the number of the row."""
    (row,) = [row for file in load(ROOT / 'model-index.yml')['Import']
              for row in load(ROOT / file)['Models'] if row['Name'] == name]  # fmt: skip
    monkeypatch.chdir(tmp_path)
    for command in (row['Metadata']['Data Command'], row['Metadata']['Evaluation Command']):
        command = command.replace('mmsnn ', f'{sys.executable} -m mmsnn ', 1)
        done = subprocess.run(command, shell=True, text=True, capture_output=True)
        assert done.returncode == 0, done.stderr
    found = re.findall(r'coco/bbox_mAP: ([\d.]+)', done.stdout)
    assert 100 * float(found[-1]) == pytest.approx(row['Results'][0]['Metrics']['box AP'], abs=0.3)

"""Configs that come with packages are found from any folder."""

from pathlib import Path

import pytest
from mmdet.registry import DATASETS, HOOKS, MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmsnn.apis import init_classifier
from mmsnn.config_files import CONFIGS, config_file, config_names
from mmsnn.models import SpikingRetinaNet
from mmsnn.utils import ToolError, read_config

ROOT = Path(__file__).resolve().parents[1]
DIGITS = 'digits/spiking-retinanet_sg-r10_asd_fpn_digits.py'


@pytest.mark.parametrize(
    'given', [f'mmsnn::{DIGITS}', Path(DIGITS).name, Path(DIGITS).stem, ROOT / 'configs' / DIGITS]
)
def test_config_file(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = config_file(given)
    assert Path(found).samefile(ROOT / 'configs' / DIGITS)
    assert read_config(given).model.type == 'SpikingRetinaNet'


def test_what_is_there_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = Path(DIGITS).name
    Path(name).write_text('')
    assert config_file(name) == name


def test_a_folder_is_no_config(tmp_path, monkeypatch):
    """Such as the one that a run of this config leaves in work_dirs/."""
    monkeypatch.chdir(tmp_path)
    name = Path(DIGITS).stem
    Path(name).mkdir()
    assert config_file(name).endswith(DIGITS)


def test_of_another_package():
    assert Path(config_file('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py')).is_file()


@pytest.mark.parametrize(
    'given', ['mmsnn::no/such.py', 'no_such::a/b.py', 'such.py', 'http://[::1]/a']
)
def test_what_is_not_there(given):
    assert config_file(given) == given


def test_misspelt():
    with pytest.raises(
        ToolError, match=r"digts\.py is not there \(did you mean 'spiking-retinanet_"
    ):
        read_config('mmsnn::digits/spiking-retinanet_sg-r10_asd_fpn_digts.py')


def test_names_are_unique():
    files = [path for path in CONFIGS.glob('*/*.py') if path.parent.name != '_base_']
    assert len(files) == len(config_names()) > 30


def test_base_of_mmsnn(tmp_path, caplog):
    """What is inherited by `mmsnn::` is built without a warning, in a scope of its name."""
    path = tmp_path / 'mine.py'
    path.write_text(f"_base_ = 'mmsnn::{DIGITS}'\nmodel = dict(backbone=dict(time_steps=2))\n")
    cfg = Config.fromfile(path)
    init_default_scope(cfg.default_scope)
    with caplog.at_level('DEBUG'):
        model = MODELS.build(cfg.model)
    assert isinstance(model, SpikingRetinaNet)
    assert model.backbone.time_steps == 2
    assert caplog.text.count('scope') == 0
    assert type(HOOKS.build(cfg.default_hooks.checkpoint)).__name__ == 'CheckpointHook'
    assert DATASETS.get('mmsnn.CocoDataset') is DATASETS.get('CocoDataset')


def test_base_of_mmdet(tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text("_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'\n")
    assert Config.fromfile(path).model.type == 'RetinaNet'


def test_without_pkg_resources(tmp_path, monkeypatch):
    """As mmengine 0.10.7 says it beside setuptools 82."""

    def is_installed(package):
        raise ModuleNotFoundError("No module named 'pkg_resources'", name='pkg_resources')

    monkeypatch.setattr('mmengine.config.config.is_installed', is_installed)
    path = tmp_path / 'mine.py'
    path.write_text(f"_base_ = 'mmsnn::{DIGITS}'\n")
    with pytest.raises(ToolError, match="pip install 'setuptools<82'"):
        read_config(path)


def test_a_name_is_enough_in_python(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert init_classifier('sg-r10_asd_digits-cls').backbone.time_steps == 4

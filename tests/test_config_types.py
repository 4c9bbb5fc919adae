import pytest
from mmdet.datasets.transforms import Resize
from mmdet.registry import MODELS, TRANSFORMS

from mmsnn.config_types import arguments, find_type, type_name


@pytest.mark.parametrize(
    'kind', ['Resize', 'mmdet.Resize', 'mmdet.datasets.transforms.Resize', Resize]
)
def test_names_scopes_and_classes(kind):
    assert type_name(dict(type=kind)) == 'Resize'
    assert find_type(dict(type=kind), TRANSFORMS) is Resize


@pytest.mark.parametrize('cfg', [{}, None, dict(type=None)])
def test_no_type(cfg):
    assert type_name(cfg) == ''
    assert find_type(cfg, MODELS) is None


@pytest.mark.parametrize('name', ['NoSuch', 'mmdet.NoSuch', 'no_such.module.NoSuch'])
def test_a_name_that_is_not_registered(name):
    assert find_type(dict(type=name), MODELS) is None


def test_arguments_of_what_another_package_handed_on():
    assert arguments(dict(type='Resize', _scope_='mmsnn', scale=(8, 8))) == dict(scale=(8, 8))

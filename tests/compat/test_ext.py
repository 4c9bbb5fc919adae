"""The stand-in for MMCV's compiled operators: when it is used, and what it answers."""

import importlib.util
import subprocess
import sys
import types

import pytest

from mmsnn.compat import ext, install_ext_standin, ops, setup


@pytest.fixture
def messages(monkeypatch):
    """What is logged from a state in which nothing has been set up."""
    logged = []
    monkeypatch.setattr(ext, '_reported', False)
    monkeypatch.setattr(ext, 'print_log', lambda message, **_: logged.append(message))
    return logged


@pytest.fixture
def no_extension(monkeypatch):
    """No ``mmcv._ext`` loaded; afterwards whatever was there is back."""
    import mmcv

    monkeypatch.setitem(sys.modules, ext.EXT_NAME, None)
    monkeypatch.delitem(sys.modules, ext.EXT_NAME)
    monkeypatch.setattr(mmcv, '_ext', None, raising=False)
    monkeypatch.delattr(mmcv, '_ext')


class Finder:
    """Finds ``mmcv._ext`` as a module whose body is the given function."""

    def __init__(self, body):
        self.body = body

    def find_spec(self, name, path=None, target=None):
        if name == ext.EXT_NAME:
            return importlib.util.spec_from_loader(name, self)
        return None

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        self.body(module)


def find_extension(monkeypatch, body):
    monkeypatch.setattr(sys, 'meta_path', [Finder(body), *sys.meta_path])


def find_no_extension(monkeypatch):
    def body(module):
        raise ModuleNotFoundError(f'No module named {ext.EXT_NAME!r}', name=ext.EXT_NAME)

    find_extension(monkeypatch, body)


def test_missing_extension_is_stood_in_for_once(no_extension, messages, monkeypatch):
    find_no_extension(monkeypatch)
    assert install_ext_standin()
    module = sys.modules[ext.EXT_NAME]
    assert install_ext_standin()
    assert sys.modules[ext.EXT_NAME] is module
    assert len(messages) == 1
    assert 'installed without them' in messages[0]
    for name in ('nms', 'softnms', 'roi_align_forward', 'sigmoid_focal_loss_backward'):
        assert getattr(module, name) is getattr(ops, name)


def test_stand_in_has_a_complete_spec(no_extension, messages, monkeypatch):
    find_no_extension(monkeypatch)
    install_ext_standin()
    spec = importlib.util.find_spec(ext.EXT_NAME)
    assert spec.name == ext.EXT_NAME
    assert spec.loader is not None
    assert sys.modules[ext.EXT_NAME].__spec__ is spec
    assert not hasattr(sys.modules[ext.EXT_NAME], '__path__')


def test_other_operators_exist_but_explain_themselves_when_called(
    no_extension, messages, monkeypatch
):
    find_no_extension(monkeypatch)
    install_ext_standin()
    operator = sys.modules[ext.EXT_NAME].deform_conv_forward
    with pytest.raises(NotImplementedError, match=r"'deform_conv_forward'.*pip install .*mmcv=="):
        operator(1, 2, key=3)


def test_compiled_extension_wins(no_extension, messages, monkeypatch):
    find_extension(monkeypatch, lambda module: setattr(module, 'nms', 'compiled'))
    assert not install_ext_standin()
    assert sys.modules[ext.EXT_NAME].nms == 'compiled'
    assert messages == ["mmsnn: using MMCV's compiled operators"]


def test_loaded_extension_wins(no_extension, messages, monkeypatch):
    compiled = types.ModuleType(ext.EXT_NAME)
    monkeypatch.setitem(sys.modules, ext.EXT_NAME, compiled)
    assert not install_ext_standin()
    assert sys.modules[ext.EXT_NAME] is compiled


@pytest.mark.parametrize('error', [ImportError, OSError, ModuleNotFoundError])
def test_broken_extension_is_stood_in_for_and_says_why(no_extension, messages, monkeypatch, error):
    def body(module):
        raise error('undefined symbol: _ZN3c10')

    find_extension(monkeypatch, body)
    assert install_ext_standin()
    assert len(messages) == 1
    assert 'undefined symbol: _ZN3c10' in messages[0]


@pytest.mark.parametrize(
    ('installed', 'expected'),
    [
        ({'onedl-mmcv': '2.3.6'}, '--no-binary onedl-mmcv onedl-mmcv==2.3.6'),
        ({'mmcv': '2.1.0'}, '--no-binary mmcv mmcv==2.1.0'),
        ({'mmcv-lite': '2.1.0'}, '--no-binary mmcv mmcv==2.1.0'),
    ],
)
def test_build_command_fits_the_installed_stack(monkeypatch, installed, expected):
    def version(name):
        if name not in installed:
            raise ext.importlib.metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(ext.importlib.metadata, 'version', version)
    assert ext.build_command().endswith(expected)
    assert ('uninstall -y mmcv-lite' in ext.build_command()) == ('mmcv-lite' in installed)


def test_environment_report_works():
    setup()
    from mmdet.utils import collect_env
    from mmengine.utils.dl_utils import collect_env as mmengine_collect_env

    assert 'MMDetection' in collect_env()
    assert 'PyTorch' in mmengine_collect_env()

    from mmcv.ops import get_compiler_version, get_compiling_cuda_version

    assert isinstance(get_compiler_version(), str)
    assert isinstance(get_compiling_cuda_version(), str)


def test_fresh_process_imports_the_whole_stack_and_logs_one_line():
    script = (
        'from mmsnn.compat import setup\n'
        'setup()\n'
        'setup()\n'
        'import mmcv.ops, mmdet.models, mmdet.apis, mmdet.engine\n'
    )
    run = subprocess.run(
        [sys.executable, '-c', script], capture_output=True, text=True, timeout=120, check=False
    )
    assert run.returncode == 0, run.stderr
    lines = [line for line in (run.stdout + run.stderr).splitlines() if 'mmsnn: ' in line]
    assert len(lines) == 1

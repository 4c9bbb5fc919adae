"""The built wheel is enough: commands, configs and tools, from an empty folder."""

import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = 'spiking-retinanet_sg-r10_asd_fpn_digits'
DIGITS = f'digits/{SHIPPED}.py'


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    """A folder with the wheel's files, which comes before the installed mmsnn."""
    pytest.importorskip('setuptools')
    place = tmp_path_factory.mktemp('wheel')
    files = ('setup.py', 'pyproject.toml', 'README.md', 'LICENSE', 'model-index.yml')
    for name in files:
        shutil.copy(ROOT / name, place)
    for name in ('mmsnn', 'mmsnn_cli', 'configs', 'tools'):
        ignore = shutil.ignore_patterns('__pycache__', '*.so')
        shutil.copytree(ROOT / name, place / name, symlinks=True, ignore=ignore)
    pip = [sys.executable, '-m', 'pip', '--disable-pip-version-check', '--quiet']
    offline = ['--no-deps', '--no-build-isolation', '--no-index']
    for command in (
        ['wheel', *offline, '--wheel-dir', 'dist', '.'],
        ['install', *offline, '--target', 'site', '--find-links', 'dist', 'mmsnn'],
    ):
        done = subprocess.run([*pip, *command], cwd=place, text=True, capture_output=True)
        assert done.returncode == 0, done.stderr
    return place / 'site'


@pytest.fixture
def mmsnn(site, tmp_path):
    """Run the console script in an empty folder."""

    def run(*argv, **env):
        done = subprocess.run(
            [sys.executable, site / 'bin' / 'mmsnn', *map(str, argv)],
            cwd=tmp_path,
            env={**os.environ, 'PYTHONPATH': str(site), **env},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert done.returncode == 0, done.stdout[-2000:]
        return done.stdout

    return run


def test_its_files(site):
    for folder, pattern in (
        ('configs', '*.py'),
        ('configs', '*.yml'),
        ('tools', '*.py'),
        ('tools', '*.sh'),
    ):
        here = {p.relative_to(ROOT) for p in (ROOT / folder).rglob(pattern)}
        there = {
            p.relative_to(site / 'mmsnn/.mim') for p in site.rglob(f'.mim/{folder}/**/{pattern}')
        }
        assert here == there
    assert not any(path.is_symlink() for path in site.rglob('*'))
    assert {p.name for p in site.iterdir() if p.is_dir() and '-' not in p.name} == {
        'bin', 'mmsnn', 'mmsnn_cli',
    }  # fmt: skip


def test_doctor(mmsnn, site):
    assert f'in {site}/mmsnn\n' in mmsnn('doctor')


def test_the_lines_of_python_in_the_readme(site, tmp_path):
    """They run as they stand there, from an empty folder."""
    section = (ROOT / 'README.md').read_text().split('## Five lines')[1]
    lines = section.split('```python\n')[1].split('```')[0]
    assert len(list(filter(None, lines.splitlines()))) == 5
    done = subprocess.run(
        [sys.executable, '-c', lines],
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': str(site)},
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    found, _, table = done.stdout.partition('+---')
    assert 'labels: tensor([0,' in found, 'the large digit of the picture comes first'
    assert 'backbone.layer3.0.neuron2' in table


@pytest.fixture(scope='module', params=['onedl', 'openmmlab'])
def fresh(request, site, tmp_path_factory):
    """A new environment with the wheel and one stack, as a user installs them."""
    place = tmp_path_factory.mktemp(request.param)
    (wheel,) = (site.parent / 'dist').glob('*.whl')
    subprocess.run([sys.executable, '-m', 'venv', place / 'venv'], check=True)
    pip = [place / 'venv/bin/python', '-m', 'pip', '--disable-pip-version-check', '--quiet']
    wanted = f'torch=={metadata.version("torch")}', f'{wheel}[{request.param},demo]'
    done = subprocess.run([*pip, 'install', *wanted], text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    env = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
    (place / 'empty').mkdir()

    def run(command, *argv, status=0, **more):
        done = subprocess.run(
            [place / 'venv/bin' / command, *map(str, argv)],
            cwd=place / 'empty',
            env={**env, **more},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert done.returncode == status, done.stdout[-2000:]
        return done.stdout

    return SimpleNamespace(
        stack=request.param, wheel=wheel, folder=place / 'empty', run=run, pip=pip
    )


@pytest.mark.parametrize('home', ['', 'https://example.org/mmsnn'])
def test_readme_on_a_package_index(home):
    """There is no file beside it: addresses are whole, or there is none."""
    done = subprocess.run(
        [sys.executable, 'setup.py', '--quiet', '--long-description'],
        cwd=ROOT,
        env={**os.environ, 'MMSNN_HOME_URL': home},
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    targets = re.findall(r'\]\(([^)]*)\)', done.stdout)
    assert len(targets) > 10
    assert all(target.startswith(('https://', '#')) for target in targets)
    pictures = re.findall(r'!\[[^\]]*\]\(([^)]*)\)', done.stdout)
    images = [f'{home}/raw/main/docs/images/{name}' for name in ('demo.jpg', 'report.png')]
    assert pictures == (images if home else [])
    assert (f'{home}/blob/main/CITATION.cff' in targets) == bool(home)
    assert 'CITATION.cff' in done.stdout


@pytest.mark.slow
def test_first_minute(mmsnn, tmp_path):
    """What is shown without data, training or a clone."""
    assert 'layers that spikes enter' in mmsnn('demo', '--quick', '--work-dir', 'quick')
    assert len(list((tmp_path / 'quick' / 'pictures').iterdir())) == 8
    mmsnn('image-demo')
    assert len(list((tmp_path / 'outputs' / 'vis').iterdir())) == 8
    printed = mmsnn('fuse', SHIPPED, '--checkpoint', f'mmsnn://{SHIPPED}', '--shape', 128, 128)
    assert '(auto)' in printed


@pytest.mark.slow
def test_from_an_empty_folder(fresh):
    """A detector is trained, evaluated and reported on; bases of both packages are found."""

    def mmsnn(*argv, **env):
        return fresh.run('mmsnn', *argv, **env)

    assert 'MEND' not in mmsnn('doctor')
    mmsnn('demo', '--quick', '--work-dir', 'demo')
    assert len(list(fresh.folder.glob('demo/pictures/*.png'))) > 1
    said = mmsnn('demo', '--work-dir', 'whole')
    assert float(re.findall(r'coco/bbox_mAP: ([\d.]+)', said)[-1]) > 0.6
    assert (fresh.folder / 'whole/spike_report.html').is_file()
    small = ['--train-images', 32, '--val-images', 8, '--image-size', 64, '--max-size', 40]
    mmsnn('digits', 'set', *small)
    (fresh.folder / 'mine.py').write_text(
        f"_base_ = 'mmsnn::{DIGITS}'\ntrain_cfg = dict(max_epochs=1, val_interval=1)\n"
    )
    data = dict(MMSNN_DIGITS_ROOT='set')
    before = mmsnn('train', 'mine.py', **data).partition('Epoch(train)')[0].splitlines()
    assert len(before) <= 15, before
    checkpoint = 'work_dirs/mine/epoch_1.pth'
    assert 'Epoch(test) [1/1]' in mmsnn('test', 'mine.py', checkpoint, **data)
    mmsnn('report', 'mine.py', checkpoint, '--out', 'report.html', **data)
    assert (fresh.folder / 'report.html').is_file()
    (fresh.folder / 'theirs.py').write_text(
        "_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'\n"
    )
    assert "type='RetinaNet'" in mmsnn('print-config', 'theirs.py')
    assert "type='SpikingRetinaNet'" in mmsnn('print-config', f'mmsnn::{DIGITS}')


@pytest.mark.slow
def test_both_stacks_at_once(fresh):
    """One warning says what to do, and doing it helps."""
    other = 'openmmlab' if fresh.stack == 'onedl' else 'onedl'
    subprocess.run([*fresh.pip, 'install', f'{fresh.wheel}[{other}]'], check=True)
    said = fresh.run('mmsnn', 'doctor', status=1)
    assert said.count('are both installed, and have written over each other: pip uninstall') == 1
    said = fresh.run('python', '-c', 'import mmsnn')
    assert said.count('are both installed') == said.count('WARNING') == 1
    mend = said.partition('written over each other: pip ')[2].partition(',')[0].split()
    subprocess.run([*fresh.pip, *mend], check=True)
    subprocess.run([*fresh.pip, 'install', f'{fresh.wheel}[{fresh.stack}]'], check=True)
    assert 'MEND' not in fresh.run('mmsnn', 'doctor')

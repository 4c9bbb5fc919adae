"""The command `mmsnn`."""

import importlib
import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import mmsnn_cli

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = [
    pytest.param(name, target, id=name)
    for group in mmsnn_cli.COMMANDS.values()
    for name, (target, _) in group.items()
]
#: Their help is MMDetection's, under the name of its file.
BORROWED = ('print-config', 'browse', 'logs', 'confusion-matrix')


@pytest.mark.parametrize('argv', [[], ['--help'], ['help']])
def test_help_lists_every_command(argv, capsys):
    mmsnn_cli.main(argv)
    lines = capsys.readouterr().out.splitlines()
    for group in mmsnn_cli.COMMANDS.values():
        for name, (_, text) in group.items():
            assert f'  {name:17} {text}' in lines
    assert max(map(len, lines)) <= 100


def test_help_needs_no_stack():
    """It comes at once: neither mmsnn nor torch is imported."""
    code = 'import sys, mmsnn_cli; mmsnn_cli.main(["-h"]); print(*sys.modules)'
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert {'mmsnn', 'torch', 'numpy'}.isdisjoint(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(('name', 'target'), COMMANDS)
def test_command_explains_itself(name, target, capsys):
    module, _, function = target.partition(':')
    assert callable(getattr(importlib.import_module(module, 'mmsnn_cli'), function or 'main'))
    if name in BORROWED:
        return
    with pytest.raises(SystemExit) as ended:
        mmsnn_cli.main([name, '--help'])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f'usage: mmsnn {name} ')


@pytest.mark.parametrize(
    ('given', 'said'), [('tran', '(did you mean train?)'), ('x', "'x'; mmsnn")]
)
def test_unknown_command(given, said, capsys):
    with pytest.raises(SystemExit) as ended:
        mmsnn_cli.main([given])
    assert ended.value.code == 2
    message = capsys.readouterr().err
    assert said in message
    assert message.count('\n') == 1


def test_version(capsys):
    import mmsnn

    mmsnn_cli.main(['--version'])
    assert capsys.readouterr().out == f'mmsnn {mmsnn.__version__}\n'


def test_scripts_are_doors():
    """Each file of tools/ is a few lines that call the function of one command."""
    targets = [target for group in mmsnn_cli.COMMANDS.values() for target, _ in group.values()]
    called = set()
    for path in (ROOT / 'tools').rglob('*.py'):
        lines = path.read_text().splitlines()
        assert len(lines) <= 8, path
        line = next(line for line in lines if line.startswith('from mmsnn'))
        _, module, _, function = line.split()
        called.add((module.removeprefix('mmsnn_cli'), function))
    wanted = {(t.partition(':')[0], t.partition(':')[2] or 'main') for t in targets}
    # `convert` has a script for each format, `doctor` none.
    kinds = {('.convert', 'voc_to_coco'), ('.convert', 'yolo_to_coco')}
    assert called == wanted - {('.doctor', 'main'), ('.convert', 'main')} | kinds


def test_as_a_module(digits_root, tmp_path):
    """`python -m mmsnn`, in an empty folder, with a config that came with the package."""
    config = tmp_path / 'mine.py'
    config.write_text(
        "_base_ = 'mmsnn::digits/spiking-retinanet_sg-r10_asd_fpn_digits.py'\n"
        'model = dict(backbone=dict(time_steps=3))\n'
    )
    command = [sys.executable, '-m', 'mmsnn', 'flops', 'mine.py', '--shape', '64', '64']
    done = subprocess.run(
        [*command, '--out', 'flops.json'], cwd=tmp_path, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((tmp_path / 'flops.json').read_text())['time_steps'] == 3
    assert 'WARNING' not in done.stdout + done.stderr


def test_demo_runs_commands_that_there_are(monkeypatch, tmp_path, capsys):
    """In any folder, and what it prints is what it runs."""
    from mmsnn_cli import demo, digits_to_coco, draw_predictions, spike_report, test, train

    readers = dict(
        digits=digits_to_coco, train=train, test=test, draw=draw_predictions, report=spike_report
    )
    ran = []

    def call(command):
        assert command[:3] == [sys.executable, '-m', 'mmsnn']
        name, *rest = command[3:]
        args = readers[name].parse_args(rest)
        ran.append(shlex.join(['mmsnn', name, *rest]))
        if name == 'train':
            folder = tmp_path / args.work_dir
            folder.mkdir()
            (folder / 'last_checkpoint').write_text(str(folder / 'epoch_10.pth'))
        return 0

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('MMSNN_DIGITS_ROOT', '')
    monkeypatch.setenv('GOMP_SPINCOUNT', '10000')
    monkeypatch.setattr(demo.subprocess, 'call', call)
    demo.main(['--work-dir', 'run'])
    assert [command.split()[1] for command in ran] == list(readers)
    lines = capsys.readouterr().out.splitlines()
    assert [line.strip()[2:] for line in lines if line.startswith('   $ ')] == ran
    assert 'Checkpoint: run/epoch_10.pth' in lines

"""The benchmark's command, on tiny shapes."""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import bench
import cases
import pytest
import torch
from rich.console import Console

TINY = ['--depth', '18', '--size', '64', '--time-steps', '2', '1', '--batch', '1', '--rounds', '1']


@pytest.fixture(scope='module')
def results(shell, tmp_path_factory):
    """What a run writes and prints."""
    out = tmp_path_factory.mktemp('bench') / 'new' / 'tiny.json'
    command = ['python', 'benchmarks/bench.py', '--what', 'neuron', 'inference', 'growth', *TINY]
    done = shell(*command, '--out', out, OMP_NUM_THREADS=1)
    assert done.returncode == 0, done.stdout[-1500:]
    return out, done.stdout, json.loads(out.read_text())


@pytest.fixture
def refusal(monkeypatch, capsys):
    """What the command line says when it ends before anything is measured."""

    def run(*args):
        monkeypatch.setattr('sys.argv', ['bench.py', *map(str, args)])
        with pytest.raises(SystemExit) as end:
            bench.main()
        shown = capsys.readouterr()
        return end.value.code, shown.out + shown.err

    return run


def rows_of(results, what):
    rows = [row for row in results[2]['rows'] if row['what'] == what]
    return {(row['network'], row['dtype'], row['time_steps']): row for row in rows}


def test_rows(results):
    inference = rows_of(results, 'inference')
    assert {('mmsnn', 'fp32', 2), ('MMDetection ANN', 'bf16', 1)} <= set(inference)
    assert {('convs alone', dtype, 2) for dtype in ('fp32', 'bf16')} <= set(inference)
    assert {('mmsnn', 'fp32', t) for t in (1, 2)} <= set(rows_of(results, 'inference as T grows'))
    assert ('mmsnn', 'fp32', 16) in rows_of(results, 'training step at long T')
    neuron = rows_of(results, 'one LIF layer')
    assert {('mmsnn LIF', dtype, 2) for dtype in ('fp32', 'bf16')} <= set(neuron)


def test_ratios(results):
    inference = rows_of(results, 'inference')
    ours, ann = inference['mmsnn', 'fp32', 2], inference['MMDetection ANN', 'fp32', 1]
    assert ours['ratios']['x ANN fp32'] == pytest.approx(ours['ms'] / ann['ms'])
    assert 'x convs' not in ann['ratios'], 'they are not its convs'
    growth = rows_of(results, 'inference as T grows')
    assert growth['mmsnn', 'fp32', 2]['ratios']['x T = 1'] == pytest.approx(
        growth['mmsnn', 'fp32', 2]['ms'] / growth['mmsnn', 'fp32', 1]['ms']
    )
    neuron = rows_of(results, 'one LIF layer')
    lif, copy = neuron['mmsnn LIF', 'bf16', 2], neuron['copy', 'bf16', 2]
    assert lif['ratios']['x copy'] == pytest.approx(lif['ms'] / copy['ms'])


@pytest.mark.skipif(not cases.has_spikingjelly(), reason='needs SpikingJelly')
def test_spikingjelly_stands_beside(results):
    rows = rows_of(results, 'inference')
    assert {('SpikingJelly', 'fp32', 2), ('SpikingJelly', 'bf16', 2)} <= set(rows)
    assert 'x SpikingJelly fp32' in rows['mmsnn', 'fp32', 2]['ratios']
    assert ('SpikingJelly', 'fp32', 2) in rows_of(results, 'training step at long T')
    assert all(share > 0.999 for share in results[2]['equal_spikes'].values())


def test_json_tells_the_machine_and_no_path(results):
    out, shown, data = results
    assert data['machine']['versions']['torch'] == torch.__version__
    assert {'cpu', 'cpu_flags', 'cores', 'threads', 'commit'} <= set(data['machine'])
    text = out.read_text()
    assert str(out.parent) not in text
    assert not re.search(r'"/|/(home|root|tmp|usr)/', text)
    assert f'written to {out}' in shown.replace('\n', '')


def test_what_is_left_out_says_why(results):
    for row in results[2]['left_out']:
        assert row['network']
        assert row['reason']


def test_an_interrupted_run_leaves_what_it_has(tmp_path):
    out = tmp_path / 'new' / 'tiny.json'
    command = [sys.executable, '-u', 'benchmarks/bench.py', '--what', 'neuron', 'growth', *TINY]
    process = subprocess.Popen(
        [*command, '--out', out],
        cwd=Path(__file__).parents[2],
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    while not out.exists():
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C in a terminal
    shown, _ = process.communicate(timeout=60)
    assert process.returncode == 0, shown
    assert {row['what'] for row in json.loads(out.read_text())['rows']} == {'one LIF layer'}
    assert re.search(r'3 groups of rows: \d+ to \d+ minutes', shown)
    assert 'mmsnn LIF' in shown
    assert 'interrupted: the tables end here' in shown
    assert f'written to {out}' in shown.replace('\n', '')
    assert [path.name for path in out.parent.iterdir()] == ['tiny.json']


def test_a_row_that_takes_long_is_run_once(monkeypatch):
    def rows(seconds):
        args = argparse.Namespace(rounds=4, seconds=seconds)
        setting = cases.Setting('a group', 'cpu', 18, (64, 64), 1, 1)
        key = cases.Key('slow', 'bf16', 1)
        builders = lambda: {key: lambda: lambda: time.sleep(0.05)}  # noqa: E731
        monkeypatch.setattr(bench, 'ProcessPoolExecutor', NoProcess)
        found, _ = bench.measure(setting, builders, args, lambda step: None)
        return found

    (slow,), (fast,) = rows(0.1), rows(1)
    assert (len(slow['ms_rounds']), len(fast['ms_rounds'])) == (1, 4)
    assert slow['ms'] >= 50
    console = Console(width=130, record=True)
    bench.show([slow, fast], console)
    assert [
        ('run once' in line) for line in console.export_text().splitlines() if 'slow' in line
    ] == [
        True,
        False,
    ]


class NoProcess:
    """Stands for the process that measures memory."""

    def __init__(self, *args, **kwargs):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def submit(self, *task):
        return argparse.Namespace(result=dict)


def test_never_overwrites(refusal, tmp_path):
    out = tmp_path / 'results.json'
    out.write_text('precious')
    code, shown = refusal(*TINY, '--out', out)
    assert code == 2
    assert 'is there already' in shown
    assert out.read_text() == 'precious'


@pytest.mark.parametrize('wrong', [['--size', '3x'], ['--size', '16'], ['--rounds', '0']])
def test_wrong_arguments(refusal, wrong):
    code, shown = refusal(*wrong)
    assert code == 2
    assert repr(wrong[1]) in shown


def test_help_teaches(refusal):
    code, shown = refusal('--help')
    assert code == 0
    for word in ('convs alone', '--full', 'spikingjelly==2.0.0', 'examples:'):
        assert word in shown


def test_plan(monkeypatch):
    def groups(*args):
        monkeypatch.setattr('sys.argv', ['bench.py', *args])
        return [setting for setting, _ in bench.plan(bench.parse_args())]

    around = groups('--what', 'inference')
    assert (around[0].depth, around[0].size, around[0].time_steps, around[0].batch) == (
        18, (320, 320), 4, 1,
    )  # fmt: skip
    assert len(around) == 7, 'the centre, two depths, a size, a batch, two rates'
    assert len(groups('--what', 'inference', '--full')) == 3 * 2 * 4 * 2 * 3
    assert len(groups('--what', 'training', '--full')) == 3 * 2 * 4 * 3
    assert {s.batch for s in groups('--what', 'training', '--full')} == {2}

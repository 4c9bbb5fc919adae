"""The benchmark's command, on tiny shapes."""

import json
import re

import cases
import pytest
import torch

TINY = ['--depth', '18', '--size', '64', '--time-steps', '2', '1', '--batch', '1', '--rounds', '1']


@pytest.fixture(scope='module')
def bench(shell):
    def run(*args):
        return shell('python', 'benchmarks/bench.py', *args, OMP_NUM_THREADS=1)

    return run


@pytest.fixture(scope='module')
def results(bench, tmp_path_factory):
    out = tmp_path_factory.mktemp('bench') / 'new' / 'tiny.json'
    done = bench(*TINY, '--out', out)
    assert done.returncode == 0, done.stdout[-1500:]
    return out, done.stdout, json.loads(out.read_text())


def rows_of(results, what):
    rows = [row for row in results[2]['rows'] if row['what'] == what]
    return {(row['network'], row['dtype'], row['time_steps']): row for row in rows}


def test_rows(results):
    inference = rows_of(results, 'inference')
    assert {('mmsnn', 'fp32', 2), ('MMDetection ANN', 'bf16', 1)} <= set(inference)
    assert {('convs alone', dtype, 2) for dtype in ('fp32', 'bf16')} <= set(inference)
    for what in ('training step', 'detector, training step'):
        assert {('mmsnn', 'fp32', 2), ('mmsnn', 'bf16', 2)} <= set(rows_of(results, what))
    assert {('mmsnn', 'fp32', 2), ('MMDetection ANN', 'fp32', 1)} <= set(
        rows_of(results, 'detector, inference')
    )
    assert {('mmsnn', 'fp32', t) for t in (1, 2)} <= set(rows_of(results, 'inference as T grows'))
    assert ('mmsnn', 'fp32', 16) in rows_of(results, 'training step at long T')


def test_ratios(results):
    inference = rows_of(results, 'inference')
    ours, ann = inference['mmsnn', 'fp32', 2], inference['MMDetection ANN', 'fp32', 1]
    assert ours['ratios']['x ANN fp32'] == pytest.approx(ours['ms'] / ann['ms'])
    assert 'x convs' not in ann['ratios'], 'they are not its convs'
    growth = rows_of(results, 'inference as T grows')
    assert growth['mmsnn', 'fp32', 2]['ratios']['x T = 1'] == pytest.approx(
        growth['mmsnn', 'fp32', 2]['ms'] / growth['mmsnn', 'fp32', 1]['ms']
    )


@pytest.mark.skipif(not cases.has_spikingjelly(), reason='needs SpikingJelly')
def test_spikingjelly_stands_beside(results):
    for what in ('inference', 'training step'):
        rows = rows_of(results, what)
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


def test_never_overwrites(bench, results):
    out = results[0]
    before = out.read_bytes()
    done = bench(*TINY, '--out', out)
    assert done.returncode == 2
    assert 'is there already' in done.stdout
    assert out.read_bytes() == before


@pytest.mark.parametrize('wrong', [['--size', '3x'], ['--size', '16'], ['--rounds', '0']])
def test_wrong_arguments(bench, wrong):
    done = bench(*wrong)
    assert done.returncode == 2
    assert repr(wrong[1]) in done.stdout


def test_help_teaches(bench):
    shown = bench('--help').stdout
    for word in ('convs alone', '--full', 'spikingjelly==2.0.0', 'examples:'):
        assert word in shown

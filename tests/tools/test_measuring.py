"""What a model costs: get_flops.py and benchmark.py."""

import importlib
import json
import re
from pathlib import Path
from statistics import median

import pytest
from digits_detector import DIGITS
from mmengine.config import Config
from mmengine.runner import Runner, save_checkpoint

from mmsnn.apis import init_detector, profile

ANN = 'configs/baselines/ann-r18_cifar10.py'
FLOPS = 'analysis_tools/get_flops.py'
BENCHMARK = 'analysis_tools/benchmark.py'


@pytest.fixture(scope='module')
def checkpoint(request, tmp_path_factory):
    """A checkpoint of the digits config whose spikes are not those of the initial weights."""
    path = tmp_path_factory.mktemp('checkpoint') / 'epoch_1.pth'
    model = init_detector(request.config.rootpath / DIGITS)
    for name, value in model.backbone.named_parameters():
        if name.endswith('bias'):
            value.data += 0.3
    save_checkpoint(dict(state_dict=model.state_dict()), str(path))
    return path


@pytest.fixture
def run(tool, digits_root, checkpoint):
    """Run a tool on the digits config, its checkpoint and its data."""

    def with_digits(script, *options, **kwargs):
        command = (script, DIGITS, '--checkpoint', checkpoint, *options)
        return tool(*command, MMSNN_DIGITS_ROOT=digits_root, **kwargs)

    return with_digits


@pytest.fixture
def parse(monkeypatch, capsys):
    """What a tool prints that ends while it reads the command line, and its exit status."""

    def with_options(script, *options):
        monkeypatch.setattr('sys.argv', [script, *map(str, options)])
        with pytest.raises(SystemExit) as ended:
            importlib.import_module(f'mmsnn_cli.{Path(script).stem}').parse_args()
        return ''.join(capsys.readouterr()), ended.value.code

    return with_options


@pytest.mark.parametrize('script', [FLOPS, BENCHMARK])
def test_help_has_examples(parse, script):
    printed, status = parse(script, '--help')
    assert status == 0
    command = {FLOPS: 'flops', BENCHMARK: 'benchmark'}[script]
    assert printed.startswith(f'usage: mmsnn {command} ')
    assert f'examples:\n  mmsnn {command} CONFIG' in printed


def test_flops_of_the_test_data(run, digits_root, checkpoint, request, monkeypatch, tmp_path):
    """The numbers are those of profile() on the same images, one by one."""
    out = tmp_path / 'flops.json'
    done = run(FLOPS, '--num-images', 3, '--out', out)
    results = json.loads(out.read_text())
    assert "the config's test data: 3 images, the last 3x128x128" in done.stdout
    assert 'T = 4' in done.stdout
    assert '| backbone.layer1.0.conv1        | spikes | 4 |' in done.stdout
    assert f'{results["sops"] / 1e6:.2f} M SOPs' in done.stdout
    assert f'the ANN twin {results["ann_macs"] / 1e6:.2f} M MACs' in done.stdout

    monkeypatch.setenv('MMSNN_DIGITS_ROOT', str(digits_root))
    cfg = Config.fromfile(request.config.rootpath / DIGITS)
    cfg.test_dataloader.batch_size = 1
    model = init_detector(cfg, checkpoint)
    expected = profile(model, Runner.build_dataloader(cfg.test_dataloader), 3)
    assert results['sops'] == pytest.approx(expected.sops, rel=1e-3)
    assert results['macs'] == expected.macs
    assert results['parameters'] == sum(p.numel() for p in model.parameters())
    stem = next(x for x in results['layers'] if x['name'] == 'backbone.stem.0.conv')
    assert stem['macs'] == 64 * 64 * 16 * 3 * 7 * 7
    assert results['sops'] > 0
    assert results['sops'] == pytest.approx(sum(x['sops'] for x in results['layers']))


def test_flops_by_time_steps(run, tmp_path):
    """Spikes come at every step; what sees images or decoded maps runs once."""
    found = {}
    for t in (1, 3):
        out = tmp_path / f'{t}.json'
        run(FLOPS, '--num-images', 1, '--time-steps', t, '--out', out)
        found[t] = json.loads(out.read_text())
    assert [found[t]['time_steps'] for t in (1, 3)] == [1, 3]
    conv = 'backbone.layer2.0.conv1'
    layer = {t: next(x for x in found[t]['layers'] if x['name'] == conv) for t in (1, 3)}
    assert [len(layer[t]['sops_by_step']) for t in (1, 3)] == [1, 3]
    assert layer[3]['sops'] > layer[1]['sops'] > 0
    assert found[1]['ann_macs'] == found[3]['ann_macs']


def test_flops_without_data(tool, tmp_path):
    done = tool(FLOPS, DIGITS, MMSNN_DIGITS_ROOT=tmp_path / 'nowhere')
    assert f'random input, whose spikes are not those of images ({tmp_path}/nowhere/ is not' in (
        done.stdout
    )
    assert '1 images, the last 3x128x128' in done.stdout, "the pipeline's size"
    assert 'initial weights' in done.stdout


def test_flops_without_spikes(tool, tmp_path):
    out = tmp_path / 'new' / 'flops.json'
    tool(FLOPS, ANN, '--shape', 32, 32, '--out', out)
    results = json.loads(out.read_text())
    assert results['sops'] == 0
    assert results['macs'] == results['ann_macs'] > 5e8
    assert results['time_steps'] is None


def test_benchmark_of_the_model(run, tmp_path):
    out = tmp_path / 'benchmark.json'
    options = ['--repeat-num', 3, '--max-iter', 2, '--batch-size', 3, '--num-warmup', 1]
    done = run(BENCHMARK, *options, '--time-steps', 2, '--fuse', 'fp32', '--out', out)
    assert "T = 2, fused in fp32, batches of 3; the config's test data" in done.stdout
    assert '3 x 6 images' in done.stdout
    results = json.loads(out.read_text())
    ms = [1000 * row['seconds'] / row['images'] for row in results['repeats']]
    printed = re.search(r'ms an image +([\d.]+) \(([\d.]+) to ([\d.]+)\)', done.stdout).groups()
    assert list(map(float, printed)) == [round(f(ms), 2) for f in (median, min, max)]
    assert results['ms_per_image'] == pytest.approx(median(ms))
    assert results['images_per_second'] == pytest.approx(1000 / median(ms))
    assert 100 < results['peak_memory_mb'] < 10000


def test_benchmark_of_the_data(tool, digits_root):
    options = ['--repeat-num', 2, '--num-warmup', 1, '--max-iter', 2]
    options += ['--dataset-type', 'train']
    env = dict(MMSNN_DIGITS_ROOT=digits_root)
    done = tool(BENCHMARK, DIGITS, '--task', 'dataloader', *options, **env)
    assert 'train data, 0 workers' in done.stdout
    assert '2 x 16 images' in done.stdout
    done = tool(BENCHMARK, DIGITS, '--task', 'dataset', *options, **env)
    assert '2 x 2 images' in done.stdout
    names = re.findall(r'^  (\w+): [\d.]+ \([\d.]+ to [\d.]+\)$', done.stdout, re.M)
    assert names == ['LoadImageFromFile', 'LoadAnnotations', 'Resize', 'PackDetInputs']


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        (['--num-images', 0], '--num-images must be at least 1, got 0'),
        (['--cfg-options', 'model.bbox_head.num_classes=7'], 'another architecture'),
    ],
)
def test_bad_input(run, options, said):
    done = run(FLOPS, *options, check=False)
    assert done.returncode != 0
    assert said in done.stdout
    assert 'Traceback' not in done.stdout


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        (['--task', 'dataloader'], '--checkpoint says nothing to --task dataloader'),
        (['--num-warmup', -1], '--num-warmup must be at least 0, got -1'),
    ],
)
def test_bad_options(parse, checkpoint, options, said):
    printed, status = parse(BENCHMARK, DIGITS, '--checkpoint', checkpoint, *options)
    assert status != 0
    assert said in printed


def test_nothing_is_overwritten(run, tmp_path):
    out = tmp_path / 'kept.json'
    out.write_text('mine')
    done = run(FLOPS, '--out', out, check=False)
    assert done.returncode != 0
    assert f'{out} is there already' in done.stdout
    assert 'measuring' not in done.stdout
    assert out.read_text() == 'mine'

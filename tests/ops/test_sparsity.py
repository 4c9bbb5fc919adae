"""How many spikes there are, and up to how many convs go by them."""

import json
import subprocess
import sys

import pytest
import torch

from mmsnn import ops
from mmsnn.ops import sparsity
from mmsnn.ops.operators import pack_spikes

WAYS = list(sparsity.WAYS)
NULLS = json.dumps(dict.fromkeys(WAYS))


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """An empty folder of what was measured, in no time: noise would not be kept."""
    monkeypatch.setattr(sparsity, '_measure', lambda *runs: 0.25)
    monkeypatch.delenv('MMSNN_EVENTS_BELOW', raising=False)
    monkeypatch.setenv('MMSNN_CACHE_DIR', str(tmp_path / 'new'))
    sparsity._measured_with.cache_clear()
    yield tmp_path / 'new'
    sparsity._measured_with.cache_clear()


@pytest.mark.parametrize('look', [ops.density, lambda x: sparsity.density_of_bits(bits_of(x))])
def test_all_channels_are_looked_at(look):
    x = torch.zeros(1, 16, 26, 26, dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    x[:, 3] = 1
    assert look(x) == pytest.approx(1 / 16, abs=0.01)
    assert look(x[:, :, :0]) == 0
    assert look(torch.ones(2, 8, 5, 3, dtype=torch.uint8)) == 1


def bits_of(x):
    return pack_spikes(x.contiguous(memory_format=torch.channels_last), 1)


@pytest.mark.parametrize('value', ['2', 'many', '-0.1', 'nan'])
def test_what_is_no_density(monkeypatch, value):
    monkeypatch.setenv('MMSNN_EVENTS_BELOW', value)
    with pytest.raises(ValueError, match=f"density from 0 to 1, got '{value}'"):
        ops.crossover('forward')


@pytest.mark.parametrize('way', WAYS)
def test_it_can_be_named(monkeypatch, way):
    monkeypatch.setenv('MMSNN_EVENTS_BELOW', '0.25')
    assert ops.crossover(way) == 0.25


def test_it_is_measured_once_and_said(monkeypatch, caplog, cache):
    caplog.set_level('INFO', 'mmsnn')
    values = {way: ops.crossover(way) for way in WAYS}
    assert all(0 <= value <= 1 for value in values.values())
    (line,) = [record.getMessage() for record in caplog.records]
    for way, value in values.items():
        assert f'{value:.2f} ({way})' in line
    # Another process takes the same ways.
    (path,) = cache.iterdir()
    assert str(path) in line
    kept = dict.fromkeys(WAYS, 0.125)
    path.write_text(json.dumps(kept))
    code = 'import json; from mmsnn import ops; ' + (
        f'print(json.dumps({{way: ops.crossover(way) for way in {WAYS}}}))'
    )
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout.splitlines()[-1]) == kept


@pytest.mark.parametrize('text', ['', '{', '{"forward": 0.5}', '[]', NULLS])
def test_a_file_of_something_else_is_measured_again(cache, text):
    cache.mkdir()
    ops.crossover('forward')
    (path,) = cache.iterdir()
    path.write_text(text)
    sparsity._measured_with.cache_clear()
    assert 0 <= ops.crossover('forward') <= 1
    assert set(json.loads(path.read_text())) == set(WAYS)


def test_the_first_of_two_processes_is_kept(cache):
    cache.mkdir()
    path = cache / 'some.json'
    first, second = (dict.fromkeys(WAYS, value) for value in (0.25, 0.5))
    assert sparsity._write(path, first) == first
    assert sparsity._write(path, second) == first
    assert [p.name for p in cache.iterdir()] == ['some.json']


def test_a_folder_that_cannot_be_made(cache):
    cache.write_text('a file')
    assert 0 <= ops.crossover('forward') <= 1
    assert cache.read_text() == 'a file'


def test_a_user_without_a_home(cache, monkeypatch):
    def no_home():
        raise RuntimeError('Could not determine home directory.')

    monkeypatch.setattr(sparsity, 'cache_folder', no_home)
    assert 0 <= ops.crossover('forward') <= 1


@pytest.mark.parametrize('why', ['noise', 'forked'])
def test_what_is_not_kept(cache, monkeypatch, why):
    if why == 'noise':
        monkeypatch.setattr(sparsity, '_measure', lambda *runs: None)
    else:
        monkeypatch.setattr(sparsity, 'is_forked', lambda: True)
    value = ops.crossover('forward')
    assert 0 <= value <= 1
    assert why == 'forked' or value == sparsity._USUAL
    assert not list(cache.glob('crossover*'))


def test_without_kernels_nothing_goes_by_events(cache):
    with ops.use_backend('reference'):
        assert ops.crossover('forward') == 0
    assert not cache.exists()


@pytest.mark.parametrize('others', [False, True])
def test_times_are_measured(others):
    try:
        if others:
            torch.set_default_dtype(torch.bfloat16)
            torch.set_default_device('meta')
        with torch.autocast('cpu', torch.bfloat16, enabled=others):
            found, _ = sparsity._measure_all()
        assert tuple(found) == sparsity.WAYS
        assert all(0 <= value <= 1 for value in found.values())
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)


def test_no_hard_links(cache, monkeypatch):
    def no_links(*paths):
        raise PermissionError

    monkeypatch.setattr(sparsity.os, 'link', no_links)
    found = dict.fromkeys(WAYS, 0.25)
    assert sparsity._write(cache / 'some.json', found) == found
    assert [p.name for p in cache.iterdir()] == ['some.json']

"""NIR read by other programs, on the parts that they support; `make nir-readers` installs them."""

import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip('nir')
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / 'benchmarks'))
import nir_readers

CHAINS = ['conv, LIF', 'conv, LIF, conv, LIF']
#: By reader, what gives the same spikes. docs/deploy-nir.md has the whole table.
READ = {
    'spikingjelly': [
        *CHAINS,
        'conv, IF',
        'block with OR',
        'block with OR and conv in the shortcut',
        'SG ResNet-10, stem of 3x3',
        'tdBN ResNet-10, stem of 3x3',
    ],
    'snntorch': [*CHAINS, 'tdBN ResNet-10, stem of 3x3'],
    'norse': [*CHAINS, 'conv, IF', 'block with OR'],
}


@pytest.fixture(scope='module')
def parts(tmp_path_factory):
    return nir_readers.parts(str(tmp_path_factory.mktemp('nir')))


def test_every_part_fires(parts):
    for label, part in parts.items():
        assert 0.01 < part.spikes.mean() < 0.99, label


@pytest.mark.slow
@pytest.mark.parametrize(('reader', 'label'), [(r, label) for r in READ for label in READ[r]])
def test_the_same_spikes(reader, label, parts):
    pytest.importorskip('nirtorch')  # which all of them need
    pytest.importorskip(reader)
    assert nir_readers.same(reader, parts[label]) >= 0.9999


@pytest.mark.slow
@pytest.mark.parametrize('label', READ['spikingjelly'])
def test_all_spikes_in_float64(label, tmp_path):
    pytest.importorskip('nirtorch')
    pytest.importorskip('spikingjelly')
    part = nir_readers.parts(str(tmp_path), torch.float64)[label]
    assert nir_readers.same('spikingjelly', part) == 1


@pytest.mark.slow
def test_a_pool_of_other_padding_is_told_from_ours(parts):
    """The comparison can fail: SpikingJelly's reader leaves the pool's padding out."""
    pytest.importorskip('nirtorch')
    pytest.importorskip('spikingjelly')
    assert nir_readers.same('spikingjelly', parts['SG ResNet-10, stem of 7x7 and pool']) < 0.99

"""Integers as a file: NumPy and C give the spikes of fuse(model, 'int8'), bit for bit."""

import copy
import json
import shutil
import subprocess
import sys
from pathlib import Path

import mmcv
import numpy as np
import pytest
import torch
from digits_classifier import digits, digits_backbone
from small_nets import backbone, images

from mmsnn import ops
from mmsnn.apis import init_detector
from mmsnn.deploy import export_integers, fold, fuse, read_integers
from mmsnn.deploy.fuse import event_convs
from mmsnn.deploy.integer_conv import integer_convs
from mmsnn.deploy.read_integers import read, run
from mmsnn.deploy.spiking_graph import record
from mmsnn.models.layers import ILIFNeuron, SpikingNeuron
from mmsnn.ops.backends.c.build import SOURCE
from mmsnn.samples import DIGITS

pytest.importorskip('safetensors')
WHY_NOT = event_convs() and integer_convs()
pytestmark = pytest.mark.skipif(bool(WHY_NOT), reason=f'nothing to compare with: {WHY_NOT}')
ROOT = Path(__file__).resolve().parents[2]
DETECTOR = 'spiking-retinanet_sg-r10_asd_fpn_digits'
NETS = {
    'bottlenecks': dict(depth=50),
    'deep stem': dict(stem='deep'),
    'soft reset': dict(act_cfg=dict(type='LIFNeuron', reset='soft', tau=3.0)),
    'no leak': dict(act_cfg=dict(type='IFNeuron')),
    'learned leak': dict(act_cfg=dict(type='PLIFNeuron', tau=1.7)),
    'counts': dict(act_cfg=dict(type='ILIFNeuron', D=3)),
    'plain': dict(block='plain'),
    'sew': dict(block='sew'),
    'sew iand': dict(block='sew', gate_cfg=dict(type='SEWIAndGate')),
    'ms': dict(block='ms'),
}


def small(name):
    """Every layer of it fires."""
    net = backbone(**NETS[name])
    for module in net.modules():
        if isinstance(module, ILIFNeuron):
            module.v_threshold = 0.2
    return net


def recorded(net, x, graph):
    values = record(fuse(net, 'int8'), x, graph)
    return {name: value[:, 0].numpy() for name, value in values.items()}


def compare(path, net, x, graph):
    """All that it computes, from the first conv's currents on; how many spikes there are."""
    expected = recorded(net, x, graph)
    first = graph.nodes[0].name
    values = run(*read(path), {first: expected[first]})
    for name, value in expected.items():
        assert values[name].dtype == value.dtype or name != first
        np.testing.assert_array_equal(values[name], value, err_msg=name)
    from_pictures = run(*read(path), {'input': x.numpy()})
    # Sums of float32 are taken in another order.
    np.testing.assert_allclose(from_pictures[first], expected[first], rtol=1e-5, atol=1e-5)
    return expected


@pytest.fixture(scope='module')
def detector():
    return init_detector(DETECTOR, device='cpu').backbone


@pytest.fixture(scope='module')
def written(detector, tmp_path_factory):
    path = str(tmp_path_factory.mktemp('integers') / 'digits.safetensors')
    return path, export_integers(detector, path)


def detector_input(path):
    picture = mmcv.imread(str(path), channel_order='rgb').astype(np.float32)
    return torch.as_tensor((picture - 127.5) / 64).permute(2, 0, 1)[None].contiguous()


PICTURES = sorted((DIGITS / 'val').glob('*.png'))


@pytest.mark.parametrize('picture', PICTURES[:2], ids=lambda path: path.stem)
def test_the_digits_detector(detector, written, picture):
    path, graph = written
    spikes = compare(path, detector, detector_input(picture), graph)
    assert len(spikes) == 15
    assert all(value.any() for value in spikes.values())


@pytest.mark.parametrize('name', NETS)
def test_all_blocks_neurons_and_gates(name, tmp_path):
    net = small(name)
    path = str(tmp_path / 'net.safetensors')
    expected = compare(path, net, images(1), export_integers(net, path))
    levels = read(path)[0]['outputs']
    assert all((expected[level] > 0).mean() > 0.001 for level in levels)


def test_weights_are_whole_numbers_of_the_folded_ones(detector, written):
    _, tensors = read(written[0])
    folded = copy.deepcopy(detector)
    fold(folded)
    for name, conv in folded.named_modules():
        if not isinstance(conv, torch.nn.Conv2d):
            continue
        np.testing.assert_array_equal(tensors[f'{name}.bias'], conv.bias.detach())
        if name == 'stem.0.conv':
            np.testing.assert_array_equal(tensors[f'{name}.weight'], conv.weight.detach())
            continue
        q, scale = tensors[f'{name}.q'], tensors[f'{name}.scale'].reshape(-1, 1, 1, 1)
        assert q.dtype == np.int8
        assert (np.abs(q.astype(int)).max((1, 2, 3)) == 127).all()
        error = np.abs(q * scale - conv.weight.detach().numpy())
        assert (error <= 0.5001 * scale).all()


def test_safetensors_own_reader(written):
    from safetensors.numpy import load_file

    tensors = read(written[0])[1]
    theirs = load_file(written[0])
    assert theirs.keys() == tensors.keys()
    for name, values in theirs.items():
        np.testing.assert_array_equal(values, tensors[name])


def test_the_reader_needs_numpy_alone(written, detector, tmp_path):
    script = shutil.copy(read_integers.__file__, tmp_path / 'read_integers.py')
    x = detector_input(PICTURES[0])
    np.save(tmp_path / 'picture.npy', x[0].numpy())
    program = (
        'import sys, runpy\n'
        f'sys.argv = ["read", {written[0]!r}, {str(tmp_path / "picture.npy")!r}]\n'
        f'runpy.run_path({str(script)!r}, run_name="__main__")\n'
        'assert not {"torch", "mmsnn", "safetensors"} & set(sys.modules)'
    )
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = dict(line.rsplit('(', 1) for line in done.stdout.splitlines())
    assert len(lines) == 14
    count = int((run(*read(written[0]), {'input': x.numpy()})['layer3.0.gate'] > 0).sum())
    assert lines[f'{"layer3.0.gate":32} '].split()[-2:] == [str(count), 'spikes']


class Files:
    """Files that are none."""

    def __init__(self, path, folder):
        self.whole, self.folder = Path(path).read_bytes(), folder
        self.length = int.from_bytes(self.whole[:8], 'little')

    def write(self, data):
        path = self.folder / 'other.safetensors'
        path.write_bytes(data)
        return str(path)

    def with_metadata(self, **words):
        header = json.loads(self.whole[8 : 8 + self.length])
        header['__metadata__'].update(words)
        text = json.dumps(header).encode()
        data = len(text).to_bytes(8, 'little') + text + self.whole[8 + self.length :]
        return self.write(data)


@pytest.fixture
def others(written, tmp_path):
    files = Files(written[0], tmp_path)
    return {
        'version 2 of the format': lambda: files.with_metadata(version='2'),
        'is no integer file': lambda: files.with_metadata(format='pt'),
        'or only the beginning': lambda: files.write(files.whole[:1000]),
        'only the beginning of one': lambda: files.write(b''),
        'no integer file of mmsnn': lambda: files.write(b'GIF89a and so on, of no length at all'),
        'is cut off': lambda: files.write(files.whole[:-100]),
    }


WORDS = [
    'version 2 of the format',
    'is no integer file',
    'or only the beginning',
    'only the beginning of one',
    'no integer file of mmsnn',
    'is cut off',
]


@pytest.mark.parametrize('words', WORDS)
def test_other_files_end_in_one_line(words, others, tmp_path):
    path = others[words]()
    with pytest.raises(ValueError, match=words) as caught:
        read(path)
    assert '\n' not in str(caught.value)
    np.save(tmp_path / 'picture.npy', np.zeros((3, 8, 8), np.float32))
    command = [sys.executable, read_integers.__file__, path, str(tmp_path / 'picture.npy')]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert words in done.stderr
    assert done.stderr.count('\n') == 1


class Sign(SpikingNeuron):
    values = 'signed'

    def fire(self, x):
        return torch.where(x.abs() >= self.v_threshold, x.sign(), 0.0)


class Step(SpikingNeuron):
    def fire(self, x):
        return (x >= self.v_threshold).to(x.dtype)


@pytest.mark.parametrize(
    ('neuron', 'words'),
    [
        (Sign, r'those of stem.0.neuron \(Sign\) have signs'),
        (Step, r'stem.0.neuron \(Step\) cannot be exported: an integer file has LIF'),
    ],
)
def test_models_that_such_a_file_cannot_hold(neuron, words, tmp_path):
    path = str(tmp_path / 'net.safetensors')
    net = backbone(block='plain')
    net.stem[0]['neuron'] = neuron()
    with pytest.raises(ValueError, match=words):
        export_integers(net, path)
    assert not Path(path).exists()


# The C example.

COMPILER = shutil.which('cc')
needs_cc = pytest.mark.skipif(COMPILER is None, reason='there is no C compiler')


@pytest.fixture(scope='module')
def program(tmp_path_factory):
    path = tmp_path_factory.mktemp('c') / 'run_integers'
    flags = ['-std=c99', '-Wall', '-Wextra', '-Werror', '-pedantic', '-O2', '-ffp-contract=off']
    source = ROOT / 'docs/examples/run_integers.c'
    subprocess.run([COMPILER, *flags, '-o', path, source, '-lm'], check=True)
    return path


def by_c(program, path, node, values, out):
    values.tofile(out.with_suffix('.f32'))
    command = [program, path, node, *values.shape[-3:], out.with_suffix('.f32'), out]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    data, spikes = np.fromfile(out, np.uint8), {}
    for line in done.stdout.splitlines():
        name, *sizes, count = line.split()
        shape = tuple(int(n) for n in sizes)
        spikes[name], data = data[: np.prod(shape)].reshape(shape), data[np.prod(shape) :]
        assert (spikes[name] > 0).sum() == int(count)
    assert not len(data)
    return spikes


@needs_cc
def test_c_runs_the_digits_classifier(program, tmp_path):
    net = digits_backbone()
    path = str(tmp_path / 'classifier.safetensors')
    graph = export_integers(net, path)
    for digit in digits(2).split(1):
        expected = compare(path, net, digit, graph)
        currents = expected.pop('stem.0.conv')
        spikes = by_c(program, path, 'stem.0.conv', currents, tmp_path / 'spikes.bin')
        assert spikes.keys() == expected.keys()
        for name, value in expected.items():
            assert value.any()
            np.testing.assert_array_equal(spikes[name], value, err_msg=name)
        # From the picture on it is NumPy's whole computation.
        everything = run(*read(path), {'input': digit.numpy()})
        spikes = by_c(program, path, 'input', digit.numpy(), tmp_path / 'spikes.bin')
        for name, value in spikes.items():
            np.testing.assert_array_equal(everything[name], value, err_msg=name)


@needs_cc
def test_c_runs_the_digits_detector(program, detector, written, tmp_path):
    path, graph = written
    expected = recorded(detector, detector_input(PICTURES[0]), graph)
    currents = expected.pop('stem.0.conv')
    spikes = by_c(program, path, 'stem.0.conv', currents, tmp_path / 'spikes.bin')
    for name, value in expected.items():
        np.testing.assert_array_equal(spikes[name], value, err_msg=name)


@needs_cc
@pytest.mark.parametrize('name', ['soft reset', 'counts', 'plain', 'ms'])
def test_c_runs_all_blocks_neurons_and_gates(name, program, tmp_path):
    net = small(name)
    path = str(tmp_path / 'net.safetensors')
    graph = export_integers(net, path)
    expected = recorded(net, images(1), graph)
    currents = expected.pop('stem.0.conv')
    spikes = by_c(program, path, 'stem.0.conv', currents, tmp_path / 'spikes.bin')
    for node, value in expected.items():
        np.testing.assert_array_equal(spikes[node], value, err_msg=node)


@needs_cc
@pytest.mark.parametrize('words', WORDS)
def test_c_refuses_other_files_in_one_line(words, others, program, tmp_path):
    np.zeros((3, 8, 8), np.float32).tofile(tmp_path / 'x.f32')
    command = [program, others[words](), 'input', '3', '8', '8', tmp_path / 'x.f32', tmp_path / 'o']
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert words in done.stderr
    assert done.stderr.count('\n') == 1


# --- the kernels themselves ----------------------------------------------------------------------


@needs_cc
def test_c_calls_the_kernels(tmp_path):
    """The example of the docs gives the spikes of ops.lif, channel by channel."""
    currents = [0.5, 0.6, 0.7, -1.0, 1.0, 0.25, 3.0]
    source = SOURCE.parent
    flags = ['-std=gnu11', '-O0', '-ffp-contract=off', '-fno-trapping-math', '-Wall', '-Werror']
    files = [ROOT / 'docs/examples/run_neuron.c', source / 'kernels.c']
    command = [COMPILER, *flags, '-Wno-unused-function', '-I', source, *files, '-lm']
    subprocess.run([*command, '-o', tmp_path / 'run_neuron'], check=True)
    words = [str(tmp_path / 'run_neuron'), *map(str, currents)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    found = [[int(word) for word in line.split()] for line in done.stdout.splitlines()]
    scales = torch.tensor([1.0, 2.0]).repeat(4)[: len(currents)]
    x = (torch.tensor(currents) * scales).expand(4, 1, -1)
    assert found == ops.lif(x, decay=0.5).squeeze(1).int().tolist()
    assert 0 < sum(map(sum, found)) < 4 * len(currents)

"""Programs for PyTorch: written in one process, equal detections in another one."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import small_nets
import torch
from onnx_files import assert_same, batch, batch_of, detector, noise
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode

import mmsnn.ops
from mmsnn.apis import init_detector
from mmsnn.checkpoints import DIGITS_DETECTOR
from mmsnn.deploy import ExportError, export_pt2, fuse
from mmsnn.deploy.dense_boxes import DenseBoxes
from mmsnn.deploy.plain import folded, trace
from mmsnn.models.layers import SpikingNeuron
from mmsnn.samples import DIGITS
from mmsnn_cli.export import main

ROOT = Path(__file__).resolve().parents[2]
COMPILER = shutil.which('g++') or shutil.which('clang++')
needs_compiler = pytest.mark.skipif(not COMPILER, reason='needs a C++ compiler')

#: Before the lines of docs/deploy.md, in a process that can't import MMDetection, nor all of mmsnn.
READER = """
import sys
from importlib.abc import MetaPathFinder

class Missing(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('mmdet', 'mmcv', 'mmengine', 'mmsnn', 'torchvision'):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Missing())
sys.path.insert(0, '.')
import torch
given, found = torch.load('given.pt'), []
"""


def lines_of_docs(what):
    """The lines of docs/deploy.md that load and run a file, by the function that loads it."""
    text = (ROOT / 'docs/deploy.md').read_text()
    (lines,) = (b for b in re.findall(r'```python\n(.*?)```', text, re.DOTALL) if what in b)
    assert 'import mmsnn.ops' in lines
    return lines.replace('mmsnn.ops', 'mmsnn_ops')


def read(folder, what, given):
    """What a process finds that has torch and the folder of operators alone, and its classes."""
    shutil.copytree(mmsnn.ops.__path__[0], folder / 'mmsnn_ops', dirs_exist_ok=True)
    torch.save(given, folder / 'given.pt')
    first, run = lines_of_docs(what).rsplit('with torch.no_grad', 1)
    code = f"""{READER}
{first}
for images, sizes in given:
{'    with torch.no_grad' + run.replace(chr(10), chr(10) + '    ')}
    found.append((boxes, scores, labels))
torch.save((found, classes), 'found.pt')
"""
    done = subprocess.run(
        [sys.executable, '-c', code], cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-1500:]
    return torch.load(folder / 'found.pt')


@pytest.fixture(scope='module')
def digits():
    """The detector that comes with mmsnn, and its four pictures as a batch of one and of three."""
    model = init_detector(DIGITS_DETECTOR)
    pictures = [
        torch.from_numpy(np.asarray(Image.open(path).convert('RGB'))[..., ::-1].copy())
        for path in sorted((DIGITS / 'val').glob('*.png'))
    ]
    pictures = [picture.permute(2, 0, 1) for picture in pictures]
    return model, (pictures[:1], pictures[1:])


class Watched(TorchDispatchMode):
    """Has a model call its operators as a program does: convs by events are no operators."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


def compare(model, all_pictures, folder, what, same):
    """Detections of a file, in a process of its own, are those of the model."""
    fast, dense = fuse(model, 'fp32'), DenseBoxes(folded(model)).eval()
    all_given = [batch_of(fast, pictures) for pictures in all_pictures]
    found, classes = read(folder, what, [(images, sizes) for images, sizes, _ in all_given])
    for (images, sizes, own), outputs in zip(all_given, found):
        assert_same(outputs, own)
        with torch.no_grad(), Watched():
            here = dense(images, sizes)
        assert (here[1] > 0.5).sum() >= len(images)
        same(outputs, here)
    return classes


def bit_for_bit(outputs, others):
    assert all(torch.equal(output, other) for output, other in zip(outputs, others))


def write(tool, folder, *options):
    """As a user does."""
    checkpoint = f'mmsnn://{DIGITS_DETECTOR}'
    command = 'pt2', DIGITS_DETECTOR, checkpoint, '-o', folder / 'model.pt2', *options
    return tool('model_converters/export.py', *command).stdout


def test_another_process(tmp_path):
    """A file gives the detections bit for bit where neither MMDetection nor mmsnn is installed."""
    model = detector()
    export_pt2(model, tmp_path / 'model.pt2', shape=(64, 64), batch_size=2)
    assert compare(model, [noise()], tmp_path, 'torch.export.load', bit_for_bit) is None


@pytest.mark.slow
def test_digits_in_another_process(digits, tool, tmp_path):
    """The same of the command, the detector that comes with mmsnn, and any number of pictures."""
    model, all_pictures = digits
    printed = write(tool, tmp_path)
    assert 'torch.export of torch' in printed
    assert 'T = 4, images of any size, any number at once' in printed
    classes = compare(model, all_pictures, tmp_path, 'torch.export.load', bit_for_bit)
    assert classes == list('0123456789')


@needs_compiler
@pytest.mark.slow
def test_package_in_another_process(digits, tool, tmp_path):
    """AOTInductor's package: the detections to rounding, as its loops sum up in another order."""
    model, all_pictures = digits

    def close(outputs, others):
        for output, other, tolerance in zip(outputs, others, (1e-3, 1e-5, 0)):
            torch.testing.assert_close(output, other, rtol=0, atol=tolerance)

    assert "AOTInductor's package" in write(tool, tmp_path, '--aot-inductor')
    classes = compare(model, all_pictures, tmp_path, 'aoti_load_package', close)
    assert classes == list('0123456789')


@needs_compiler
@pytest.mark.slow
def test_spikes_of_a_package(digits, tmp_path):
    """All spikes of the backbone, bit for bit."""
    model, (one, _) = digits
    images, *_ = batch_of(model, one)
    backbone = folded(model.backbone)
    program = trace(backbone, (images,), own=True)
    torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / 'net.pt2'))
    compiled = torch._inductor.aoti_load_package(str(tmp_path / 'net.pt2'))
    with torch.no_grad(), Watched():
        for level, other in zip(backbone(images), compiled(images)):
            assert 0 < level.mean() < 1
            assert torch.equal(level, other)


def test_operators():
    """Neurons, gates, decoders, pools and suppression stay operators of mmsnn's."""
    model = detector()
    images, sizes, _ = batch(model)
    program = trace(DenseBoxes(folded(model)).eval(), (images, sizes), own=True)
    names = [str(n.target) for n in program.graph.nodes if n.op == 'call_function']
    neurons = sum(isinstance(m, SpikingNeuron) for m in model.modules())
    assert neurons > 0
    assert sum(name.startswith('mmsnn.lif') for name in names) == neurons
    assert {'mmsnn.max_pool.default', 'mmsnn.keep_boxes.default'} <= set(names)


def test_classifier(tmp_path):
    """Scores of any number of images, in this process."""
    model = small_nets.lower_thresholds(
        small_nets.classifier(
            dict(in_channels=16), time_steps=2, num_stages=2, strides=(1, 2), out_indices=(1,)
        )
    )
    path = tmp_path / 'classifier.pt2'
    export_pt2(model, path, shape=(32, 32))
    metadata = {'mmsnn.time_steps': '', 'mmsnn.preprocessing': ''}
    program = torch.export.load(str(path), extra_files=metadata).module()
    assert json.loads(metadata['mmsnn.time_steps']) == 2
    assert json.loads(metadata['mmsnn.preprocessing'])['channels'] == 3
    net = folded(model)
    for size in (1, 3):
        images = small_nets.images(size)
        with torch.no_grad(), Watched():
            scores = program(images)
            assert torch.equal(scores, net(images).softmax(-1))
        assert scores.shape == (size, 2)


# ---- bad input -----------------------------------------------------------------------------------


def refused(error, words, *args, **options):
    with pytest.raises(error, match=words) as raised:
        export_pt2(*args, **options)
    assert '\n' not in str(raised.value)


def test_no_time_step(tmp_path):
    model = detector()
    model.backbone.time_steps = 0
    refused(ExportError, 'at least one time step, got time_steps=0', model, tmp_path / 'a.pt2')


def test_fused_model(tmp_path):
    refused(ExportError, 'fused already', fuse(detector(), 'fp32'), tmp_path / 'a.pt2')


def test_another_suffix(tmp_path):
    refused(ExportError, r'end in \.pt2, got .*model\.pth', detector(), tmp_path / 'model.pth')


def test_folder_that_is_not_there(tmp_path):
    refused(OSError, 'no folder that can be written to', detector(), tmp_path / 'gone' / 'a.pt2')


def test_compiler_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr('torch._inductor.config.cpp.cxx', ('no-such-compiler',))
    options = dict(aot_inductor=True)
    refused(ExportError, r'needs a C\+\+ compiler', detector(), tmp_path / 'a.pt2', **options)


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (['-o', 'model.pt'], '--out must name a .pt2 file, got model.pt'),
        (['-o', 'model.pt2', '--time-steps', '0'], '--time-steps must be at least 1, got 0'),
        (['-o', 'there.pt2'], 'there.pt2 is there already'),
        (['-o', 'there.pt2/model.pt2'], 'folder of --out cannot be made'),
        (['-o', 'model.pt2', '--shape', '0', '32'], 'got (0, 32)'),
        (['-o', 'model.pt2', '--batch', '0'], 'at least 1, got 0'),
    ],
)
def test_command_says_what_is_wrong(options, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'there.pt2').touch()
    with pytest.raises(SystemExit) as ended:
        main(['pt2', DIGITS_DETECTOR, f'mmsnn://{DIGITS_DETECTOR}', *options])
    assert words in str(ended.value.code)

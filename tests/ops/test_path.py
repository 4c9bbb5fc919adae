"""How many files stand between a layer of a training step and its kernel."""

import traceback
from pathlib import Path

import pytest
import torch

import mmsnn
from mmsnn.models import SGResNet
from mmsnn.ops import use_backend, why_not
from mmsnn.ops.backends.c import calls

ROOT = Path(mmsnn.__file__).parent


@pytest.mark.skipif(bool(why_not('c')), reason='needs the C kernels')
def test_files_from_a_layer_to_its_kernel(monkeypatch):
    run, paths = calls._run, {}

    def watched(name, *structs):
        frames = [Path(frame.filename) for frame in traceback.extract_stack()]
        files = [str(file.relative_to(ROOT)) for file in frames if file.is_relative_to(ROOT)]
        paths[name] = list(dict.fromkeys(files))  # of the last layer: behind the stem's pool
        return run(name, *structs)

    monkeypatch.setattr(calls, '_run', watched)
    with use_backend('c'):
        SGResNet(10, base_channels=16)(torch.rand(2, 3, 32, 32))[-1].sum().backward()
    assert paths['lif_forward'] == [
        'models/backbones/sg_resnet.py',
        'models/layers/spiking_layer.py',
        'ops/lif.py',
        'ops/operators/base.py',
        'ops/operators/lif.py',
        'ops/backends/c/calls.py',
    ]
    assert paths['lif_backward'] == [
        'ops/operators/lif.py',
        'ops/operators/base.py',
        'ops/backends/c/calls.py',
    ]

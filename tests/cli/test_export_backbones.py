"""mmsnn export int8 and nir, on the checkpoint that comes with mmsnn."""

import sys

import pytest
import torch

from mmsnn.deploy.fuse import event_convs
from mmsnn.deploy.integer_conv import integer_convs
from mmsnn_cli.export import main

NAME = 'spiking-retinanet_sg-r10_asd_fpn_digits'
CHECKPOINT = f'mmsnn://{NAME}'


def test_int8(tmp_path, capsys):
    pytest.importorskip('safetensors')
    from mmsnn.deploy.read_integers import read

    path = tmp_path / 'net.safetensors'
    main(['int8', NAME, CHECKPOINT, '-o', str(path), '--time-steps', '2'])
    printed = capsys.readouterr().out
    assert '10 convs, T = 2' in printed
    if not (event_convs() and integer_convs()):
        assert "of 14 layers are those of fuse(model, 'int8')" in printed
    network, _ = read(str(path))
    assert network['time_steps'] == 2
    assert network['outputs'] == ['layer2.0.gate', 'layer3.0.gate']
    assert network['classes'] == [str(i) for i in range(10)]
    assert network['preprocessing']['mean'] == [127.5] * 3
    assert network['host']['neck'][0]['type'] == 'ASDNeck'


@pytest.mark.skipif(bool(event_convs() and integer_convs()), reason='nothing to compare with')
def test_few_bits(tmp_path, capsys):
    pytest.importorskip('safetensors')
    from mmsnn.deploy.read_integers import read

    path = tmp_path / 'net.safetensors'
    main(['int8', NAME, CHECKPOINT, '-o', str(path), '--time-steps', '2', '--bits', '2'])
    assert "of 14 layers are those of fuse(model, 'int2')" in capsys.readouterr().out
    network, tensors = read(str(path))
    assert network['weight_bits'] == 2
    assert set(tensors['layer1.0.conv1.q'].flat) == {-1, 0, 1}


def test_nir(tmp_path, capsys):
    pytest.importorskip('nir')
    from mmsnn.deploy import run_nir

    path = tmp_path / 'net.nir'
    main(['nir', NAME, CHECKPOINT, '-o', str(path), '--shape', '64', '48'])
    assert '100.0000 % of the' in capsys.readouterr().out
    values = run_nir(str(path), torch.zeros(1, 3, 64, 48))
    assert values['output_1'].shape == (4, 1, 128, 4, 3)


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        ('int8 {name} {checkpoint} -o net.nir', '--out must name a .safetensors file, got net.nir'),
        ('nir {name} {checkpoint} -o {there} --shape 64 64', 'is there already'),
        ('nir {name} {checkpoint} -o {new} --shape 0 64', 'height and width, got (0, 64)'),
        ('nir {name} {checkpoint} -o {new} --shape 64 64 --time-steps 0', 'at least 1, got 0'),
        ('int8 {name} {checkpoint} -o {there}/a.safetensors', 'folder of --out cannot be made'),
        ('int8 {name} {checkpoint} -o a.safetensors --cfg-options model.backbone.dpth=18', 'dpth'),
        ('int8 {name} gone.pth -o a.safetensors', 'gone.pth'),
        ('nir {name} {checkpoint} -o {new} --shape 64 64 --cfg-options '
         'model.backbone.act_cfg.reset=soft', 'stem.0.neuron (LIFNeuron) cannot be said in NIR'),
    ],
)  # fmt: skip
def test_bad_input_ends_in_one_line(options, words, tmp_path, capsys):
    pytest.importorskip('nir')
    there = tmp_path / 'there.nir'
    there.write_text('mine')
    new = tmp_path / 'new.nir'
    argv = options.format(name=NAME, checkpoint=CHECKPOINT, there=there, new=new).split()
    with pytest.raises(SystemExit) as caught:
        main(argv)
    message = str(caught.value).strip()
    assert message.startswith('error: ')
    assert words in message
    assert len(message.replace('\n(MMSNN_TRACEBACK=1 shows where)', '').splitlines()) == 1
    assert there.read_text() == 'mine'
    assert not new.exists()


@pytest.mark.parametrize(('target', 'package'), [('int8', 'safetensors.torch'), ('nir', 'nir')])
def test_a_package_that_is_missing(target, package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    suffix = dict(int8='safetensors', nir='nir')[target]
    options = ['--shape', '64', '64'] if target == 'nir' else []
    with pytest.raises(SystemExit, match=rf"error: .*pip install 'mmsnn\[{target}\]'"):
        main([target, NAME, CHECKPOINT, '-o', str(tmp_path / f'net.{suffix}'), *options])

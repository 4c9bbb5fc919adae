"""Two processes train as one does; run as a script, this file is both of them.

What they equal depends on what a batch is for a norm. With SyncTDBN, or norms in eval mode, it is
one process with both parts as one batch. With TDBN, it is one process that adds up the gradients
of both parts, each normalised by its own statistics.
"""

import os
import subprocess
import sys
from pathlib import Path

# First: without mmcv's compiled ops, MMDetection's models import only behind it.
import mmsnn  # noqa: F401  isort: skip

import pytest
import torch
from mmdet.registry import MODELS, OPTIM_WRAPPERS
from mmdet.structures import DetDataSample
from mmengine.dataset import DefaultSampler
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

from mmsnn.structures import ClsDataSample

STEPS = 10
BATCH = 3  # of each process
CASES = {
    'SG': dict(),
    'learned gate': dict(gate_cfg=dict(type='LearnedGate')),
    'with_cp': dict(with_cp=True),
    'norms in eval mode': dict(norm='TDBN', norm_eval=True),
    'uneven last batch': dict(images=10),
    'odd number of images': dict(images=9),
    # Each process rounds its gradients to bfloat16. That is 0.7 % of the first step, and more of
    # the later ones, in which spikes differ for it.
    'amp': dict(wrapper='BF16OptimWrapper', rounding=0.2),
    'amp, statistics of each process': dict(
        wrapper='BF16OptimWrapper', norm='TDBN', accumulate=True
    ),
    'statistics of each process': dict(norm='TDBN', accumulate=True),
    'FCOS': dict(head='FCOSHead', rounding=1e-4),  # it casts boxes to float32
    'RetinaNet': dict(head='RetinaHead', norm='TDBN', accumulate=True),
}


def build(case):
    torch.manual_seed(0)
    init_default_scope('mmdet')
    layers = {key: case[key] for key in ('gate_cfg', 'with_cp', 'norm_eval') if key in case}
    backbone = dict(
        type='SGResNet',
        depth=10,
        base_channels=4,
        time_steps=2,
        stem='cifar',
        norm_cfg=dict(type=case.get('norm', 'SyncTDBN')),
        act_cfg=dict(type='LIFNeuron', v_threshold=0.5),
        **layers,
    )
    if 'head' not in case:
        head = dict(type='SpikingClsHead', num_classes=3, in_channels=32)
        model = MODELS.build(dict(type='SpikingClassifier', backbone=backbone, head=head))
    else:
        channels = [8, 16, 32]
        fpn = dict(in_channels=channels, out_channels=8, num_outs=3)
        head = dict(type=case['head'], num_classes=3, in_channels=8, feat_channels=8)
        assigner = dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0)
        if case['head'] == 'FCOSHead':
            head.update(strides=[2, 4, 8], norm_cfg=None, stacked_convs=1)
            head.update(regress_ranges=((-1, 8), (8, 16), (16, 1e8)))
        else:
            head.update(stacked_convs=1)
            head['anchor_generator'] = dict(
                type='AnchorGenerator', scales=[2], ratios=[1.0], strides=[2, 4, 8]
            )
        model = MODELS.build(
            dict(
                type='SingleStageDetector',
                data_preprocessor=dict(type='DetDataPreprocessor'),
                backbone=dict(backbone, out_indices=(1, 2, 3)),
                neck=[dict(type='ASDNeck', in_channels=channels), dict(type='FPN', **fpn)],
                bbox_head=head,
                train_cfg=dict(
                    assigner=assigner,
                    sampler=dict(type='PseudoSampler'),
                    allowed_border=-1,
                    pos_weight=-1,
                ),
            )
        )
    model.init_weights()
    if 'wrapper' in case:
        return model
    # In float64 no spike changes its mind for a sum in another order.
    model.double()
    model.backbone.register_forward_pre_hook(lambda module, args: (args[0].double(),))
    return model


def image(case, index):
    """An image, and what is true of it: more boxes in later images."""
    rng = torch.Generator().manual_seed(index)
    pixels = torch.randn(3, 32, 32, generator=rng)
    if 'head' not in case:
        return pixels, ClsDataSample().set_gt_label(index % 3)
    corners = torch.rand(1 + index % 4, 2, generator=rng) * 16
    boxes = torch.cat([corners, corners + 6 + 8 * torch.rand(corners.shape, generator=rng)], 1)
    true = InstanceData(bboxes=boxes, labels=torch.arange(len(boxes)) % 3)
    shape = dict(img_shape=(32, 32), ori_shape=(32, 32), pad_shape=(32, 32), scale_factor=(1, 1))
    return pixels, DetDataSample(metainfo=shape, gt_instances=true)


def batches(images):
    """Indices of each step, as mmengine's sampler gives them to this process."""
    sampler = DefaultSampler(range(images), shuffle=True, seed=0)
    found = []
    while len(found) < STEPS:
        indices = list(sampler)
        found += [indices[i : i + BATCH] for i in range(0, len(indices), BATCH)]
        sampler.set_epoch(sampler.epoch + 1)
    return found[:STEPS]


def train(case, steps, distributed=False):
    """Train; `steps` has for each step the batches whose gradients make it."""
    model = build(case).train()
    before = {name: param.detach().clone() for name, param in model.named_parameters()}
    wrapped = MMDistributedDataParallel(model, broadcast_buffers=False) if distributed else model
    optim_wrapper = OPTIM_WRAPPERS.build(
        dict(
            type=case.get('wrapper', 'OptimWrapper'),
            optimizer=torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=1e-4),
            clip_grad=dict(max_norm=1.0),
            accumulative_counts=len(steps[0]),
        )
    )
    losses = []
    for parts in steps:
        logs = []
        for part in parts:
            inputs, samples = zip(*(image(case, index) for index in part))
            data = dict(inputs=list(inputs), data_samples=list(samples))
            logs.append(wrapped.train_step(data, optim_wrapper)['loss'].item())
        losses.append(sum(logs) / len(logs))
    moved = {name: param.detach() - before[name] for name, param in model.named_parameters()}
    return dict(losses=losses, moved=moved, buffers=dict(model.named_buffers()))


def process(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2
    )
    results = {}
    for name, case in CASES.items():
        own = batches(case.get('images', 12))
        results[name] = dict(indices=own, **train(case, [[part] for part in own], True))
    torch.save(results, f'{folder}/{rank}.pt')
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


@pytest.fixture(scope='module')
def two(tmp_path_factory):
    """What both processes came to."""
    folder = tmp_path_factory.mktemp('two')
    path = f'{Path(__file__).resolve().parents[2]}{os.pathsep}{os.environ.get("PYTHONPATH", "")}'
    # One thread each: with more, some convs of PyTorch round otherwise.
    env = dict(os.environ, PYTHONPATH=path, OMP_NUM_THREADS='1')
    for who in ('two', 'one'):
        subprocess.run(
            [sys.executable, __file__, who, str(folder)], env=env, check=True, timeout=200
        )
    return both(folder)


@pytest.fixture(scope='module')
def one(two, tmp_path_factory):
    """What one process came to."""
    return torch.load(next(tmp_path_factory.getbasetemp().glob('two*/one.pt')))


def both(folder):
    return [torch.load(f'{folder}/{rank}.pt') for rank in range(2)]


def process_alone(folder):
    results = both(folder)
    ones = {
        name: alone(case, [result[name] for result in results], case.get('accumulate', False))
        for name, case in CASES.items()
    }
    torch.save(ones, f'{folder}/one.pt')


def alone(case, two_results, accumulate):
    """One process, with the images of both."""
    pairs = list(zip(*(result['indices'] for result in two_results)))
    return train(case, [list(p) if accumulate else [[*p[0], *p[1]]] for p in pairs])


def distance(a, b):
    """Of two trainings: losses, and the ways that the weights went, relative to these."""
    first, second = (torch.cat([v.flatten() for v in moved.values()]) for moved in (a, b))
    return ((first - second).norm() / second.norm()).item()


@pytest.mark.parametrize('name', CASES)
def test_ten_steps_are_those_of_one_process(two, one, name):
    case = CASES[name]
    results = [result[name] for result in two]
    one = one[name]
    # The log has the loss of the first process; the mean is that of the batch.
    losses = [sum(pair) / 2 for pair in zip(*(result['losses'] for result in results))]
    rounding = case.get('rounding', 1e-9)
    # The loss itself is taken in float32.
    assert losses == pytest.approx(one['losses'], rel=1e-2 if name == 'amp' else 1e-6)
    first = next(iter(one['moved'].values()))
    assert first.abs().max() > 1e-6, 'the first layer was trained'
    for result in results:
        assert distance(result['moved'], one['moved']) < rounding
        for key, value in one['buffers'].items() if not case.get('accumulate') else ():
            close = dict(rtol=rounding, atol=rounding)
            torch.testing.assert_close(result['buffers'][key], value, **close)


def test_last_batches(two):
    """The sampler fills an odd number up with the first image; nothing else is seen twice."""
    for name, images in (('SG', 12), ('uneven last batch', 10), ('odd number of images', 9)):
        steps = [[*a, *b] for a, b in zip(*(result[name]['indices'] for result in two))][:2]
        seen = [index for step in steps for index in step]
        assert [len(step) for step in steps] == [6, images + images % 2 - 6]
        assert set(seen) == set(range(images))
        assert len(seen) == images + images % 2


@pytest.mark.parametrize('amp', ['', 'amp, '])
def test_bars_tell_the_two_apart(two, amp):
    """Statistics of each process are far from those of the batch, further than any bar above."""
    name = f'{amp}statistics of each process'
    results = [result[name] for result in two]
    joined = alone(CASES[name], results, False)
    assert distance(results[0]['moved'], joined['moved']) > 0.4


if __name__ == '__main__':
    who, folder = sys.argv[1:]
    if who == 'one':
        process_alone(folder)
    else:  # Forked, the two share what takes longest: the import.
        torch.multiprocessing.start_processes(process, (folder,), nprocs=2, start_method='fork')

"""Boxes, spikes and energy of the detector that comes with mmsnn: seconds, no training, no data."""

import os
import os.path as osp
import time

# First: without mmcv's compiled ops, MMDetection's models import only behind it.
import mmsnn  # noqa: F401  isort: skip

import torch
from mmdet.registry import DATASETS, VISUALIZERS
from mmengine.dataset import pseudo_collate

from mmsnn.analysis import SpikeProfiler, SpikeRecorder
from mmsnn.apis import init_detector
from mmsnn.checkpoints import DIGITS_DETECTOR
from mmsnn.compat import quiet_coco
from mmsnn.datasets.image_files import read_rgb
from mmsnn.report.matching import match_boxes
from mmsnn.samples import DIGITS
from mmsnn.utils import ToolError, exit_on_error
from mmsnn.visualization import draw_spikes, first_image, input_picture

from .draw_predictions import draw_beside

SCORE_THR = 0.4


def quick_demo(work_dir: str, start: float) -> None:
    """Find the digits of the sample pictures, draw them, and say what it cost.

    Args:
        work_dir: Folder for pictures.
        start: When the command began, in seconds.
    """
    pictures, spikes = osp.join(work_dir, 'pictures'), osp.join(work_dir, 'spikes.png')
    with exit_on_error(OSError):
        for path in (pictures, spikes):
            if osp.exists(path):
                raise ToolError(f'{path} is there already: choose another --work-dir')
        os.makedirs(pictures)
    options = {'test_dataloader.dataset.data_root': f'{DIGITS}/'}
    model = init_detector(DIGITS_DETECTOR, cfg_options=options)
    with quiet_coco():
        dataset = DATASETS.build(model.cfg.test_dataloader.dataset)
    visualizer = VISUALIZERS.build(dict(type='DetLocalVisualizer', name='quick demo'))
    visualizer.dataset_meta = dataset.metainfo

    print(
        f'{DIGITS_DETECTOR}, with the weights that come with mmsnn, on {len(dataset)} pictures '
        'that training never saw\n'
    )
    print(f'{"picture":18}{"digits":>8}{"found":>8}{"wrong boxes":>13}')
    totals = [0, 0, 0]
    profiler = SpikeProfiler(model)
    for i in range(len(dataset)):
        data, info = dataset[i], dataset.get_data_info(i)
        with profiler, torch.no_grad():
            (sample,) = model.test_step(pseudo_collate([data]))
        if i == 0:
            with SpikeRecorder(model) as recorder, torch.no_grad():
                (seen,) = model.test_step(pseudo_collate([data]))
            parts = first_image(recorder, data['inputs'], seen)
            sheet = draw_spikes(
                input_picture(data['inputs']), *parts, osp.basename(info['img_path'])
            )
            sheet.savefig(spikes)
        true = [t['bbox'] for t in info['instances']], [t['bbox_label'] for t in info['instances']]
        found = sample.pred_instances.numpy()
        crowd = [False] * len(true[0])
        matches = match_boxes(found.bboxes, found.labels, found.scores, *true, crowd)
        right, missed, wrong = matches.counts(SCORE_THR)
        name = osp.basename(info['img_path'])
        print(f'{name:18}{right + missed:8}{right:8}{wrong:13}')
        totals = [a + b for a, b in zip(totals, (right + missed, right, wrong))]
        predicted = found.bboxes, found.labels, found.scores
        draw_beside(
            visualizer,
            read_rgb(info['img_path']),
            true,
            predicted,
            osp.join(pictures, name),
            score_thr=SCORE_THR,
        )
    print('{:18}{:8}{:8}{:13}'.format('all', *totals))
    profile = profiler.result()
    tables = {
        'energy a picture (arithmetic, 45 nm)': {
            'layers that spikes enter': profile.on_spikes,
            'the whole detector': (profile.energy, profile.ann_energy),
        },
        'memory traffic (no word is reused)': {
            'layers that spikes enter': profile.memory_on_spikes,
            'the whole detector': (profile.memory_energy, profile.ann_memory_energy),
        },
    }
    print(
        f'\nneurons that fire at a time step: {100 * profile.firing_rate:.1f} % '
        f'(T = {model.backbone.time_steps})'
    )
    for title, rows in tables.items():
        print(f'\n{title:38}{"spiking":>9}{"ANN":>9}{"ratio":>7}')
        for what, (ours, ann) in rows.items():
            print(f'{what:38}{1e6 * ours:6.0f} uJ{1e6 * ann:6.0f} uJ{ours / ann:7.2f}')
    print(
        '(ANN: the same network with ReLU in the place of spiking neurons)'
        f'\n\nTrue boxes on the left, found boxes on the right: {osp.join(pictures, "")}'
        f'\nWhat the neurons did on the first picture: {spikes}'
        f'\nDone in {time.time() - start:.0f} seconds. Next: `mmsnn demo` trains this detector in '
        'minutes, `mmsnn --help` has the rest'
    )

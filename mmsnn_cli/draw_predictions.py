"""Draw saved predictions beside the true boxes, enlarged enough to look at."""

import argparse
import os
from collections.abc import Sequence
from typing import Optional

import cv2

# First: without mmcv's compiled ops, MMDetection's models import only behind it.
import mmsnn  # noqa: F401  isort: skip

import mmcv
import numpy as np
import torch
from mmdet.registry import DATASETS, VISUALIZERS
from mmdet.structures import DetDataSample
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from rich.progress import track

from mmsnn.compat import quiet_coco
from mmsnn.datasets.image_files import UnreadableImageError, output_names, read_rgb
from mmsnn.utils import ToolError, exit_on_error, load_predictions, read_config, report_skipped

EXAMPLE = """example:
  mmsnn test CONFIG CHECKPOINT --out predictions.pkl
  mmsnn draw CONFIG predictions.pkl pictures"""


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog='mmsnn draw',
        description='Draw the predictions of `mmsnn test --out`: true boxes on the left, found '
        'boxes on the right; overview.png puts the first of them on one sheet.',
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('config', help='path of the config')
    parser.add_argument('predictions', help='file made by `mmsnn test --out`')
    parser.add_argument('out_dir', help='folder for the pictures')
    parser.add_argument('--num', type=int, default=24, help='how many pictures (default: 24)')
    parser.add_argument(
        '--score-thr', type=float, default=0.4, help='least score of a box (default: 0.4)'
    )
    parser.add_argument(
        '--size',
        type=int,
        default=640,
        help='enlarge smaller pictures so that their shorter side has this many pixels '
        '(default: 640)',
    )
    return parser.parse_args(argv)


def instances(boxes, labels, scale: float, scores=None) -> InstanceData:
    """Boxes scaled to the drawn picture, as MMDetection's visualizer takes them."""
    data = InstanceData(
        bboxes=torch.as_tensor(np.asarray(boxes, dtype=np.float32).reshape(-1, 4)) * scale,
        labels=torch.as_tensor(np.asarray(labels, dtype=np.int64)),
    )
    if scores is not None:
        data.scores = torch.as_tensor(scores)
    return data


def draw_beside(
    visualizer, image, true: tuple, found: tuple, path: str, score_thr: float, size: int = 384
) -> None:
    """Save an enlarged picture twice, side by side: with its true boxes, and with those found.

    Args:
        visualizer: MMDetection's, with the classes.
        image: (H, W, 3), RGB.
        true: Boxes (x1, y1, x2, y2) and labels.
        found: The same, and scores.
        path: Where to.
        score_thr: Least score.
        size: Least side of the enlarged picture, in pixels.
    """
    scale = max(1.0, size / min(image.shape[:2]))
    image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    *boxes, scores = found
    sample = DetDataSample(
        gt_instances=instances(*true, scale), pred_instances=instances(*boxes, scale, scores)
    )
    name = os.path.basename(path)
    visualizer.add_datasample(name, image, sample, pred_score_thr=score_thr, out_file=path)


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Draw."""
    args = parse_args(argv)
    with exit_on_error():
        cfg = read_config(args.config)
        if not os.path.isfile(args.predictions):
            raise ToolError(f'{args.predictions} is not there')
        predictions = load_predictions(args.predictions)[: args.num]
    init_default_scope(cfg.default_scope)
    with quiet_coco():
        dataset = DATASETS.build(cfg.test_dataloader.dataset)
    by_id = {info['img_id']: info for info in map(dataset.get_data_info, range(len(dataset)))}
    visualizer = VISUALIZERS.build(dict(type='DetLocalVisualizer', name='drawing'))
    visualizer.dataset_meta = dataset.metainfo
    os.makedirs(args.out_dir, exist_ok=True)

    sheet, skipped = [], []
    with exit_on_error():
        unknown = [r['img_id'] for r in predictions if r['img_id'] not in by_id]
        if unknown or not predictions:
            what = f'images that the config lacks, as id {unknown[0]}' if unknown else 'no images'
            raise ToolError(f'{args.predictions} holds predictions of {what}')
    paths = [by_id[result['img_id']]['img_path'] for result in predictions]
    names = output_names(paths, '.png', taken=['overview.png'])
    for result, image_path in zip(track(predictions, 'drawing'), paths):
        info = by_id[result['img_id']]
        try:
            image = read_rgb(image_path)
        except UnreadableImageError as error:
            skipped.append(str(error))
            continue
        found = result['pred_instances']
        true = info['instances']
        path = os.path.join(args.out_dir, names[image_path])
        draw_beside(
            visualizer,
            image,
            ([i['bbox'] for i in true], [i['bbox_label'] for i in true]),
            (found['bboxes'], found['labels'], found['scores']),
            path,
            args.score_thr,
            args.size,
        )
        sheet.append(mmcv.imread(path))
    write_overview(sheet[:12], os.path.join(args.out_dir, 'overview.png'))
    with exit_on_error():
        report_skipped(skipped, len(sheet))


def write_overview(pictures: list, path: str, columns: int = 2, width: int = 640) -> None:
    """Put pictures on one sheet, row by row."""
    if not pictures:
        return
    sizes = [(width, max(1, round(p.shape[0] * width / p.shape[1]))) for p in pictures]
    cells = [mmcv.imresize(picture, size) for picture, size in zip(pictures, sizes)]
    height = max(cell.shape[0] for cell in cells)
    cells = [mmcv.impad(cell, shape=(height, width), pad_val=255) for cell in cells]
    cells += [np.full_like(cells[0], 255)] * (-len(cells) % columns)
    rows = [np.hstack(cells[i : i + columns]) for i in range(0, len(cells), columns)]
    mmcv.imwrite(np.vstack(rows), path)

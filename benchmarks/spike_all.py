"""Which of MMDetection's detectors can be made to spike: one row each, a step and a prediction."""

import argparse
import time
from typing import NamedTuple, Optional

# First: without mmcv's compiled ops, MMDetection's models import only behind it.
import mmsnn  # noqa: F401  isort: skip

from mmengine.logging import MMLogger

from mmsnn.apis import CannotSpikeError, make_spiking, try_spiking
from mmsnn.apis.spiking import SIZE, merged
from mmsnn.config_types import type_name
from mmsnn.utils import read_config
from mmsnn_cli.spike import MMDET_CONFIGS

#: Detectors by their names, each with one of MMDetection's own configs.
DETECTORS = {
    'RetinaNet': 'retinanet/retinanet_r50_fpn_1x_coco.py',
    'FCOS': 'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
    'ATSS': 'atss/atss_r50_fpn_1x_coco.py',
    'GFL': 'gfl/gfl_r50_fpn_1x_coco.py',
    'PAA': 'paa/paa_r50_fpn_1x_coco.py',
    'FSAF': 'fsaf/fsaf_r50_fpn_1x_coco.py',
    'AutoAssign': 'autoassign/autoassign_r50-caffe_fpn_1x_coco.py',
    'CenterNet-update': 'centernet/centernet-update_r50-caffe_fpn_ms-1x_coco.py',
    'YOLOF': 'yolof/yolof_r50-c5_8xb8-1x_coco.py',
    'YOLOv3': 'yolo/yolov3_d53_8xb8-320-273e_coco.py',
    'YOLOX': 'yolox/yolox_s_8xb8-300e_coco.py',
    'RTMDet': 'rtmdet/rtmdet_tiny_8xb32-300e_coco.py',
    'Faster R-CNN': 'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    'Faster R-CNN, DC5': 'faster_rcnn/faster-rcnn_r50-caffe-dc5_1x_coco.py',
    'Cascade R-CNN': 'cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py',
    'Libra R-CNN': 'libra_rcnn/libra-faster-rcnn_r50_fpn_1x_coco.py',
    'Sparse R-CNN': 'sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco.py',
    'Mask R-CNN': 'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
    'SOLO': 'solo/solo_r50_fpn_1x_coco.py',
    'YOLACT': 'yolact/yolact_r50_1xb8-55e_coco.py',
    'CondInst': 'condinst/condinst_r50_fpn_ms-poly-90k_coco_instance.py',
    'Mask2Former': 'mask2former/mask2former_r50_8xb2-lsj-50e_coco.py',
    'Mask2Former, panoptic': 'mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic.py',
    'DETR': 'detr/detr_r50_8xb2-150e_coco.py',
    'Conditional DETR': 'conditional_detr/conditional-detr_r50_8xb2-50e_coco.py',
    'DAB-DETR': 'dab_detr/dab-detr_r50_8xb2-50e_coco.py',
    'Deformable DETR': 'deformable_detr/deformable-detr_r50_16xb2-50e_coco.py',
    'DINO': 'dino/dino-4scale_r50_8xb2-12e_coco.py',
    'SSD': 'ssd/ssd300_coco.py',
    'Faster R-CNN, C4': 'faster_rcnn/faster-rcnn_r50-caffe_c4-1x_coco.py',
    'TOOD': 'tood/tood_r50_fpn_1x_coco.py',
    'VFNet': 'vfnet/vfnet_r50_fpn_1x_coco.py',
    'RepPoints': 'reppoints/reppoints-moment_r50_fpn_1x_coco.py',
    'DDOD': 'ddod/ddod_r50_fpn_1x_coco.py',
}


class Row(NamedTuple):
    """How it went.

    Args:
        works: Whether it spikes.
        what: What came out, or why it can't spike.
        levels: Channels and stride of the spiking backbone's levels.
    """

    works: bool
    what: str
    levels: str = ''


def spike(name: str, depth: Optional[int] = None, size: int = SIZE) -> Row:
    """Make one of MMDetection's detectors spike.

    Args:
        name: One of :data:`DETECTORS`.
        depth: Depth of the SGResNet; None for that of the ResNet it replaces.
        size: Side of the images.

    Returns:
        How it went.
    """
    cfg = read_config(f'{MMDET_CONFIGS}/{DETECTORS[name]}')
    try:
        changes = make_spiking(cfg, depth).changes
        new = merged(cfg, changes)
        trial = try_spiking(new, size)
    except CannotSpikeError as error:
        return Row(False, str(error))
    backbone = new.model.backbone
    found = ', '.join(f'{key}: {count}' for key, count in trial.found.items())
    loss = f'loss {trial.losses["loss"]:.3g}'
    reached = f'gradient in {trial.reached} of {trial.parameters}'
    was = type_name(cfg.model.backbone)
    return Row(
        True,
        f'{loss}, {reached}; {found}',
        f'{was} -> SGResNet-{backbone.depth}, stages {", ".join(map(str, backbone.out_indices))}',
    )


def main() -> None:
    """Try them all, and print the table of docs/tutorials/make-it-spike.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--only', nargs='+', choices=DETECTORS, metavar='NAME', help='these detectors alone'
    )
    parser.add_argument('--depth', type=int, help='depth of the SGResNet (default: as it was)')
    args = parser.parse_args()
    MMLogger.get_current_instance().setLevel('ERROR')
    print('| detector | config | backbone | a training step; a prediction |')
    print('| --- | --- | --- | --- |')
    works, start = 0, time.time()
    names = args.only or list(DETECTORS)
    for name in names:
        row = spike(name, args.depth)
        works += row.works
        what = row.what if row.works else f'**no**: {row.what}'
        print(f'| {name} | {DETECTORS[name]} | {row.levels} | {what} |', flush=True)
    print(f'\n{works} of {len(names)} spike; {(time.time() - start) / 60:.1f} minutes')


if __name__ == '__main__':
    main()

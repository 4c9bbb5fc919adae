"""A spiking model's checkpoint from an ANN's: weights, and their calibration by images."""

import argparse
import copy
import tempfile
from collections.abc import Sequence
from typing import Optional

# First: without mmcv's compiled ops, MMDetection's models import only behind it.
import mmsnn  # noqa: F401  isort: skip

import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import MMLogger
from mmengine.model import BaseModel
from mmengine.registry import init_default_scope
from terminaltables import AsciiTable

from mmsnn.apis.model import known_classes
from mmsnn.compat import enforce_safe_loading, without_lines
from mmsnn.config_types import forget_pretrained
from mmsnn.conversion import (
    Calibrator,
    InheritError,
    account_text,
    calibration_images,
    firing_rates,
    level_readers,
    load_ann,
)
from mmsnn.datasets import datasets_of
from mmsnn.utils import (
    ToolError,
    add_config_arguments,
    anytime,
    build_runner,
    check_data,
    check_out,
    exit_on_error,
    fetch_checkpoint,
    get_time_steps,
    load_config,
    unwrap,
)

#: T at which the model is tested before and after.
TIME_STEPS = (1, 2, 4, 8, 16)
#: How the lines begin that pycocotools prints at each of them.
COCO_LINES = (
    'Loading and preparing',
    'DONE (t=',
    'creating index',
    'index created',
    'Running per image',
    'Evaluate annotation',
    'Accumulating',
    ' Average ',
)
EPILOG = """examples:
  mmsnn ann-to-spiking retinanet_r18.pth spiking.py spiking.pth
  mmsnn ann-to-spiking retinanet_r18.pth spiking.py spiking.pth --images 64
  mmsnn ann-to-spiking torchvision://resnet18 spiking.py spiking.pth --images 64 --image-dir photos

CONFIG is the spiking one, such as mmsnn spike writes. The ANN is a ResNet of torchvision, timm,
MMDetection or MMPreTrain, or a whole detector of MMDetection. What became of each of its tensors
is printed, and a stem or depth that differs is refused. OUT holds weights only; a config trains
from it by load_from.

Calibration needs no labels and no training: the norms' statistics are taken again in the spiking
regime, and scales are set layer by layer so that rates stand for the ANN's activations. Where the
config has a labelled test set, it is tested before and after."""


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Read the command line.

    Args:
        argv: The words behind the command; default those of this process.

    Returns:
        The arguments.
    """
    parser = argparse.ArgumentParser(
        prog='mmsnn ann-to-spiking',
        description="Start a spiking detector or classifier from an ANN's checkpoint, calibrated "
        'by images.',
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('ann_checkpoint', metavar='ANN_CHECKPOINT', help="the ANN's checkpoint")
    parser.add_argument('config', metavar='CONFIG', help='config of the spiking model')
    parser.add_argument('out', metavar='OUT', help='checkpoint to write, .pth')
    parser.add_argument(
        '--images',
        type=int,
        metavar='N',
        help="calibrate by N images: of the config's training data, without their labels, unless "
        '--image-dir names others (default: no calibration)',
    )
    parser.add_argument('--image-dir', metavar='DIR', help='folder of images to calibrate by')
    parser.add_argument(
        '--no-test', action='store_true', help='do not test before and after the calibration'
    )
    add_config_arguments(parser)
    args = parser.parse_args(argv)
    if args.images is None and args.image_dir is not None:
        parser.error('--image-dir needs --images N: by how many of them to calibrate')
    if args.images is not None and args.images < 1:
        parser.error(f'--images must be at least 1, got {args.images}')
    return args


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Inherit, calibrate, test and write.

    Args:
        argv: The words behind the command; default those of this process.
    """
    args = parse_args(argv)
    enforce_safe_loading(args.trust_checkpoint)
    # mmengine tells how each of hundreds of weights was initialised.
    MMLogger.get_current_instance().setLevel('WARNING')
    with exit_on_error(OSError, ValueError):
        check_out(args.out, '.pth', beside=None)
        cfg = load_config(args)
        if cfg.get('model') is None:
            raise ToolError(f'{args.config} has no model: give the config of a spiking one')
        path = fetch_or_address(args.ann_checkpoint)
        model = spiking_model(cfg)
        account = load_ann(model, path, args.trust_checkpoint)
        how = dict.fromkeys(account.missing, 'as the config begins it')
        print(account_text(account, args.ann_checkpoint, how))
        if args.images is not None:
            before = copy.deepcopy(model)
            calibrate(cfg, model, args)
        meta = dict(dataset_meta=known_classes(cfg))
        with open(args.out, 'xb') as file:
            torch.save(dict(state_dict=model.cpu().state_dict(), meta=meta), file)
        print(f'written: {args.out}')
        if args.images is not None and not args.no_test:
            test(cfg, before, model, args)


def fetch_or_address(path: str) -> str:
    """A path of a file; what MMEngine alone knows how to fetch stays an address.

    Args:
        path: A path or an address.

    Returns:
        A path or an address.
    """
    known = path.startswith(('http://', 'https://', 'mmsnn://')) or '://' not in path
    return fetch_checkpoint(path) if known else path


def spiking_model(cfg: Config) -> BaseModel:
    """The model as its config begins it, without weights that the config would load.

    Args:
        cfg: The config, which is changed.

    Returns:
        The model, on this machine's device.
    """
    forget_pretrained(cfg.model)
    init_default_scope(cfg.get('default_scope') or 'mmdet')
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    return model.to(get_device()).eval()


def calibrate(cfg: Config, model: BaseModel, args: argparse.Namespace) -> None:
    """Calibrate in place, and print rates by layer before and after.

    Args:
        cfg: The config.
        model: The model, which has inherited.
        args: The arguments.
    """
    images = calibration_images(cfg, model, args.images, args.image_dir)
    before = firing_rates(model, images)
    try:
        fits = Calibrator(model, images).run()
    except InheritError as error:
        raise ToolError(str(error)) from error
    after = firing_rates(model, images)
    rows = [['layer', 'rate before', 'rate', 'gain', "likeness to the ANN's activations"]]
    for fit in fits:
        rates = [f'{found[fit.name]:.3f}' for found in (before, after)]
        rows.append([fit.name, *rates, f'{fit.gain:.2f}', f'{fit.likeness:.3f}'])
    count = sum(map(len, images))
    print(f'calibrated by {count} images, at T = {get_time_steps(model)}')
    print(AsciiTable(rows).table)
    if not level_readers(model)[1]:
        print(
            'behind the decoders stands nothing that is known to read rates for activations (an '
            'FPN, a ChannelMapper or a SpikingClsHead): what does has to learn that'
        )


def test(cfg: Config, before: BaseModel, after: BaseModel, args: argparse.Namespace) -> None:
    """Print the scores of two models at every T, where the config has labelled test data.

    Args:
        cfg: The config.
        before: One model.
        after: The other.
        args: The arguments.
    """
    if cfg.get('test_evaluator') is None or not list(datasets_of(cfg, ('test',))):
        print('not tested: the config has no test data with an evaluator')
        return
    check_data(cfg, ('test',), args)
    cfg = copy.deepcopy(cfg)
    cfg.launcher, cfg.load_from, cfg.resume, cfg.log_level = 'none', None, False, 'WARNING'
    found = {}
    # Of the runner's log nothing is kept.
    with tempfile.TemporaryDirectory() as cfg.work_dir:
        runner = build_runner(cfg, ('test',))
        model = unwrap(runner.model)
        configured = get_time_steps(model)
        for name, weights in (('before', before), ('after', after)):
            model.load_state_dict(weights.state_dict())
            model.eval()
            with without_lines(*COCO_LINES):
                found[name], scores = anytime(runner, model, TIME_STEPS, configured)
    table = [['T', *(f'{label} {name}' for label in scores.values() for name in found)]]
    for old, new in zip(found['before'], found['after']):
        values = [f'{row[key]:.3f}' for key in scores for row in (old, new)]
        table.append([str(old['time_steps']), *values])
    print(f'on the test data, at every T; the config has T = {configured}')
    print(AsciiTable(table).table)

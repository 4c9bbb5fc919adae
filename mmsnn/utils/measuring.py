"""What the tools that measure a model have in common: the model, and what it is run on."""

import argparse
import copy
import itertools
import os.path as osp
import time
from collections.abc import Iterable, Iterator
from typing import Optional

import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from torch import nn

from ..apis.model import init_model
from ..compat import quiet_coco
from ..config_types import forget_pretrained, loads_frames, type_name
from ..datasets import check_config_datasets, check_frames, datasets_of
from ..structures import ClsDataSample
from .cli import (
    ToolError,
    add_config_arguments,
    check_out,
    check_time_steps,
    fetch_checkpoint,
    load_config,
    set_time_steps,
)
from .settings import check_settings

#: Share of ones in random event frames.
EVENT_RATE = 0.1


def add_measuring_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of a tool that measures one model.

    Args:
        parser: The tool's parser.
    """
    parser.add_argument('config', help='path of the config')
    parser.add_argument(
        '--checkpoint', metavar='FILE', help='path of a checkpoint (default: initial weights)'
    )
    parser.add_argument(
        '--shape',
        type=int,
        nargs=2,
        metavar=('H', 'W'),
        help="random input of this size, in the place of the config's test data; that is what is "
        'taken too where the data is not there',
    )
    parser.add_argument(
        '--time-steps', type=int, metavar='T', help="T time steps, whatever the config's are"
    )
    parser.add_argument('--out', metavar='FILE.json', help='save every number as JSON')
    add_config_arguments(parser)


def load_model(args: argparse.Namespace) -> tuple[Config, nn.Module]:
    """Check the options, and build the model that they ask for.

    Args:
        args: Parsed arguments of :func:`add_measuring_arguments`.

    Returns:
        The config, with the T asked for; and the model on this machine's device, in eval mode.
        Initial weights are the same in every run.

    Raises:
        ToolError: An option is wrong.
        CheckpointError: The checkpoint can't be loaded, or is of another model.
        DatasetError: The data are event frames of another T.
    """
    cfg = load_config(args)
    if args.out is not None:
        check_out(args.out, beside=None)
    if args.shape is not None and min(args.shape) < 1:
        raise ToolError(f'--shape must be two sizes of at least 1, got {args.shape}')
    if cfg.get('model') is None:
        raise ToolError(f'{args.config} has no model: give the config of a detector or classifier')
    if args.time_steps is not None:
        check_time_steps(args.time_steps)
        check_frames(cfg, ('test',), args.time_steps)
    # mmengine tells how each of hundreds of weights was initialised.
    MMLogger.get_current_instance().setLevel('WARNING')
    torch.manual_seed(0)
    # They change nothing that is measured here.
    forget_pretrained(cfg.model)
    checkpoint = args.checkpoint and fetch_checkpoint(args.checkpoint)
    model = init_model(cfg, checkpoint, get_device(), None, args.trust_checkpoint)
    if args.checkpoint is None:
        model.init_weights()
    if args.time_steps is not None:
        set_time_steps(model, args.time_steps)
        # For the input, which is checked, or drawn, by the config's T.
        cfg.model.backbone.time_steps = args.time_steps
    return cfg, model


def input_batches(
    cfg: Config,
    shape: Optional[tuple[int, int]] = None,
    batch_size: int = 1,
    data_check: bool = True,
) -> tuple[Iterable[dict], str]:
    """What to run a model on: the config's test data, or random input.

    Args:
        cfg: The config.
        shape: Height and width of random input; None for the test data, or, where they are not
            there, random input of the size that the test pipeline makes.
        batch_size: Images in a batch.
        data_check: Whether the test data are looked through first.

    Returns:
        Batches for ``model.test_step``, without end where they are random; and in words what they
        are.

    Raises:
        DatasetError: The data are there and broken.
        ToolError: They are not there, and nothing says of what size random input should be.
    """
    datasets = [dataset for _, _, dataset in datasets_of(cfg, ('test',))]
    roots = [dataset.get('data_root') for dataset in datasets]
    lacking = [root for root in roots if root and '://' not in root and not osp.isdir(root)]
    if shape is None and datasets and not lacking:
        check_settings(cfg, ('test',))
        if data_check:
            check_config_datasets(cfg, ('test',))
        loader = copy.deepcopy(cfg.test_dataloader)
        loader.update(batch_size=batch_size, num_workers=0, persistent_workers=False)
        for key in ('prefetch_factor', 'timeout'):  # of workers
            loader.pop(key, None)
        with quiet_coco():
            return Runner.build_dataloader(loader), "the config's test data"
    pipeline = datasets[0].get('pipeline', []) if datasets else []
    about = 'random input, whose spikes are not those of images'
    if shape is None:
        shape = _pipeline_size(pipeline)
        why = f'{lacking[0]} is not there' if lacking else 'the config has no test data'
        if shape is None:
            raise ToolError(f'{why}: give the size of random input by --shape H W')
        about = f'{about} ({why})'
    height, width = shape
    frames = loads_frames(pipeline)
    return _random_batches(cfg.model, (height, width), batch_size, frames), about


def _pipeline_size(pipeline: list[dict]) -> Optional[tuple[int, int]]:
    """Height and width of what a test pipeline makes, by its last transform that has a size."""
    for transform in reversed(pipeline):
        for key in ('scale', 'size', 'crop_size'):
            size = transform.get(key)
            if isinstance(size, int):
                return size, size
            if size is not None:
                # Width comes first in mmcv's transforms, height in others.
                width_first = key == 'scale' or type_name(transform) in ('Pad', 'CenterCrop')
                return tuple(size)[::-1] if width_first else tuple(size)
    return None


def _random_batches(
    model: dict, shape: tuple[int, int], batch_size: int, frames: bool
) -> Iterator[dict]:
    generator = torch.Generator().manual_seed(0)
    backbone = model.get('backbone', {})
    size = backbone.get('in_channels', 3), *shape
    kind = ClsDataSample if 'head' in model else DetDataSample
    for i in itertools.count():
        inputs, samples = [], []
        for _ in range(batch_size):
            if frames:
                full = torch.full((backbone.get('time_steps', 4), *size), EVENT_RATE)
                inputs.append(torch.bernoulli(full, generator=generator))
            else:
                inputs.append(torch.randint(0, 256, size, generator=generator, dtype=torch.uint8))
            meta = dict(img_id=i, ori_shape=shape, img_shape=shape, scale_factor=(1.0, 1.0))
            samples.append(kind(metainfo=meta))
        yield dict(inputs=inputs, data_samples=samples)


def now() -> float:
    """Seconds of a clock for measuring, with the GPU's work done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()

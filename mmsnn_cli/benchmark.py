"""How fast a model, a data loader or a pipeline is. The options are those of MMDetection's tool.

MMDetection's own benchmark.py times models on GPUs only, needs psutil even to start, and divides by
zero on a data set shorter than --max-iter.
"""

import argparse
import itertools
import json
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from statistics import median
from typing import Optional

# First: without mmcv's compiled ops, MMDetection's models import only behind it.
import mmsnn  # noqa: F401  isort: skip

import torch
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from rich.progress import track

from mmsnn.compat import enforce_safe_loading, quiet_coco
from mmsnn.deploy import fuse, resolve_precision
from mmsnn.utils import (
    CONFIG_ERRORS,
    ToolError,
    add_fuse_argument,
    add_measuring_arguments,
    check_data,
    check_out,
    check_settings,
    exit_on_error,
    get_time_steps,
    input_batches,
    load_config,
    load_model,
    now,
)

EPILOG = """tasks:
  inference   the model, with its pre- and post-processing (NMS too), without loading of data
  dataloader  the data loader of the config, with its workers and batch size
  dataset     each transform of the pipeline, in this process

examples:
  mmsnn benchmark CONFIG --checkpoint CHECKPOINT
  mmsnn benchmark CONFIG --checkpoint CHECKPOINT --fuse
  mmsnn benchmark CONFIG --shape 320 320 --time-steps 2   # no data needed
  mmsnn benchmark CONFIG --task dataset --dataset-type train

Times are of this machine, and of this moment: let nothing else run beside, and compare what was
measured in one go. How long NMS takes depends on what is found, so take a trained checkpoint.
mmsnn anytime has times and scores by T, make bench other libraries."""


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog='mmsnn benchmark',
        description='Images a second of a detector or classifier, and its peak memory; or of the '
        'data in front of it.',
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_measuring_arguments(parser)
    parser.add_argument(
        '--task',
        choices=['inference', 'dataloader', 'dataset'],
        default='inference',
        help='what to time (default: inference)',
    )
    parser.add_argument(
        '--dataset-type',
        choices=['train', 'val', 'test'],
        default='test',
        help='data of the tasks dataloader and dataset (default: test)',
    )
    for option, default, text in (
        ('--repeat-num', 5, 'times that everything is measured'),
        ('--max-iter', 50, 'batches (of the task dataset: images) each time'),
        ('--num-warmup', 5, 'batches before that, which do not count'),
        ('--batch-size', 1, 'images in a batch of the task inference'),
    ):
        text = f'{text} (default: {default})'
        parser.add_argument(option, type=int, default=default, metavar='N', help=text)
    add_fuse_argument(parser)
    args = parser.parse_args(argv)
    for name, least in dict(repeat_num=1, max_iter=1, batch_size=1, num_warmup=0).items():
        if getattr(args, name) < least:
            parser.error(
                f'--{name.replace("_", "-")} must be at least {least}, got {getattr(args, name)}'
            )
    others = ('dataset_type',)
    if args.task != 'inference':
        others = ('checkpoint', 'shape', 'time_steps', 'batch_size', 'fuse')
    for name in others:
        if getattr(args, name) != parser.get_default(name):
            parser.error(f'--{name.replace("_", "-")} says nothing to --task {args.task}')
    return args


def peak_memory() -> float:
    """MB: of all tensors on a GPU; on a CPU of the whole process, libraries included."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == 'darwin' else peak / 2**10  # bytes there, else kB


def time_inference(args: argparse.Namespace) -> tuple[list[dict], str]:
    """Time a model.

    Args:
        args: The command line.

    Returns:
        Of each repetition ``images`` and ``seconds``; and in words what was timed.

    Raises:
        ToolError: An option is wrong.
    """
    precision = None
    if args.fuse is not None:
        device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
        precision = resolve_precision(args.fuse, device)  # before the work starts
    cfg, model = load_model(args)
    batches, source = input_batches(
        cfg, args.shape, args.batch_size, data_check=not args.no_data_check
    )
    if precision is not None:
        precision = resolve_precision(args.fuse, device, model)
        model = fuse(model, precision)
    with torch.no_grad():
        for batch in itertools.islice(batches, args.num_warmup):
            model.test_step(batch)
        rows = []
        for _ in track(range(args.repeat_num), 'timing'):
            row = dict(images=0, seconds=0.0)
            for batch in itertools.islice(batches, args.max_iter):
                start = now()
                found = model.test_step(batch)
                row['seconds'] += now() - start
                row['images'] += len(found)
            rows.append(row)
    time_steps = get_time_steps(model)
    about = f'T = {time_steps}, ' if time_steps else ''
    about += f'fused in {precision}, ' if precision else ''
    about += f'batches of {args.batch_size}'
    return rows, f'{about}; {source}'


def data_config(args: argparse.Namespace) -> Config:
    """The loader of the data to time, checked.

    Args:
        args: The command line.

    Returns:
        Its config.

    Raises:
        ToolError: The config has none.
        DatasetError: The data can't be used.
    """
    cfg = load_config(args)
    if args.out is not None:
        check_out(args.out, beside=None)
    loader = cfg.get(f'{args.dataset_type}_dataloader')
    if loader is None:
        raise ToolError(f'{args.config} has no {args.dataset_type}_dataloader')
    check_settings(cfg, (args.dataset_type,))
    check_data(cfg, (args.dataset_type,), args)
    init_default_scope(cfg.default_scope)
    return loader


def time_dataloader(args: argparse.Namespace) -> tuple[list[dict], str]:
    """Time a data loader.

    Args:
        args: The command line.

    Returns:
        As of :func:`time_inference`.

    """
    config = data_config(args)
    with quiet_coco():
        loader = Runner.build_dataloader(config)
    rows = []
    for _ in track(range(args.repeat_num), 'timing'):
        # A short data set starts over and over, as in training: what workers loaded ahead during
        # the warm-up would else be all there is.
        batches: Iterator[dict] = itertools.chain.from_iterable(itertools.repeat(loader))
        for _ in range(args.num_warmup):
            next(batches)
        start = time.perf_counter()
        images = sum(len(batch['inputs']) for batch in itertools.islice(batches, args.max_iter))
        rows.append(dict(images=images, seconds=time.perf_counter() - start))
    return rows, f'{args.dataset_type} data, {loader.num_workers} workers'


def time_dataset(args: argparse.Namespace) -> tuple[list[dict], str]:
    """Time every transform of a pipeline.

    Args:
        args: The command line.

    Returns:
        As of :func:`time_inference`, and ``transforms``, seconds by name.

    Raises:
        ToolError: A wrapper of data sets.
    """
    config = data_config(args)
    with quiet_coco():
        dataset = DATASETS.build(config.dataset)
    if not hasattr(dataset, 'pipeline'):
        raise ToolError(
            f'--task dataset takes a data set with one pipeline, not a {type(dataset).__name__}: '
            'time it by --task dataloader'
        )
    rows = []
    for repeat in track(range(-1, args.repeat_num), 'timing'):
        row = dict(images=0, seconds=0.0, transforms={})
        for i in range(min(len(dataset), args.max_iter if repeat >= 0 else args.num_warmup)):
            start = time.perf_counter()
            item = dataset.get_data_info(i)
            for transform in dataset.pipeline.transforms:
                began = time.perf_counter()
                item = transform(item)
                name = type(transform).__name__
                spent = row['transforms'].get(name, 0.0) + time.perf_counter() - began
                row['transforms'][name] = spent
                if item is None:
                    break
            row['seconds'] += time.perf_counter() - start
            row['images'] += 1
        if repeat >= 0:  # the one before is the warm-up
            rows.append(row)
    return rows, f'{args.dataset_type} data'


def spread(values: list[float], digits: int) -> str:
    """The median, lowest and highest, as text."""
    low, middle, high = (f'{v:.{digits}f}' for v in (min(values), median(values), max(values)))
    return f'{middle} ({low} to {high})'


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Time, and print."""
    args = parse_args(argv)
    enforce_safe_loading(args.trust_checkpoint)
    tasks = dict(inference=time_inference, dataloader=time_dataloader, dataset=time_dataset)
    with exit_on_error(*CONFIG_ERRORS):
        rows, about = tasks[args.task](args)
    cuda = torch.cuda.is_available()
    device = torch.cuda.get_device_name() if cuda else f'CPU, {torch.get_num_threads()} threads'
    of = 'tensors' if cuda else 'the process'
    memory = peak_memory()
    ms = [1000 * row['seconds'] / row['images'] for row in rows]
    print(f'{args.config}; {about}\n{device}; {len(rows)} x {rows[0]["images"]} images\n')
    print('median (lowest to highest)')
    print(f'images a second  {spread([1000 / value for value in ms], 1)}')
    print(f'ms an image      {spread(ms, 2)}')
    for name in rows[0].get('transforms', ()):
        values = [1000 * row['transforms'][name] / row['images'] for row in rows]
        print(f'  {name}: {spread(values, 3)}')
    print(f'peak memory      {memory:.0f} MB ({of})')
    if args.out is not None:
        result = dict(
            config=args.config,
            cfg_options=args.cfg_options,
            checkpoint=args.checkpoint,
            task=args.task,
            measured=about,
            device=device,
            images_per_second=1000 / median(ms),
            ms_per_image=median(ms),
            peak_memory_mb=memory,
            repeats=rows,
        )
        with open(args.out, 'x') as file:
            json.dump(result, file, indent=2)
        print(f'results: {args.out}')

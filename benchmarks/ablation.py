"""Which of the papers' claims hold on a small budget: one network, one change at a time."""

import argparse
import os
import statistics
import time
from pathlib import Path
from typing import NamedTuple, Optional

from seeds import (
    Claim,
    add_arguments,
    block,
    by_row,
    check_arguments,
    marks,
    one_budget,
    report_and_write,
    run_missing,
    scores_cells,
    set_options,
    set_run,
    summarise,
    verdict,
)

ROOT = Path(__file__).resolve().parent.parent
CONFIG = 'configs/ablation/sg-r10_asd_cifar10-subset.py'
EXAMPLES = """examples:
  MMSNN_CIFAR10_ROOT=/path/to/cifar-10-batches-py python benchmarks/ablation.py
  python benchmarks/ablation.py --data /path/to/cifar-10-batches-py --only sg plain --seeds 0 1
  python benchmarks/ablation.py --data ... --docs docs/results.md    # the table in the docs

Every finished run is kept in --out: a second call does only what is missing."""

MARKS = marks('ablation')


class Variant(NamedTuple):
    """One row of the table: what it is called, and how it departs from the config."""

    title: str
    options: dict


def _decoder(kind: str) -> dict:
    return {'model.head.decoder': dict(type=kind)}


RATE = _decoder('RateDecoder')
#: STBP-tdBN's neuron, whose threshold is not 1: only there do tdBN and BN differ.
STBP_NEURON = {
    'model.backbone.act_cfg': dict(
        type='LIFNeuron', decay=0.25, v_threshold=0.5, surrogate='rectangle', surrogate_width=1.0
    )
}

#: Depth 10 has no block with an identity shortcut, depth 34 has ten in these three stages.
DEEP = {
    'model.backbone.depth': 34,
    'model.backbone.base_channels': 8,
    'model.backbone.stem_channels': 8,
    'model.head.in_channels': 32,
}
#: A surrogate so wide that gradients shrink in plain blocks (docs/isometry.md).
WIDE = {
    'model.backbone.act_cfg': dict(
        type='LIFNeuron', decay=0.5, v_threshold=1.0, surrogate_width=2.0
    )
}

#: Every row is the first one with one change, or belongs to the pair that its title names.
VARIANTS = {
    'sg': Variant('SG, gate = residual, ASD, T = 4', {}),
    'sg-learned': Variant('SG, learned gate', block('sg', 'LearnedGate')),
    'sew': Variant('SEW (add)', block('sew', 'SEWAddGate')),
    'tdbn': Variant("STBP-tdBN's block", block('tdbn')),
    'plain': Variant('plain spiking block', block('plain')),
    'rate': Variant('rate coding', RATE),
    'last': Variant('last time step', _decoder('LastDecoder')),
    't1': Variant('T = 1', {'model.backbone.time_steps': 1}),
    't2': Variant('T = 2', {'model.backbone.time_steps': 2}),
    'ilif': Variant(
        'ILIF, T = 1, D = 4',
        {
            'model.backbone.time_steps': 1,
            'model.backbone.act_cfg': dict(type='ILIFNeuron', D=4),
        },
    ),
    'stbp-tdbn': Variant(
        "STBP-tdBN's block and neuron, rate, tdBN", {**block('tdbn'), **RATE, **STBP_NEURON}
    ),
    'stbp-bn': Variant(
        "STBP-tdBN's block and neuron, rate, BN",
        {
            **block('tdbn'),
            **RATE,
            **STBP_NEURON,
            'model.backbone.norm_cfg': dict(type='BN'),
        },
    ),
    'sg-34': Variant('SG, depth 34, 8 channels', DEEP),
    'plain-34': Variant('plain, depth 34, 8 channels', {**DEEP, **block('plain')}),
    'sg-34-wide': Variant('SG, depth 34, surrogate width 2', {**DEEP, **WIDE}),
    'plain-34-wide': Variant(
        'plain, depth 34, surrogate width 2', {**DEEP, **WIDE, **block('plain')}
    ),
    'ann': Variant(
        'ANN twin: ReLU, no time',
        {
            'model.backbone': dict(
                type='ResNetCIFAR',
                depth=10,
                base_channels=16,
                stem_channels=16,
                num_stages=3,
                strides=(2, 2, 2),
                dilations=(1, 1, 1),
                out_indices=(2,),
            ),
            'model.head.decoder': None,
        },
    ),
}


CLAIMS = (
    Claim('SG ResNet with ASD at T = 4 comes within 2 points of its ANN twin', 'sg', 'ann', 2.0),
    Claim('ASD decodes better than rate coding (Zhang et al. 2023)', 'sg', 'rate'),
    Claim('ASD decodes better than the last time step', 'sg', 'last'),
    Claim('SG blocks learn better than plain spiking blocks (Zhang et al. 2023)', 'sg', 'plain'),
    Claim('the same at depth 34', 'sg-34', 'plain-34'),
    Claim('the same at depth 34 with a surrogate of width 2', 'sg-34-wide', 'plain-34-wide'),
    Claim("SG blocks learn better than STBP-tdBN's", 'sg', 'tdbn'),
    Claim('SG blocks learn better than SEW blocks', 'sg', 'sew'),
    Claim('T = 4 is better than T = 1', 'sg', 't1'),
    Claim('tdBN is better than BN (Zheng et al. 2021)', 'stbp-tdbn', 'stbp-bn'),
)

PAPERS = """| the papers, by their abstracts | CIFAR-10 | CIFAR-100 | DVS-CIFAR10 | ImageNet |
| --- | --- | --- | --- | --- |
| SG ResNet with ASD, T = 4 (Zhang et al. 2023) | 94.52 % | 75.64 % | evaluated | evaluated |
| STBP-tdBN ResNet (Zheng et al. 2021) | 93.15 % | | 67.8 % | 67.05 % |"""


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description='Train narrow networks on CIFAR-10, one change at a time, with the same budget '
        'and seeds, and compare their accuracy. On a few thousand images a run takes about two '
        'minutes of one CPU core.',
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        '--data',
        default=os.environ.get('MMSNN_CIFAR10_ROOT'),
        help='folder cifar-10-batches-py, whole or a subset (default: MMSNN_CIFAR10_ROOT)',
    )
    parser.add_argument('--epochs', type=int, help="default: the config's")
    add_arguments(parser, VARIANTS, out='work_dirs/ablation')
    args = parser.parse_args()
    if not args.data:
        parser.error('say where CIFAR-10 is: --data /path/to/cifar-10-batches-py')
    check_arguments(parser, args, ('epochs', 'jobs'), MARKS)
    return args


def build_config(name: str, seed: int, work_dir: str, epochs: Optional[int], options: list):
    """The config of one run.

    Args:
        name: Row of ``VARIANTS``.
        seed: Seed of weights, order and augmentation.
        work_dir: Where mmengine may write.
        epochs: Number of epochs; None for the config's.
        options: ``KEY=VALUE`` for every row.

    Returns:
        mmengine.Config.
    """
    from mmengine.config import Config

    cfg = Config.fromfile(ROOT / CONFIG)
    set_options(cfg, VARIANTS[name].options, options)
    if epochs is not None:
        cfg.train_cfg.max_epochs = cfg.train_cfg.val_interval = epochs
        cfg.param_scheduler[1].update(T_max=epochs, end=epochs)
    # The only evaluation is the one after the last step: no row picks its best epoch.
    cfg.train_cfg.val_interval = cfg.train_cfg.max_epochs + 1
    set_run(cfg, name, seed, work_dir)
    return cfg


def train_one(name: str, seed: int, data: str, work_dir: str, epochs: Optional[int], options: list):
    """Train and evaluate one row with one seed, in a process of its own.

    Returns:
        What the run's JSON file holds.
    """
    os.environ['MMSNN_CIFAR10_ROOT'] = data
    import torch

    import mmsnn  # noqa: F401

    torch.set_num_threads(1)
    from mmengine.runner import Runner

    cfg = build_config(name, seed, work_dir, epochs, options)
    start = time.time()
    runner = Runner.from_cfg(cfg)
    runner.train()
    seconds = time.time() - start
    metrics = runner.val()
    return dict(
        row=name,
        seed=seed,
        top1=metrics['accuracy/top1'],
        top5=metrics['accuracy/top5'],
        epochs=cfg.train_cfg.max_epochs,
        images=len(runner.train_dataloader.dataset),
        test_images=len(runner.val_dataloader.dataset),
        parameters=sum(p.numel() for p in runner.model.parameters()),
        options=options,
        seconds=round(seconds, 1),
    )


def report(runs: list) -> str:
    """The table and the claims, in Markdown.

    Args:
        runs: Contents of the runs' JSON files.

    Returns:
        Markdown text.
    """
    results = by_row(runs, VARIANTS)
    rows = summarise({name: [run['top1'] for run in found] for name, found in results.items()})
    lines = [
        '| network | top-1, % | seeds | parameters | seconds a run |',
        '| --- | --- | --- | --- | --- |',
    ]
    for name, found in results.items():
        lines.append(
            f'| {VARIANTS[name].title} | {scores_cells([run["top1"] for run in found])} | '
            f'{found[0]["parameters"]:,} | {statistics.median(r["seconds"] for r in found):.0f} |'
        )
    some = runs[0]
    lines += [
        '',
        f'{some["images"]:,} training and {some["test_images"]:,} test images, {some["epochs"]} '
        'epochs, mean ± sample standard deviation over the seeds; the accuracy is that after the '
        'last step. Seeds and budget are the same for all rows; a row is the first one with the '
        'change that it names.',
        '',
        '| claim | on this evidence |',
        '| --- | --- |',
        *(f'| {claim.text} | {verdict(claim, rows)} |' for claim in CLAIMS),
        '',
        PAPERS,
    ]
    return '\n'.join(lines)


def main() -> None:
    """Run what is missing, then print the table."""
    args = parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    names = args.only or list(VARIANTS)
    # Seed by seed, so that an early stop leaves a whole table of fewer seeds.
    wanted = [(name, seed) for seed in args.seeds for name in names]
    settings = str(Path(args.data).resolve()), str(args.out / 'logs'), args.epochs, args.cfg_options
    runs = run_missing(wanted, args, args.out, train_one, *settings, score='top1')
    one_budget(runs, ('epochs', 'images', 'options'), args.out)
    report_and_write(report(runs), args.docs, MARKS)


if __name__ == '__main__':
    main()

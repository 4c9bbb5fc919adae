"""mmsnn against SpikingJelly, MMDetection's ANN ResNet and the convs alone: tables and a JSON.

Each group of rows is shown and written as soon as it is measured.
"""

import argparse
import itertools
import json
import logging
import os
import os.path as osp
import re
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from typing import Optional

if __name__ == '__mp_main__':  # a process that measures memory: its parent has told it all
    logging.disable(logging.INFO)

import cases
import machine
import rates
import timing
import torch
from cases import ANN, CONVS, COPY, SPIKINGJELLY, Builders, Setting
from rich.console import Console
from rich.progress import BarColumn, Progress, TimeElapsedColumn
from rich.table import Table

INSTALL_SPIKINGJELLY = (
    'pip install h5py loguru tensorboard scienceplots && pip install --no-deps spikingjelly==2.0.0'
)
EXAMPLES = f"""what stands beside what, measured in turn in the same run:
  mmsnn                the network as tools/test.py and tools/train.py run it
  mmsnn fused          the same after mmsnn.deploy.fuse: norms folded; its precisions in dtype
  SpikingJelly         the same network of SpikingJelly's layers, multi-step; bf16 is autocast
  SpikingJelly folded  the same with SpikingJelly's own folding of norms into convs
  MMDetection ANN      ResNet, or RetinaNet with it, at T = 1; bf16 is autocast
  convs alone          the floor: mmsnn's convs one after another, nothing between them
  copy                 of a neuron's input: the floor of one layer of neurons

Peak memory is what a step holds at most beyond what was held before it.
Columns `x NAME` are ratios: the row's median over that of NAME, so less than 1 is faster.

examples:
  python benchmarks/bench.py                            # minutes: one thing varied at a time
  python benchmarks/bench.py --what inference --depth 18 --size 320 --batch 1
  python benchmarks/bench.py --what training --time-steps 4 --train-batch 8
  python benchmarks/bench.py --full                     # hours: every combination

SpikingJelly comes by `make bench`, or by
  {INSTALL_SPIKINGJELLY}
On a GPU, SJ_LIF_CUDA_IMPLEMENTATION=triton (or cuda, torch) chooses its kernels."""
WHATS = ('neuron', 'inference', 'training', 'detector', 'growth')
#: Rounds of a neuron, which takes less than a millisecond, to one of a network.
NEURON_ROUNDS = 20
#: What is measured most; other depths, sizes and batches are varied around it.
CENTRE = dict(depth=18, size=(320, 320), time_steps=4, batch=1, rate=0.12)
#: Columns of ratios of times: network and dtype of the reference; None: the row's own dtype.
RATIOS = {
    'x SpikingJelly fp32': (SPIKINGJELLY, 'fp32'),
    'x SpikingJelly bf16': (SPIKINGJELLY, 'bf16'),
    'x ANN fp32': (ANN, 'fp32'),
    'x convs': (CONVS, None),
    'x copy': (COPY, None),
}
MEMORY_RATIO = 'MB x SpikingJelly fp32'


def size(text: str) -> tuple[int, int]:
    """Height and width from ``'320'`` or ``'800x1333'``."""
    match = re.fullmatch(r'(\d+)(?:x(\d+))?', text)
    sides = match and (int(match[1]), int(match[2] or match[1]))
    if not sides or min(sides) < 64:
        raise argparse.ArgumentTypeError(f'{text!r} is no size of 64 or more, as 320 or 800x1333')
    return sides


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    devices = ['cpu', 'cuda'] if torch.cuda.is_available() else ['cpu']
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        '--what',
        nargs='+',
        choices=WHATS,
        default=WHATS,
        metavar='WHAT',
        help='neuron, one layer of them alone; inference and training of the backbone; detector, '
        'whole, both of them; growth of time and memory with T (default: all)',
    )
    parser.add_argument(
        '--depth',
        type=int,
        nargs='+',
        # Four stages, as SpikingJelly's and MMDetection's: not STBP-tdBN's 19.
        choices=sorted(set(cases.SGResNet.arch_settings) - {19}),
        default=[18, 34, 50],
        metavar='DEPTH',
        help='depths (default: 18 34 50)',
    )
    parser.add_argument(
        '--size',
        type=size,
        nargs='+',
        default=[(320, 320), (800, 1333)],
        metavar='HxW',
        help='sizes of the images (default: 320 800x1333)',
    )
    parser.add_argument(
        '--time-steps',
        type=timing.positive,
        nargs='+',
        default=[1, 2, 4, 8],
        metavar='T',
        help='time steps; without --full one of them, and all in growth (default: 1 2 4 8)',
    )
    parser.add_argument(
        '--batch',
        type=timing.positive,
        nargs='+',
        default=[1, 8],
        metavar='N',
        help='images of inference (default: 1 8)',
    )
    parser.add_argument(
        '--train-batch',
        type=timing.positive,
        default=2,
        metavar='N',
        help='images of a training step (default: 2)',
    )
    parser.add_argument(
        '--rate',
        type=rates.rate,
        nargs='+',
        default=[0.05, 0.12, 0.25],
        metavar='R',
        help="rates at which the backbones' neurons fire: of what time in proportion to spikes "
        'depends on (default: 0.05 0.12 0.25)',
    )
    parser.add_argument(
        '--block',
        choices=['sg', 'sew'],
        default='sg',
        help="blocks of both spiking networks: SG's OR, or SEW's add (default: sg)",
    )
    parser.add_argument(
        '--full',
        action='store_true',
        help='every combination; without it depth, size and batch of inference are varied one at '
        'a time around depth 18, 320x320, T = 4, 1 image, a rate of 0.12, the size of detectors '
        'too, and training stays there',
    )
    parser.add_argument(
        '--rounds',
        type=timing.positive,
        default=15,
        metavar='N',
        help='rounds, at most; their median is shown (default: 15)',
    )
    parser.add_argument(
        '--seconds',
        type=float,
        default=20,
        metavar='S',
        help='when to start no further round of a group of rows (default: 20); '
        f'{timing.MIN_ROUNDS} are always run',
    )
    parser.add_argument(
        '--device',
        nargs='+',
        choices=devices,
        default=devices,
        metavar='DEVICE',
        help='cpu, cuda (default: all that are there)',
    )
    parser.add_argument(
        '--out',
        metavar='FILE.json',
        help='a new file for the results (default: work_dirs/bench/bench-DATE-TIME.json)',
    )
    args = parser.parse_args()
    if args.out is None:
        args.out = osp.join('work_dirs', 'bench', time.strftime('bench-%Y%m%d-%H%M%S.json'))
    if osp.exists(args.out):
        parser.error(f'{args.out} is there already; --out takes the name of a new file')
    return args


# ---- what is measured ----------------------------------------------------------------------------


def plan(args: argparse.Namespace) -> Iterator[tuple[Setting, Callable[[], Builders]]]:
    """The groups of rows, in order, and what gives their builders."""
    axes = {name: list(dict.fromkeys(getattr(args, name))) for name in CENTRE}
    centre = {k: CENTRE[k] if CENTRE[k] in values else values[0] for k, values in axes.items()}
    # Batches are inference's, and T has rows of its own.
    train_axes = {**axes, 'batch': [args.train_batch]}
    train_centre = {**centre, 'batch': args.train_batch}
    if args.full:
        grid = [dict(zip(axes, values)) for values in itertools.product(*axes.values())]
        train_grid = [dict(zip(axes, v)) for v in itertools.product(*train_axes.values())]
    else:
        varied = [
            (k, v) for k in ('depth', 'size', 'batch', 'rate') for v in axes[k] if v != centre[k]
        ]
        grid = [centre, *({**centre, k: v} for k, v in varied)]
        train_grid = [train_centre]
    detectors = (
        grid if args.full else [p for p in grid if {**p, 'size': 0} == {**centre, 'size': 0}]
    )
    at_every_t = partial(cases.backbone_inference, all_time_steps=sorted(axes['time_steps']))
    long = {**train_centre, 'time_steps': cases.LONG_TIME_STEPS}
    theirs_short = partial(cases.backbone_training, their_time_steps=centre['time_steps'])
    groups = dict(
        neuron=[('one LIF layer', [{**centre, 'rate': None}], cases.neuron)],
        inference=[('inference', grid, cases.backbone_inference)],
        training=[('training step', train_grid, cases.backbone_training)],
        detector=[
            ('detector, inference', detectors, cases.detector_inference),
            ('detector, training step', train_grid, cases.detector_training),
        ],
        growth=[
            ('inference as T grows', [centre], at_every_t),
            ('training step at long T', [long], theirs_short),
        ],
    )
    for device in args.device:
        for name in args.what:
            for what, points, builders in groups[name]:
                for point in points:
                    setting = Setting(what=what, device=device, block=args.block, **point)
                    yield setting, partial(builders, setting)


def measure(
    setting: Setting,
    make_builders: Callable[[], Builders],
    args: argparse.Namespace,
    tell: Callable[[str], None],
) -> tuple[list[dict], list[dict]]:
    """Measure the networks of a group.

    Args:
        setting: The group.
        make_builders: Gives its networks.
        args: The command line.
        tell: Told what is going on.

    Returns:
        The rows, and why others are left out.
    """
    builders, ready, first, left_out = make_builders(), {}, {}, []
    tell('memory')
    try:
        with ProcessPoolExecutor(1, mp_context=get_context('spawn')) as pool:
            memory = pool.submit(timing.peak_memories, make_builders, setting.device).result()
    except BrokenProcessPool:  # most likely it took more memory than there is; so would timing it
        reason = 'the process that measured its memory was killed'
        return [], [dict(title=setting.title, **k._asdict(), reason=reason) for k in builders]
    for key, build in builders.items():
        tell(f'{key.network} {key.dtype}')
        try:
            run = build()
            ((first[key],),) = timing.interleave([run], 1, 0, setting.device)
            ready[key] = run
        except Exception as error:  # whatever it is, the other rows stand
            left_out.append(dict(title=setting.title, **key._asdict(), reason=_reason(error)))
    tell('timing')
    rounds = args.rounds * (NEURON_ROUNDS if COPY in {k.network for k in ready} else 1)
    # A row that takes a third of the group's time, as in a dtype that the CPU lacks, is run once.
    often = [run for key, run in ready.items() if first[key] < args.seconds / timing.MIN_ROUNDS]
    interleaved = iter(timing.interleave(often, rounds, args.seconds, setting.device))
    times = [next(interleaved) if run in often else [first[key]] for key, run in ready.items()]
    rows = [
        dict(
            what=setting.what,
            title=setting.title,
            device=setting.device,
            depth=setting.depth,
            size='x'.join(map(str, setting.size)),
            batch=setting.batch,
            block=setting.block,
            rate=setting.rate,
            **key._asdict(),
            ms=1e3 * statistics.median(seconds),
            ms_rounds=[round(1e3 * s, 3) for s in seconds],
            memory_mb=memory.get(key),
        )
        for key, seconds in zip(ready, times)
    ]
    add_ratios(rows)
    return rows, left_out


def _reason(error: Exception) -> str:
    """One line, without paths of this machine."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return re.sub(r'\s*\(?[\w.-]*/\S*', '', lines[0])[:120]


def add_ratios(rows: list[dict]) -> None:
    """Give each row of a group its ratios to the group's references."""

    def find(network: str, dtype: str, time_steps: int) -> Optional[dict]:
        """The row of this T, or the only one of its kind."""
        kind = [r for r in rows if (r['network'], r['dtype']) == (network, dtype)]
        same = [r for r in kind if r['time_steps'] == time_steps]
        return (same or kind)[0] if same or len(kind) == 1 else None

    for row in rows:
        row['ratios'] = {}
        steps = row['time_steps']
        for name, (network, dtype) in RATIOS.items():
            if network == CONVS and row['network'] == ANN:
                continue  # they are not its convs
            reference = find(network, dtype or row['dtype'], steps)
            if reference and reference is not row:
                row['ratios'][name] = row['ms'] / reference['ms']
        first = find(row['network'], row['dtype'], 1)
        if first and steps > 1 and first['time_steps'] == 1:
            row['ratios']['x T = 1'] = row['ms'] / first['ms']
        theirs = find(SPIKINGJELLY, 'fp32', steps)
        if theirs and theirs is not row and theirs['memory_mb'] and row['memory_mb'] is not None:
            row['ratios'][MEMORY_RATIO] = row['memory_mb'] / theirs['memory_mb']


# ---- what is shown -------------------------------------------------------------------------------


def show(rows: list[dict], console: Console) -> None:
    """Print the table; columns that no row fills are left out."""
    used = {name for row in rows for name in row['ratios']}
    names = [name for name in (*RATIOS, 'x T = 1', MEMORY_RATIO) if name in used]
    table = Table(box=None, header_style='bold')
    table.add_column()
    for name in ('dtype', 'T', 'ms', 'MB', *names):
        table.add_column(name, justify='right', max_width=12, overflow='fold')
    title = None
    for row in rows:
        if row['title'] != title:
            title = row['title']
            table.add_row('\n[bold]' + title.replace(': ', ':\n'))
        memory, ratios = row['memory_mb'], row['ratios']
        once = ' (run once)' if len(row['ms_rounds']) == 1 else ''
        table.add_row(
            f'  {row["network"]}{once}',
            row['dtype'],
            str(row['time_steps']),
            f'{row["ms"]:.1f}',
            '-' if memory is None else f'{memory:.0f}',
            *(f'{ratios[name]:.2f}' if name in ratios else '' for name in names),
        )
    console.print(table)


def write(path: str, results: dict) -> None:
    """Write the JSON, whole whenever somebody looks."""
    os.makedirs(osp.dirname(path) or '.', exist_ok=True)
    with open(f'{path}.part', 'w') as file:
        json.dump(results, file, indent=2)
        file.write('\n')
    os.replace(f'{path}.part', path)


def expected_minutes(groups: int, seconds: float) -> str:
    """How long the groups take, in words.

    A group is timed for ``seconds``, or three rounds of it. To build its networks, to measure their
    memory in a process of its own and to run each for the first time takes about as long again, and
    up to seven times that where images are large or the CPU lacks a dtype.
    """
    low, high = (max(1, round(groups * (seconds + 10) * factor / 60)) for factor in (1, 8))
    return f'{groups} groups of rows: {low} to {high} minutes'


def main() -> None:
    """Measure group by group; print its table and write the JSON when each is done."""
    args = parse_args()
    # The table would lose digits in a narrow terminal, and a pipe has no width of its own.
    console = Console(width=max(130, Console().width), highlight=False)
    results = dict(
        date=time.strftime('%Y-%m-%d %H:%M'),
        machine=machine.facts(),
        arguments={k: v for k, v in vars(args).items() if k != 'out'},
        equal_spikes={},
        left_out=[],
        rows=[],
    )
    if not cases.has_spikingjelly():
        console.print(
            'SpikingJelly is not installed and its rows are left out. This brings it: '
            f'{INSTALL_SPIKINGJELLY}'
        )
    elif 'cuda' in args.device:
        kernel = cases.spikingjelly_resnet().neuron_kernel('cuda')
        results['machine']['spikingjelly_cuda_kernels'] = kernel
        console.print(f"SpikingJelly's neurons on the GPU: {kernel}")
    if args.device == ['cpu']:
        timing.limit_memory()
    groups = list(plan(args))
    console.print(expected_minutes(len(groups), args.seconds))
    columns = ('{task.completed}/{task.total}', '{task.fields[title]}', '{task.fields[step]}')
    with Progress(
        *columns, BarColumn(), TimeElapsedColumn(), console=Console(stderr=True), transient=True
    ) as progress:
        task = progress.add_task('', total=len(groups), title='', step='')
        try:
            for setting, builders in groups:
                progress.update(task, title=setting.title, step='')
                if setting.what == 'inference' and cases.has_spikingjelly():
                    results['equal_spikes'][setting.title] = cases.equal_spikes(setting)
                rows, left_out = measure(
                    setting, builders, args, lambda step: progress.update(task, step=step)
                )
                results['rows'] += rows
                results['left_out'] += left_out
                progress.advance(task)
                if rows:
                    show(rows, console)
                write(args.out, results)
        except KeyboardInterrupt:
            console.print('interrupted: the tables end here')
    for title, share in results['equal_spikes'].items():
        console.print(f'{share:.4%} of spikes equal those of SpikingJelly in fp32: {title}')
    reasons = [(row['network'], row['dtype'], row['reason']) for row in results['left_out']]
    for (network, dtype, reason), count in Counter(reasons).items():
        console.print(f'left out of {count} groups: {network} {dtype}: {reason}')
    console.print(f'written to {args.out}' if osp.exists(args.out) else 'nothing was measured')


if __name__ == '__main__':
    main()

"""Rows of a table that are trained with several seeds: what the ablations share."""

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple, Optional


class Claim(NamedTuple):
    """What a paper says, as a comparison of two rows."""

    text: str
    better: str
    worse: str
    #: How far the first may lie below the second, in points.
    margin: float = 0.0


class Marks(NamedTuple):
    """Two lines of a document between which the tables stand."""

    begin: str
    end: str


def marks(name: str) -> Marks:
    """The marks of a table.

    Args:
        name: Its name.

    Returns:
        Comments of Markdown.
    """
    return Marks(f'<!-- {name}: begin -->', f'<!-- {name}: end -->')


def add_arguments(parser: argparse.ArgumentParser, rows: Iterable[str], out: str) -> None:
    """Add what every ablation takes.

    Args:
        parser: The parser.
        rows: Names of the rows.
        out: Default of ``--out``.
    """
    rows = list(rows)
    parser.add_argument(
        '--only', nargs='+', choices=rows, metavar='ROW', help=f'of {", ".join(rows)}'
    )
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        default=[],
        metavar='KEY=VALUE',
        help='for every row, such as optim_wrapper.optimizer.lr=1e-3; use another --out then',
    )
    parser.add_argument(
        '--out', type=Path, default=Path(out), help=f'a JSON file a run (default: {out})'
    )
    parser.add_argument(
        '--jobs',
        type=int,
        default=os.cpu_count(),
        help='trainings side by side, one thread each (default: the number of cores)',
    )
    parser.add_argument(
        '--done', action='store_true', help='train nothing: the table of the runs that are in --out'
    )
    parser.add_argument(
        '--docs', type=Path, metavar='FILE.md', help='put the table between its marks there'
    )


def check_arguments(
    parser: argparse.ArgumentParser, args: argparse.Namespace, at_least_1: Iterable[str], at: Marks
) -> None:
    """End with one line where an argument can't be.

    Args:
        parser: The parser.
        args: What it read.
        at_least_1: Names of arguments that are numbers from 1 on, or None.
        at: The marks that ``--docs`` must have.
    """
    if not Path(args.data).is_dir():
        parser.error(f'--data {args.data} is not a folder')
    for name in at_least_1:
        value = getattr(args, name)
        if value is not None and value < 1:
            parser.error(f'--{name} must be at least 1, got {value}')
    written = args.docs.read_text() if args.docs is not None and args.docs.is_file() else ''
    if args.docs is not None and at.end not in written.partition(at.begin)[2]:
        parser.error(
            f'--docs {args.docs} has no line {at.begin} with {at.end} behind it, to write between'
        )


def set_options(cfg, row: Mapping, options: list) -> None:
    """Change a config as the user and then as a row says.

    Args:
        cfg: ``mmengine.Config``, which is changed.
        row: Values by dotted key, in which numbers are places in lists; each comes in the place of
            what was there, not merged into it.
        options: ``KEY=VALUE`` of the command line.
    """
    from mmengine.config import DictAction

    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={})
    given = parser.parse_args(['--cfg-options', *options] if options else [])
    cfg.merge_from_dict(given.cfg_options)
    for key, value in row.items():
        *path, last = key.split('.')
        place = cfg
        for part in path:
            place = place[int(part) if part.isdigit() else part]
        place[last] = value


def block(kind: str, gate: Optional[str] = None) -> dict:
    """Options of a row that has other residual blocks.

    Args:
        kind: ``block`` of the backbone.
        gate: Type of its gate, if it has one.

    Returns:
        Values by dotted key.
    """
    return {
        'model.backbone.block': kind,
        'model.backbone.gate_cfg': None if gate is None else dict(type=gate),
    }


def set_run(cfg, row: str, seed: int, work_dir: str) -> None:
    """Let a config train one row with one seed, and leave nothing but its log.

    Args:
        cfg: ``mmengine.Config``, which is changed.
        row: Name of the row.
        seed: Seed of weights, order and augmentation.
        work_dir: Where mmengine may write.
    """
    cfg.default_hooks.checkpoint = None
    cfg.randomness = dict(seed=seed)
    cfg.work_dir = work_dir
    cfg.experiment_name = f'{row}-seed{seed}-{time.time_ns()}'
    cfg.log_level = 'WARNING'


def run_missing(
    wanted: list, args: argparse.Namespace, out: Path, train: Callable[..., dict], *more, score: str
) -> list:
    """Train what is not in a folder yet.

    Args:
        wanted: (row, seed) of every run, in the order in which they are to be trained.
        args: The command line.
        out: The folder: a JSON file a run.
        train: Trains one, ``train(row, seed, *more)``, in a process of its own; gives what is
            kept.
        *more: Of ``train``.
        score: Key of the number that is printed of a run.

    Returns:
        What ``train`` gave for each of ``wanted``, now or earlier; with ``--done`` for those of
        them that it has given.
    """

    def place(row: str, seed: int) -> Path:
        return out / f'{row}-seed{seed}.json'

    if args.done:
        wanted = [run for run in wanted if place(*run).exists()]
    missing = [run for run in wanted if not place(*run).exists()]
    print(f'{len(wanted)} runs, {len(wanted) - len(missing)} of them done before', flush=True)
    # Before torch is imported in the workers: OpenMP reads it once.
    os.environ['OMP_NUM_THREADS'] = '1'
    context = multiprocessing.get_context('spawn')
    with ProcessPoolExecutor(args.jobs, mp_context=context) as pool:
        pending = {pool.submit(train, *run, *more): run for run in missing}
        for i, done in enumerate(as_completed(pending), 1):
            row, seed = pending[done]
            try:
                run = done.result()
            except Exception as error:
                pool.shutdown(wait=False, cancel_futures=True)
                sys.exit(f'\nerror: {row}, seed {seed}: {error}')
            place(row, seed).write_text(json.dumps(run, indent=1))
            print(
                f'[{i}/{len(missing)}] {row}, seed {seed}: {score} {run[score]:.1f} % '
                f'({run["seconds"]:.0f} s)',
                flush=True,
            )
    return [json.loads(place(*run).read_text()) for run in wanted]


def one_budget(runs: list, keys: Iterable[str], out: Path) -> None:
    """End with one line where there are no runs, or of different budgets for one table.

    Args:
        runs: What :func:`run_missing` gives.
        keys: What must be the same in all of them.
        out: Where they are.
    """
    if not runs:
        sys.exit(f'\nerror: {out} holds none of these runs: leave --done out to train them')
    keys = list(keys)
    budgets = {json.dumps([run[key] for key in keys]) for run in runs}
    if len(budgets) > 1:
        sys.exit(
            f'\nerror: {out} holds runs of different budgets ({", ".join(keys)}): '
            f'{sorted(budgets)}. Take another --out'
        )


def by_row(runs: list, rows: Iterable[str]) -> dict:
    """Runs by row, each row's by seed.

    Args:
        runs: What :func:`run_missing` gives.
        rows: Names of the rows, in the table's order.

    Returns:
        Runs by name, for rows that have any.
    """
    runs = sorted(runs, key=lambda run: run['seed'])
    found = {name: [run for run in runs if run['row'] == name] for name in rows}
    return {name: of_row for name, of_row in found.items() if of_row}


def summarise(results: dict) -> dict:
    """Mean and spread by row.

    Args:
        results: Scores of the seeds by row.

    Returns:
        (mean, sample standard deviation, number of seeds) by row.
    """
    return {
        name: (
            statistics.mean(values),
            statistics.stdev(values) if len(values) > 1 else float('nan'),
            len(values),
        )
        for name, values in results.items()
        if values
    }


def scores_cells(values: list) -> str:
    """Two cells of a table: mean and spread, and the seeds.

    Args:
        values: The seeds' scores.

    Returns:
        Markdown.
    """
    spread = '' if len(values) < 2 else f' ± {statistics.stdev(values):.1f}'
    return f'{statistics.mean(values):.1f}{spread} | {", ".join(f"{v:.1f}" for v in values)}'


def verdict(claim: Claim, rows: dict) -> str:
    """What the evidence says of a claim, in plain words.

    A difference counts where it is larger than the sum of both standard deviations.

    Args:
        claim: The claim.
        rows: What :func:`summarise` gives.

    Returns:
        A sentence.
    """
    if claim.better not in rows or claim.worse not in rows:
        return 'not run'
    (a, std_a, n_a), (b, std_b, n_b) = rows[claim.better], rows[claim.worse]
    gain = a - b
    numbers = f'{a:.1f} against {b:.1f}, {gain:+.1f} points'
    if claim.margin:
        return f'{"**supported**" if gain >= -claim.margin else "**not supported**"}: {numbers}'
    if min(n_a, n_b) < 2:
        return f'one seed says nothing of the spread: {numbers}'
    spread = std_a + std_b
    if abs(gain) <= spread:
        return f'**undecided**, within the spread of {spread:.1f}: {numbers}'
    word = '**supported**' if gain > 0 else '**the opposite was found**'
    return f'{word}: {numbers}, spread {spread:.1f}'


def report_and_write(text: str, docs: Optional[Path], at: Marks) -> None:
    """Print the tables, and put them between their marks.

    Args:
        text: The tables.
        docs: File with the marks; None to print only.
        at: The marks.
    """
    print(f'\n{text}')
    if docs is not None:
        write_docs(docs, text, at)
        print(f'\nwritten to {docs}')


def write_docs(path: Path, text: str, at: Marks) -> None:
    """Put the text between its marks.

    Args:
        path: File with the marks.
        text: What to put there.
        at: The marks.
    """
    before, rest = path.read_text().split(at.begin, 1)
    _, after = rest.split(at.end, 1)
    path.write_text(f'{before}{at.begin}\n{text}\n{at.end}{after}')

"""What `make gpu` runs: tests on the GPU, bench, a training to the end; all into docs/gpu.md."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import machine
import torch
from bench import RATIOS

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / 'docs' / 'gpu.md'
#: Shown of a bench's row; the JSON has all.
COLUMNS = ('network', 'dtype', 'time_steps', 'ms', 'memory_mb')


class Step(NamedTuple):
    """One thing to run."""

    name: str
    command: Sequence[str]  # arguments of Python
    shown: str  # a pattern of the lines of its output that go to the page


class Outcome(NamedTuple):
    """How a step went."""

    step: Step
    status: int
    minutes: float
    lines: list[str]  # of its output, those to show


def steps(folder: Path) -> list[Step]:
    """What is run, in order."""
    return [
        Step(
            'tests',
            ['-m', 'pytest', '-q', '-rs', '-n', '0', 'tests/ops/test_gpu.py'],
            r'\d+ (passed|failed|skipped|error)|^(FAILED|ERROR|SKIPPED)|no tests ran',
        ),
        Step(
            'bench',
            [
                'benchmarks/bench.py', '--device', 'cuda', '--depth', '18', '--size', '320',
                '--batch', '1', '--time-steps', '4',
                '--what', 'neuron', 'inference', 'training', 'detector',
                '--out', f'{folder}/bench.json',
            ],
            r'of spikes equal|left out of',
        ),
        Step(
            'training',
            ['-m', 'mmsnn', 'demo', '--work-dir', f'{folder}/demo'],
            r'coco/bbox_mAP: |^Done in',
        ),
    ]  # fmt: skip


def run(step: Step, log: Path) -> Outcome:
    """Run a step, its output to a file, and say how it went."""
    print(f'== {step.name}: python {" ".join(step.command)}\n   output: {log}', flush=True)
    start = time.time()
    with log.open('w') as file:
        status = subprocess.call(
            [sys.executable, *step.command], cwd=ROOT, stdout=file, stderr=subprocess.STDOUT
        )
    minutes = (time.time() - start) / 60
    output = log.read_text(errors='replace').splitlines()
    if status:
        last = next((line for line in reversed(output) if line.strip()), 'it said nothing')
        print(f'   FAILED with status {status} after {minutes:.1f} minutes: {last}', flush=True)
    else:
        print(f'   passed in {minutes:.1f} minutes', flush=True)
    return Outcome(step, status, minutes, [x for x in output if re.search(step.shown, x)])


def bench_table(rows: list[dict]) -> Iterator[str]:
    """A bench's rows in Markdown, a table for each of its groups."""
    title = None
    for row in rows:
        if row['title'] != title:
            title = row['title']
            group = [r['ratios'] for r in rows if r['title'] == title]
            names = [name for name in RATIOS if any(name in ratios for ratios in group)]
            yield from ('', f'**{title}**', '')
            yield f'| network | dtype | T | ms | MB |{"".join(f" {name} |" for name in names)}'
            yield '| --- ' * (len(COLUMNS) + len(names)) + '|'
        cells = [
            *(row[name] for name in COLUMNS),
            *(row['ratios'].get(name, '') for name in names),
        ]
        cells = ['' if c is None else f'{c:.2f}' if isinstance(c, float) else c for c in cells]
        yield '| ' + ' | '.join(map(str, cells)) + ' |'


def page(outcomes: list[Outcome], facts: dict, rows: list[dict]) -> str:
    """The page of the site: the machine, each step with its result, the bench's table."""
    versions = ', '.join(f'{name} {version}' for name, version in facts['versions'].items())
    lines = [
        '# On a GPU',
        '',
        'Written by `make gpu`, which runs the tests of the kernels, the bench and the demo, a '
        'training to its end. Timings are medians; ratios compare with what was timed in the same '
        'run.',
        '',
        f'- {facts["gpu"]}, CUDA {torch.version.cuda}, {facts["cpu"]}, {facts["system"]}',
        f'- {versions}, Python {facts["python"]}, commit {facts["commit"]}',
        f'- Triton kernels: {facts["kernels"]["triton"]}',
        '',
        '| step | command | result | minutes |',
        '| --- | --- | --- | --- |',
    ]
    for step, status, minutes, _ in outcomes:
        result = f'**failed**, status {status}' if status else 'passed'
        command = ' '.join(step.command)
        lines.append(f'| {step.name} | `python {command}` | {result} | {minutes:.1f} |')
    for step, _, _, shown in outcomes:
        if shown:
            lines += ['', f'## {step.name.capitalize()}', '', '```text', *shown, '```']
        if step.name == 'bench':
            lines += bench_table(rows)
    return '\n'.join(lines) + '\n'


def main() -> None:
    """Run it all, a failure as well, and write the page; the exit status is 1 after a failure."""
    if not torch.cuda.is_available():
        build = f'CUDA {torch.version.cuda}' if torch.version.cuda else 'CPUs alone'
        sys.exit(
            f'make gpu: PyTorch {torch.__version__}, built for {build}, sees no GPU; '
            'CONTRIBUTING.md says how to have a CUDA build'
        )
    folder = Path('work_dirs', time.strftime('gpu-%Y%m%d-%H%M%S'))
    (ROOT / folder).mkdir(parents=True)
    outcomes = [run(step, ROOT / folder / f'{step.name}.log') for step in steps(folder)]
    results = ROOT / folder / 'bench.json'
    rows = json.loads(results.read_text())['rows'] if results.exists() else []
    PAGE.write_text(page(outcomes, machine.facts(), rows))
    print(f'results: {PAGE.relative_to(ROOT)}; logs: {folder}')
    failed = [outcome.step.name for outcome in outcomes if outcome.status]
    if failed:
        sys.exit(f'make gpu: failed: {", ".join(failed)}')


if __name__ == '__main__':
    main()

"""The demo: make a data set of handwritten digits, train, evaluate, draw, report.

It runs the commands that you would run, and prints each of them before.
"""

import argparse
import os
import os.path as osp
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Optional

CONFIG = 'mmsnn::digits/spiking-retinanet_sg-r10_asd_fpn_digits.py'
DATA = 'data/digits'
EVENTS_CONFIG = 'mmsnn::digits/spiking-retinanet_sg-r10_asd_fpn_digits-events.py'
EVENTS_DATA = 'data/digits-events'


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog='mmsnn demo',
        description='Train a small Spiking RetinaNet on handwritten digits (a few minutes on a '
        'CPU), evaluate it, and leave pictures with the boxes it finds and a report on its spikes. '
        'With --events, the same on moving digits before a simulated event camera, which the '
        'trained detector follows from window to window. With --quick, show a trained one at once.',
    )
    parser.add_argument(
        '--work-dir',
        help='folder for everything it makes (default: a new one, work_dirs/demo-DATE-TIME)',
    )
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument(
        '--events',
        action='store_true',
        help='recordings of a simulated event camera in the place of images, and animations',
    )
    kinds.add_argument(
        '--quick',
        action='store_true',
        help='no training: boxes, spikes and energy of the trained detector that comes with mmsnn, '
        'in seconds',
    )
    return parser.parse_args(argv)


def run(title: str, *command: str) -> None:
    """Announce a step and run it; a step that fails ends the demo with its exit status."""
    print(f'\n== {title}\n   $ mmsnn {shlex.join(command)}', flush=True)
    status = subprocess.call([sys.executable, '-m', 'mmsnn', *command])
    if status:
        sys.exit(
            f'the demo stopped: `mmsnn {command[0]}` ended with status {status}; its message is '
            'above'
        )


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Run the demo."""
    args = parse_args(argv)
    start = time.time()
    work_dir = args.work_dir or osp.join('work_dirs', time.strftime('demo-%Y%m%d-%H%M%S'))
    if args.quick:
        from .quick_demo import quick_demo

        quick_demo(work_dir, start)
        return
    # Beside any other busy process, OpenMP threads that spin while they wait slow each other many
    # times over; waiting less actively costs a tenth on an idle machine.
    os.environ.setdefault('GOMP_SPINCOUNT', '10000')
    if args.events:
        of_events(work_dir)
    else:
        of_images(work_dir)
    minutes = (time.time() - start) / 60
    print(f'\nDone in {minutes:.1f} minutes.')


def train(config: str, work_dir: str) -> str:
    """Train a detector; the path of its checkpoint."""
    run('2/5 training', 'train', config, '--work-dir', work_dir)
    with open(osp.join(work_dir, 'last_checkpoint')) as file:
        return osp.relpath(file.read().strip())


def report_on(config: str, checkpoint: str, work_dir: str) -> str:
    """Report on a detector; the path of the page."""
    report = osp.join(work_dir, 'spike_report.html')
    title = '5/5 report: results, pictures, spikes, energy, time'
    run(title, 'report', config, checkpoint, '--work-dir', work_dir, '--out', report)
    return report


def of_images(work_dir: str) -> None:
    """Digits on clutter, in images."""
    os.environ['MMSNN_DIGITS_ROOT'] = DATA
    run('1/5 data: handwritten digits on clutter', 'digits', DATA)
    checkpoint = train(CONFIG, work_dir)
    predictions = osp.join(work_dir, 'predictions.pkl')
    title = '3/5 evaluation on images that training never saw'
    run(title, 'test', CONFIG, checkpoint, '--work-dir', work_dir, '--out', predictions)
    pictures = osp.join(work_dir, 'pictures')
    run('4/5 pictures', 'draw', CONFIG, predictions, pictures)
    report = report_on(CONFIG, checkpoint, work_dir)
    print(
        f'\nPictures (true boxes on the left, found boxes on the right): {osp.join(pictures, "")}'
    )
    print(f'Checkpoint: {checkpoint}')
    print(f'Report, for any browser: {report}')


def of_events(work_dir: str) -> None:
    """Moving digits, before an event camera."""
    os.environ['MMSNN_DIGITS_EVENTS_ROOT'] = EVENTS_DATA
    run('1/5 data: moving digits before a simulated event camera', 'digits-events', EVENTS_DATA)
    checkpoint = train(EVENTS_CONFIG, work_dir)
    title = '3/5 evaluation on digits and motions that training never saw'
    run(title, 'test', EVENTS_CONFIG, checkpoint, '--work-dir', work_dir)
    followed, recordings = osp.join(work_dir, 'followed'), osp.join(EVENTS_DATA, 'val')
    title = '4/5 window by window, with states that go on'
    options = '--out-dir', followed, '--score-thr', '0.3'
    run(title, 'follow', EVENTS_CONFIG, checkpoint, recordings, *options)
    report = report_on(EVENTS_CONFIG, checkpoint, work_dir)
    print(f'\nAnimations of events and boxes, spikes over time: {osp.join(followed, "")}')
    print(f'Checkpoint: {checkpoint}')
    print(f'Report, for any browser: {report}')

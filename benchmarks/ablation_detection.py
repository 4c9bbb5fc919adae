"""What a spiking detector reaches from scratch and from an ANN, beside its ANN twin."""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

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
EXAMPLES = """examples:
  mmsnn digits data/digits
  python benchmarks/ablation_detection.py digits --data data/digits
  python benchmarks/ablation_detection.py digits --data data/digits --only ann scratch --seeds 0
  python benchmarks/ablation_detection.py digits --data data/digits --docs docs/results.md

Every finished run is kept in --out: a second call does only what is missing. A row that starts from
the ANN trains it first, with the same seed."""

#: Images without labels by which a converted ANN is calibrated.
CALIBRATION_IMAGES = 64


class Data(NamedTuple):
    """A data set: its config, the variable that says where it is, and its name for people."""

    config: str
    variable: str
    title: str


DATA = {
    'digits': Data(
        'configs/ablation/spiking-retinanet_sg-r18_asd_fpn_digits-96.py',
        'MMSNN_DIGITS_ROOT',
        'handwritten digits on clutter',
    ),
    'raccoon': Data(
        'configs/ablation/spiking-retinanet_sg-r18_asd_fpn_raccoon.py',
        'MMSNN_RACCOON_ROOT',
        'photos of raccoons',
    ),
}


class Row(NamedTuple):
    """One row of the table.

    Args:
        title: What it is called.
        options: How it departs from the config, by dotted key.
        part: Which part of the config's steps it takes, 1 / part.
        start: ``'copy'`` or ``'calibrated'`` weights of the ANN of the same seed, or ``'scratch'``.
    """

    title: str
    options: dict
    part: int = 1
    start: str = 'scratch'


def _steps(time_steps: int) -> dict:
    return {'model.backbone.time_steps': time_steps}


def _quarter(title: str, options: dict) -> Row:
    return Row(f'{title}, from the ANN, calibrated, a quarter', options, 4, 'calibrated')


ROWS = {
    'ann': Row('ANN twin: RetinaNet, ResNet-18', {}),
    **{f'scratch-t{t}': Row(f'SG, ASD, T = {t}, from scratch', _steps(t)) for t in (4, 2, 1)},
    **{f'quarter-t{t}': _quarter(f'SG, ASD, T = {t}', _steps(t)) for t in (4, 2, 1)},
    **{
        f'twelfth-t{t}': Row(
            f'SG, ASD, T = {t}, from the ANN, calibrated, a twelfth', _steps(t), 12, 'calibrated'
        )
        for t in (4, 2, 1)
    },
    'quarter-copy': Row('SG, ASD, T = 4, from the ANN, a mere copy, a quarter', {}, 4, 'copy'),
    'twelfth-copy': Row('SG, ASD, T = 4, from the ANN, a mere copy, a twelfth', {}, 12, 'copy'),
    'quarter-rate': _quarter('SG, rate coding, T = 4', {'model.neck.0.type': 'RateNeck'}),
    'quarter-last': _quarter('SG, last time step, T = 4', {'model.neck.0.type': 'LastNeck'}),
    'quarter-sew': _quarter('SEW (add), ASD, T = 4', block('sew', 'SEWAddGate')),
    'quarter-plain': _quarter('plain spiking block, ASD, T = 4', block('plain')),
    'quarter-learned': _quarter('SG, learned gate, ASD, T = 4', block('sg', 'LearnedGate')),
    'quarter-ilif': _quarter(
        'SG, ASD, ILIF, T = 1, D = 4',
        {**_steps(1), 'model.backbone.act_cfg': dict(type='ILIFNeuron', D=4)},
    ),
}


class Share(NamedTuple):
    """How much of its ANN twin's AP a row is to reach."""

    text: str
    row: str
    least: float


SHARES = (
    Share('from scratch, in the same steps, T = 4', 'scratch-t4', 0.95),
    Share('from the calibrated ANN, in a quarter of its steps, T = 4', 'quarter-t4', 0.98),
    Share('from the calibrated ANN, in a quarter of its steps, T = 2', 'quarter-t2', 0.98),
    Share('from the calibrated ANN, in a quarter of its steps, T = 1', 'quarter-t1', 0.98),
    Share('from the calibrated ANN, in a twelfth of its steps, T = 4', 'twelfth-t4', 0.90),
    Share('from the calibrated ANN, in a twelfth of its steps, T = 2', 'twelfth-t2', 0.90),
    Share('from the calibrated ANN, in a twelfth of its steps, T = 1', 'twelfth-t1', 0.90),
)
CLAIMS = (
    Claim(
        'A quarter of the steps from the ANN is better than all of them from scratch',
        'quarter-t4',
        'scratch-t4',
    ),
    Claim('Calibration helps behind a quarter of the steps', 'quarter-t4', 'quarter-copy'),
    Claim('Calibration helps behind a twelfth of the steps', 'twelfth-t4', 'twelfth-copy'),
    Claim('T = 4 is better than T = 1, from scratch', 'scratch-t4', 'scratch-t1'),
    Claim('T = 4 is better than T = 1, from the ANN', 'quarter-t4', 'quarter-t1'),
    Claim('ASD decodes better than rate coding, from the ANN', 'quarter-t4', 'quarter-rate'),
    Claim('ASD decodes better than the last time step, from the ANN', 'quarter-t4', 'quarter-last'),
    Claim('SG blocks learn better than plain ones, from the ANN', 'quarter-t4', 'quarter-plain'),
    Claim('SG blocks learn better than SEW blocks, from the ANN', 'quarter-t4', 'quarter-sew'),
)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description='Train small detectors with the same data, order and seeds: an ANN, spiking '
        'ones from scratch, and spiking ones that start from the ANN and take a part of its steps.',
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('set', choices=DATA, help='the data set')
    parser.add_argument(
        '--data',
        help='its folder (default: '
        + ', '.join(f'{data.variable} for {name}' for name, data in DATA.items())
        + ')',
    )
    add_arguments(parser, ROWS, out='work_dirs/ablation_detection')
    args = parser.parse_args()
    args.data = args.data or os.environ.get(DATA[args.set].variable)
    if not args.data:
        parser.error(f'say where the data are: --data /path, or {DATA[args.set].variable}')
    check_arguments(parser, args, ('jobs',), marks(f'ablation, {args.set}'))
    return args


def build_config(of: str, name: str, seed: int, work_dir: str, options: list):
    """The config of one run.

    Args:
        of: Key of ``DATA``.
        name: Key of ``ROWS``.
        seed: Seed of weights, order and augmentation.
        work_dir: Where mmengine may write.
        options: ``KEY=VALUE`` for every row.

    Returns:
        mmengine.Config.
    """
    from mmengine.config import Config

    cfg = Config.fromfile(ROOT / DATA[of].config)
    row = ROWS[name]
    set_options(cfg, row.options, options)
    if name == 'ann':
        _make_ann(cfg.model)
    cfg.ann_steps = cfg.train_cfg.max_iters
    steps = max(1, cfg.ann_steps // row.part)
    # The only evaluation is the one after the last step: no row picks its best one.
    cfg.train_cfg.update(max_iters=steps, val_interval=steps + 1)
    warm_up, cosine = cfg.param_scheduler
    warm_up.end = max(1, steps // 12)
    cosine.T_max = cosine.end = steps
    set_run(cfg, name, seed, work_dir)
    return cfg


def _make_ann(model) -> None:
    """The ANN twin: MMDetection's ResNet of the same widths, and no decoder."""
    spiking = model.backbone
    model.type = 'RetinaNet'
    model.backbone = dict(
        type='ResNet',
        dilations=(1,) * spiking.num_stages,
        norm_eval=False,
        zero_init_residual=False,
        **{
            key: spiking[key]
            for key in (
                'depth', 'stem_channels', 'base_channels', 'num_stages', 'strides', 'out_indices',
            )
        },
    )  # fmt: skip
    model.neck = model.neck[1]


def converted(cfg, checkpoint: Path, calibrate: bool) -> dict:
    """Weights of a spiking detector that has an ANN's, as ``mmsnn ann-to-spiking`` makes them.

    Args:
        cfg: The spiking detector's config.
        checkpoint: The ANN's.
        calibrate: Whether to calibrate them.

    Returns:
        A state dict.
    """
    import torch
    from mmdet.registry import MODELS
    from mmengine.registry import init_default_scope

    from mmsnn.conversion import Calibrator, calibration_images, load_ann

    init_default_scope('mmdet')
    torch.manual_seed(cfg.randomness.seed)
    model = MODELS.build(cfg.model)
    model.init_weights()
    load_ann(model.eval(), str(checkpoint))
    if calibrate:
        Calibrator(model, calibration_images(cfg, model, CALIBRATION_IMAGES)).run()
    return model.state_dict()


def ann_checkpoint(out: Path, seed: int) -> Path:
    """Where the ANN of a seed is kept."""
    return out / f'ann-seed{seed}.pth'


def train_one(name: str, seed: int, of: str, data: str, out: Path, options: list) -> dict:
    """Train and evaluate one row with one seed, in a process of its own.

    Returns:
        What the run's JSON file holds.
    """
    os.environ[DATA[of].variable] = data
    import mmsnn  # noqa: F401  isort: skip

    import torch
    from mmengine.logging import MMLogger
    from mmengine.runner import Runner

    torch.set_num_threads(1)
    MMLogger.get_current_instance().setLevel('WARNING')
    cfg = build_config(of, name, seed, str(out / 'logs'), options)
    start = ROWS[name].start
    begin = time.time()
    with tempfile.TemporaryDirectory() as folder:
        if start != 'scratch':
            cfg.load_from = f'{folder}/start.pth'
            weights = converted(cfg, ann_checkpoint(out, seed), start == 'calibrated')
            torch.save(dict(state_dict=weights), cfg.load_from)
        runner = Runner.from_cfg(cfg)
        runner.train()
    seconds = time.time() - begin
    metrics = runner.val()
    model = runner.model
    if name == 'ann':
        torch.save(dict(state_dict=model.state_dict()), ann_checkpoint(out, seed))
    return dict(
        row=name,
        seed=seed,
        # Where nothing at all was found there is no number.
        ap=100 * metrics.get('coco/bbox_mAP', 0.0),
        ap50=100 * metrics.get('coco/bbox_mAP_50', 0.0),
        steps=cfg.train_cfg.max_iters,
        ann_steps=cfg.ann_steps,
        batch=cfg.train_dataloader.batch_size,
        images=len(runner.train_dataloader.dataset),
        test_images=len(runner.val_dataloader.dataset),
        parameters=sum(p.numel() for p in model.parameters()),
        options=options,
        seconds=round(seconds, 1),
    )


def share_verdict(share: Share, runs: dict) -> str:
    """What part of the ANN twin's AP a row reaches.

    Args:
        share: The row, and what it is to reach.
        runs: Runs by row.

    Returns:
        A sentence.
    """
    pairs = _shares(runs, share.row)
    if not pairs:
        return 'not run'
    mean = statistics.mean(pairs)
    word = '**reached**' if mean >= share.least else '**not reached**'
    each = ', '.join(f'{pair:.2f}' for pair in pairs)
    return f'{word}: {mean:.2f} (seeds: {each}), to be at least {share.least:.2f}'


def _shares(runs: dict, row: str) -> list:
    """AP of a row by that of the ANN of the same seed."""
    ann = {run['seed']: run['ap'] for run in runs.get('ann', ())}
    return [run['ap'] / ann[run['seed']] for run in runs.get(row, ()) if ann.get(run['seed'])]


def report(of: str, runs: list) -> str:
    """The table and the claims, in Markdown.

    Args:
        of: Key of ``DATA``.
        runs: Contents of the runs' JSON files.

    Returns:
        Markdown text.
    """
    results = by_row(runs, ROWS)
    rows = summarise({name: [run['ap'] for run in found] for name, found in results.items()})
    lines = [
        '| network | AP | seeds | of the ANN | AP_50 | steps | parameters |',
        '| --- | --- | --- | --- | --- | --- | --- |',
    ]
    for name, found in results.items():
        shares = _shares(results, name)
        lines.append(
            f'| {ROWS[name].title} | {scores_cells([run["ap"] for run in found])} | '
            f'{f"{statistics.mean(shares):.2f}" if shares else ""} | '
            f'{statistics.mean(run["ap50"] for run in found):.1f} | {found[0]["steps"]} | '
            f'{found[0]["parameters"]:,} |'
        )
    some = runs[0]
    lines += [
        '',
        f'{some["images"]:,} training and {some["test_images"]:,} test images of '
        f'{DATA[of].title}, batches of {some["batch"]}; AP and AP_50 in percent after the last '
        'step, mean ± sample standard deviation over the seeds. "Of the ANN" is the mean over the '
        'seeds of AP divided by that of the ANN of the same seed, which is also the one that a row '
        'starts from.',
    ]
    told = {
        "part of the ANN twin's AP": [(s.text, share_verdict(s, results)) for s in SHARES],
        'claim': [(claim.text, verdict(claim, rows)) for claim in CLAIMS],
    }
    for title, pairs in told.items():
        found = [f'| {text} | {words} |' for text, words in pairs if words != 'not run']
        if found:
            lines += ['', f'| {title} | on this evidence |', '| --- | --- |', *found]
    missing = [f'`{name}`' for name in ROWS if name not in results]
    if missing:
        lines += ['', f'Rows that were not run: {", ".join(missing)}.']
    return '\n'.join(lines)


def main() -> None:
    """Run what is missing, then print the table."""
    args = parse_args()
    out = args.out / args.set
    out.mkdir(parents=True, exist_ok=True)
    names = args.only or list(ROWS)
    if any(ROWS[name].start != 'scratch' for name in names):
        names = ['ann', *(name for name in names if name != 'ann')]
    # Seed by seed, so that an early stop leaves a whole table of fewer seeds.
    runs = []
    settings = args.set, str(Path(args.data).resolve()), out, args.cfg_options
    for seed in args.seeds:
        # What starts from the ANN waits for it.
        first, then = (
            [(name, seed) for name in names if (ROWS[name].start == 'scratch') == scratch]
            for scratch in (True, False)
        )
        for wanted in (first, then):
            if wanted:
                runs += run_missing(wanted, args, out, train_one, *settings, score='ap')
    one_budget(runs, ('ann_steps', 'batch', 'images', 'options'), out)
    report_and_write(report(args.set, runs), args.docs, marks(f'ablation, {args.set}'))


if __name__ == '__main__':
    main()

"""The curves of a training run, from what mmengine's logger left."""

import json
import math
import os.path as osp
from collections.abc import Mapping
from glob import escape, glob
from typing import Any, Optional, cast


def read_curves(work_dir: str, scores: Mapping[str, str]) -> Optional[dict[str, Any]]:
    """Losses and validation scores of the run that trained in a folder.

    A resumed run has several logs: of a step that several of them have, the last one counts.

    Args:
        work_dir: Folder of the run, with ``TIMESTAMP/vis_data/scalars.json``.
        scores: Names in the log, less the prefix, of the scores to read.

    Returns:
        ``losses``: for each name that starts with loss [step, value] pairs, steps counted in
        iterations; ``scores``: likewise for the scores; ``epochs``; ``iterations``; ``last_loss``
        and ``late_change``, by what share of itself it grew over the last tenth of the iterations.
        None where no log has a loss.
    """
    losses: dict[int, dict] = {}
    found: dict[int, dict] = {}
    epochs: dict[int, int] = {}
    for path in sorted(glob(osp.join(escape(work_dir), '*', 'vis_data', 'scalars.json'))):
        rows = _rows(path)
        if not any('loss' in row for row in rows):  # of a test
            continue
        for row in rows:
            step = cast(int, row.get('step'))  # the logger writes one into every row
            if 'loss' in row:
                losses[step] = {k: v for k, v in row.items() if k.startswith('loss')}
                if 'epoch' in row:
                    epochs[row['epoch']] = max(step, epochs.get(row['epoch'], 0))
            values = {key.rpartition('/')[2]: value for key, value in row.items()}
            values = {key: values[key] for key in scores if key in values}
            if values:
                # Validation counts in epochs where training does.
                found[epochs.get(step, step)] = values
    if not losses:
        return None
    curves = _by_name(losses)
    steps, totals = zip(*curves.get('loss', [[0, math.nan]]))
    late = next(v for s, v in zip(steps, totals) if s >= 0.9 * steps[-1])
    return dict(
        losses=curves,
        scores=_by_name(found),
        epochs=max(epochs, default=None),
        iterations=steps[-1],
        last_loss=totals[-1],
        late_change=totals[-1] / late - 1 if late else None,
    )


def _rows(path: str) -> list[dict]:
    rows = []
    with open(path) as file:
        for line in file:
            try:
                rows.append(json.loads(line))
            except ValueError:  # the last line of a run that was killed
                continue
    return rows


def _by_name(rows: dict[int, dict]) -> dict[str, list]:
    curves: dict[str, list] = {}
    for step in sorted(rows):
        for name, value in rows[step].items():
            if isinstance(value, (int, float)) and math.isfinite(value):
                curves.setdefault(name, []).append([step, value])
    return curves

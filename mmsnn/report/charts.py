"""Line charts as SVG that takes its colours from the page, light or dark."""

import io
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# What Matplotlib draws in these colours, the page draws in its own.
INK, SERIES = '#010101', ('#020202', '#030303', '#040404')
VARIABLES = {INK: 'var(--ink)', **{c: f'var(--series{i})' for i, c in enumerate(SERIES)}}


def anytime_charts(
    rows: Sequence[dict[str, Any]], scores: dict[str, str], configured: int
) -> tuple[str, str]:
    """Scores against T, and time against T.

    Args:
        rows: As of :func:`mmsnn.utils.anytime`.
        scores: Names for people by their keys in the rows.
        configured: T of the config, which is marked.

    Returns:
        Two SVG texts.
    """
    steps = [row['time_steps'] for row in rows]
    figure, axes = _axes('time steps T', ' and '.join(scores.values()))
    for (key, label), color in zip(scores.items(), SERIES):
        axes.plot(steps, [row[key] for row in rows], 'o-', color=color, clip_on=False, label=label)
    cost_figure, cost_axes = _axes('time steps T', 'ms an image')
    times = [row['ms_per_image'] for row in rows]
    cost_axes.plot(steps, times, 'o-', color=SERIES[0], clip_on=False)
    for ax in (axes, cost_axes):
        ax.axvline(configured, color=INK, linewidth=0.8, linestyle=':')
        ax.set_xticks(steps)
    cost_axes.set_ylim(bottom=0)
    # From 0 on, what separates one T from the next would be lost.
    low, high = (f(row[key] or 0 for row in rows for key in scores) for f in (min, max))
    axes.set_ylim(bottom=max(0, low - max(high - low, high / 10)))
    axes.legend(frameon=False, labelcolor=INK)
    return _svg(figure), _svg(cost_figure)


def training_charts(curves: dict[str, Any], scores: dict[str, str]) -> list[str]:
    """Losses against iterations, and validation scores.

    Args:
        curves: As of :func:`mmsnn.report.training.read_curves`.
        scores: Names for people by their keys in the curves.

    Returns:
        One or two SVG texts.
    """
    figure, axes = _axes('iterations', 'loss')
    # The sum first, then its largest parts: more lines than colours nobody can tell apart.
    losses = sorted(curves['losses'].items(), key=lambda item: -item[1][-1][1])
    for (name, points), color in zip(losses, SERIES):
        axes.plot(*zip(*points), color=color, label=name, linewidth=1.2)
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.legend(frameon=False, labelcolor=INK)
    charts = [_svg(figure)]
    if any(len(points) > 1 for points in curves['scores'].values()):
        figure, axes = _axes('iterations', 'on the validation images')
        for (key, points), color in zip(curves['scores'].items(), SERIES):
            axes.plot(*zip(*points), 'o-', color=color, clip_on=False, label=scores[key])
        axes.set_ylim(bottom=0)
        axes.set_xlim(left=0)
        axes.legend(frameon=False, labelcolor=INK)
        charts.append(_svg(figure))
    return charts


def compare_curves(reports: Sequence[tuple[str, Sequence[dict[str, Any]]]]) -> str:
    """Precision against recall over all classes, of several reports.

    Args:
        reports: Of each its name and its curves, as of :class:`mmsnn.report.tasks.DetectionTask`.

    Returns:
        SVG.
    """
    figure, axes = _axes('recall', 'precision')
    for (label, curves), color in zip(reports, SERIES):
        row = curves[0]
        counts = [(right, right + wrong) for right, wrong in zip(row['right'], row['wrong'])]
        points = [(right / max(row['true'], 1), right / n) for right, n in counts if n]
        if points:
            axes.plot(*zip(*points), color=color, label=label, clip_on=False)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.legend(frameon=False, labelcolor=INK, loc='lower left')
    return _svg(figure)


def _axes(x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.4, 2.8), layout='constrained')
    axes = figure.add_subplot()
    axes.patch.set_visible(False)
    axes.spines[['top', 'right']].set_visible(False)
    axes.spines[['left', 'bottom']].set_color(INK)
    axes.tick_params(colors=INK)
    axes.set_xlabel(x, color=INK)
    axes.set_ylabel(y, color=INK)
    return figure, axes


def _svg(figure: Figure) -> str:
    file = io.StringIO()
    # Text stays text, in the font of the page.
    with matplotlib.rc_context({'svg.fonttype': 'none', 'font.family': 'sans-serif'}):
        figure.savefig(file, format='svg', transparent=True, metadata={'Date': None})
    text = file.getvalue()
    for color, variable in VARIABLES.items():
        text = text.replace(color, variable)
    return text[text.index('<svg') :]

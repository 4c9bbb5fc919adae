"""The report as one HTML file that needs nothing else."""

import json
import os.path as osp
from collections.abc import Callable, Sequence
from typing import Any, Optional

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from .charts import anytime_charts, training_charts
from .gallery import Pictures
from .matching import STATES, VERDICTS

#: Names and meanings of the numbers that evaluators give.
METRICS = {
    'bbox_mAP': ('mAP', 'mean average precision over classes and IoU 0.50 to 0.95'),
    'bbox_mAP_50': ('mAP at IoU 0.50', 'a box counts where it overlaps by half'),
    'bbox_mAP_75': ('mAP at IoU 0.75', 'a box counts where it overlaps by three quarters'),
    'bbox_mAP_s': ('mAP, small', 'objects below 32 x 32 pixels'),
    'bbox_mAP_m': ('mAP, medium', 'objects from 32 x 32 to 96 x 96 pixels'),
    'bbox_mAP_l': ('mAP, large', 'objects from 96 x 96 pixels on'),
    'top1': ('top-1, %', 'the most probable class is the true one'),
    'top5': ('top-5, %', 'the true class is among the five most probable'),
}


def template(name: str) -> Template:
    """A page of this folder, to be filled in.

    Args:
        name: Its file.

    Returns:
        The template. What is put into it is escaped, and what it lacks is an error.
    """
    return Environment(
        loader=FileSystemLoader(osp.dirname(__file__)),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template(name)


def render(numbers: dict[str, Any], pictures: Pictures, numbers_file: str) -> str:
    """Make the page.

    Args:
        numbers: As of :func:`mmsnn.report.collect`, with ``config``, ``checkpoint``, ``command``.
        pictures: Likewise.
        numbers_file: Name of the file that holds the numbers.

    Returns:
        HTML. Every number shown is an element with its place in the numbers as ``data-json`` and
        the format as ``data-format``.
    """
    layers = list(enumerate(numbers['profile']['layers']))
    neurons = [(i, layer) for i, layer in layers if layer['kind'] == 'neuron']
    weights = [(i, layer) for i, layer in layers if layer['kind'] != 'neuron']
    edges = numbers['profile']['potential_edges']
    training = numbers['training']
    scores = numbers['scores']
    charts = dict(
        anytime=anytime_charts(numbers['anytime'], scores, numbers['time_steps'])
        if neurons
        else [],
        training=training_charts(training, scores) if training else [],
    )
    return template('page.html').render(
        r=numbers,
        numbers_file=numbers_file,
        n=_shower(numbers),
        pictures=pictures,
        charts={name: list(map(Markup, svgs)) for name, svgs in charts.items()},
        verdicts=VERDICTS,
        states=STATES,
        metric_names=METRICS,
        neurons=neurons,
        weights=weights,
        default_layer=numbers['gallery'][0]['layer'],
        top_rate=max((rate for _, layer in neurons for rate in layer['rate_by_step']), default=0),
        top_part=_top_energy([numbers['profile']]),
        top_layer=_top_energy([layer for _, layer in weights]),
        threshold_at=edges.index(1.0) / (len(edges) - 1),
        spark=spark,
        bars=bars,
        shot_classes=_classes_of,
        shot_mistakes=_mistakes_of,
        # In a script element nothing is escaped but what could end it.
        curves_json=Markup(json.dumps(numbers.get('curves', [])).replace('<', '\\u003c')),
    )


def _classes_of(shot: dict[str, Any]) -> list[str]:
    """Classes that a picture has or was said to have."""
    if 'true' not in shot:
        return sorted({shot['true_class'], shot['guesses'][0]['name']})
    return sorted({box['name'] for box in [*shot['true'], *shot['found']]})


def _mistakes_of(shot: dict[str, Any]) -> list[tuple[str, str]]:
    """What is wrong on a picture, and of which class."""
    if 'true' not in shot:
        names = {shot['true_class'], shot['guesses'][0]['name']}
        return [('wrong class', name) for name in sorted(names)] if shot['mistakes'] else []
    missed = [('not seen', box['name']) for box in shot['true'] if box['state'] == 'not seen']
    wrong = [
        (box['verdict'], box['name'])
        for box in shot['found']
        if box['verdict'] not in ('correct', 'ignored')
    ]
    return sorted({*missed, *wrong})


def _top_energy(rows: Sequence[dict]) -> float:
    return max((max(row['energy'], row['ann_energy']) for row in rows), default=0) or 1.0


def bars(energy: float, ann_energy: float, top: float) -> Markup:
    """Two bars, the spiking network's energy over its twin's.

    Args:
        energy: Of the spiking network.
        ann_energy: Of the twin.
        top: What a full bar stands for.

    Returns:
        HTML.
    """
    bar = Markup('<i class="bar {}" style="width:{:.1f}%"></i>')
    return bar.format('snn', 100 * energy / top) + bar.format('ann', 100 * ann_energy / top)


def spark(values: Sequence[float], line: Optional[float] = None) -> Markup:
    """A histogram the size of a word, its heights square roots where there is a line.

    Args:
        values: Heights, at least 0; each as high as the picture where it is the largest.
        line: Where to draw an upright line, as a share of the width.

    Returns:
        SVG.
    """
    heights = np.asarray(values, dtype=float)
    if line is not None:
        heights = np.sqrt(heights)
    heights = 24 * heights / (heights.max() or 1)
    x = np.linspace(0, 96, len(heights) + 1)
    path = ''.join(
        f'L{left:.1f} {25 - h:.1f}L{right:.1f} {25 - h:.1f}'
        for left, right, h in zip(x, x[1:], heights)
    )
    svg = Markup(
        '<svg class="spark" viewBox="0 0 96 26" aria-hidden="true"><path d="M0 25{}L96 25Z"/>'
    )
    svg = svg.format(path)
    if line is not None:
        svg += Markup('<line x1="{0:.1f}" x2="{0:.1f}" y1="0" y2="26"/>').format(96 * line)
    return svg + Markup('</svg>')


def format_number(value: Any, form: str) -> str:
    """A number for people.

    Args:
        value: The number; None gives ``'n/a'``.
        form: A format of Python's, with a factor in front: ``'1e6 .2f'`` is millionths.

    Returns:
        The text.

    Example:
        >>> from mmsnn.report import format_number
        >>> format_number(0.0000125, '1e6 .1f')
        '12.5'
    """
    factor, _, spec = form.rpartition(' ')
    if value is None:
        return 'n/a'
    return format(value * float(factor) if factor else value, spec)


def find_number(numbers: dict[str, Any], place: str) -> Any:
    """The number at a place.

    Args:
        numbers: The report's numbers.
        place: Keys and indices, joined by ``/``.

    Returns:
        It.
    """
    for key in place.split('/'):
        numbers = numbers[int(key) if isinstance(numbers, list) else key]
    return numbers


def _shower(numbers: dict[str, Any]) -> Callable[[str, str], Markup]:
    def show(place: str, form: str = '.3f') -> Markup:
        text = format_number(find_number(numbers, place), form)
        return Markup('<span data-json="{}" data-format="{}">{}</span>').format(place, form, text)

    return show


def write(numbers: dict[str, Any], pictures: Pictures, out: str) -> str:
    """Write the page, and its numbers beside it.

    Args:
        numbers: As of :func:`render`.
        pictures: Likewise.
        out: Path of the page, which ends in ``.html``; it must not be there yet.

    Returns:
        Path of the JSON file.

    Raises:
        FileExistsError: One of them is there already.
    """
    json_path = f'{osp.splitext(out)[0]}.json'
    page = render(numbers, pictures, osp.basename(json_path))
    text = json.dumps(numbers, indent=1, allow_nan=False)
    with open(json_path, 'x') as file:
        file.write(text)
    with open(out, 'x', encoding='utf-8') as file:
        file.write(page)
    return json_path

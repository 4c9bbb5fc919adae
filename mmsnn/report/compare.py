"""Two reports side by side: an ANN and a spiking network, two T, before and after."""

import json
import os.path as osp
import re
from pathlib import Path
from typing import Any, NamedTuple, Optional

from markupsafe import Markup

from .charts import compare_curves
from .page import METRICS, format_number, template

#: What a row is called, where the number is, how it is shown, and whether less is better.
ROWS = (
    ('firing rate', 'profile/firing_rate', '100 .1f', '%', None),
    ('spikes an image', 'profile/spikes', ',.0f', '', None),
    ('energy of the arithmetic, an image', 'profile/energy', '1e6 ,.1f', 'µJ', True),
    ('energy of the memory traffic, an image', 'profile/memory_energy', '1e6 ,.1f', 'µJ', True),
    ('time an image', 'ms_per_image', '.1f', 'ms', True),
    ('parameters', 'profile/parameters', ',d', '', None),
    ('images without a mistake', 'faultless', 'd', '', False),
)
DETECTION_ROWS = (
    ('least score of a box', 'score_thr', '.2f', '', None),
    ('precision there', 'precision', '.2f', '', False),
    ('recall there', 'recall', '.2f', '', False),
    ('F1 there', 'f1', '.2f', '', False),
)


class CompareError(ValueError):
    """Two files cannot be compared; the message says why in one line."""


class Report(NamedTuple):
    """A report that was read.

    - ``label``: what the page calls it.
    - ``numbers``: as of :func:`mmsnn.report.collect`.
    - ``shots``: pictures with their boxes, as HTML, by name; empty where the page is not there.
    """

    label: str
    numbers: dict[str, Any]
    shots: dict[str, Markup]


def read_report(path: str) -> Report:
    """Read a report by its page, its numbers or its folder.

    Args:
        path: ``FILE.html``, ``FILE.json``, or a folder, whose last report by name
            is taken.

    Returns:
        The report.

    Raises:
        CompareError: It isn't there, or no report.
    """
    if osp.isdir(path):
        found = sorted(Path(path).glob('**/spike_report.json'))
        if not found:
            raise CompareError(f'{path} holds no spike_report.json: give a report or its folder')
        path = str(found[-1])
    stem = osp.splitext(path)[0]
    try:
        numbers = json.loads(Path(f'{stem}.json').read_text(encoding='utf-8'))
    except OSError as error:
        raise CompareError(
            f'{stem}.json cannot be read ({error.strerror}): mmsnn report writes it beside its page'
        ) from error
    except ValueError as error:
        raise CompareError(f'{stem}.json is no JSON: {error}') from error
    keys = ('mmsnn', 'task', 'classes', 'images', 'profile', 'metrics', 'scores', 'gallery')
    if not isinstance(numbers, dict) or any(key not in numbers for key in keys):
        raise CompareError(f'{stem}.json is no report of mmsnn report')
    page = Path(f'{stem}.html')
    return Report('', numbers, _shots(page.read_text(encoding='utf-8')) if page.is_file() else {})


def _shots(page: str) -> dict[str, Markup]:
    """Pictures of a page with their boxes, by the name of the image."""
    found = {}
    for article in re.findall(r'<article class="shot.*?</article>', page, re.DOTALL):
        name = re.search(r'</span>([^<]*)</h3>', article)
        stage = re.search(r'<div class="stage"[^>]*>(.*?)</div>', article, re.DOTALL)
        if name and stage:
            found[name[1]] = Markup(stage[1])  # of our own page, where it was escaped
    return found


def check_comparable(a: dict[str, Any], b: dict[str, Any]) -> None:
    """Refuse reports of other data.

    Args:
        a: Numbers of a report.
        b: Those of the other.

    Raises:
        CompareError: Names what differs.
    """
    for key, what in (
        ('task', 'one is of {}, the other of {}'),
        ('classes', 'one has the classes {}, the other {}'),
        ('images', 'one is of {} images, the other of {}'),
        ('true_boxes', 'one has {} true boxes, the other {}'),
    ):
        if a.get(key) != b.get(key):
            values = [r.get(key) for r in (a, b)]
            values = [', '.join(map(str, v)) if isinstance(v, list) else v for v in values]
            raise CompareError(
                f'the reports are of different test data: {what.format(*values)}. Make both on the '
                'same images, with one config for the data'
            )


def _labels(a: dict[str, Any], b: dict[str, Any]) -> tuple[str, str]:
    """Short names that tell two reports apart."""

    def label(r):
        time = f', T = {r["time_steps"]}' if r['profile'].get('firing_rate') is not None else ''
        return f'{r["model"]}, {r["backbone"]}{time}'

    labels = [label(r) for r in (a, b)]
    if labels[0] == labels[1]:
        labels = [f'{name} ({osp.basename(r["checkpoint"])})' for name, r in zip(labels, (a, b))]
    return f'A: {labels[0]}', f'B: {labels[1]}'


def _find(numbers: dict[str, Any], place: str) -> Optional[float]:
    value: Any = numbers
    for key in place.split('/'):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _show(value: Optional[float], form: str, unit: str, sign: str = '') -> str:
    factor, space, spec = form.rpartition(' ')
    if sign:
        form = f'{factor}{space}{sign}{spec.lstrip(",")}'
    return format_number(value, form) + (f' {unit}' if unit and value is not None else '')


def table(a: dict[str, Any], b: dict[str, Any]) -> list[dict[str, Any]]:
    """What both reports say, and how they differ.

    Args:
        a: Numbers of a report.
        b: Those of the other.

    Returns:
        Rows with ``name``, ``a``, ``b``, ``difference`` (b - a) and ``ratio`` (b / a) as texts,
        and ``better``: ``'a'``, ``'b'`` or ``''`` where neither is or more is not better.
    """
    detection = a['task'] == 'detection'
    form = '.3f' if detection else '.2f'
    places = [
        (METRICS.get(key, (a['scores'].get(key, key),))[0], f'metrics/{key}', form, '', False)
        for key in a['metrics']
        if key in b['metrics'] and (key in METRICS or key in a['scores'])
    ]
    rows = []
    for name, place, spec, unit, less in (*places, *(DETECTION_ROWS if detection else ()), *ROWS):
        of_a, of_b = _find(a, place), _find(b, place)
        if of_a is None and of_b is None:
            continue
        row = dict(name=name, difference='', ratio='', better='')
        row['a'], row['b'] = (_show(value, spec, unit) for value in (of_a, of_b))
        if of_a is not None and of_b is not None:
            row['difference'] = _show(of_b - of_a, spec, '', '+')
            row['ratio'] = f'{of_b / of_a:.2f}' if of_a else ''
            if less is not None and of_a != of_b:
                row['better'] = 'b' if (of_b < of_a) == less else 'a'
        rows.append(row)
    return rows


def compare(path_a: str, path_b: str) -> str:
    """Make the page that puts two reports side by side.

    Args:
        path_a: The first, as of :func:`read_report`.
        path_b: The second.

    Returns:
        HTML that needs nothing else.

    Raises:
        CompareError: One of them can't be read, or they are of different test data.
    """
    reports = [read_report(path) for path in (path_a, path_b)]
    a, b = (report.numbers for report in reports)
    check_comparable(a, b)
    labels = _labels(a, b)
    reports = [report._replace(label=label) for report, label in zip(reports, labels)]
    common = [name for name in reports[0].shots if name in reports[1].shots]
    charts = []
    if all(r.get('curves') for r in (a, b)):
        charts = [
            Markup(compare_curves([(label, r['curves']) for label, r in zip(labels, (a, b))]))
        ]
    of_b = {row['name']: row for row in b['by_class']}
    classes = [(row, of_b[row['name']]) for row in a['by_class'] if row['name'] in of_b]
    return template('compare.html').render(
        reports=reports,
        rows=table(a, b),
        classes=classes,
        charts=charts,
        common=common,
        shown=[len(report.shots) for report in reports],
        detection=a['task'] == 'detection',
    )

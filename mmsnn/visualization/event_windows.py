"""Windows of events with boxes, as pictures and as an animation."""

import os
from collections.abc import Sequence
from typing import Any, Optional, Union

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from .cls_visualizer import event_picture

#: Boxes that are there, and boxes that were found.
TRUE_COLOR, FOUND_COLOR = (0, 130, 60), (235, 110, 0)


def draw_window(
    frames: np.ndarray,
    true: Sequence[tuple[Sequence[float], str]] = (),
    found: Sequence[tuple[Sequence[float], str]] = (),
    title: str = '',
    side: int = 384,
) -> np.ndarray:
    """The events of a window, with boxes.

    Args:
        frames: (T, C, H, W), as of :func:`event_picture`.
        true: Boxes (x1, y1, x2, y2) that are there, each with its words, in green.
        found: Boxes that were found, likewise, in orange.
        title: Written at the top.
        side: Least side of the picture, in pixels: smaller frames are enlarged.

    Returns:
        (H', W', 3), uint8, RGB: ON events red, OFF events blue.
    """
    events = event_picture(frames)
    scale = max(1, -(-side // min(events.shape[:2])))
    picture = Image.fromarray(events.repeat(scale, 0).repeat(scale, 1))
    draw = ImageDraw.Draw(picture)
    for boxes, color, above in ((true, TRUE_COLOR, True), (found, FOUND_COLOR, False)):
        for box, words in boxes:
            x1, y1, x2, y2 = (float(v) * scale for v in box)
            draw.rectangle((x1, y1, max(x2, x1), max(y2, y1)), outline=color, width=2)
            draw.text((x1 + 3, y1 - 12 if above and y1 > 12 else y2 + 1), words, fill=color)
    draw.text((4, 2), title, fill=(90, 90, 90))
    return np.asarray(picture)


def save_animation(
    pictures: Sequence[np.ndarray], path: Union[str, os.PathLike], interval: int
) -> None:
    """Write pictures as a GIF or WebP that repeats.

    Args:
        pictures: (H, W, 3), uint8, RGB.
        path: With the suffix ``.gif`` or ``.webp``.
        interval: Between two of them, in milliseconds.

    Raises:
        ValueError: Another suffix, or no pictures.
        OSError: It can't be written.
    """
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in ('.gif', '.webp') or not len(pictures):
        raise ValueError(
            f'an animation has pictures, and the suffix .gif or .webp: got {len(pictures)} for '
            f'{os.fspath(path)}'
        )
    first, *rest = (Image.fromarray(np.asarray(picture)) for picture in pictures)
    options: dict[str, Any] = dict(quality=80) if suffix == '.webp' else dict(optimize=True)
    first.save(
        path, save_all=True, append_images=rest, duration=max(interval, 20), loop=0, **options
    )


def draw_course(
    pictures: Sequence[np.ndarray],
    rates: Optional[dict[str, Sequence[float]]] = None,
    events: Sequence[float] = (),
    seconds: Sequence[float] = (),
    title: str = '',
) -> Figure:
    """Windows side by side, and below them events and firing rates over time.

    Args:
        pictures: Some windows.
        rates: By layer, the share of its neurons that fire, at each time of ``seconds``.
        events: How many events there are, at each time of ``seconds``.
        seconds: Times.
        title: Above all.

    Returns:
        The figure.
    """
    columns = min(len(pictures), 4)
    rows = -(-len(pictures) // columns)
    figure = Figure(figsize=(3 * columns, 3 * rows + 3.2), layout='constrained')
    grid = figure.add_gridspec(rows + 1, columns, height_ratios=[3] * rows + [3])
    figure.suptitle(title, fontsize=10)
    for i, picture in enumerate(pictures):
        axes = figure.add_subplot(grid[i // columns, i % columns])
        axes.imshow(picture)
        axes.set_axis_off()
    axes = figure.add_subplot(grid[rows, :])
    for name, values in (rates or {}).items():
        axes.plot(seconds, np.multiply(values, 100), label=name, linewidth=1)
    axes.set_xlabel('time [s]')
    axes.set_ylabel('neurons that fire [%]')
    axes.set_ylim(bottom=0)
    if rates:
        axes.legend(fontsize=7, ncols=4, loc='upper left')
    other = axes.twinx()
    other.fill_between(seconds, events, color='0.85', step='mid')
    other.set_ylabel('events a time step')
    axes.set_zorder(other.get_zorder() + 1)
    axes.patch.set_visible(False)
    return figure

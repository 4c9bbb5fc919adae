"""Spikes and attention as pictures.

The functions that give arrays draw no text, for a page or a sheet that has its own;
:func:`draw_spikes` makes a sheet of them.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Optional, TypeVar, Union

import mmcv
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec, SubplotSpec
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from ..analysis import Attention, SpikeRecorder

#: The colour map, perceptually uniform: dark violet is low, yellow is high.
COLOURS = 'viridis'
#: Neurons of a raster.
MAX_NEURONS = 64
#: Values of an attention map that differ by less look alike: they are rounding.
LEAST_RANGE = 0.01
#: Inches that a map is wide on a sheet.
CELL = 1.7
#: What stands on a sheet beside the picture.
LEGEND = """layers: at each time step t the firing rate of each place, the mean over
channels, and of the whole layer; on the right single neurons, one a row:
black where they fire

decoders: at each time step t the attention a_S over the picture, and a_T;
on the right a_C; a_S = a_C = 1 and a_T = 1/T leave the spikes as they are"""

Values = Union[np.ndarray, Tensor]
#: Of the one kind or the other, for what gives back what it takes.
_SameValues = TypeVar('_SameValues', np.ndarray, Tensor)


def heat_map(
    values: Values, vmin: float, vmax: float, size: Optional[tuple[int, int]] = None
) -> np.ndarray:
    """Values as colours; each value stays a visible cell.

    Args:
        values: (H, W).
        vmin: Value of the darkest colour; lower ones have it too.
        vmax: Value of the brightest colour; higher ones have it too.
        size: Height and width of the picture, by nearest neighbour; None for one pixel a value.

    Returns:
        (H', W', 3), uint8, RGB.

    Raises:
        ValueError: Values of another rank, empty or not finite, or not vmin < vmax.

    Example:
        >>> import numpy as np
        >>> from mmsnn.visualization import heat_map
        >>> heat_map(np.array([[0.0, 1.0]]), 0, 1).shape
        (1, 2, 3)
    """
    values = _check_map(values)
    if not vmin < vmax:
        raise ValueError(f'colours need vmin < vmax, got vmin={vmin!r} and vmax={vmax!r}')
    picture = colormaps[COLOURS](Normalize(vmin, vmax)(values), bytes=True)[..., :3]
    picture = np.ascontiguousarray(picture)
    if size is None:
        return picture
    return mmcv.imresize(picture, tuple(size)[::-1], interpolation='nearest')


def overlay(
    image: np.ndarray, values: Values, vmin: float, vmax: float, alpha: float = 0.5
) -> np.ndarray:
    """Values as colours over a picture, enlarged to it by bilinear interpolation.

    The picture is taken in grey, so that all colour is the map's.

    Args:
        image: (H, W, 3), uint8, RGB.
        values: (h, w), of what the whole picture shows (:func:`image_part`).
        vmin: As of :func:`heat_map`.
        vmax: Likewise.
        alpha: Share of the map in the mixture, from 0, the grey picture, to 1, the map alone.

    Returns:
        (H, W, 3), uint8, RGB.

    Raises:
        ValueError: An image that is not (H, W, 3) uint8, an alpha out of range, or as of
            :func:`heat_map`.
    """
    _check_image(image)
    if not 0 <= alpha <= 1:
        raise ValueError(f'alpha must lie in [0, 1], got {alpha!r}')
    height, width = image.shape[:2]
    values = mmcv.imresize(_check_map(values), (width, height), interpolation='bilinear')
    colours = heat_map(values, vmin, vmax)
    grey = mmcv.rgb2gray(image, keepdim=True)
    return np.rint((1 - alpha) * grey + alpha * colours).astype(np.uint8)


def image_part(
    values: _SameValues, img_shape: Sequence[int], batch_input_shape: Sequence[int]
) -> _SameValues:
    """The part of a feature map that the image covers.

    A batch's images are padded on the right and at the bottom. A cell that the image covers in part
    stays; where the stride does not divide ``batch_input_shape``, up to one cell of padding a side
    can stay with it.

    Args:
        values: (..., h, w), the map of the padded image.
        img_shape: Height and width of the image without padding.
        batch_input_shape: Height and width with padding.

    Returns:
        (..., h', w'), a view.

    Raises:
        ValueError: A map without two axes, or an image that is empty or larger than with padding.

    Example:
        >>> import numpy as np
        >>> from mmsnn.visualization import image_part
        >>> image_part(np.zeros((4, 8, 8)), (50, 64), (64, 64)).shape  # 50 / 8 is 6.25
        (4, 7, 8)
    """
    if values.ndim < 2:
        raise ValueError(f'a feature map is (..., h, w), got shape {tuple(values.shape)}')
    sides = []
    for size, part, whole in zip(values.shape[-2:], img_shape[:2], batch_input_shape[:2]):
        if not 0 < part <= whole:
            raise ValueError(
                f'an image of {tuple(img_shape[:2])} is no part of a batch of '
                f'{tuple(batch_input_shape[:2])}: give its size after resizing, before padding'
            )
        sides.append(-(-size * part // whole))
    return values[..., : sides[0], : sides[1]]


def first_image(
    recorder: SpikeRecorder, inputs: Tensor, sample
) -> tuple[dict[str, Tensor], dict[str, Attention]]:
    """What a recorder kept of the first image of a batch, of the picture's part alone.

    Args:
        recorder: It has seen a forward pass.
        inputs: The image or event frames (..., H, W), before the data preprocessor.
        sample: The data sample that came out, whose metainfo has ``batch_input_shape`` where there
            was padding.

    Returns:
        Spikes (T, C, h, w) of the layers that have maps, by name; and attention by name: a_T (T,),
        a_C (T, C) and a_S (T, h, w).
    """
    img_shape = tuple(inputs.shape[-2:])
    batch_shape = sample.metainfo.get('batch_input_shape', img_shape)

    def part(values: Tensor) -> Tensor:
        return image_part(values[:, 0], img_shape, batch_shape)

    # Neurons without places, as of a linear layer, have no map.
    spikes = {name: part(s) for name, s in recorder.spikes.items() if s.ndim == 5}
    attention = {
        name: Attention(maps.temporal[:, 0], maps.channel[:, 0], part(maps.spatial))
        for name, maps in recorder.attention.items()
    }
    return spikes, attention


def raster(spikes: Values, max_neurons: int = MAX_NEURONS) -> np.ndarray:
    """A spike raster: a row of pixels is a neuron, a column a time step; black is a spike.

    A layer of more than ``max_neurons`` neurons is sampled: always the same neurons of a layer of
    that size, spread at random over channels and places, in the order of the channels.

    Args:
        spikes: (T, C, H, W); whatever isn't 0 is a spike.
        max_neurons: Rows of the picture at most.

    Returns:
        (neurons, T, 3), uint8, RGB: black spikes on white. Enlarge it by nearest neighbour.

    Raises:
        ValueError: Spikes of another rank, without neurons or time steps, or ``max_neurons`` below
            1.

    Example:
        >>> import numpy as np
        >>> from mmsnn.visualization import raster
        >>> spikes = np.eye(3).reshape(3, 3, 1, 1)  # neuron i fires at time step i
        >>> raster(spikes)[..., 0].tolist()
        [[0, 255, 255], [255, 0, 255], [255, 255, 0]]
    """
    spikes = _check_spikes(spikes)
    if max_neurons < 1:
        raise ValueError(f'max_neurons must be at least 1, got {max_neurons!r}')
    fired: np.ndarray = spikes.reshape(len(spikes), -1)
    if fired.shape[1] > max_neurons:
        # Not every n-th: where n divides the width, all of them would lie in one column.
        generator = np.random.default_rng(0)
        fired = fired[:, np.sort(generator.choice(fired.shape[1], max_neurons, replace=False))]
    rows = np.where(fired.T != 0, 0, 255).astype(np.uint8)
    return np.repeat(rows[..., None], 3, axis=2)


def draw_spikes(
    image: np.ndarray,
    spikes: Mapping[str, Values],
    attention: Optional[Mapping[str, Attention]] = None,
    title: str = '',
) -> Figure:
    """One sheet of what the neurons and the attention spike decoders do on an image.

    The picture; a row a layer with its firing rates, the mean over channels, at each time step
    and its :func:`raster`; a row a decoder with a_S over the picture and a_T at each time step,
    and a_C.

    Args:
        image: (H, W, 3), uint8, RGB, as the network sees it.
        spikes: (T, C, H, W) of one image by the name of the layer; of the picture's part alone
            (:func:`image_part`).
        attention: Maps of one image by the name of the decoder: a_T (T,), a_C (T, C) and a_S
            (T, H, W), this of the picture's part.
        title: What the picture is, such as its name.

    Returns:
        The sheet; ``figure.savefig(path)`` writes it, :func:`figure_picture` makes an array of it.

    Raises:
        ValueError: An image, spikes or maps of another shape, or nothing to draw.

    Example:
        >>> import numpy as np
        >>> from mmsnn.visualization import draw_spikes
        >>> from mmsnn.analysis import Attention, SpikeRecorder
        >>> from mmsnn.models import SGResNet
        >>> import torch
        >>> net = SGResNet(10, base_channels=8).eval()
        >>> with SpikeRecorder(net) as recorder, torch.no_grad():
        ...     _ = net(torch.rand(1, 3, 32, 32))
        >>> spikes = {name: s[:, 0] for name, s in recorder.spikes.items()}
        >>> figure = draw_spikes(np.zeros((32, 32, 3), np.uint8), spikes)
    """
    _check_image(image)
    attention = attention or {}
    layers = {name: _check_spikes(s) for name, s in spikes.items()}
    maps = {name: _check_attention(name, a) for name, a in attention.items()}
    if not layers and not maps:
        raise ValueError('nothing to draw: give spikes of a layer or attention of a decoder')
    steps = max(len(v) for v in [*layers.values(), *(a.temporal for a in maps.values())])
    rows = 1 + len(layers) + len(maps)
    height = CELL * float(np.clip(image.shape[0] / image.shape[1], 0.4, 2))
    # Inches, from the left: maps, colour bar, its numbers, raster, colour bar, its numbers.
    columns = [CELL] * max(steps, 3) + [0.08, 0.55, CELL, 0.08, 0.55]
    gap, above, below = 0.1, 0.5, 0.2
    size = sum(columns) + gap * (len(columns) + 1), rows * (above + height + below)
    figure = Figure(figsize=size)
    grid = figure.add_gridspec(
        rows,
        len(columns),
        width_ratios=columns,
        left=gap / size[0],
        right=1 - gap / size[0],
        top=1 - above / size[1],
        bottom=below / size[1],
        wspace=gap * len(columns) / sum(columns),
        hspace=(above + below) / height,
    )
    _draw_head(figure, grid[0, :2], grid[0, 2:], image, title)
    for i, (name, s) in enumerate(layers.items(), 1):
        _draw_layer(_Row(figure, grid, i, len(s)), name, s)
    for i, (name, a) in enumerate(maps.items(), 1 + len(layers)):
        _draw_decoder(_Row(figure, grid, i, len(a.temporal)), name, a, image)
    return figure


def figure_picture(figure: Figure, dpi: int = 80) -> np.ndarray:
    """A figure as an array.

    Args:
        figure: Any figure.
        dpi: Pixels an inch.

    Returns:
        (H, W, 3), uint8, RGB.
    """
    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


class _Maps(NamedTuple):
    """The maps of an :class:`~mmsnn.analysis.Attention` as arrays."""

    temporal: np.ndarray
    channel: np.ndarray
    spatial: np.ndarray


class _Row:
    """A row of the sheet: its title, T maps and their colour bar, a side panel and its own."""

    def __init__(self, figure: Figure, grid: GridSpec, row: int, steps: int):
        self.figure = figure
        self.steps = steps
        self.cells = [figure.add_subplot(grid[row, t]) for t in range(steps)]
        self.bar, self.side, self.side_bar = (grid[row, i] for i in (-5, -3, -2))

    def title(self, text: str) -> None:
        self.cells[0].annotate(
            text, (0, 1), (0, 17), xycoords='axes fraction', textcoords='offset points', fontsize=9
        )

    def draw_cells(self, pictures: Iterable[np.ndarray], captions: Iterable[str]) -> None:
        for axes, picture, caption in zip(self.cells, pictures, captions):
            _show(axes, picture)
            axes.set_title(caption, fontsize=8, pad=4)

    def draw_side(self, picture: np.ndarray, caption: str) -> None:
        axes = self.figure.add_subplot(self.side)
        axes.imshow(picture, aspect='auto', interpolation='nearest')
        axes.set_title(caption, fontsize=8, pad=4)
        every = -(-self.steps // 4)
        ticks = range(0, self.steps, every)
        axes.set_xticks(ticks, [str(t + 1) for t in ticks], fontsize=7)
        axes.tick_params(pad=1, length=2)
        axes.set_yticks([])

    def draw_bar(self, place: SubplotSpec, low: float, high: float, label: str, **kwargs) -> None:
        axes = self.figure.add_subplot(place)
        bar = self.figure.colorbar(ScalarMappable(Normalize(low, high), COLOURS), axes, **kwargs)
        bar.locator = MaxNLocator(5)
        bar.set_label(label, fontsize=7, labelpad=2)
        bar.ax.tick_params(labelsize=7, pad=1, length=2)


def _draw_head(
    figure: Figure, left: SubplotSpec, right: SubplotSpec, image: np.ndarray, title: str
) -> None:
    picture, text = figure.add_subplot(left), figure.add_subplot(right)
    _show(picture, image)
    picture.set_anchor('W')
    picture.set_title(title, fontsize=9, loc='left')
    text.axis('off')
    text.text(0, 1, LEGEND, fontsize=8, va='top', linespacing=1.4)


def _draw_layer(row: _Row, name: str, spikes: np.ndarray) -> None:
    _, channels, height, width = spikes.shape
    rates = np.abs(spikes).mean(1, dtype=np.float32)
    vmax = float(rates.max()) or 1.0
    row.title(f'{name}: {channels} channels of {height}x{width}, firing rate {rates.mean():.3f}')
    captions = [f't = {t}: {rate.mean():.3f}' for t, rate in enumerate(rates, 1)]
    row.draw_cells([heat_map(rate, 0, vmax) for rate in rates], captions)
    row.draw_bar(row.bar, 0, vmax, 'firing rate')
    rows, neurons = raster(spikes), channels * height * width
    row.draw_side(rows, f'{len(rows)} of {neurons} neurons, over t')


def _draw_decoder(row: _Row, name: str, maps: _Maps, image: np.ndarray) -> None:
    row.title(f'{name}: attention to places a_S, to time steps a_T and to channels a_C')
    low, high = _limits(maps.spatial)
    captions = [f't = {t}: a_T = {weight:.3f}' for t, weight in enumerate(maps.temporal, 1)]
    row.draw_cells([overlay(image, values, low, high) for values in maps.spatial], captions)
    row.draw_bar(row.bar, low, high, 'a_S', extend='both')
    low, high = _limits(maps.channel)
    row.draw_side(heat_map(maps.channel.T, low, high), f'{maps.channel.shape[1]} channels, over t')
    row.draw_bar(row.side_bar, low, high, 'a_C', extend='both')


def _show(axes: Axes, picture: np.ndarray) -> None:
    axes.imshow(picture, interpolation='nearest')
    axes.set_xticks([])
    axes.set_yticks([])


def _limits(values: np.ndarray) -> tuple[float, float]:
    """Ends of the colours: of nearly all values, as a few at a map's border lie far out."""
    low, high = np.percentile(values, [2, 98])
    missing = max(LEAST_RANGE - (high - low), 0) / 2
    return float(low - missing), float(high + missing)


def _check_map(values: Values) -> np.ndarray:
    values = np.asarray(values, dtype=np.float32)
    if values.ndim != 2 or not values.size:
        raise ValueError(f'a map is (H, W) and not empty, got shape {values.shape}')
    if not np.isfinite(values).all():
        raise ValueError('a map holds values that are not finite')
    return values


def _check_image(image: np.ndarray) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or not image.size or image.dtype != np.uint8:
        raise ValueError(
            f'an image is (H, W, 3) uint8 in RGB, got {image.dtype} of shape {image.shape}'
        )


def _check_spikes(spikes: Values) -> np.ndarray:
    spikes = np.asarray(spikes)
    if spikes.ndim != 4 or not spikes.size:
        raise ValueError(
            f'spikes of one image are (T, C, H, W) and not empty, got shape {spikes.shape}'
        )
    return spikes


def _check_attention(name: str, attention: Attention) -> _Maps:
    maps = _Maps(*(np.asarray(v) for v in attention))
    steps = maps.temporal.shape[:1]
    ranks = [v.ndim for v in maps]
    if ranks != [1, 2, 3] or any(v.shape[:1] != steps for v in maps):
        raise ValueError(
            f'attention of {name!r} is a_T (T,), a_C (T, C) and a_S (T, H, W) of one image, got '
            f'shapes {[v.shape for v in maps]}'
        )
    return maps

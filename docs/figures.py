"""Draw the pictures of docs/concepts.md from the code that they explain.

`make figures` runs it; the pictures are committed, so that code hosts show them as well.
"""

import argparse
from pathlib import Path

# First: without mmcv's compiled ops, MMDetection's models import only behind it.
import mmsnn  # noqa: F401  isort: skip

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from torch import Tensor

from mmsnn import ops
from mmsnn.models.layers import TDBN, AttentionSpikeDecoder

# Distinguishable in all common forms of colour blindness (Okabe and Ito).
BLUE, ORANGE, GREEN, RED, GREY = '#0072B2', '#E69F00', '#009E73', '#D55E00', '#666666'
SPIKING, REAL, GATE = '#DCEBF7', '#FBEBD0', '#DDF1E9'

STYLE = {
    'font.size': 10,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.titlesize': 10,
    'axes.titleweight': 'bold',
    'legend.frameon': False,
    'figure.facecolor': 'white',
    'figure.constrained_layout.w_pad': 0.12,
    'figure.constrained_layout.h_pad': 0.1,
    'svg.hashsalt': 'mmsnn',  # the same picture is the same file
}


def potentials(x: Tensor, spikes: Tensor, decay: float, v_threshold: float, reset: str) -> Tensor:
    """Membrane potential h[t] before firing, from a neuron's currents and spikes.

    Args:
        x: Currents (T,).
        spikes: What the neuron made of them, (T,).
        decay: Leak factor.
        v_threshold: Threshold.
        reset: 'hard' or 'soft'.

    Returns:
        Potentials (T,).
    """
    v, h = torch.zeros(()), []
    for current, spike in zip(x, spikes):
        h.append(decay * v + current)
        v = h[-1] * (1 - spike) if reset == 'hard' else h[-1] - v_threshold * spike
    return torch.stack(h)


def draw_lif() -> Figure:
    """Current, membrane potential and spikes of one neuron, with both resets."""
    steps = 40
    t = torch.arange(steps)
    x = 0.15 + 0.55 * ((t >= 4) & (t < 20)) + 2.25 * ((t >= 26) & (t < 32))
    figure = Figure(figsize=(8, 4.6), layout='constrained')
    axes = figure.subplots(3, 1, sharex=True, height_ratios=[1, 2, 2])
    axes[0].step(t, x, where='mid', color=GREY)
    axes[0].set_ylabel('current')
    axes[0].set_ylim(0, 2.8)
    for ax, reset, back in ((axes[1], 'hard', 'to 0'), (axes[2], 'soft', 'by V_th')):
        spikes = ops.lif(x, decay=0.5, v_threshold=1.0, reset=reset)
        h = potentials(x, spikes, 0.5, 1.0, reset)
        ax.plot(t, h, 'o-', color=BLUE, markersize=3.5, label='membrane potential h[t]')
        ax.axhline(1, color=RED, linestyle='--', label='threshold V_th')
        ax.vlines(t[spikes > 0], 0, h[spikes > 0], color=ORANGE, linewidth=2, alpha=0.8)
        ax.plot(t[spikes > 0], h[spikes > 0], 'o', color=ORANGE, markersize=6, label='spike')
        ax.set_title(f'{reset} reset, {back}: {int(spikes.sum())} spikes', loc='left')
        ax.set_ylabel('potential')
        ax.set_ylim(0, 4.4)
    axes[1].legend(loc='upper left', ncols=3)
    axes[2].set_xlabel('time step t')
    return figure


def draw_surrogates() -> Figure:
    """The step that fires, and the derivatives that stand in for its own."""
    u = torch.linspace(-2, 2, 801)
    figure = Figure(figsize=(8, 3.2), layout='constrained')
    forward, backward = figure.subplots(1, 2)
    forward.plot(u, ops.fire(u), color=BLUE)
    forward.set_title('forward: s = 1 where h >= V_th', loc='left')
    forward.set_ylabel('spike')
    for name, color in zip(ops.SURROGATES, (ORANGE, GREEN, BLUE, RED)):
        backward.plot(u, ops.surrogate_gradient(u, name), color=color, label=name)
    backward.set_title('backward: a surrogate of width 1', loc='left')
    backward.set_ylabel('ds / dh')
    backward.legend()
    for ax in (forward, backward):
        ax.set_xlabel('u = h - V_th')
    return figure


def draw_time_steps() -> Figure:
    """The firing rate of a neuron by its current, for more and more time steps."""
    x = torch.linspace(0, 1.6, 1601)
    figure = Figure(figsize=(8, 3.2), layout='constrained')
    leaky, perfect = figure.subplots(1, 2, sharey=True)
    for ax, decay, title in (
        (leaky, 0.5, 'LIF, decay 0.5, hard reset'),
        (perfect, 1.0, 'IF, decay 1, soft reset'),
    ):
        reset = 'hard' if decay < 1 else 'soft'
        for steps, color in ((1, GREY), (2, ORANGE), (4, BLUE), (32, GREEN)):
            rate = ops.lif(x, decay=decay, reset=reset, time_steps=steps).mean(0)
            ax.plot(x, rate, color=color, label=f'T = {steps}')
        ax.set_title(title, loc='left')
        ax.set_xlabel('constant current x')
        ax.legend(loc='upper left')
    leaky.set_ylabel('firing rate')
    return figure


def draw_tdbn() -> Figure:
    """What reaches neurons of different thresholds behind batch norm and behind tdBN."""
    torch.manual_seed(0)
    current = 3 * torch.randn(4 * 64, 8, 8, 8) + 1
    thresholds = torch.linspace(0.1, 3, 30).tolist()
    rates = {'batch norm': [], 'tdBN': []}
    drawn = {}
    for v_threshold in thresholds:
        for name in rates:
            scale = 1.0 if name == 'batch norm' else v_threshold
            with torch.no_grad():
                y = TDBN(8, v_threshold=scale)(current)
            spikes = ops.lif(y.unflatten(0, (4, 64)), v_threshold=v_threshold)
            rates[name].append(spikes.mean().item())
            if np.isclose(v_threshold, 0.5):
                drawn[name] = y.flatten().numpy()
    figure = Figure(figsize=(8, 3.2), layout='constrained')
    density, rate = figure.subplots(1, 2)
    for name, color in (('batch norm', GREY), ('tdBN', BLUE)):
        density.hist(
            drawn[name], 120, density=True, range=(-4, 4), histtype='step', color=color, label=name
        )
        rate.plot(thresholds, rates[name], color=color, label=name)
    density.axvline(0.5, color=RED, linestyle='--', label='V_th = 0.5')
    density.set_title('currents in front of the neuron', loc='left')
    density.set_xlabel('x')
    density.set_ylabel('density')
    density.legend()
    rate.set_title('what the neuron makes of them, T = 4', loc='left')
    rate.set_xlabel('threshold V_th')
    rate.set_ylabel('firing rate')
    rate.set_ylim(bottom=0)
    rate.legend()
    return figure


def box(ax: Axes, x: float, y: float, width: float, text: str, color: str, height: float = 0.6):
    """A rounded box with text, centred at (x, y)."""
    patch = FancyBboxPatch(
        (x - width / 2, y - height / 2),
        width,
        height,
        boxstyle='round,pad=0,rounding_size=0.08',
        facecolor=color,
        edgecolor=GREY,
    )
    ax.add_patch(patch)
    ax.text(x, y, text, ha='center', va='center', fontsize=9)


def arrow(ax: Axes, *points: tuple):
    """A line through the points with a head at the last."""
    for a, b in zip(points[:-2], points[1:-1]):
        ax.plot(*zip(a, b), color=GREY, linewidth=1.2, solid_capstyle='round')
    ax.add_patch(
        FancyArrowPatch(
            *points[-2:], arrowstyle='-|>', mutation_scale=10, color=GREY, shrinkA=0, shrinkB=0
        )
    )


def diagram(ax: Axes, width: float, height: float):
    """Axes to draw boxes on, in units of a box's height or so."""
    ax.set_xlim(0, width)
    ax.set_ylim(0, height)
    ax.set_aspect('equal')
    ax.axis('off')


def draw_sg_block() -> Figure:
    """The block, and what its gates make of the same spikes."""
    figure = Figure(figsize=(8, 4.6), layout='constrained')
    top, bottom = figure.subfigures(2, 1, height_ratios=[1, 1.15])
    ax = top.subplots()
    diagram(ax, 10, 2.4)
    ax.text(0.1, 1.85, 'S', ha='left', va='center', fontweight='bold')
    for x, text in ((2.2, 'conv, tdBN'), (3.75, 'LIF'), (5.2, 'conv, tdBN'), (6.75, 'LIF')):
        width = 0.8 if text == 'LIF' else 1.4
        box(ax, x, 1.85, width, text, SPIKING)
    arrow(ax, (0.35, 1.85), (1.5, 1.85))
    arrow(ax, (2.9, 1.85), (3.35, 1.85))
    arrow(ax, (4.15, 1.85), (4.5, 1.85))
    arrow(ax, (5.9, 1.85), (6.35, 1.85))
    arrow(ax, (7.15, 1.85), (7.9, 1.85))
    ax.text(7.5, 2.05, 'R', ha='center', fontweight='bold')
    arrow(ax, (0.9, 1.85), (0.9, 0.5), (8.5, 0.5), (8.5, 1.4))
    ax.text(4.7, 0.62, 'shortcut: S itself, or LIF(tdBN(conv1x1(S)))', ha='center', fontsize=9)
    box(ax, 8.5, 1.85, 1.2, 'gate G', GATE, 0.9)
    arrow(ax, (9.1, 1.85), (9.65, 1.85))
    ax.text(9.75, 1.85, 'O', ha='left', va='center', fontweight='bold')
    ax.text(8.65, 0.85, 'S', fontweight='bold')

    generator = torch.Generator().manual_seed(3)
    r, s, g = ((torch.rand(4, 12, generator=generator) < p).float() for p in (0.25, 0.35, 0.5))
    shown = (
        ('R', r),
        ('S', s),
        ('ResidualGate: R OR S', ops.spike_or(r, s)),
        ('LearnedGate: R where G, else S', ops.select(g, r, s)),
        ("SEW's add: R + S", r + s),
    )
    colors = matplotlib.colors.ListedColormap(['white', BLUE, RED])
    for ax, (title, spikes) in zip(bottom.subplots(1, 5, sharey=True), shown):
        ax.pcolormesh(spikes.T.numpy(), cmap=colors, vmin=0, vmax=2, edgecolor='#DDDDDD')
        ax.set_title(title.replace(': ', '\n'), fontsize=8.5, loc='left')
        ax.set_xticks([0.5, 1.5, 2.5, 3.5], ['0', '1', '2', '3'])
        ax.set_yticks([])
        ax.set_xlabel('t')
        ax.spines[['top', 'right']].set_visible(True)
    bottom.get_axes()[0].set_ylabel('neurons')
    return figure


def draw_asd() -> Figure:
    """ASD beside rate coding on a toy: a ring that only some steps and channels see."""
    torch.manual_seed(0)
    steps, channels, size = 4, 8, 24
    y, x = torch.meshgrid(*[torch.arange(size) - (size - 1) / 2] * 2, indexing='ij')
    radius = (x**2 + y**2).sqrt()

    def sample(batch: int) -> tuple[Tensor, Tensor]:
        """Spikes in which noise comes first and the ring later, in half of the channels."""
        centre = torch.randint(-3, 4, (batch, 2))
        ring = ((radius > 4.5) & (radius < 7.5)).float()
        ring = torch.stack([ring.roll(tuple(c.tolist()), (0, 1)) for c in centre])
        rate = torch.full((steps, batch, channels, size, size), 0.15)
        rate[:2] = 0.35
        rate[2:, :, ::2] = 0.02 + 0.8 * ring[:, None]
        return (torch.rand_like(rate) < rate).float(), ring

    decoder = AttentionSpikeDecoder(channels, reduction=2)
    scale = torch.tensor(10.0, requires_grad=True)
    shift = torch.tensor(-3.0, requires_grad=True)
    optimizer = torch.optim.AdamW([*decoder.parameters(), scale, shift], lr=2e-2)
    for _ in range(150):
        spikes, ring = sample(8)
        logits = scale * decoder(spikes).mean(1) + shift
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, ring)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    spikes, ring = sample(1)
    with torch.no_grad():
        temporal, channel, spatial = decoder.attention(spikes)
        rate, decoded = ops.rate_decode(spikes), decoder(spikes)
    figure = Figure(figsize=(8, 3.5), layout='constrained')
    top, bottom = figure.subplots(2, 5)
    pictures = [(ax, spikes[t, 0].mean(0), f'spikes, t = {t}') for t, ax in enumerate(top[:4])]
    pictures += [
        (top[4], ring[0], 'what is sought'),
        (bottom[2], spatial[-1, 0], 'a_S at t = 3'),
        (bottom[3], rate[0].mean(0), 'rate coding'),
        (bottom[4], decoded[0].mean(0), 'ASD'),
    ]
    for ax, values, title in pictures:
        ax.imshow(values, cmap='Greys')
        ax.set_title(title, loc='left')
        ax.set_xticks([])
        ax.set_yticks([])
        ax.spines[['top', 'right']].set_visible(True)
    see = [BLUE if c % 2 == 0 else GREY for c in range(channels)]
    for ax, values, color, title in (
        (bottom[0], temporal[:, 0], BLUE, 'a_T by t'),
        (bottom[1], channel[-1, 0], see, 'a_C at t = 3'),
    ):
        ax.bar(range(len(values)), values, color=color)
        ax.set_title(title, loc='left')
        ax.set_xticks(range(len(values)))
        ax.tick_params(labelsize=8)
    return figure


def draw_detector() -> Figure:
    """The hybrid detector: what is spikes, what is real, and which shape it has."""
    figure = Figure(figsize=(8, 3.4), layout='constrained')
    ax = figure.subplots()
    diagram(ax, 12, 5)
    box(ax, 0.9, 2.5, 1.4, 'image\n(B, 3, H, W)', REAL, 1.0)
    box(ax, 2.9, 2.5, 1.5, 'stem: conv,\ntdBN once,\nLIF T times', SPIKING, 1.3)
    arrow(ax, (1.6, 2.5), (2.15, 2.5))
    levels = ((3.9, 'stage 2\nstride 8'), (2.5, 'stage 3\nstride 16'), (1.1, 'stage 4\nstride 32'))
    box(ax, 4.8, 3.9, 1.3, 'stage 1\nstride 4', SPIKING, 0.9)
    arrow(ax, (3.65, 2.5), (3.9, 2.5), (3.9, 3.9), (4.15, 3.9))
    for y, text in levels:
        box(ax, 6.5, y, 1.3, text, SPIKING, 0.9)
        box(ax, 8.2, y, 0.9, 'ASD', REAL, 0.9)
        arrow(ax, (7.15, y), (7.75, y))
        arrow(ax, (8.65, y), (9.1, y))
    arrow(ax, (5.45, 3.9), (5.85, 3.9))
    arrow(ax, (6.5, 3.45), (6.5, 2.95))
    arrow(ax, (6.5, 2.05), (6.5, 1.55))
    box(ax, 9.5, 2.5, 0.8, 'FPN', REAL, 3.7)
    arrow(ax, (9.9, 2.5), (10.3, 2.5))
    box(ax, 11.05, 2.5, 1.5, 'RetinaHead:\nclasses and\nboxes', REAL, 1.4)
    ax.text(6.5, 0.3, 'spikes (T, B, C, H, W)', ha='center', color=BLUE, fontsize=9)
    ax.text(9.9, 0.3, 'maps (B, C, H, W)', ha='center', color=RED, fontsize=9)
    return figure


FIGURES = {
    'lif': draw_lif,
    'surrogates': draw_surrogates,
    'time_steps': draw_time_steps,
    'tdbn': draw_tdbn,
    'sg_block': draw_sg_block,
    'asd': draw_asd,
    'detector': draw_detector,
}


def main() -> None:
    """Draw all of them."""
    parser = argparse.ArgumentParser(description='Draw the pictures of docs/concepts.md.')
    parser.add_argument('out_dir', type=Path, help='folder for the pictures')
    parser.add_argument('--format', default='svg', choices=('svg', 'png'))
    args = parser.parse_args()
    args.out_dir.mkdir(parents=True, exist_ok=True)
    for name, draw in FIGURES.items():
        path = args.out_dir / f'{name}.{args.format}'
        with matplotlib.rc_context(STYLE):
            metadata = {'Date': None} if args.format == 'svg' else None
            draw().savefig(path, dpi=110, metadata=metadata)
        print(path)


if __name__ == '__main__':
    main()

"""Block dynamical isometry: phi(J J^T) of each residual block, and the gradient norm by depth."""

import argparse
import dataclasses
import glob
import json
import math
import os
import time
from collections.abc import Sequence
from typing import Optional

# First: without mmcv's compiled ops, MMDetection's models import only behind it.
import mmsnn  # noqa: F401  isort: skip

import mmcv
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config, ConfigDict, DictAction
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from mmsnn.analysis import (
    ISOMETRIC_PHI,
    SOUND_GRADIENT,
    Isometry,
    measure_isometry,
    residual_blocks,
)
from mmsnn.compat import (
    check_state_dict,
    enforce_safe_loading,
    load_checkpoint_file,
    quiet_coco,
)
from mmsnn.config_types import type_name
from mmsnn.utils import (
    CONFIG_ERRORS,
    ToolError,
    check_out,
    exit_on_error,
    load_config,
    picture_path,
)

DESCRIPTION = """Does a deep spiking network keep the length of a gradient?

For each residual block, with J the Jacobian of its outputs by its inputs over all time steps,
phi(J J^T) = tr(J J^T) / m is the factor by which the block changes the mean square of a random
gradient that passes it: 1 keeps it (block dynamical isometry), 0.8 in each of 50 blocks leaves
0.8^50 = 1e-5 of it. It is measured by random probes, through the surrogate gradients, with norms
as in training. Beside it stands the gradient norm by depth, measured end to end.

The config can be a detector's or a classifier's: only its backbone is built. Without a checkpoint
it is measured at initialisation."""

EPILOG = """reading the table:
  phi       estimate +- standard error over the probes
  output    mean of the block's output, its firing rate where that is spikes
  gradient  norm at the block's input by the norm behind the last block, measured end to end
  product   of sqrt(phi) from this block to the last; equal to `gradient` where the theory holds

examples:
  mmsnn isometry CONFIG
  mmsnn isometry CONFIG --images FOLDER \\
      --cfg-options model.backbone.depth=152 model.backbone.block=plain
  mmsnn isometry CONFIG --noise \\
      --blocks sg sg:LearnedGate sew tdbn plain ms --depths 18 34 50 101 152

docs/isometry.md has what comes out, and what it means."""

PICTURES = ('.bmp', '.jpeg', '.jpg', '.png', '.webp')


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog='mmsnn isometry',
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('config', help='path of the config')
    parser.add_argument('checkpoint', nargs='?', help='path of a checkpoint (default: none)')
    parser.add_argument(
        '--blocks',
        nargs='+',
        metavar='BLOCK[:GATE]',
        help='compare these blocks (model.backbone.block) in one run; a gate is named behind a '
        'colon, as in sg:LearnedGate',
    )
    parser.add_argument(
        '--depths', type=int, nargs='+', metavar='N', help='compare these depths in one run'
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        '--images',
        metavar='FOLDER',
        help="folder of images (default: the config's test data, or noise where that isn't there)",
    )
    source.add_argument('--noise', action='store_true', help='take smoothed noise as images')
    parser.add_argument('--image-size', type=int, default=64, help='height and width (default: 64)')
    parser.add_argument('--batch-size', type=int, default=4, help='images (default: 4)')
    parser.add_argument(
        '--probes', type=int, default=8, help='random probes a block, at least 2 (default: 8)'
    )
    parser.add_argument(
        '--seed', type=int, default=0, help='of weights, noise and probes (default: 0)'
    )
    parser.add_argument(
        '--device',
        default='cuda' if torch.cuda.is_available() else 'cpu',
        help='device (default: %(default)s)',
    )
    parser.add_argument(
        '--out',
        metavar='FILE.json',
        help='the results; the picture is FILE.png '
        '(default: work_dirs/NAME_OF_CONFIG/TIMESTAMP/isometry.json)',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='override settings of the config, for example model.backbone.depth=152 '
        'model.backbone.zero_init_residual=True; a model.backbone.block given here comes with its '
        "own gate, not the config's",
    )
    parser.add_argument(
        '--trust-checkpoint',
        action='store_true',
        help='load a checkpoint that holds more than weights; such a file can run code when it is '
        'loaded, so only one whose source you trust',
    )
    parser.set_defaults(launcher='none', local_rank=0, work_dir=None)
    args = parser.parse_args(argv)
    for name, least in (('image_size', 8), ('batch_size', 1), ('probes', 2)):
        if getattr(args, name) < least:
            parser.error(f'--{name.replace("_", "-")} must be at least {least}')
    if args.checkpoint and (args.blocks or args.depths):
        parser.error('a checkpoint is of one network: leave --blocks and --depths out')
    return args


def backbone_configs(
    cfg: Config,
    overrides: Optional[dict],
    blocks: Optional[list[str]],
    depths: Optional[list[int]],
) -> list[ConfigDict]:
    """The backbones to measure.

    Args:
        cfg: The config, with the overrides in it.
        overrides: ``--cfg-options``.
        blocks: Blocks to compare, as ``BLOCK`` or ``BLOCK:GATE``; None for the config's.
        depths: Depths to compare; None for the config's.

    Returns:
        One config for each block and depth, blocks in the outer loop.

    Raises:
        ToolError: The config has no backbone, or one without the arguments to compare.
    """
    base = cfg.get('model', {}).get('backbone')
    if base is None:
        raise ToolError(
            f'{cfg.filename} has no model.backbone: give the config of a detector or classifier'
        )
    if (blocks or depths) and type_name(base) != 'SGResNet':
        raise ToolError(
            '--blocks and --depths are settings of SGResNet, and the backbone is a '
            f'{type_name(base)}'
        )
    overrides = overrides or {}
    names_gate = any(key.startswith('model.backbone.gate_cfg') for key in overrides)
    found = []
    for block in blocks or [None]:
        one = base.copy()
        if block is not None:
            name, _, gate = block.partition(':')
            one.block = name
            one.gate_cfg = dict(type=gate) if gate else None
        elif 'model.backbone.block' in overrides and not names_gate:
            # The gate of another block, which plain ones refuse.
            one.gate_cfg = None
        for depth in depths or [None]:
            found.append(one.copy() if depth is None else ConfigDict({**one, 'depth': depth}))
    return found


def build_backbone(backbone: ConfigDict, seed: int) -> nn.Module:
    """Build and initialise a backbone.

    Args:
        backbone: Its config.
        seed: Of its weights.

    Returns:
        The backbone.
    """
    torch.manual_seed(seed)
    net = MODELS.build(backbone)
    net.init_weights()
    return net


def load_backbone(net: nn.Module, path: str, trust: bool) -> None:
    """Load the backbone's part of a checkpoint.

    Args:
        net: The backbone.
        path: Checkpoint of a detector, a classifier, or of the backbone alone.
        trust: Whether to load a file that holds more than weights.

    Raises:
        CheckpointError: The file can't be loaded, or is of another backbone.
    """
    checkpoint = load_checkpoint_file(path, trust)
    state = checkpoint.get('state_dict', checkpoint)
    prefix = 'backbone.'
    inside = {key[len(prefix) :]: v for key, v in state.items() if key.startswith(prefix)}
    state = inside or state
    check_state_dict(net, state, path)
    net.load_state_dict(state, strict=False)  # num_batches_tracked may be missing


def smoothed_noise(batch: int, channels: int, size: int, generator: torch.Generator) -> Tensor:
    """Noise with the long correlations of images, mean 0 and variance 1.

    Args:
        batch: B.
        channels: C.
        size: H and W.
        generator: Its source.

    Returns:
        (B, C, size, size).
    """
    window = 9
    noise = torch.randn(batch, channels, size + window - 1, size + window - 1, generator=generator)
    noise = F.avg_pool2d(noise, window, stride=1)
    return (noise - noise.mean()) / noise.std()


def read_folder(folder: str, batch: int) -> list[Tensor]:
    """Read the first images of a folder.

    Args:
        folder: The folder.
        batch: How many.

    Returns:
        Images (3, H, W), BGR, 0 to 255, in the order of their names.

    Raises:
        ToolError: No such folder, too few images in it, or one that can't be read.
    """
    if not os.path.isdir(folder):
        raise ToolError(f'--images {folder} is not there: give a folder of images')
    paths = [
        path
        for path in sorted(glob.glob(os.path.join(glob.escape(folder), '*')))
        if path.lower().endswith(PICTURES)
    ]
    if len(paths) < batch:
        raise ToolError(
            f'--images {folder} holds {len(paths)} images ({", ".join(PICTURES)}), fewer than '
            f'--batch-size {batch}'
        )
    images = []
    for path in paths[:batch]:
        image = mmcv.imread(path)
        if image is None:
            raise ToolError(f'{path} cannot be read as an image')
        images.append(torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))))
    return images


def test_images(cfg: Config, batch: int) -> list[Tensor]:
    """Take images evenly from the config's test data.

    Args:
        cfg: The config.
        batch: How many.

    Returns:
        Images (C, H, W).

    Raises:
        LookupError: The config has no test data, or it isn't there, or isn't images.
    """
    dataset_cfg = cfg.get('test_dataloader', {}).get('dataset')
    if dataset_cfg is None:
        raise LookupError('the config has no test data')
    try:
        with quiet_coco():
            dataset = DATASETS.build(dataset_cfg)
        if len(dataset) < batch:
            raise LookupError(f"the config's test data is {len(dataset)} images")
        images = [dataset[i * len(dataset) // batch]['inputs'] for i in range(batch)]
    except OSError as error:
        raise LookupError("the config's test data is not there") from error
    if any(image.dim() != 3 for image in images):
        raise LookupError("the config's test data is not images (C, H, W)")
    return images


def load_images(cfg: Config, args: argparse.Namespace, channels: int) -> tuple[Tensor, str]:
    """The images to measure on, preprocessed as the config says.

    Args:
        cfg: The config.
        args: The command line.
        channels: Channels that the backbone takes.

    Returns:
        (B, C, H, W), and in words where they are from.

    Raises:
        ToolError: The folder is wrong, or its images have other channels than the backbone.
    """
    size, batch = args.image_size, args.batch_size
    why = ''
    images = None
    if args.images is not None:
        images, source = read_folder(args.images, batch), f'the first of {args.images}'
    elif not args.noise:
        try:
            images, source = test_images(cfg, batch), "the config's test data"
        except LookupError as error:
            why = f' ({error})'
    if images is None:
        generator = torch.Generator().manual_seed(args.seed)
        return smoothed_noise(batch, channels, size, generator), f'smoothed noise{why}'
    if images[0].shape[0] != channels:
        raise ToolError(
            f'the images have {images[0].shape[0]} channels and the backbone takes {channels}: '
            'measure on --noise'
        )
    images = [
        F.interpolate(image[None].float(), (size, size), mode='bilinear', antialias=True)[0]
        for image in images
    ]
    if 'data_preprocessor' in cfg.model:
        preprocess = MODELS.build(cfg.model.data_preprocessor)
        return preprocess(dict(inputs=images, data_samples=None))['inputs'], source
    images = torch.stack(images)
    return (images - images.mean()) / images.std(), source


def label(backbone: dict) -> str:
    """A backbone in a few words."""
    gate = backbone.get('gate_cfg')
    gate = f':{type_name(gate)}' if gate else ''
    silent = ' zero-init' if backbone.get('zero_init_residual') else ''
    block = backbone.get('block', 'sg')
    return f'{block if isinstance(block, str) else type_name(block)}{gate}{silent}'


def block_table(result: Isometry) -> str:
    """One line a block."""
    lines = [
        f'{"block":<12} {"shortcut":<10} {"phi":>9} {"+-":>8} {"output":>7} '
        f'{"gradient":>9} {"product":>9}'
    ]
    for row in result.blocks:
        lines.append(
            f'{row.name:<12} {"identity" if row.identity else "projection":<10} {row.phi:>9.4g} '
            f'{row.phi_error:>8.2g} {row.mean_output:>7.3f} {row.gradient:>9.3g} '
            f'{row.product:>9.3g}'
        )
    return '\n'.join(lines)


def summary(result: Isometry) -> dict:
    """A network's figures in one line."""
    return dict(
        blocks=len(result.blocks),
        identity_phi=result.identity_phi,
        projection_phi=result.projection_phi,
        gradient=result.gradient,
        product=result.product,
        highest_output=max(row.mean_output for row in result.blocks),
        blocks_hold=result.blocks_hold,
        gradient_holds=result.gradient_holds,
    )


def network_table(networks: list[dict]) -> str:
    """One line a network."""
    width = max(len(network['network']) for network in networks)
    lines = [
        f'{"network":<{width}} {"depth":>5} {"phi, identity":>15} {"phi, projection":>15} '
        f'{"output":>7} {"gradient":>9} {"product":>9}  isometric'
    ]
    for network in networks:
        row = network['summary']
        phis = (row[f'{key}_phi'] for key in ('identity', 'projection'))
        spans = ['none' if math.isnan(low) else f'{low:.3g} to {high:.3g}' for low, high in phis]
        verdict = {
            (True, True): 'yes',
            (True, False): 'no: the gradient norm',
            (False, True): 'no: phi',
            (False, False): 'no: phi and the gradient norm',
        }[row['blocks_hold'], row['gradient_holds']]
        lines.append(
            f'{network["network"]:<{width}} {network["depth"] or "":>5} {spans[0]:>15} '
            f'{spans[1]:>15} {row["highest_output"]:>7.3f} {row["gradient"]:>9.3g} '
            f'{row["product"]:>9.3g}  {verdict}'
        )
    return '\n'.join(lines)


def draw(networks: list[dict], title: str, path: str) -> None:
    """Draw phi of each block and the gradient norm by depth, one column a depth.

    Args:
        networks: The results.
        title: What was measured on.
        path: Picture to write.
    """
    depths = sorted({network['depth'] for network in networks}, key=lambda depth: depth or 0)
    names = list(dict.fromkeys(network['network'] for network in networks))
    figure = Figure(figsize=(max(4 * len(depths), 6), 6.5), layout='constrained')
    axes = figure.subplots(2, len(depths), squeeze=False, sharey='row')
    for column, depth in enumerate(depths):
        gradient, phi = axes[:, column]
        for network in networks:
            if network['depth'] != depth:
                continue
            color = f'C{names.index(network["network"])}'
            rows = network['blocks']
            # Behind the last block the norm is 1 by definition; what is 0 has no logarithm.
            norms = [row['gradient'] or math.nan for row in rows] + [1]
            gradient.plot(range(len(norms)), norms, color=color, label=network['network'])
            values = [row['phi'] or math.nan for row in rows]
            phi.plot(range(len(rows)), values, '.', color=color)
        for part, bounds in ((gradient, SOUND_GRADIENT), (phi, ISOMETRIC_PHI)):
            part.set_yscale('log')
            part.axhspan(*bounds, color='grey', alpha=0.15)
            part.set_xlabel('block, from input to output')
        gradient.set_title(f'depth {depth}' if depth else names[0])
    axes[0, 0].set_ylabel('gradient norm, 1 behind the last block')
    axes[1, 0].set_ylabel('phi(J J^T) of each block')
    axes[0, 0].legend(fontsize='small')
    figure.suptitle(title, fontsize='small')
    figure.savefig(path, dpi=80)


def finite(value):
    """The value as JSON can hold it: no nan, no infinity."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Measure every network that was asked for."""
    args = parse_args(argv)
    enforce_safe_loading(args.trust_checkpoint)
    with exit_on_error(*CONFIG_ERRORS):
        cfg = load_config(args)
        stamp = time.strftime('%Y%m%d_%H%M%S')
        out = args.out or os.path.join(cfg.work_dir, stamp, 'isometry.json')
        check_out(out)
        init_default_scope(cfg.default_scope)
        # mmengine tells how each of hundreds of weights was initialised.
        MMLogger.get_current_instance().setLevel('WARNING')
        backbones = backbone_configs(cfg, args.cfg_options, args.blocks, args.depths)
        for backbone in backbones:  # every one is checked before the work starts
            net = MODELS.build(backbone)
            residual_blocks(net)
        if args.checkpoint:
            load_backbone(net, args.checkpoint, args.trust_checkpoint)
        images, source = load_images(cfg, args, getattr(net, 'in_channels', 3))
        try:
            images = images.to(args.device)
        except RuntimeError as error:
            raise ToolError(f'--device {args.device} cannot be used: {error}') from error
        about = f'{len(images)} images, {images.shape[-2]}x{images.shape[-1]}, {source}'
        state = args.checkpoint or 'at initialisation'
        print(f'{args.config}, {state}\n{about}; {args.probes} probes, seed {args.seed}\n')
        networks = []
        for i, backbone in enumerate(backbones):
            net = build_backbone(backbone, args.seed)
            if args.checkpoint:
                load_backbone(net, args.checkpoint, args.trust_checkpoint)
            result = measure_isometry(net.to(args.device), images, args.probes, args.seed)
            networks.append(
                dict(
                    network=label(backbone),
                    depth=backbone.get('depth'),
                    summary=summary(result),
                    blocks=[dataclasses.asdict(row) for row in result.blocks],
                )
            )
            if len(backbones) == 1:
                print(f'{block_table(result)}\n')
            else:
                print(f'measured {i + 1} of {len(backbones)}', flush=True)
    bounds = 'phi of each identity-shortcut block in [{}, {}], '.format(*ISOMETRIC_PHI)
    bounds += 'gradient norm at every depth in [{:g}, {:g}]'.format(*SOUND_GRADIENT)
    print(f'{network_table(networks)}\nisometric: {bounds}')
    settings = dict(
        config=args.config,
        cfg_options=args.cfg_options,
        checkpoint=args.checkpoint,
        input=source,
        image_size=list(images.shape[-2:]),
        images=len(images),
        probes=args.probes,
        seed=args.seed,
        device=args.device,
    )
    with open(out, 'x') as file:
        json.dump(finite({**settings, 'networks': networks}), file, indent=2)
    draw(networks, f'{state}; {about}', picture_path(out))
    print(f'results: {out}\npicture: {picture_path(out)}')

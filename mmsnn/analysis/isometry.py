"""Block dynamical isometry: does a block of a spiking network keep the length of a gradient?"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..models.backbones.sg_resnet import SpikingBlock

#: A block is called isometric where its phi lies in here. The bounds are ours.
ISOMETRIC_PHI = (0.5, 2.0)
#: A gradient is called sound where no depth changes its norm by more. The bounds are ours.
SOUND_GRADIENT = (1e-3, 1e3)


@dataclass
class BlockIsometry:
    """What was measured on one residual block.

    Attributes:
        name: Path of the block in the backbone, such as ``layer3.7``.
        identity: Whether its shortcut is the identity, not a projection.
        phi: Estimate of phi(J J^T), without a unit.
        phi_error: Standard error of ``phi`` over the probes.
        mean_output: Mean of what the block gives: the firing rate where that is spikes, in spikes
            a time step.
        outputs: m, the number of output values, over all time steps and images.
        gradient: ||dL/dx|| at the block's input by ||dL/dy|| behind the last block, root mean
            square over random L.
        product: Product of sqrt(phi) from this block to the last: what ``gradient`` would be
            if the phi of blocks just multiplied.
    """

    name: str
    identity: bool
    phi: float
    phi_error: float
    mean_output: float
    outputs: int
    gradient: float
    product: float


@dataclass
class Isometry:
    """What was measured on a backbone.

    Attributes:
        blocks: Its residual blocks, from input to output.
        probes: Random probes a block, and random cotangents of the whole chain.
    """

    blocks: list[BlockIsometry]
    probes: int

    @property
    def identity_phi(self) -> tuple[float, float]:
        """Least and greatest phi of the blocks whose shortcut is the identity; nan without any."""
        return _range(block.phi for block in self.blocks if block.identity)

    @property
    def projection_phi(self) -> tuple[float, float]:
        """Least and greatest phi of the blocks whose shortcut is a projection; nan without any."""
        return _range(block.phi for block in self.blocks if not block.identity)

    @property
    def gradient(self) -> float:
        """Gradient norm at the first block's input by that behind the last block."""
        return self.blocks[0].gradient

    @property
    def product(self) -> float:
        """The product of sqrt(phi) over all blocks."""
        return self.blocks[0].product

    @property
    def blocks_hold(self) -> bool:
        """Whether phi of every identity-shortcut block lies in :data:`ISOMETRIC_PHI`."""
        least, greatest = ISOMETRIC_PHI
        return all(least <= block.phi <= greatest for block in self.blocks if block.identity)

    @property
    def gradient_holds(self) -> bool:
        """Whether the gradient norm at every depth lies in :data:`SOUND_GRADIENT`."""
        least, greatest = SOUND_GRADIENT
        return all(least <= block.gradient <= greatest for block in self.blocks)


def jacobian_moment(
    output: Tensor, source: Tensor, probes: int, generator: torch.Generator
) -> tuple[float, float]:
    r"""Estimate phi(J J^T), the mean squared singular value of a Jacobian.

    .. math::
        \phi(J J^T) = \frac{1}{m} \operatorname{tr}(J J^T)
                    = \mathbb{E}_v \frac{\lVert J^T v \rVert^2}{\lVert v \rVert^2}

    for J = d output / d source with m rows, and v with independent entries +1 and -1
    (Hutchinson's estimator; of all such v these have the least variance). One probe is one
    backward pass; J is never made. Source: phi as the normalised trace is Chen et al. 2020, *A
    comprehensive and modularized statistical framework for gradient norm equality in deep neural
    networks*, which Zheng et al. 2021 apply to spiking networks.

    Args:
        output: What was computed from ``source``, any shape, m values.
        source: What to differentiate by; requires a gradient.
        probes: Number of random v, at least 2.
        generator: Source of the probes, on the CPU, so that devices see the same ones.

    Returns:
        The estimate and its standard error over the probes.

    Raises:
        ValueError: Fewer than 2 probes, which leave no standard error.

    Example:
        >>> import torch
        >>> from mmsnn.analysis import jacobian_moment
        >>> x = torch.ones(3, requires_grad=True)
        >>> jacobian_moment(2 * x, x, probes=4, generator=torch.Generator())
        (4.0, 0.0)
    """
    _check_probes(probes)
    samples = torch.tensor(
        [
            _squared_norm(_pull_back(output, source, _random_signs(output, generator)))
            for _ in range(probes)
        ],
        dtype=torch.float64,
    )
    samples /= output.numel()
    return samples.mean().item(), (samples.std() / math.sqrt(probes)).item()


def residual_blocks(backbone: nn.Module) -> dict[str, SpikingBlock]:
    """The residual blocks of a spiking backbone by their names, from input to output.

    Args:
        backbone: Backbone.

    Returns:
        Blocks by their paths in the backbone.

    Raises:
        ValueError: It has none.
    """
    blocks = {
        name: module
        for name, module in backbone.named_modules()
        if isinstance(module, SpikingBlock)
    }
    if not blocks:
        raise ValueError(
            f'isometry is measured block by block, and {type(backbone).__name__} has no spiking '
            "residual blocks: it needs a backbone such as dict(type='SGResNet', ...), whose blocks "
            'are SpikingBlock (mmsnn.models.backbones.sg_resnet)'
        )
    return blocks


def measure_isometry(
    backbone: nn.Module, images: Tensor, probes: int = 8, seed: int = 0
) -> Isometry:
    """Measure phi(J J^T) of every residual block, and the gradient norm by depth.

    J is the Jacobian of one block alone, of all its time steps and images together, at the values
    that the network has there on ``images``, through the surrogate gradients. Norms are as in
    training: those that train take the statistics of the batch, which makes their backward,
    through mean and variance, a part of J. At initialisation there is no other choice that says
    something: running statistics are 0 and 1 then, and currents would be of another size than in
    the first training step. Norms that a config holds still (``norm_eval``, ``frozen_stages``) are
    held still here.

    The gradient norm is measured end to end: random cotangents v behind the last block, with
    entries +1 and -1, go back through all blocks. Its mean square at the input of block l is
    phi of the Jacobian of blocks l to L together, so it stands beside the product of the blocks'
    own phi, to which it is equal where the theory's assumptions hold.

    One block's graph is kept at a time: the memory needed hardly grows with depth. The backbone is
    left as it was, running statistics and mode included.

    Args:
        backbone: Backbone whose residual blocks follow one another, such as ``SGResNet``.
        images: (B, C, H, W), or event frames (T, B, C, H, W); preprocessed.
        probes: Probes a block, and cotangents, at least 2.
        seed: Of probes and cotangents.

    Returns:
        The measurements.

    Raises:
        ValueError: No residual blocks, blocks that don't follow one another, or too few probes.
    """
    _check_probes(probes)
    blocks = residual_blocks(backbone)
    generator = torch.Generator().manual_seed(seed)
    rows: list[BlockIsometry] = []
    with _as_in_training(backbone):
        calls = _record(backbone, blocks, images)
        cotangents = None
        product = 1.0
        # From output to input, so that the cotangents can go along.
        for name in reversed(blocks):
            block = blocks[name]
            source, *others = calls.pop()
            source = source.detach().requires_grad_()
            with torch.enable_grad():
                output = block(source, *others)
            if cotangents is None:
                cotangents = [_random_signs(output, generator) for _ in range(probes)]
                start = output.numel()
            phi, error = jacobian_moment(output, source, probes, generator)
            cotangents = [_pull_back(output, source, v) for v in cotangents]
            product *= math.sqrt(phi)
            mean_square = sum(map(_squared_norm, cotangents)) / probes / start
            rows.append(
                BlockIsometry(
                    name=name,
                    identity=block.downsample is None,
                    phi=phi,
                    phi_error=error,
                    mean_output=output.mean().item(),
                    outputs=output.numel(),
                    gradient=math.sqrt(mean_square),
                    product=product,
                )
            )
    return Isometry(rows[::-1], probes)


def _check_probes(probes: int) -> None:
    if probes < 2:
        raise ValueError(f'probes must be at least 2, for a standard error, got {probes}')


def _random_signs(like: Tensor, generator: torch.Generator) -> Tensor:
    signs = torch.randint(0, 2, like.shape, generator=generator)
    return (2 * signs - 1).to(like)


def _pull_back(output: Tensor, source: Tensor, cotangent: Tensor) -> Tensor:
    """J^T v; the graph stays for the next v."""
    return torch.autograd.grad(output, source, cotangent, retain_graph=True)[0]


def _squared_norm(x: Tensor) -> float:
    return x.double().square().sum().item()


def _range(values: Iterator[float]) -> tuple[float, float]:
    known = list(values)
    return (min(known), max(known)) if known else (math.nan, math.nan)


def _record(backbone: nn.Module, blocks: dict[str, SpikingBlock], images: Tensor) -> list[tuple]:
    """The arguments of each block's call, in the order of ``blocks``.

    Raises:
        ValueError: A block's input is not the output of the one before.
    """
    calls = []
    outputs = []
    names = {block: name for name, block in blocks.items()}
    order = []

    def keep(block, args, output):
        order.append(names[block])
        calls.append(args)
        outputs.append(output)

    handles = [block.register_forward_hook(keep) for block in blocks.values()]
    try:
        with torch.no_grad():
            backbone(images)
    finally:
        for handle in handles:
            handle.remove()
    chained = all(args[0] is output for args, output in zip(calls[1:], outputs))
    if order != list(blocks) or not chained:
        raise ValueError(
            f'the gradient norm by depth needs blocks that follow one another; those of '
            f'{type(backbone).__name__} do not: something stands between them, or they run '
            'in another order than they are defined in'
        )
    return calls


@contextmanager
def _as_in_training(backbone: nn.Module) -> Iterator[None]:
    """Training mode; mode and buffers, running statistics among them, are put back afterwards."""
    modes = {module: module.training for module in backbone.modules()}
    buffers = {name: buffer.clone() for name, buffer in backbone.named_buffers()}
    backbone.train()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for name, buffer in backbone.named_buffers():
            buffer.copy_(buffers[name])

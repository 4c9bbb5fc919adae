"""The firing function and the surrogates of its derivative: four, and those of a user's own."""

import logging
import math
from collections.abc import Callable

import torch
from torch import Tensor

from .spec import Surrogate


def _rectangle(u: Tensor, width: float) -> Tensor:
    return (u.abs() < width / 2).to(u.dtype) / width


def _triangle(u: Tensor, width: float) -> Tensor:
    return (1 - u.abs() / width).clamp_min(0) / width


def _arctan(u: Tensor, width: float) -> Tensor:
    return 1 / (width * (1 + (math.pi / width * u) ** 2))


def _sigmoid(u: Tensor, width: float) -> Tensor:
    p = torch.sigmoid(4 / width * u)
    return 4 / width * p * (1 - p)


#: By name; the codes are those of the kernels.
SURROGATES: dict[str, Surrogate] = {
    surrogate.name: surrogate
    for surrogate in (
        Surrogate('rectangle', _rectangle, reach=0.5, code=0),
        Surrogate('triangle', _triangle, reach=1.0, code=1),
        Surrogate('arctan', _arctan, code=2),
        Surrogate('sigmoid', _sigmoid, code=3),
    )
}

logger = logging.getLogger('mmsnn')


def register_surrogate(
    name: str, derivative: Callable[[Tensor, float], Tensor], reach: float = math.inf
) -> None:
    """Let neurons learn by a surrogate of one's own.

    A neuron trains with it in PyTorch operations, as no kernel has it; the log says so. Without a
    gradient it runs as any other: spikes don't depend on the surrogate.

    Args:
        name: What neurons call it.
        derivative: g(u, width), of u = h - V_th of any shape; see :func:`surrogate_gradient`.
        reach: How many widths away from the threshold it is exactly zero from; infinite where it
            never is.

    Raises:
        ValueError: A name that is taken, or a reach that is not positive.

    Example:
        >>> import torch
        >>> from mmsnn.ops import register_surrogate, surrogate_gradient
        >>> register_surrogate('laplace', lambda u, width: (-2 * u.abs() / width).exp() / width)
        >>> surrogate_gradient(torch.tensor([0.0]), 'laplace', width=0.5)
        tensor([2.])
    """
    if name in SURROGATES:
        raise ValueError(f'surrogate {name!r} is there already: choose another name')
    if not reach > 0:
        raise ValueError(f'reach must be a positive number of widths, got {reach!r}')
    SURROGATES[name] = Surrogate(name, derivative, reach)
    logger.info('surrogate %r is none of the kernels: training runs in PyTorch operations', name)


def check_surrogate(surrogate: str, width: float) -> None:
    """Refuse an unknown surrogate or a width that is not positive.

    Raises:
        ValueError: Names the offending value and the valid ones.
    """
    if surrogate not in SURROGATES:
        raise ValueError(f'unknown surrogate {surrogate!r}: choose one of {sorted(SURROGATES)}')
    if not (math.isfinite(width) and width > 0):
        raise ValueError(f'surrogate_width must be a positive number, got {width!r}')


def surrogate_gradient(u: Tensor, surrogate: str = 'arctan', width: float = 1.0) -> Tensor:
    r"""The stand-in g(u) for the derivative of the step function at u = h - V_th.

    Every one is a bump of unit area whose peak is 1 / width, so that changing the shape changes
    neither the scale of the gradient nor its integral:

    - ``rectangle``: 1 / width where :math:`|u| < width / 2`, else 0 (STBP, Wu et al. 2018)
    - ``triangle``: :math:`\max(0, 1 - |u| / width) / width`
    - ``arctan``: 1 / (width (1 + (pi u / width)^2)); width 1 is SpikingJelly's ``ATan(alpha=2)``
    - ``sigmoid``: the derivative of sigmoid(4 u / width); width 1 is ``Sigmoid(alpha=4)``

    Args:
        u: Distance to the threshold, any shape.
        surrogate: A key of ``SURROGATES``.
        width: Width of the bump, in units of the membrane potential.

    Returns:
        Tensor of the shape and dtype of ``u``.

    Raises:
        ValueError: Unknown surrogate, or a width that is not positive.

    Example:
        >>> import torch
        >>> from mmsnn.ops import surrogate_gradient
        >>> surrogate_gradient(torch.tensor([-1., 0., 0.25]), 'rectangle')
        tensor([0., 1., 1.])
    """
    check_surrogate(surrogate, width)
    return SURROGATES[surrogate].derivative(u, width)


class _Fire(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u: Tensor, surrogate: str, width: float) -> Tensor:
        ctx.save_for_backward(u)
        ctx.surrogate, ctx.width = surrogate, width
        return (u >= 0).to(u.dtype)

    @staticmethod
    def backward(ctx, grad: Tensor):
        (u,) = ctx.saved_tensors
        return grad * SURROGATES[ctx.surrogate].derivative(u, ctx.width), None, None


def fire(u: Tensor, surrogate: str = 'arctan', width: float = 1.0) -> Tensor:
    """Heaviside step s = [u >= 0] with :func:`surrogate_gradient` as its derivative.

    Args:
        u: Membrane potential minus threshold, any shape.
        surrogate: A key of ``SURROGATES``.
        width: Width of the surrogate.

    Returns:
        Spikes, 0 or 1 in the dtype of ``u``.

    Raises:
        ValueError: Unknown surrogate, or a width that is not positive.
    """
    check_surrogate(surrogate, width)
    return _Fire.apply(u, surrogate, width)

"""Integer leaky integrate-and-fire: spikes as whole numbers, or virtual steps of them."""

from typing import Optional

import torch
from torch import Tensor

from . import dispatch, reference
from .checks import check_followed, check_steps
from .layout import inner_layout
from .operators import ilif as operators
from .spec import ILIF, NeuronState


def ilif(
    x: Tensor,
    levels: int = 4,
    decay: float = 0.5,
    v_threshold: float = 1.0,
    detach_reset: bool = False,
    dtype: Optional[torch.dtype] = None,
    state: Optional[NeuronState] = None,
) -> Tensor:
    r"""Integer leaky integrate-and-fire over all time steps, starting from u = 0.

    .. math::
        h[t] &= decay \cdot u[t-1] + x[t] / V_{th} \\
        s[t] &= \min(\max(\lfloor h[t] + 1/2 \rfloor, 0), D) \\
        u[t] &= h[t] - s[t]

    Potentials are in units of the threshold, so that the reset is by a whole number, and exact.
    The derivative of s is taken as 1 for h in [0, D], and 0 elsewhere. A spike train of 0 and 1
    with the same numbers is :func:`ilif_steps`. Source: Luo et al. 2024, SpikeYOLO; our reading,
    docs/method.md.

    Half-precision inputs are integrated in float32, as in :func:`mmsnn.ops.lif`.

    Args:
        x: Input currents, (T, ...): time first, anything behind it.
        levels: D, the most spikes of one time step.
        decay: Leak factor, in [0, 1].
        v_threshold: Firing threshold V_th, in units of the current.
        detach_reset: Whether the gradient ignores the spikes in the reset.
        dtype: Dtype of the spikes where it isn't that of ``x``, for inference.
        state: As of :func:`mmsnn.ops.lif`, in units of the threshold.

    Returns:
        Whole numbers 0 to D of the shape of ``x``.

    Raises:
        ValueError: No time step, or more levels than the 255 that a byte counts.
        BackendError: A backend was named that this machine hasn't.

    Example:
        >>> import torch
        >>> from mmsnn.ops import ilif
        >>> ilif(torch.tensor([[0.4], [1.5], [9.0]]), levels=4).flatten()
        tensor([0., 2., 4.])
    """
    neuron = ILIF(levels, float(decay), float(v_threshold), detach_reset)
    if state is not None:
        return _from_state(x, neuron, dtype, state)
    if dtype is None or dtype == x.dtype:
        return operators.ilif(x, *neuron)
    return operators.ilif_as(x, *neuron, dtype)


def _from_state(
    x: Tensor, neuron: ILIF, dtype: Optional[torch.dtype], state: NeuronState
) -> Tensor:
    """From potentials on, as :func:`mmsnn.ops.lif` does it."""
    check_followed()
    check_steps(x, None)
    u = state.begin(x, *inner_layout(x, 0))
    learns = torch.is_grad_enabled() and x.requires_grad and dtype in (None, x.dtype)
    before = u.clone() if learns else u
    backend = dispatch.handing_on(dispatch.choose('ilif', x), u)
    with torch.no_grad():
        spikes = operators._ilif(x.resolve_neg(), *neuron, dtype=dtype, backend=backend, u=u)
    if not learns:
        return spikes
    currents = reference.in_thresholds(x, neuron)
    currents = currents.select_scatter(neuron.decay * before + currents[0], 0, 0)
    return operators.ilif(currents, *neuron._replace(v_threshold=1.0)).to(x.dtype)


def ilif_steps(x: Tensor, levels: int = 4, decay: float = 0.5, v_threshold: float = 1.0) -> Tensor:
    r"""The spikes of :func:`ilif` one by one, at D virtual steps of each time step.

    .. math::
        n_0 = 0, \qquad s[t, d] = [h[t] - n_{d-1} \ge 1/2], \qquad n_d = n_{d-1} + s[t, d]

    It is an integrate-and-fire neuron with soft reset that gets its current at the first of D
    steps, has no leak between them, and fires from half a threshold on. So the spikes of a time
    step come first and the silence after them, and their sum over d is what :func:`ilif` gives.

    Args:
        x: As of :func:`ilif`.
        levels: Likewise.
        decay: Likewise.
        v_threshold: Likewise.

    Returns:
        0 and 1, (T, D, ...) in the dtype of ``x``; there is no gradient.

    Example:
        >>> import torch
        >>> from mmsnn.ops import ilif_steps
        >>> ilif_steps(torch.tensor([[1.6]]), levels=4).flatten()
        tensor([1., 1., 0., 0.])
    """
    spikes: list[Tensor] = []

    def one_by_one(h: Tensor) -> Tensor:
        count, steps = torch.zeros_like(h), []
        for _ in range(levels):
            steps.append((h - count >= 0.5).to(h.dtype))
            count = count + steps[-1]
        spikes.append(torch.stack(steps).to(x.dtype))
        return count

    for _ in reference.integrate_whole(x.detach(), ILIF(levels, decay, v_threshold), one_by_one):
        pass
    return torch.stack(spikes)

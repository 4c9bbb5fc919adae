"""A model in PyTorch's own operations, as programs that know nothing of mmsnn can compute them."""

import logging
import re
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Optional

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.overrides import TorchFunctionMode

from .. import ops
from ..models.layers import ResidualGate, SpikingNeuron
from ..ops import reference
from ..ops.spec import ILIF
from .fuse import folded_copy, is_fused

#: The most that a dynamic size can be, or its factor where it is a multiple.
MOST = 1 << 12
_FIX = (
    'the model does not take inputs of any size, so fix the size, and the number of images, of the '
    'file (--shape, --batch)'
)


class ExportError(ValueError):
    """A model, or what is asked of it, that can't be written for other programs."""


class UnrolledNeuron(SpikingNeuron):
    r"""A neuron of :func:`mmsnn.ops.lif`'s for inference, one time step after the other.

    .. math::
        h[t] = decay \cdot v[t-1] + input\_scale \cdot x[t] \qquad s[t] = [h[t] \ge V_{th}]

    and v[t] is 0 (or h[t] - V_th, by the reset) where there is a spike, else h[t]: the values of
    the reference, in a multiplication, an addition, a comparison and a choice a step.

    Args:
        neuron: The neuron; a learned leak becomes a constant.
    """

    def __init__(self, neuron: SpikingNeuron):
        super().__init__(neuron.v_threshold, neuron.time_steps)
        record = neuron.known_record()
        self.neuron = record._replace(
            decay=torch.as_tensor(record.decay).item(),
            input_scale=torch.as_tensor(record.input_scale).item(),
        )

    def record(self) -> ops.LIF:
        """The constants of :func:`mmsnn.ops.lif`."""
        return self.neuron

    def forward(self, x: Tensor, time_steps: Optional[int] = None) -> Tensor:
        """Currents (T*B, ...), or (T, ...) where nobody says T, to spikes."""
        neuron, v, spikes = self.neuron, None, []
        for current in x.unflatten(0, (time_steps or self.time_steps or x.shape[0], -1)).unbind(0):
            if neuron.input_scale != 1:
                current = neuron.input_scale * current
            h = current if v is None else neuron.decay * v + current
            fires = h >= neuron.v_threshold
            spikes.append(fires.to(x.dtype))
            after = torch.zeros(()) if neuron.reset == 'hard' else h - neuron.v_threshold
            v = torch.where(fires, after, h)
        return torch.cat(spikes)


def folded(model: nn.Module) -> nn.Module:
    """A copy of a trained model for :func:`trace`: float32, norms folded.

    Args:
        model: A backbone, a classifier or a whole detector; it isn't changed.

    Returns:
        The copy, on the CPU, in eval mode, without gradients.

    Raises:
        ExportError: The model is fused already.
    """
    if is_fused(model):
        raise ExportError(
            'the model is fused already, for kernels that other programs do not have: export the '
            'model that it was made from'
        )
    return folded_copy(model).float().cpu()


def plain(model: nn.Module) -> nn.Module:
    """What :func:`folded` gives, with its neurons unrolled.

    Args:
        model: As of :func:`folded`.

    Returns:
        Likewise.

    Raises:
        ExportError: Likewise.

    Example:
        >>> import torch
        >>> from mmsnn.deploy.plain import plain
        >>> from mmsnn.models import SGResNet
        >>> net = SGResNet(10, base_channels=8).eval()
        >>> image = torch.rand(1, 3, 32, 32)
        >>> torch.equal(plain(net)(image)[-1], net(image)[-1])
        True
    """
    model = folded(model)
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, SpikingNeuron) and child.runs_by_record:
                setattr(module, name, UnrolledNeuron(child))
            elif type(child) is ResidualGate:
                # The larger of two spikes, one operation, is their OR.
                child.values = 'counts'
    return model


def _ilif(x: Tensor, *neuron: Any) -> Tensor:
    return reference.ilif(x, ILIF(*neuron)).to(x.dtype)


#: Operators of mmsnn's that a plain model calls for inference, in PyTorch's operations.
DECOMPOSITIONS = {
    torch.ops.mmsnn.ilif.default: _ilif,
    torch.ops.mmsnn.max_pool.default: reference.max_pool2d,
    torch.ops.mmsnn.rate_decode.default: reference.rate_decode,
    torch.ops.mmsnn.attention_statistics.default: reference.attention_statistics,
    torch.ops.mmsnn.attention_decode.default: reference.attention_decode,
}


class _Decomposed(TorchFunctionMode):
    """Lets a trace see PyTorch's operations in the place of mmsnn's."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return DECOMPOSITIONS.get(func, func)(*args, **(kwargs or {}))


@contextmanager
def _plainly() -> Iterator[None]:
    with ops.use_backend('reference'), _Decomposed():
        yield


def trace(
    model: nn.Module,
    inputs: tuple,
    dynamic_shapes: Any = None,
    allowed: Collection = (),
    own: bool = False,
) -> ExportedProgram:
    """The program of a model, by ``torch.export``.

    Args:
        model: What :func:`plain` gives, or with ``own`` :func:`folded`, or a module around it.
        inputs: An input, as ``torch.export.export`` takes it.
        dynamic_shapes: Likewise; its sizes end at ``MOST``.
        allowed: Operators beside PyTorch's that may stay.
        own: Whether all of mmsnn's operators stay as they are.

    Returns:
        A program of PyTorch's operators, and those.

    Raises:
        ExportError: The model can't be traced, or not with these dynamic shapes, or calls an
            operator that can't be said in PyTorch's.
    """
    try:
        with torch.no_grad(), nullcontext() if own else _plainly():
            program = torch.export.export(
                model, inputs, dynamic_shapes=dynamic_shapes, strict=False
            )
    except Exception as error:  # what a model does can fail in any way
        words = str(error).strip().partition('\n')[0] or type(error).__name__
        # The lines behind torch's first one say which size it is.
        fixed = re.search(r'^ *- .*', str(error), re.MULTILINE)
        if dynamic_shapes is not None and 'Constraints violated' in words and fixed:
            raise ExportError(f'{_FIX}: {fixed[0].strip(" -")}') from error
        raise ExportError(f'torch.export cannot follow the model: {words}') from error
    # What it concludes of the factor of a multiple, torch.export keeps to itself.
    limits = [sizes.upper for sizes in program.range_constraints.values()]
    if any(limit < MOST for limit in limits):
        raise ExportError(f'{_FIX}: it was found to hold up to {min(limits)} alone')
    targets = (node.target for node in program.graph.nodes if node.op == 'call_function')
    others = {
        target.name()
        for target in targets
        if isinstance(target, torch._ops.OpOverload)
        and target.namespace not in ('aten', 'prim', 'prims', *(['mmsnn'] if own else []))
        and target not in allowed
    }
    if others:
        raise ExportError(
            f'the model calls {", ".join(sorted(others))}, which cannot be exported: it is no '
            'operation of PyTorch'
        )
    return program


@contextmanager
def quiet() -> Iterator[None]:
    """Without what torch tells of itself while it exports."""
    logger = logging.getLogger('torch.onnx')
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        logger.setLevel(before)


def last_words(error: BaseException) -> str:
    """What lies at the bottom of an exporter's error, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip().partition('\n')[0] or type(error).__name__

"""What every look at a running model's neurons shares."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from ..deploy import IntegerConv2d
from ..models.layers import Gate, LIFNeuron


def neuron_layers(model: nn.Module) -> dict[str, LIFNeuron]:
    """The layers of neurons that a network thinks with: all but those of learned gates.

    Args:
        model: Any model.

    Returns:
        Neurons by name.
    """
    gates = [name for name, module in model.named_modules() if isinstance(module, Gate)]
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, LIFNeuron) and not any(name.startswith(f'{g}.') for g in gates)
    }


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Set a model to eval mode inside the ``with`` block, and every module back behind it.

    Args:
        model: Any model.
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def check_no_bytes(model: nn.Module) -> None:
    """Refuse a model whose spikes are bytes.

    Args:
        model: Any model.

    Raises:
        ValueError: A model of :func:`mmsnn.deploy.fuse` with integer convs.
    """
    for name, module in model.named_modules():
        if isinstance(module, IntegerConv2d) or (
            isinstance(module, LIFNeuron) and module.spike_dtype is not None
        ):
            raise ValueError(
                f'{name} is a layer of a fused model with integer convs, whose spikes are '
                'bytes: take the unfused model; its operations are the same'
            )


def check_no_observer(names: dict[nn.Module, str]) -> None:
    """Refuse modules that somebody looks at already.

    Args:
        names: Modules, and their names for the message.

    Raises:
        RuntimeError: Names the first that has an observer.
    """
    for module, name in names.items():
        if getattr(module, 'observer', None) is not None:
            raise RuntimeError(
                f'{name!r} has an observer: one SpikeProfiler or SpikeRecorder at a time'
            )


def takes_observer(neuron: LIFNeuron) -> bool:
    """Whether an observer sees all of what a neuron gives: not where it has its own forward."""
    return type(neuron).forward is LIFNeuron.forward


def unfold_time(
    neuron: LIFNeuron, args: tuple, kwargs: dict[str, Any], output: Tensor
) -> tuple[Tensor, Tensor]:
    """Input and output of a neuron's forward with a time axis, for forward hooks.

    Args:
        neuron: The neuron.
        args: Arguments of its call.
        kwargs: Likewise.
        output: What it returned.

    Returns:
        Currents and spikes (T, ...).
    """
    x, time_steps = (*args, None)[:2]
    time_steps = time_steps or kwargs.get('time_steps') or neuron.time_steps
    if time_steps is None:
        return x, output
    return x.unflatten(0, (time_steps, -1)), output.unflatten(0, (time_steps, -1))

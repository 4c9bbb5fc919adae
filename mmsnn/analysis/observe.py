"""What every look at a running model's neurons shares."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..deploy import IntegerConv2d
from ..models.layers import Gate, SpikingNeuron


def neuron_layers(model: nn.Module) -> dict[str, SpikingNeuron]:
    """The layers of neurons outside of learned gates.

    Args:
        model: Any model.

    Returns:
        Neurons by name.
    """
    gates = [name for name, module in model.named_modules() if isinstance(module, Gate)]
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, SpikingNeuron) and not any(name.startswith(f'{g}.') for g in gates)
    }


def some_layers(model: nn.Module, most: int) -> list[str]:
    """Names of some :func:`neuron_layers`, evenly from the first to the last.

    Args:
        model: Any model.
        most: How many, at most.
    """
    names = list(neuron_layers(model))
    chosen = np.linspace(0, len(names) - 1, min(len(names), most)).round().astype(int)
    return [names[i] for i in chosen]


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
    """Refuse a model with integer convs.

    Args:
        model: Any model.

    Raises:
        ValueError: A model of :func:`mmsnn.deploy.fuse` in ``int8`` or ``int16``.
    """
    for name, module in model.named_modules():
        if isinstance(module, IntegerConv2d) or getattr(module, 'bits', None) is not None:
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


def check_values(neuron: SpikingNeuron, name: str, spikes: Tensor) -> None:
    """Refuse spikes that a neuron doesn't say that it gives, which would be counted wrong.

    Args:
        neuron: The neuron.
        name: Its name, for the message.
        spikes: What it gave.

    Raises:
        ValueError: Some are no whole numbers, or out of its range.
    """
    if neuron.runs_by_record or not spikes.numel():
        return
    low, high = (v.item() for v in spikes.aminmax())
    least = -neuron.levels if neuron.values == 'signed' else 0
    if not least <= low <= high <= neuron.levels or not torch.equal(spikes.round(), spikes):
        raise ValueError(
            f'{name!r} gave spikes from {low:g} to {high:g}, but {type(neuron).__name__} says '
            f'values={neuron.values!r} and levels={neuron.levels}: let its class name what it '
            "gives: 'binary' is 0 and 1, 'counts' whole numbers from 0, 'signed' of either sign, "
            'up to levels'
        )


def unfold_time(
    neuron: SpikingNeuron, args: tuple, kwargs: dict[str, Any], output: Tensor
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

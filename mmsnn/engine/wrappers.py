"""The model inside its wrappers."""

from torch import nn

from ..analysis import neuron_layers
from ..ops import SettingError


def wrapper_chain(model: nn.Module) -> list[nn.Module]:
    """The wrappers for distributed runs and test-time augmentation, and the model inside them.

    Args:
        model: The runner's model.

    Returns:
        From the outermost wrapper, if there is any, to the model itself.
    """
    chain = [model]
    while isinstance(inner := getattr(chain[-1], 'module', None), nn.Module):
        chain.append(inner)
    return chain


def unwrap(model: nn.Module) -> nn.Module:
    """The detector or classifier inside the wrappers.

    Args:
        model: The runner's model.

    Returns:
        The model itself.
    """
    return wrapper_chain(model)[-1]


def spiking_model(model: nn.Module, purpose: str) -> nn.Module:
    """The model inside the wrappers, for a hook that needs spiking neurons.

    Args:
        model: The runner's model.
        purpose: Begins the message, such as 'SpikeStatsHook watches spiking neurons'.

    Returns:
        The model itself.

    Raises:
        SettingError: It has none.
    """
    model = unwrap(model)
    if not neuron_layers(model):
        raise SettingError(
            f'{purpose}, and {type(model).__name__} has none: take the hook out of custom_hooks'
        )
    return model

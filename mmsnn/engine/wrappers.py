"""The model inside its wrappers."""

from torch import nn


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

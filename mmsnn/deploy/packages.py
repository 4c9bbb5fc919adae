"""Packages that only one kind of file needs."""

import importlib
from typing import Any


def needed(package: str, extra: str) -> Any:
    """Import a package that comes with an extra of mmsnn's.

    Args:
        package: Its import name.
        extra: The extra.

    Returns:
        The module.

    Raises:
        ImportError: It isn't installed; the message says what to install.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ImportError(f"{error}: pip install 'mmsnn[{extra}]'") from error

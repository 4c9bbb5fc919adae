"""Hooks and optimiser wrappers."""

from .hooks import NonFiniteLossHook
from .optimizers import BF16OptimWrapper

__all__ = ['BF16OptimWrapper', 'NonFiniteLossHook']

"""Hooks and optimiser wrappers."""

from .hooks import FuseHook, NonFiniteLossHook
from .optimizers import BF16OptimWrapper

__all__ = ['BF16OptimWrapper', 'FuseHook', 'NonFiniteLossHook']

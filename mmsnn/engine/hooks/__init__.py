"""Training hooks."""

from .fuse_hook import FuseHook
from .non_finite_loss_hook import NonFiniteLossHook

__all__ = ['FuseHook', 'NonFiniteLossHook']

"""Losses of recognition."""

from .cls_losses import ClsLoss, TETLoss

__all__ = ['ClsLoss', 'TETLoss']

"""Transforms that MMDetection and mmcv do not have."""

from .images import PackClsInputs, RandomPadCrop, RandomResizedCrop

__all__ = ['PackClsInputs', 'RandomPadCrop', 'RandomResizedCrop']

"""Batching, normalisation and augmentation of whole batches."""

from .batch_augments import BatchCutMix, BatchMixUp
from .cls_data_preprocessor import ClsDataPreprocessor

__all__ = ['BatchCutMix', 'BatchMixUp', 'ClsDataPreprocessor']

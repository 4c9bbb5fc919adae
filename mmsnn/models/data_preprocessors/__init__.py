"""Batching, normalisation and augmentation of whole batches."""

from .batch_augments import BatchCutMix, BatchMixUp
from .cls_data_preprocessor import ClsDataPreprocessor
from .event_det_data_preprocessor import EventDetDataPreprocessor

__all__ = ['BatchCutMix', 'BatchMixUp', 'ClsDataPreprocessor', 'EventDetDataPreprocessor']

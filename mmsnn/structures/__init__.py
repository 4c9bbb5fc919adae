"""What travels between data sets, models and metrics beside tensors."""

from .cls_data_sample import ClsDataSample

__all__ = ['ClsDataSample']

"""The error of a data set that cannot be used."""

__all__ = ['DatasetError']


class DatasetError(ValueError):
    """A data set cannot be used as it is; the message says where and what to do."""

"""Decoder necks."""

from .decoder_necks import ASDNeck, LastNeck, RateNeck

__all__ = ['ASDNeck', 'LastNeck', 'RateNeck']

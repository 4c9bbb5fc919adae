"""Decoder necks."""

from .decoder_necks import ASDNeck, DecoderNeck, LastNeck, RateNeck

__all__ = ['ASDNeck', 'DecoderNeck', 'LastNeck', 'RateNeck']

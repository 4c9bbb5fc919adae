"""Metrics that MMDetection does not have."""

from .cls_metric import ClsMetric

__all__ = ['ClsMetric']

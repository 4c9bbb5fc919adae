"""Metrics that MMDetection does not have."""

from .box_protocols import BoxProtocol, box_ap, filter_boxes, find_protocol
from .cls_metric import ClsMetric
from .prophesee_metric import PropheseeMetric

__all__ = [
    'BoxProtocol',
    'ClsMetric',
    'PropheseeMetric',
    'box_ap',
    'filter_boxes',
    'find_protocol',
]

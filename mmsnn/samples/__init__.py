"""Pictures that come with mmsnn: the first of the digits set's validation images, in COCO format.

``mmsnn digits`` makes the whole set. The scans in them are scikit-learn's digits (CC BY 4.0).
"""

from pathlib import Path

#: A data root as ``mmsnn digits`` makes it, with ``val/`` and ``annotations/instances_val.json``.
DIGITS = Path(__file__).parent / 'digits'

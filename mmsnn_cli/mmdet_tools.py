"""MMDetection's own tools, which come with the installed MMDetection."""

import sys
from collections.abc import Sequence
from typing import Optional

from mmsnn.compat.stacks import installed
from mmsnn.utils import read_pickles_safely, run_mmdet_tool

Arguments = Optional[Sequence[str]]


def analyze_logs(argv: Arguments = None) -> None:
    """Curves and times from a run's log."""
    argv = list(sys.argv[1:] if argv is None else argv)
    onedl = any(part.stack == 'onedl' for part in installed())
    if onedl and 'plot_curve' in argv and '--style' not in argv:
        # The default, 'dark', is a style of seaborn's, which OpenMMLab's tool asks. OneDL's asks
        # Matplotlib, which has none of that name.
        argv += ['--style', 'default']
    run_mmdet_tool('analysis_tools/analyze_logs.py', argv)


def browse_dataset(argv: Arguments = None) -> None:
    """Pictures of a data set as training sees it."""
    run_mmdet_tool('analysis_tools/browse_dataset.py', argv)


def confusion_matrix(argv: Arguments = None) -> None:
    """A detector's confusion matrix, from the predictions that ``mmsnn test --out`` saved."""
    read_pickles_safely()
    run_mmdet_tool('analysis_tools/confusion_matrix.py', argv)


def print_config(argv: Arguments = None) -> None:
    """A config with all that it inherits."""
    run_mmdet_tool('misc/print_config.py', argv)

"""Curves and times from a run's log: MMDetection's own tool."""

import sys

from mmsnn.utils import run_mmdet_tool

if __name__ == '__main__':
    if 'plot_curve' in sys.argv and '--style' not in sys.argv:
        # The tool's own default, 'dark', is no style of Matplotlib's any more.
        sys.argv += ['--style', 'default']
    run_mmdet_tool('analysis_tools/analyze_logs.py')

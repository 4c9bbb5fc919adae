"""A detector's confusion matrix, from test.py's --out: MMDetection's own tool."""

from mmsnn.utils import run_mmdet_tool

if __name__ == '__main__':
    run_mmdet_tool('analysis_tools/confusion_matrix.py')

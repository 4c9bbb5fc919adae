"""A detector's confusion matrix, from test.py's --out: MMDetection's own tool."""

from mmsnn.utils import read_pickles_safely, run_mmdet_tool

if __name__ == '__main__':
    read_pickles_safely()
    run_mmdet_tool('analysis_tools/confusion_matrix.py')

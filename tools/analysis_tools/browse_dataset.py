"""Pictures of a data set as training sees it: MMDetection's own tool."""

from mmsnn.utils import run_mmdet_tool

if __name__ == '__main__':
    run_mmdet_tool('analysis_tools/browse_dataset.py')

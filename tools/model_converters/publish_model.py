"""A checkpoint without its optimiser, named by its hash: MMDetection's own tool."""

from mmsnn.utils import run_mmdet_tool

if __name__ == '__main__':
    run_mmdet_tool('model_converters/publish_model.py')

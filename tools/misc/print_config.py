"""A config with all that it inherits: MMDetection's own tool."""

from mmsnn.utils import run_mmdet_tool

if __name__ == '__main__':
    run_mmdet_tool('misc/print_config.py')

"""Pictures of a data set as training sees it: ``mmsnn browse``, as a script."""

from mmsnn_cli.mmdet_tools import browse_dataset

if __name__ == '__main__':
    browse_dataset()

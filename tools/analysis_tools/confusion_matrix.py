"""A detector's confusion matrix: ``mmsnn confusion-matrix``, as a script."""

from mmsnn_cli.mmdet_tools import confusion_matrix

if __name__ == '__main__':
    confusion_matrix()

"""Handwritten digits as a detection data set: ``mmsnn digits``, as a script."""

from mmsnn_cli.digits_to_coco import main

if __name__ == '__main__':
    main()

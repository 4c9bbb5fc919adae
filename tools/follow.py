"""Boxes in event recordings, window by window: ``mmsnn follow``, as a script."""

from mmsnn_cli.follow import main

if __name__ == '__main__':
    main()

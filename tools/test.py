"""Evaluate a detector or a classifier: ``mmsnn test``, as a script."""

from mmsnn_cli.test import main

if __name__ == '__main__':
    main()

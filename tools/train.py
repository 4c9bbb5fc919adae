"""Train a detector or a classifier: ``mmsnn train``, as a script."""

from mmsnn_cli.train import main

if __name__ == '__main__':
    main()

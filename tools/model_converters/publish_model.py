"""A checkpoint without its optimiser: ``mmsnn publish``, as a script."""

from mmsnn_cli.publish_model import main

if __name__ == '__main__':
    main()

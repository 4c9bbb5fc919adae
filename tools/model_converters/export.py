"""A checkpoint as a file that other programs read: ``mmsnn export``, as a script."""

from mmsnn_cli.export import main

if __name__ == '__main__':
    main()

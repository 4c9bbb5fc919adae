"""Which blocks keep the length of a gradient: ``mmsnn isometry``, as a script."""

from mmsnn_cli.gradient_isometry import main

if __name__ == '__main__':
    main()

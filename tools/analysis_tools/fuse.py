"""Time and results of a model fused in every precision: ``mmsnn fuse``, as a script."""

from mmsnn_cli.fuse import main

if __name__ == '__main__':
    main()

"""Images a second and peak memory: ``mmsnn benchmark``, as a script."""

from mmsnn_cli.benchmark import main

if __name__ == '__main__':
    main()

"""One checkpoint at several numbers of time steps: ``mmsnn anytime``, as a script."""

from mmsnn_cli.anytime import main

if __name__ == '__main__':
    main()

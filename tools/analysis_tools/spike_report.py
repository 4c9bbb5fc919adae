"""One page about a checkpoint: ``mmsnn report``, as a script."""

from mmsnn_cli.spike_report import main

if __name__ == '__main__':
    main()

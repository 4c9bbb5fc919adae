"""Make a data set of digits, train, evaluate, draw, report: ``mmsnn demo``, as a script."""

from mmsnn_cli.demo import main

if __name__ == '__main__':
    main()

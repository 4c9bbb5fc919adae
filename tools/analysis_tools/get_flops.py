"""Parameters and operations of a model: ``mmsnn flops``, as a script."""

from mmsnn_cli.get_flops import main

if __name__ == '__main__':
    main()

"""A config with all that it inherits: ``mmsnn print-config``, as a script."""

from mmsnn_cli.mmdet_tools import print_config

if __name__ == '__main__':
    print_config()

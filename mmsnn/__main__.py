"""``python -m mmsnn`` is ``mmsnn``."""

from mmsnn_cli import main

if __name__ == '__main__':
    main()

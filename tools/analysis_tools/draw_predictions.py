"""Draw saved predictions beside the true boxes: ``mmsnn draw``, as a script."""

from mmsnn_cli.draw_predictions import main

if __name__ == '__main__':
    main()

"""Run a checkpoint on pictures: ``mmsnn image-demo``, as a script."""

from mmsnn_cli.image_demo import main

if __name__ == '__main__':
    main()

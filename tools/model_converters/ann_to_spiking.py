"""A spiking model's checkpoint from an ANN's: ``mmsnn ann-to-spiking``, as a script."""

from mmsnn_cli.ann_to_spiking import main

if __name__ == '__main__':
    main()

"""Put a spiking backbone and decoders into any detector: ``mmsnn spike``, as a script."""

from mmsnn_cli.spike import main

if __name__ == '__main__':
    main()

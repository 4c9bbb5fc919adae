"""Put a spiking backbone and decoders into any detector of MMDetection."""

# First: without mmcv's compiled ops, MMDetection's models import only behind it.
import mmsnn  # noqa: F401  isort: skip

from mmsnn.utils.make_it_spike import main

if __name__ == '__main__':
    main()

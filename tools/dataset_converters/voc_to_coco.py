"""Convert a data set in the format of Pascal VOC to COCO annotation files."""

from mmsnn.datasets.converters.command import voc_to_coco

if __name__ == '__main__':
    voc_to_coco()

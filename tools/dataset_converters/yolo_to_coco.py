"""Convert a data set in the format of YOLO to COCO annotation files."""

from mmsnn.datasets.converters.command import yolo_to_coco

if __name__ == '__main__':
    yolo_to_coco()

"""A data set in the format of Pascal VOC to COCO's: ``mmsnn convert voc``, as a script."""

from mmsnn_cli.convert import voc_to_coco

if __name__ == '__main__':
    voc_to_coco()

"""A data set in the format of YOLO to COCO's: ``mmsnn convert yolo``, as a script."""

from mmsnn_cli.convert import yolo_to_coco

if __name__ == '__main__':
    yolo_to_coco()

"""Boxes of a detector's ONNX file, by NumPy and ONNX Runtime alone.

pip install numpy onnxruntime pillow
python run_onnx.py model.onnx picture.png
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image


def prepared(picture, about):
    """The input of the graph, height and width inside the padding, and the factor of the size.

    Args:
        picture: Bytes (H, W, 3), RGB.
        about: The file's ``mmsnn.preprocessing``.
    """
    height, width = picture.shape[:2]
    for step in about['pipeline'] or []:
        if step['type'] == 'Resize' and step.get('keep_ratio'):
            short, long = sorted(step['scale'])
            factor = min(long / max(height, width), short / min(height, width))
            height, width = int(height * factor + 0.5), int(width * factor + 0.5)
        elif step['type'] == 'Resize':
            width, height = step['scale']
    scale = np.array([width / picture.shape[1], height / picture.shape[0]], np.float32)
    if (height, width) != picture.shape[:2]:
        picture = np.asarray(Image.fromarray(picture).resize((width, height), Image.BILINEAR))
    x = picture.astype(np.float32)
    x = x if about['order'] == 'RGB' else x[..., ::-1]
    if about['mean'] is not None:
        x = (x - np.float32(about['mean'])) / np.float32(about['std'])
    divisor = about['pad_size_divisor']
    padding = [(0, -n % divisor) for n in x.shape[:2]]
    x = np.pad(x, [*padding, (0, 0)], constant_values=about['pad_value'])
    return np.ascontiguousarray(x.transpose(2, 0, 1)[None]), [[height, width]], scale


def detect(path, picture):
    """Boxes (x1, y1, x2, y2) in pixels of the picture, scores, and names of the classes.

    Args:
        path: The ONNX file.
        picture: Bytes (H, W, 3), RGB.
    """
    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    told = session.get_modelmeta().custom_metadata_map
    images, sizes, scale = prepared(picture, json.loads(told['mmsnn.preprocessing']))
    inputs = dict(images=images, sizes=np.array(sizes, np.int64))
    boxes, scores, labels = (output[0] for output in session.run(None, inputs))
    found = labels >= 0
    names = json.loads(told['mmsnn.classes'])
    return boxes[found] / np.tile(scale, 2), scores[found], [names[i] for i in labels[found]]


if __name__ == '__main__':
    for box, score, name in zip(
        *detect(sys.argv[1], np.asarray(Image.open(sys.argv[2]).convert('RGB')))
    ):
        print(name, round(float(score), 4), box.round(2).tolist())

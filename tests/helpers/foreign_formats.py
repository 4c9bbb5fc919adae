"""Writes small data sets in the formats of Pascal VOC and YOLO."""

import random

from PIL import Image

CLASSES = ('cat', 'dog', 'hen')


def save_image(path, size=(64, 48), orientation=None):
    """Save a picture; `size` is that of its pixels as stored."""
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    if orientation:
        exif[0x112] = orientation
    Image.new('RGB', size, (90, 60, 30)).save(path, exif=exif)


def voc_object(name, corners, difficult=None):
    tags = ('xmin', 'ymin', 'xmax', 'ymax')
    box = ''.join(f'      <{tag}>{value}</{tag}>\n' for tag, value in zip(tags, corners))
    marked = '' if difficult is None else f'    <difficult>{difficult}</difficult>\n'
    return (
        f'  <object>\n    <name>{name}</name>\n{marked}    <bndbox>\n{box}    </bndbox>\n'
        '  </object>\n'
    )


def write_voc(root, name, objects='', size=(64, 48), suffix='.jpg', orientation=None, said=...):
    """An image and its annotation file; `said` is the size in the file, `None` for none."""
    save_image(root / 'JPEGImages' / f'{name}{suffix}', size, orientation)
    said = size if said is ... else said
    text = '' if said is None else (
        f'  <size>\n    <width>{said[0]}</width>\n    <height>{said[1]}</height>\n'
        '    <depth>3</depth>\n  </size>\n'
    )  # fmt: skip
    (root / 'Annotations').mkdir(exist_ok=True)
    path = root / 'Annotations' / f'{name}.xml'
    path.write_text(
        f'<annotation>\n  <filename>{name}{suffix}</filename>\n{text}{objects}</annotation>\n'
    )
    return path


def write_list(root, split, names):
    folder = root / 'ImageSets' / 'Main'
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f'{split}.txt').write_text(''.join(f'{name}\n' for name in names))


def make_voc(root, count=8, seed=0):
    """Random boxes in `count` images, the last quarter of them to validate."""
    rng = random.Random(seed)
    names = [f'{i:06d}' for i in range(count)]
    for name in names:
        size = rng.randint(40, 90), rng.randint(40, 90)
        objects = ''
        for _ in range(rng.randint(1, 4)):
            xs = sorted(rng.sample(range(1, size[0] + 1), 2))
            ys = sorted(rng.sample(range(1, size[1] + 1), 2))
            corners = xs[0], ys[0], xs[1], ys[1]
            if rng.random() < 0.3:
                corners = [corner + 0.7 for corner in corners]
            objects += voc_object(rng.choice(CLASSES), corners, rng.choice([None, 0, 0, 1]))
        write_voc(root, name, objects, size)
    write_list(root, 'train', names[: -count // 4])
    write_list(root, 'val', names[-count // 4 :])
    return root


def write_labels(root, name, lines, folder=''):
    path = root / 'labels' / folder / f'{name}.txt'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(''.join(f'{line}\n' for line in lines))
    return path


def make_yolo(root, count=8, seed=0):
    """Random boxes in images/train and images/val; gives back x, y, w, h by split and image."""
    rng = random.Random(seed)
    expected = {'train': {}, 'val': {}}
    for i in range(count):
        split = 'val' if i >= count * 3 // 4 else 'train'
        width, height = rng.randint(40, 90), rng.randint(40, 90)
        save_image(root / 'images' / split / f'{i}.jpg', (width, height))
        boxes, lines = [], []
        for _ in range(rng.randint(1, 4)):
            w, h = rng.randint(2, width), rng.randint(2, height)
            x, y = rng.randint(0, width - w), rng.randint(0, height - h)
            label = rng.randrange(len(CLASSES))
            boxes.append((label, x, y, w, h))
            shares = (x + w / 2) / width, (y + h / 2) / height, w / width, h / height
            lines.append(f'{label} ' + ' '.join(f'{share:.7f}' for share in shares))
        write_labels(root, i, lines, split)
        expected[split][f'images/{split}/{i}.jpg'] = (width, height, boxes)
    (root / 'data.yaml').write_text(
        'train: images/train\nval: images/val\nnames:\n'
        + ''.join(f'  {i}: {name}\n' for i, name in enumerate(CLASSES))
    )
    return expected

"""No picture is lost: the tools that draw, called in this process."""

import importlib.util
import json
import sys

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.fileio import dump
from mmengine.runner import save_checkpoint

from mmsnn.apis import init_classifier, init_detector
from mmsnn.compat.checkpoint import FORCE_SAFE

DETECTOR = 'configs/digits/spiking-retinanet_sg-r10_asd_fpn_digits.py'
CLASSIFIER = 'configs/digits/sg-r10_asd_digits-cls.py'


@pytest.fixture
def main(request, monkeypatch):
    """`main('image_demo.py', ...)` runs a tool's main() with these arguments."""
    # The tools set it for the whole process, which goes on here.
    monkeypatch.setenv(FORCE_SAFE, '1')

    def run(script, *args):
        path = request.config.rootpath / 'tools' / script
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        monkeypatch.setattr(sys, 'argv', [script, *map(str, args)])
        module.main()

    return run


def write(path, size=(60, 80)):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    cv2.imwrite(str(path), image)


@pytest.mark.parametrize(
    ('init', 'config', 'key'),
    [(init_detector, DETECTOR, 'bboxes'), (init_classifier, CLASSIFIER, 'label')],
    ids=['detector', 'classifier'],
)
def test_image_demo(init, config, key, main, request, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(request.config.rootpath)
    model = init(config)
    meta = dict(dataset_meta=model.dataset_meta)
    save_checkpoint(dict(state_dict=model.state_dict(), meta=meta), str(tmp_path / 'm.pth'))
    folder = tmp_path / 'in'
    for name in ('a.jpg', 'a.png', 'B.JPG', 'sub/a.jpg'):
        write(folder / name)
    (folder / 'broken.png').write_bytes(b'')
    (folder / 'notes.txt').touch()
    out = ('--out-dir', tmp_path / 'out', '--batch-size', 2, '--device', 'cpu')
    main('image_demo.py', folder, config, tmp_path / 'm.pth', *out)
    printed = capsys.readouterr().out
    assert '1 other files are left out: notes.txt' in printed
    assert f'1 pictures cannot be read: {folder / "broken.png"} (empty, 0 bytes)' in printed
    pictures = {
        str(p.relative_to(tmp_path / 'out/vis')) for p in (tmp_path / 'out').rglob('vis/**/*.*')
    }
    assert pictures == {'a.jpg', 'a.png', 'B.JPG', 'sub/a.jpg'}
    found = {str(p.relative_to(tmp_path / 'out/preds')): json.loads(p.read_text())
             for p in (tmp_path / 'out/preds').rglob('*.json')}  # fmt: skip
    assert set(found) == {'a.jpg.json', 'a.png.json', 'B.JPG.json', 'sub/a.jpg.json'}
    assert all(key in values for values in found.values())

    for name in ('a.jpg', 'a.png', 'B.JPG', 'sub/a.jpg'):
        (folder / name).unlink()
    with pytest.raises(SystemExit, match='1 pictures cannot be read'):
        main('image_demo.py', folder, config, tmp_path / 'm.pth', *out)
    (folder / 'broken.png').unlink()
    with pytest.raises(SystemExit, match='holds no pictures'):
        main('image_demo.py', folder, config, tmp_path / 'm.pth', *out)


def test_image_demo_of_its_own(main, tmp_path, monkeypatch):
    """Without arguments, in any folder: the detector and pictures that come with mmsnn."""
    monkeypatch.chdir(tmp_path)
    main('image_demo.py')
    assert len(list((tmp_path / 'outputs' / 'vis').iterdir())) == 8
    found = json.loads((tmp_path / 'outputs/preds/000000000003.json').read_text())
    assert found['labels'][0] == 0
    assert found['scores'][0] > 0.9
    with pytest.raises(SystemExit):
        main('image_demo.py', tmp_path, 'mine.py')


SIZES = {'a/x.png': (40, 90), 'b/x.png': (90, 40), 'overview.png': (50, 50), 'gone.png': (9, 9)}


@pytest.fixture
def coco(request, tmp_path, monkeypatch):
    """Landscape, portrait and square, two of one name; and a config that tests on them."""
    monkeypatch.chdir(request.config.rootpath)
    box = dict(category_id=0, bbox=[5, 5, 20, 20], area=400, iscrowd=0)
    for name, size in SIZES.items():
        write(tmp_path / 'val' / name, size)
    images = [
        dict(id=i, file_name=name, height=size[0], width=size[1])
        for i, (name, size) in enumerate(SIZES.items())
    ]
    boxes = [dict(box, id=i + 1, image_id=i) for i in range(len(images))]
    categories = [dict(id=i, name=str(i)) for i in range(10)]
    dump(dict(images=images, annotations=boxes, categories=categories), tmp_path / 'val.json')
    cfg = Config.fromfile(DETECTOR)
    cfg.test_dataloader.dataset.update(
        data_root=str(tmp_path), ann_file='val.json', data_prefix=dict(img='val/')
    )
    cfg.test_dataloader.update(num_workers=0, persistent_workers=False)
    cfg.test_evaluator.ann_file = str(tmp_path / 'val.json')
    cfg.dump(tmp_path / 'config.py')
    return tmp_path


def test_draw_predictions(coco, main, capsys):
    nothing = dict(bboxes=torch.zeros(0, 4), labels=torch.zeros(0).long(), scores=torch.zeros(0))
    predictions = [dict(img_id=i, pred_instances=nothing) for i in range(len(SIZES))]
    dump(predictions, coco / 'found.pkl')
    (coco / 'val/gone.png').unlink()
    main(
        'analysis_tools/draw_predictions.py', coco / 'config.py', coco / 'found.pkl', coco / 'out',
        '--size', 100,
    )  # fmt: skip
    assert f'1 pictures cannot be read: {coco}/val/gone.png (missing)' in capsys.readouterr().out
    drawn = {str(p.relative_to(coco / 'out')) for p in (coco / 'out').rglob('*.png')}
    assert drawn == {'a/x.png.png', 'b/x.png.png', 'overview.png.png', 'overview.png'}
    overview = cv2.imread(str(coco / 'out/overview.png'))
    assert overview.shape[1] == 2 * 640
    dump([dict(img_id=99, pred_instances=nothing)], coco / 'found.pkl')
    with pytest.raises(SystemExit, match='images that the config lacks, as id 99'):
        main('analysis_tools/draw_predictions.py', coco / 'config.py', coco / 'found.pkl', coco)


def test_show_dir(coco, main):
    model = init_detector(coco / 'config.py')
    meta = dict(dataset_meta=model.dataset_meta)
    save_checkpoint(dict(state_dict=model.state_dict(), meta=meta), str(coco / 'm.pth'))
    main('test.py', coco / 'config.py', coco / 'm.pth', '--work-dir', coco / 'w', '--show-dir', 's')
    shown = {p.relative_to(p.parents[len(p.parts) - 1 - p.parts.index('s') - 1]).as_posix()
             for p in (coco / 'w').rglob('s/**/*.png')}  # fmt: skip
    assert shown == set(SIZES)

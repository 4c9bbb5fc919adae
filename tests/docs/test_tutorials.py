"""What the pages and the README tell people to write and to run is true."""

import json
import pkgutil
import re
import shlex
import textwrap
from pathlib import Path

# First: without mmcv's compiled ops, MMDetection's models import only behind it.
import mmsnn  # isort: skip

import mmdet
import numpy as np
import pytest
import torch
from event_files import draw, write_aedat2
from mmdet.registry import DATASETS, MODELS, TRANSFORMS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from own_parts import forgotten
from PIL import Image

import mmsnn_cli
from mmsnn.datasets import check_config_datasets
from mmsnn.datasets.events import Events, make_boxes, write_dat

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    ROOT / 'README.md',
    ROOT / 'CONTRIBUTING.md',
    *sorted(path for path in (ROOT / 'docs').rglob('*.md') if '_build' not in path.parts),
    *sorted((ROOT / 'configs').glob('*/README.md')),
]
MMDET = Path(mmdet.__file__).parent / '.mim'
#: What stands in the place of "your" config: MMDetection's own.
YOURS = {
    'your_retinanet_fcos_or_atss.py': [
        'retinanet/retinanet_r50_fpn_1x_coco.py',
        'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
        'atss/atss_r50_fpn_1x_coco.py',
    ],
    'your_faster_rcnn.py': ['faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'],
}


def blocks(language):
    """Fenced blocks of a language on all pages, as (page, number, text)."""
    fence = re.compile(rf'^( *)```{language}\n(.*?)^\1```$', re.MULTILINE | re.DOTALL)
    for page in PAGES:
        for number, (_, text) in enumerate(fence.findall(page.read_text(encoding='utf-8'))):
            yield page, number, textwrap.dedent(text)


def name(page, number):
    return f'{page.relative_to(ROOT).with_suffix("")}-{number}'


SNIPPETS = [
    pytest.param(text, yours, id=name(page, number))
    for page, number, text in blocks('python')
    if '_base_ =' in text
    for yours in next((bases for base, bases in YOURS.items() if base in text), [None])
]
#: Blocks that run as they stand, in a folder with a recording.
RUNNABLE = [
    pytest.param(text, id=name(page, number))
    for page, number, text in blocks('python')
    if (page.name in ('start.md', 'CONTRIBUTING.md') or page.parent.name == 'tutorials')
    and '_base_ =' not in text
    and 'pets' not in text
]


@pytest.fixture
def project(tmp_path):
    """A folder in which configs are found as from the root of the repository."""
    (tmp_path / 'configs').symlink_to(ROOT / 'configs')
    return tmp_path


def snippet(*words, page=None):
    """The one config on the pages with all of these words, or the first of one page."""
    return next(
        text
        for path, _, text in blocks('python')
        if '_base_ =' in text and page in (None, path.name) and all(word in text for word in words)
    )


def write(project, text, yours=None):
    """Save a snippet, and whatever it is based on; give back the config."""
    for base in re.findall(r"'(\w+\.py)'", text):
        if base == 'pets.py':
            (project / base).write_text(snippet('pets/', page='own-coco-data.md'))
        else:
            (project / base).write_text(f'_base_ = {str(MMDET / "configs" / yours)!r}\n')
    path = project / 'snippet.py'
    path.write_text(text)
    cfg = Config.fromfile(path)
    init_default_scope(cfg.default_scope)
    return cfg


def strides_of_head(model):
    head = model.rpn_head if hasattr(model, 'rpn_head') else model.bbox_head
    strides = head.prior_generator.strides
    return [stride if isinstance(stride, int) else stride[0] for stride in strides]


@pytest.mark.parametrize(('text', 'yours'), SNIPPETS)
def test_config_builds(text, yours, project):
    cfg = write(project, text, yours)
    model = MODELS.build(cfg.model).eval()
    for key in ('train', 'test'):
        for transform in cfg[f'{key}_dataloader'].dataset.pipeline:
            TRANSFORMS.build(transform)
    if cfg.model.type == 'SpikingClassifier':
        return
    # The head's anchors or points lie where the levels are.
    channels, backbone = 3, cfg.model.backbone
    if cfg.model.data_preprocessor.type == 'EventDetDataPreprocessor':  # time among the channels
        channels = backbone.time_steps * backbone.in_channels
    with torch.no_grad():
        levels = model.extract_feat(torch.rand(1, channels, 128, 128))
    assert [128 // level.shape[-1] for level in levels] == strides_of_head(model)
    classes = cfg.train_dataloader.dataset.get('metainfo', {}).get('classes')
    if classes:
        assert len(classes) == cfg.model.bbox_head.num_classes


def make_coco(root):
    for split in ('train', 'val'):
        (root / split).mkdir(parents=True)
        images, annotations = [], []
        for i in range(2):
            Image.new('RGB', (64, 48), (90 * i, 60, 30)).save(root / split / f'{i}.jpg')
            images.append(dict(id=i, file_name=f'{i}.jpg', width=64, height=48))
            annotations.append(
                dict(id=i + 1, image_id=i, category_id=i, bbox=[8, 8, 32, 24], area=768, iscrowd=0)
            )
        categories = [dict(id=0, name='cat'), dict(id=1, name='dog')]
        (root / f'{split}.json').write_text(
            json.dumps(dict(images=images, annotations=annotations, categories=categories))
        )


@pytest.mark.parametrize('base', ['spiking-retinanet_sg-r18_asd_fpn_1x_coco', 'coco-tiny'])
def test_own_coco_data_pass_the_check(base, project):
    make_coco(project / 'pets')
    text = snippet(base, '/data/pets/').replace('/data', str(project))
    results = check_config_datasets(write(project, text), ('train', 'val', 'test'))
    assert len(results) == 3
    assert all((found['images'], found['boxes']) == (2, 2) for found in results.values())


def test_image_folder(project):
    for split in ('train', 'val'):
        for i, label in enumerate(('cat', 'dog')):
            (project / 'pets-cls' / split / label).mkdir(parents=True)
            picture = Image.new('RGB', (300, 280), (90 * i, 60, 30))
            picture.save(project / 'pets-cls' / split / label / '1.jpg')
    cfg = write(project, snippet('ImageFolder').replace('/data', str(project)))
    check_config_datasets(cfg, ('train', 'val', 'test'))
    item = DATASETS.build(cfg.train_dataloader.dataset)[1]
    assert item['inputs'].shape == (3, 224, 224)
    assert item['data_samples'].gt_label.tolist() == [1]


def test_event_folder(project):
    for split in ('train', 'test'):
        for label in ('clap', 'wave'):
            (project / 'gestures' / split / label).mkdir(parents=True)
            write_aedat2(project / 'gestures' / split / label / '1.aedat', draw())
    cfg = write(project, snippet('EventFolder').replace('/data', str(project)))
    cache = project / 'cache'
    for dataloader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        dataloader.dataset.pipeline[0].cache_dir = str(cache)
    check_config_datasets(cfg, ('train', 'val', 'test'))
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    assert dataset.metainfo['classes'] == ('clap', 'wave')
    assert dataset[0]['inputs'].shape == (4, 2, 48, 48)
    assert any(cache.iterdir())


def test_own_recordings_become_a_detector_that_follows(project, tool):
    """The commands of the page, in small: one epoch."""
    rng = np.random.default_rng(0)
    for split in ('train', 'val'):
        (project / 'hands' / split).mkdir(parents=True)
        for name in ('001', '002'):
            number, size = 2000, (346, 260)
            t = np.sort(rng.integers(350_000, 650_000, number))
            places = (rng.integers(0, side, number) for side in size)
            events = Events(*places, t, rng.integers(0, 2, number), size)
            write_dat(project / 'hands' / split / f'{name}_td.dat', events)
            boxes = make_boxes(4)
            boxes['t'] = [450_000, 550_000, 600_000, 600_000]
            boxes['x'], boxes['y'], boxes['w'], boxes['h'] = 40, 60, 50, 60
            boxes['class_id'] = [0, 0, 0, 1]
            np.save(project / 'hands' / split / f'{name}_bbox.npy', boxes)
    config = project / 'hands.py'
    text = snippet('/data/hands/').replace('/data', str(project))
    config.write_text(text)
    (bash,) = (text for page, _, text in blocks('bash') if 'train hands.py' in text)
    options = '--cfg-options', 'train_cfg.max_epochs=1', f'work_dir={project / "run"}'
    for line in bash.splitlines():
        line = line.replace('work_dirs/hands/epoch_4.pth', f'{project / "run"}/epoch_1.pth')
        line = line.replace('hands.py', str(config)).replace('/data/', f'{project}/')
        line = line.replace('followed', str(project / 'followed'))
        _, command, *words = line.split()
        more = () if command == 'follow' else options
        done = tool(f'{command}.py', *words, *more)
        if command == 'test':
            assert re.search(r'prophesee *\| 6 +\| 4 ', done.stdout), done.stdout[-1500:]
    names = {path.name for path in (project / 'followed').iterdir()}
    assert names == {f'{n}.{suffix}' for n in ('001', '002') for suffix in ('webp', 'png', 'json')}


@pytest.mark.parametrize('frozen', [False, True])
def test_backbone_of_a_classifier_starts_a_detector(project, frozen):
    cfg = Config.fromfile(ROOT / 'configs/sg_resnet/sg-r18_asd_imagenet.py')
    init_default_scope(cfg.default_scope)
    classifier = MODELS.build(cfg.model)
    for param in classifier.parameters():
        torch.nn.init.normal_(param)
    for layer in classifier.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_()
    checkpoint = project / 'epoch_100.pth'
    torch.save(dict(state_dict=classifier.state_dict(), meta={}), checkpoint)
    words = ['frozen_stages'] if frozen else []
    text = snippet('Pretrained', *words, page='classification-to-detection.md')
    text = re.sub(r"checkpoint='[^']+'", f'checkpoint={str(checkpoint)!r}', text)
    detector = MODELS.build(write(project, text).model)
    detector.init_weights()
    expected = classifier.backbone.state_dict()
    loaded = detector.backbone.state_dict()
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[key], value) for key, value in expected.items())


@pytest.mark.parametrize('text', RUNNABLE)
def test_python_runs(text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    np.save('recording.npy', np.array(draw()))
    with forgotten():
        exec(compile(text, 'block', 'exec'), {})
    said = re.findall(r'^ *print\(.*\)\n# (.*)$', text, re.MULTILINE)
    printed = capsys.readouterr().out.splitlines()
    assert [line for line in said if line not in printed] == []


TABLE = {name: value for group in mmsnn_cli.COMMANDS.values() for name, value in group.items()}
COMMANDS = [
    pytest.param(shlex.split(line, comments=True), id=f'{name(page, number)}-{i}')
    for page, number, text in blocks('bash')
    for i, line in enumerate(text.replace('\\\n', ' ').splitlines())
    if re.match(r'(?:\w+=\S+ )*(?:(?:python|bash) (?:tools|benchmarks)/|mmsnn |torchrun )', line)
]


@pytest.mark.parametrize('words', COMMANDS)
def test_command_exists(words):
    """The tool, its options and the configs are there."""
    script = next((word for word in words if word.startswith(('tools/', 'benchmarks/'))), None)
    if script is None:
        command = words[words.index('mmsnn') + 1]
        if command.startswith('-'):
            return
        module, _, function = TABLE[command][0].partition(':')
        stem = function or module.rpartition('.')[2]
    else:
        assert (ROOT / script).is_file()
        stem = Path(script).stem.replace('dist_', '').replace('slurm_', '')
    sources = [
        ROOT / 'mmsnn_cli' / f'{stem}.py',
        # A target of `mmsnn export` has options of its own.
        *(ROOT / 'mmsnn_cli' / f'{stem}_{word}.py' for word in words if word.isalnum()),
        ROOT / 'benchmarks' / f'{stem}.py',
        ROOT / 'benchmarks' / 'seeds.py',
        *(ROOT / 'mmsnn' / 'utils').glob('*.py'),
        *(MMDET / 'tools').rglob(f'{stem}.py'),
    ]
    known = ''.join(path.read_text(encoding='utf-8') for path in sources if path.is_file())
    # torchrun has options of its own, before the module.
    for word in words[words.index('-m') :] if 'torchrun' in words else words:
        if word.startswith('--'):
            assert f"'{word}'" in known, f'{stem} has no option {word}'
        if word.startswith('configs/'):
            assert (ROOT / word).is_file()
        if word.startswith('mmsnn::'):
            assert (ROOT / 'configs' / word[7:]).is_file()


def test_make_targets_exist():
    targets = re.findall(r'^([a-z-]+):', (ROOT / 'Makefile').read_text(), re.MULTILINE)
    for page in PAGES:
        for target in re.findall(r'(?:^|`)make ([a-z-]+)', page.read_text(), re.MULTILINE):
            assert target in targets, f'{page.name} says make {target}'


def test_links_of_pages_outside_the_site():
    """Sphinx checks those inside it."""
    named = ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', ROOT / 'CHANGELOG.md'
    for page in (*named, *(ROOT / 'configs').glob('*/README.md')):
        for link in re.findall(r'\]\(([^)#]+)[^)]*\)', page.read_text(encoding='utf-8')):
            assert link.startswith('https://') or (page.parent / link).exists(), f'{page}: {link}'


@pytest.mark.parametrize(
    'folder',
    sorted({path.parent for path in (ROOT / 'configs').glob('*/README.md')}),
    ids=lambda path: path.name,
)
def test_a_zoo_page_names_every_config_of_its_folder(folder):
    page = (folder / 'README.md').read_text(encoding='utf-8')
    assert [path.name for path in folder.glob('*.py') if path.name not in page] == []


def test_every_package_is_in_the_reference():
    pages = ''.join(path.read_text() for path in (ROOT / 'docs' / 'reference').glob('*.rst'))
    found = set(re.findall(r'automodule:: (\S+)', pages))
    packages = {
        module.name for module in pkgutil.walk_packages(mmsnn.__path__, 'mmsnn.') if module.ispkg
    }
    # Their names stand on the pages of the packages above or below them.
    packages -= {'mmsnn.models', 'mmsnn.engine.hooks', 'mmsnn.engine.optimizers'}
    packages -= {'mmsnn.datasets.checks'}
    packages = {name for name in packages if not name.startswith('mmsnn.ops.')}
    assert packages - found == set()


def test_every_tool_is_on_its_page():
    page = (ROOT / 'docs' / 'tools.md').read_text()
    tools = {path.name for path in (ROOT / 'tools').rglob('*') if path.suffix in ('.py', '.sh')}
    assert {tool for tool in tools if tool not in page} == set()
    assert {command for command in TABLE if f'mmsnn {command}' not in page} == set()

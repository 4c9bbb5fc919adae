"""The report: made by the tool, opened in a browser."""

import base64
import json
import re
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from browser import open_chromium
from digits_detector import DIGITS, NARROW
from mmengine.config import Config

from mmsnn.apis import init_classifier, init_detector
from mmsnn.datasets import DatasetError
from mmsnn.report import find_number, format_number
from mmsnn.utils import ToolError
from mmsnn_cli import spike_report

CLASSIFIER = 'configs/digits/sg-r10_asd_digits-cls.py'
TOOL = 'analysis_tools/spike_report.py'
SECTIONS = ('results', 'pictures', 'spikes', 'energy', 'time', 'training', 'about')


@pytest.fixture(scope='module')
def report(trained, tool, digits_root, tmp_path_factory):
    """The page and its numbers, of five images and three T, made at the default place."""
    work_dir = tmp_path_factory.mktemp('report')
    done = tool(
        TOOL, DIGITS, trained.checkpoint, '--work-dir', work_dir, '--time-steps', 1, 2, 4,
        '--images', 5, '--score-thr', 0, *NARROW, MMSNN_DIGITS_ROOT=digits_root,
    )  # fmt: skip
    (page,) = work_dir.glob('*/spike_report.html')
    assert f'report: {page}' in done.stdout
    return page, json.loads(page.with_suffix('.json').read_text())


@pytest.fixture(scope='module')
def classified(tool, tmp_path_factory):
    """The page and its numbers of an untrained classifier, one image and T = 1 besides 4."""
    folder = tmp_path_factory.mktemp('classified')
    tool('dataset_converters/digits_to_folder.py', folder / 'set')
    model = init_classifier(CLASSIFIER)
    torch.save(dict(state_dict=model.state_dict()), folder / 'start.pth')
    tool(
        TOOL, CLASSIFIER, folder / 'start.pth', '--out', folder / 'new/report.html',
        '--work-dir', folder, '--time-steps', 1, '--images', 1, '--max-images', 30,
        MMSNN_DIGITS_CLS_ROOT=folder / 'set',
    )  # fmt: skip
    page = folder / 'new/report.html'
    return page, json.loads(page.with_suffix('.json').read_text())


def test_the_numbers_are_those_of_the_other_tools(report, tested):
    _, numbers = report
    said = {k: float(v) for k, v in re.findall(r'coco/(bbox_\w+): (-?[\d.]+)', tested.output)}
    assert {k: -1 if v is None else v for k, v in numbers['metrics'].items()} == said
    rows = {row['time_steps']: row for row in numbers['anytime']}
    assert list(rows) == [1, 2, 4]
    assert rows[4]['bbox_mAP'] == said['bbox_mAP']
    assert numbers['images'] == 8
    assert numbers['validated_on_test']
    # More time steps, more spikes: what is measured at each T was measured at that T.
    assert rows[1]['energy'] < rows[2]['energy'] < rows[4]['energy']
    assert rows[4]['energy'] == pytest.approx(numbers['profile']['energy'])
    assert numbers['training']['epochs'] == 2
    assert len(numbers['training']['losses']['loss']) == 8
    assert [step for step, _ in numbers['training']['scores']['bbox_mAP']] == [4, 8]


def test_the_numbers_agree_with_each_other(report):
    page, r = report
    verdicts, states, rows = r['verdicts'], r['states'], r['by_class']
    assert sum(states.values()) == r['true_boxes'] > 0
    assert verdicts['correct'] == states['found'] == sum(row['found'] for row in rows)
    missed, wrong = (sum(row[key] for row in rows) for key in ('missed', 'wrong'))
    assert missed == r['true_boxes'] - states['found']
    assert wrong == sum(verdicts.values()) - verdicts['correct']
    assert sum(pair['times'] for pair in r['confusions']) <= verdicts['wrong class']
    assert r['recall'] == pytest.approx(states['found'] / r['true_boxes'])
    assert r['precision'] == pytest.approx(states['found'] / sum(verdicts.values()))
    p = r['profile']
    assert sum(part['energy'] for part in r['parts']) == pytest.approx(p['energy'])
    assert sum(part['ann_energy'] for part in r['parts']) == pytest.approx(p['ann_energy'])
    assert p['energy'] == pytest.approx(p['sops'] * 0.9e-12 + p['macs'] * 4.6e-12)
    for key in ('memory_energy', 'ann_memory_energy'):
        assert sum(part[key] for part in r['parts']) == pytest.approx(p[key])
        assert sum(layer[key] for layer in p['layers']) == pytest.approx(p[key])
        uses = p[key[: -len('_energy')]]
        assert sum(use['energy'] for use in uses.values()) == pytest.approx(p[key])
    text = page.read_text()
    for place in ('energy', 'ann_energy', 'memory_energy', 'ann_memory_energy'):
        assert text.count(f'data-json="profile/{place}"') == 2, 'on a card, and in a table'
    assert text.count('<b>What this leaves out</b>') == 2
    assert p['memory_ratio'] == pytest.approx(p['memory_energy'] / p['ann_memory_energy'])
    assert p['memory']['potentials']['energy'] > 0 == p['ann_memory']['potentials']['energy']
    assert sum(part['share'] for part in r['parts']) == pytest.approx(1)
    spiking = [layer for layer in p['layers'] if layer['kind'] == 'spikes']
    both = (sum(layer[key] for layer in spiking) for key in ('energy', 'ann_energy'))
    assert p['spiking_ratio'] == pytest.approx(next(both) / next(both))
    for layer in spiking:
        full = layer['ann_macs'] * r['time_steps']
        assert layer['activity'] == pytest.approx(layer['sops'] / full)
    assert r['beside_correct'] <= verdicts['wrong class']
    assert {part['name'] for part in r['parts']} == {
        'backbone, on real values', 'backbone, on spikes', 'neck, on real values',
        'bbox_head, on real values',
    }  # fmt: skip
    assert p['silent'] == pytest.approx(1 - p['spikes'] / (p['neurons'] * r['time_steps']))
    row, *classes = r['curves']
    at = 0  # the least score of this report
    assert row['name'] == 'all'
    assert row['true'] == r['true_boxes']
    assert row['right'][at] == verdicts['correct']
    assert row['wrong'][at] == sum(verdicts.values()) - verdicts['correct']
    for key in ('right', 'wrong'):
        assert len(row[key]) == 101
        assert row[key] == sorted(row[key], reverse=True)
        assert [sum(of[key][i] for of in classes) for i in range(101)] == row[key]
    for shot in r['gallery']:
        for seen in shot['attention'].values():
            assert sum(seen['temporal']) == pytest.approx(1, abs=1e-5)
        missed = sum(box['state'] != 'found' for box in shot['true'])
        wrong = sum(box['verdict'] not in ('correct', 'ignored') for box in shot['found'])
        found = len(shot['true']) - missed
        assert shot['quality'] == pytest.approx(2 * found / (2 * found + missed + wrong))
    qualities = [shot['quality'] for shot in r['gallery']]
    assert qualities == sorted(qualities)
    assert len(qualities) == 5


def test_recognition(classified):
    page, r = classified
    assert r['task'] == 'recognition'
    assert r['images'] == 30
    rows = r['by_class']
    assert sum(row['true'] for row in rows) == 30
    assert sum(row['found'] for row in rows) == r['faultless']
    assert sum(pair['times'] for pair in r['confusions']) <= 30 - r['faultless']
    assert r['metrics']['top1'] == pytest.approx(100 * r['faultless'] / 30, abs=1e-3)
    assert r['training'] is None
    assert [row['time_steps'] for row in r['anytime']] == [1, 4]
    text = page.read_text()
    assert 'id="training"' not in text


def test_only_some_images(trained, tool, digits_root, tmp_path):
    """COCO's evaluation does not count the images that were left out as missed.

    The config pads, which must not move a box of a picture, and fuses, which spikes would not
    survive.
    """
    config = tmp_path / 'some.py'
    config.write_text(
        f"_base_ = '{Path(DIGITS).resolve()}'\n"
        "custom_hooks = [dict(type='FuseHook', precision='int8')]\n"
        "test_pipeline = [dict(type='LoadImageFromFile'), "
        "dict(type='Resize', scale=(128, 128), keep_ratio=True), "
        "dict(type='Pad', size=(160, 128)), dict(type='LoadAnnotations', with_bbox=True), "
        "dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', "
        "'scale_factor'))]\n"
        'test_dataloader = dict(dataset=dict(indices=5, pipeline=test_pipeline))\n'
    )
    options = ['--time-steps', 4, '--images', 1, *NARROW]
    tool(
        TOOL, config, trained.checkpoint, '--out', tmp_path / 'r.html', '--work-dir', tmp_path,
        '--max-images', 3, *options, MMSNN_DIGITS_ROOT=digits_root,
    )  # fmt: skip
    full = json.loads((digits_root / 'annotations/instances_val.json').read_text())
    kept = {image['id'] for image in full['images'][:3]}
    few = dict(
        full,
        images=full['images'][:3],
        annotations=[a for a in full['annotations'] if a['image_id'] in kept],
    )
    (tmp_path / 'few.json').write_text(json.dumps(few))
    config.write_text(config.read_text().replace('FuseHook', 'NonFiniteLossHook').replace(
        ", precision='int8'", ''
    ))  # fmt: skip
    tested = tool(
        'test.py', config, trained.checkpoint, '--work-dir', tmp_path / 'w', *NARROW,
        f'test_dataloader.dataset.ann_file={tmp_path / "few.json"}',
        f'test_evaluator.ann_file={tmp_path / "few.json"}', MMSNN_DIGITS_ROOT=digits_root,
    )  # fmt: skip
    r = json.loads((tmp_path / 'r.json').read_text())
    said = {k: float(v) for k, v in re.findall(r'coco/(bbox_\w+): (-?[\d.]+)', tested.stdout)}
    assert {k: -1 if v is None else v for k, v in r['metrics'].items()} == said
    assert r['images'] == 3
    (shot,) = r['gallery']
    assert (shot['width'], shot['height']) == (160, 128)
    image_id = {image['file_name']: image['id'] for image in full['images']}[shot['name']]
    boxes = [a['bbox'] for a in full['annotations'] if a['image_id'] == image_id]
    # Images are 64 x 64.
    true = [[2 * x, 2 * y, 2 * (x + w), 2 * (y + h)] for x, y, w, h in boxes]
    assert [box['box'] for box in shot['true']] == [pytest.approx(b, abs=0.06) for b in true]


@pytest.fixture
def check():
    """Check options as the tool does first of all."""

    def with_options(*options):
        spike_report.check_args(spike_report.parse_args(['CONFIG', 'CHECKPOINT', *options]))

    return with_options


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        (['--out', 'report.pdf'], '--out must name a .html file, got report.pdf'),
        (['--images', '0'], '--images must be at least 1, got 0'),
        (['--max-images', '0'], '--max-images must be at least 1, got 0'),
        (['--score-thr', '2'], '--score-thr must lie between 0 and 1, got 2.0'),
        (['--train-dir', 'not-there'], '--train-dir not-there is not a folder'),
        (['--launcher', 'pytorch'], 'take --launcher away'),
        (['--mac-energy', '-1'], '--mac-energy must be a number of pJ, got -1.0'),
        (['--ac-energy', 'inf'], '--ac-energy must be a number of pJ, got inf'),
    ],
)
def test_options(check, options, said):
    with pytest.raises(ToolError, match=re.escape(said)):
        check(*options)


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        (['--images', 0, *NARROW], '--images must be at least 1, got 0'),
        (['--time-steps', 0, *NARROW], '--time-steps must be at least 1, got 0'),
        ([], 'another architecture'),  # without the options that made it narrow
    ],
)
def test_bad_input(trained, tool, digits_root, tmp_path, options, said):
    done = tool(
        TOOL, DIGITS, trained.checkpoint, '--work-dir', tmp_path, *options, check=False,
        MMSNN_DIGITS_ROOT=digits_root,
    )  # fmt: skip
    assert done.returncode != 0
    assert said in done.stdout
    assert 'Traceback' not in done.stdout
    assert 'evaluating' not in done.stdout


@pytest.mark.parametrize(
    ('own', 'wanted', 'indices'),
    [(None, 5, 5), (3, 5, 3), (7, 5, 5), ([4, 2, 0], 2, [4, 2]), ([4, 2], None, [4, 2])],
)
def test_images_that_the_config_chooses(own, wanted, indices):
    dataset = dict(type='CocoDataset') if own is None else dict(type='CocoDataset', indices=own)
    cfg = Config(dict(test_dataloader=dict(dataset=dataset, sampler=dict(shuffle=True))))
    spike_report.prepare_data(cfg, wanted)
    assert cfg.test_dataloader.dataset.indices == indices
    assert not cfg.test_dataloader.sampler.shuffle


def test_data_that_cannot_be_cut():
    both = dict(type='ConcatDataset', datasets=[dict(type='CocoDataset')] * 2)
    cfg = Config(dict(test_dataloader=dict(dataset=both)))
    spike_report.prepare_data(cfg, None)
    with pytest.raises(ToolError, match='--max-images takes one data set, not a ConcatDataset'):
        spike_report.prepare_data(cfg, 3)
    with pytest.raises(ToolError, match='the config has no test_dataloader'):
        spike_report.prepare_data(Config(dict(test_dataloader=None)), None)


def test_time_steps_of_event_frames():
    """By default the number of the data alone; another one that is asked for is refused."""
    cfg = Config.fromfile('configs/sg_resnet/sg-r19_asd_dvs-cifar10.py')
    frames = cfg.model.backbone.time_steps
    assert spike_report.check_steps(cfg, None) == [t for t in (1, 2, 3, 4, 6, 8) if t == frames]
    with pytest.raises(DatasetError, match='the model has T = 2'):
        spike_report.check_steps(cfg, [frames, 2])
    assert spike_report.check_steps(Config.fromfile(DIGITS), None) == [1, 2, 3, 4, 6, 8]


def test_nothing_is_overwritten(check, tmp_path):
    (tmp_path / 'r.json').write_text('mine')
    with pytest.raises(ToolError, match=r'r\.json is there already'):
        check('--out', str(tmp_path / 'r.html'))
    assert (tmp_path / 'r.json').read_text() == 'mine'


# --- in the browser ------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def browser(tmp_path_factory):
    """`browser(page, width, dark)` opens a page in Chromium."""
    with open_chromium(tmp_path_factory.mktemp('chromium')) as open_page:
        yield open_page


def requests(chrome, page):
    """Addresses that the page asked for, not the browser itself."""
    messages = [json.loads(e['message'])['message'] for e in chrome.get_log('performance')]
    return [
        m['params']['request']['url']
        for m in messages
        if m['method'] == 'Network.requestWillBeSent'
        and m['params']['documentURL'] == page.as_uri()
    ]


@pytest.mark.parametrize('kind', ['report', 'classified'])
def test_it_stands_alone(browser, request, kind):
    """No error, nothing asked for but itself, every picture there, every link leads somewhere."""
    page, _ = request.getfixturevalue(kind)
    chrome = browser(page)
    time.sleep(0.5)
    asked = requests(chrome, page)
    assert page.as_uri() in asked
    assert [url for url in asked if url != page.as_uri() and not url.startswith('data:')] == []
    assert chrome.get_log('browser') == []
    pictures = chrome.execute_script(
        'return [...document.images].map(i => [i.complete, i.naturalWidth, i.src.slice(0, 11)])'
    )
    assert len(pictures) > 10
    assert all(done and width > 0 and src == 'data:image/' for done, width, src in pictures)
    broken = chrome.execute_script(
        'return [...document.querySelectorAll("a")].map(a => a.getAttribute("href"))'
        '.filter(h => !h.startsWith("#") || !document.getElementById(h.slice(1)))'
    )
    assert set(broken) == {page.with_suffix('.json').name}


@pytest.mark.parametrize('kind', ['report', 'classified'])
def test_what_it_shows_is_what_the_json_says(browser, request, kind):
    page, numbers = request.getfixturevalue(kind)
    chrome = browser(page)
    shown = chrome.execute_script(
        'return [...document.querySelectorAll("[data-json]")]'
        '.map(e => [e.dataset.json, e.dataset.format, e.textContent])'
    )
    assert len(shown) > 150
    wrong = [
        (place, text)
        for place, form, text in shown
        if text != format_number(find_number(numbers, place), form)
    ]
    assert wrong == []
    # No number of a table comes from anywhere else, but those that are no measurements.
    loose = chrome.execute_script(
        'return [...document.querySelectorAll("td")].filter(td => /\\d/.test(td.textContent) && '
        '!td.querySelector("[data-json]") && !td.querySelector("code") && !td.matches(".soft, '
        '.optional, :first-child")).map(td => td.textContent)'
    )
    classes = {pair['found'] for pair in numbers['confusions']}
    assert [text for text in loose if text not in classes] == []


@pytest.mark.parametrize('dark', [False, True])
@pytest.mark.parametrize('width', [390, 1440])
def test_readable(browser, report, width, dark):
    """Fits the screen, in letters of a size and contrast that can be read."""
    chrome = browser(report[0], width, dark)
    inner, page = chrome.execute_script('return [innerWidth, document.documentElement.scrollWidth]')
    assert page <= inner == width
    too_wide = chrome.execute_script(
        'return [...document.querySelectorAll(".wide")].filter(w => w.scrollWidth > w.clientWidth '
        '+ 1 && !w.querySelector(".sticky")).map(w => w.textContent.trim().slice(0, 40))'
    )
    assert too_wide == [], 'tables that have to be scrolled'
    smallest = chrome.execute_script(
        'return Math.min(...[...document.querySelectorAll("body *")].filter(e => '
        '[...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()) && '
        '!e.closest("svg, script, style")).map(e => parseFloat(getComputedStyle(e).fontSize)))'
    )
    assert smallest >= 11
    ink, paper = chrome.execute_script(
        'const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]'
    )
    assert contrast(ink, paper) > 7
    assert (luminance(paper) < 0.1) == dark
    picture = chrome.execute_cdp_cmd('Page.captureScreenshot', dict(format='png'))
    assert np.frombuffer(base64.b64decode(picture['data']), np.uint8).size > 20_000


def luminance(color):
    """Relative luminance as WCAG defines it."""
    channels = np.array([int(v) for v in re.findall(r'\d+', color)[:3]]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(a, b):
    low, high = sorted([luminance(a), luminance(b)])
    return (high + 0.05) / (low + 0.05)


def test_another_layer_can_be_chosen(browser, report):
    page, numbers = report
    chrome = browser(page)
    seen = (
        'return [...new Set([...document.querySelectorAll("[data-layer]")]'
        '.filter(e => e.offsetParent).map(e => e.dataset.layer))]'
    )
    assert chrome.execute_script(seen) == [numbers['gallery'][0]['layer']]
    other = 'backbone.layer1.0.neuron1'
    chrome.execute_script(
        f'const s = document.getElementById("layer"); s.value = "{other}"; '
        's.dispatchEvent(new Event("change"))'
    )
    assert chrome.execute_script(seen) == [other]


def test_boxes_can_be_hidden(browser, report):
    chrome = browser(report[0])
    count = (
        'return [".true, .missed, .mistaken", ".correct, .wrong"].map(kind => '
        '[...document.querySelectorAll(`#gallery .stage :is(${kind})`)]'
        '.filter(g => getComputedStyle(g).display !== "none").length)'
    )
    true, found = chrome.execute_script(count)
    assert true > 0
    assert found > 0
    chrome.execute_script('document.getElementById("show-true").click()')
    assert chrome.execute_script(count) == [0, found]
    chrome.execute_script('document.getElementById("show-found").click()')
    assert chrome.execute_script(count) == [0, 0]


def test_printed(browser, report):
    """Printing opens what is folded and leaves the controls away."""
    chrome = browser(report[0])
    chrome.execute_script('for (const d of document.querySelectorAll("details")) d.open = false')
    pdf = chrome.execute_cdp_cmd('Page.printToPDF', dict(printBackground=True))
    assert base64.b64decode(pdf['data']).startswith(b'%PDF')
    assert chrome.execute_script(
        'return [...document.querySelectorAll("details")].every(d => d.open)'
    )


# --- least score, filter, large pictures ---------------------------------------------------------


@pytest.fixture(scope='module')
def trusted(trained, tool, digits_root, tmp_path_factory):
    """A report with boxes below its least score, which the slider brings up."""
    folder = tmp_path_factory.mktemp('trusted')
    tool(
        TOOL, DIGITS, trained.checkpoint, '--work-dir', folder, '--out', folder / 'b.html',
        '--time-steps', 4, '--images', 5, '--score-thr', 0.06, *NARROW,
        MMSNN_DIGITS_ROOT=digits_root,
    )  # fmt: skip
    return folder / 'b.html', json.loads((folder / 'b.json').read_text())


def set_value(chrome, name, value, event='change'):
    chrome.execute_script(
        'const e = document.getElementById(arguments[0]); e.value = arguments[1]; '
        'e.dispatchEvent(new Event(arguments[2]))', name, value, event,
    )  # fmt: skip


def test_slider(browser, trusted):
    """Numbers, the point on the curve and the boxes of the pictures follow the least score."""
    page, r = trusted
    chrome = browser(page)
    row = r['curves'][0]
    visible = (
        'return [...document.querySelectorAll("#gallery .stage [data-score]")]'
        '.filter(b => !b.hasAttribute("hidden")).map(b => +b.dataset.score)'
    )
    states = (
        'return [...document.querySelectorAll("#gallery .stage [data-true]")]'
        '.map(b => b.getAttribute("class"))'
    )
    names = {'found': 'true', 'not seen': 'missed'}
    expected = [names.get(b['state'], 'mistaken') for shot in r['gallery'] for b in shot['true']]
    assert chrome.execute_script(states) == expected
    every = [b['score'] for shot in r['gallery'] for b in shot['found'] + shot['faint']]
    for least in (5, 8, 50):
        set_value(chrome, 'score', least, 'input')
        shown = chrome.execute_script(
            'return [...document.querySelectorAll("#curve-numbers dd")].map(e => e.textContent)'
        )
        right, wrong = row['right'][least], row['wrong'][least]
        assert shown[3:] == [str(right), str(wrong), str(row['true'] - right)]
        assert shown[1] == f'{right / row["true"]:.2f}'
        boxes = chrome.execute_script(visible)
        assert len(boxes) == pytest.approx(sum(s >= least / 100 for s in every), abs=1)
    assert set(chrome.execute_script(states)) == {'missed'}, 'no box has a score of 0.5'
    chrome.find_element('id', 'score-reset').click()
    assert chrome.execute_script(states) == expected
    assert chrome.execute_script('return document.getElementById("pr").getAttribute("d")')
    set_value(chrome, 'curve-class', '1')
    set_value(chrome, 'score', 5, 'input')
    of_class = r['curves'][1]
    shown = chrome.execute_script(
        'return [...document.querySelectorAll("#curve-numbers dd")].map(e => e.textContent)'
    )
    right, wrong = of_class['right'][5], of_class['wrong'][5]
    assert shown[3:] == [str(right), str(wrong), str(of_class['true'] - right)]
    assert chrome.get_log('browser') == []


@pytest.mark.parametrize('kind', ['report', 'classified'])
def test_filter(browser, request, kind):
    page, r = request.getfixturevalue(kind)
    chrome = browser(page)
    shown = (
        'return [...document.querySelectorAll("#gallery .shot")].filter(s => s.offsetParent)'
        '.map(s => +s.id.slice(6))'
    )
    every = list(range(len(r['gallery'])))
    assert chrome.execute_script(shown) == every
    wrong = [i for i in every if r['gallery'][i]['mistakes']]
    set_value(chrome, 'filter', 'any')
    assert chrome.execute_script(shown) == wrong
    set_value(chrome, 'filter', 'none')
    assert chrome.execute_script(shown) == [i for i in every if i not in wrong]
    text = chrome.find_element('id', 'filter-count').text
    assert text == f'{len(every) - len(wrong)} of {len(every)}'
    set_value(chrome, 'filter', '')
    if kind == 'report':
        name = r['gallery'][0]['true'][0]['name']
        set_value(chrome, 'filter-class', name)
        of_class = [
            i
            for i in every
            if name in {b['name'] for b in r['gallery'][i]['true'] + r['gallery'][i]['found']}
        ]
        assert chrome.execute_script(shown) == of_class
        set_value(chrome, 'filter', 'not seen')
        missed = [
            i
            for i in every
            if (name, 'not seen') in {(b['name'], b['state']) for b in r['gallery'][i]['true']}
        ]
        assert chrome.execute_script(shown) == missed


@pytest.mark.parametrize('width', [390, 1440])
def test_enlarge(browser, report, width):
    """By mouse and by keyboard; Escape closes."""
    from selenium.webdriver.common.keys import Keys

    chrome = browser(report[0], width)
    stage = chrome.find_element('css selector', '#gallery .stage')
    is_open = 'return document.getElementById("large").open'
    small = chrome.execute_script('return arguments[0].clientWidth', stage)
    for opening in (stage.click, lambda: stage.send_keys(Keys.ENTER)):
        chrome.execute_script('arguments[0].scrollIntoView({block: "center"})', stage)
        opening()
        assert chrome.execute_script(is_open)
        size = 'return document.querySelector("dialog .stage").clientWidth'
        assert chrome.execute_script(size) >= min(small, width * 0.8)
        assert chrome.execute_script(
            'const d = document.getElementById("large"); return d.scrollWidth <= d.clientWidth'
        )
        chrome.find_element('css selector', 'dialog button').send_keys(Keys.ESCAPE)
        assert not chrome.execute_script(is_open)


# --- an ANN, and two reports side by side --------------------------------------------------------


@pytest.fixture(scope='module')
def ann(report, tool, digits_root, tmp_path_factory):
    """A report of an ANN, of the pictures of the spiking one's."""
    folder = tmp_path_factory.mktemp('ann')
    config = folder / 'ann.py'
    config.write_text(
        f"_base_ = '{Path(DIGITS).resolve()}'\ncustom_hooks = []\n"
        "model = dict(type='RetinaNet', backbone=dict(_delete_=True, type='ResNet', depth=18, "
        'base_channels=8, num_stages=2, strides=(1, 2), dilations=(1, 1), out_indices=(0, 1)), '
        "neck=[dict(type='FPN', in_channels=[8, 16], out_channels=64, num_outs=2)])\n"
    )
    model = init_detector(config)
    torch.save(dict(state_dict=model.state_dict()), folder / 'a.pth')
    tool(
        TOOL, config, folder / 'a.pth', '--work-dir', folder, '--out', folder / 'a.html',
        '--like', report[0], MMSNN_DIGITS_ROOT=digits_root,
    )  # fmt: skip
    return folder / 'a.html', json.loads((folder / 'a.json').read_text())


def test_an_ann(browser, ann):
    """No spikes, no T: those parts are left out, and what is left is right."""
    page, r = ann
    chrome = browser(page)
    assert chrome.get_log('browser') == []
    ids = chrome.execute_script('return [...document.querySelectorAll("h2")].map(h => h.id)')
    assert ids == ['results', 'pictures', 'energy', 'about']
    assert r['profile']['firing_rate'] is None
    assert r['profile']['energy'] == pytest.approx(r['profile']['ann_energy'])
    assert r['profile']['memory'] == r['profile']['ann_memory']
    kinds = chrome.execute_script(
        'return [...document.querySelectorAll("caption")]'
        '.find(c => c.textContent.includes("what is read and written"))'
        '.parentElement.querySelectorAll("tbody tr").length'
    )
    assert kinds == 2, 'weights and activations; no potentials and no spikes'
    assert [row['time_steps'] for row in r['anytime']] == [1]


@pytest.mark.parametrize('dark', [False, True])
@pytest.mark.parametrize('width', [390, 1440])
def test_compare(browser, report, ann, tmp_path, width, dark):
    out = tmp_path / 'c.html'
    spike_report.main(['--compare', str(report[0]), str(ann[0]), '--out', str(out)])
    chrome = browser(out, width, dark)
    assert chrome.get_log('browser') == []
    assert chrome.execute_script('return document.documentElement.scrollWidth') <= width
    rows = chrome.execute_script(
        'return [...document.querySelectorAll("#table tbody tr")]'
        '.map(r => [...r.cells].map(c => c.textContent))'
    )
    rows = {name: cells for name, *cells in rows}
    (_, a), (_, b) = report, ann
    assert rows['mAP'][:3] == [
        format(v, spec)
        for v, spec in (
            (a['metrics']['bbox_mAP'], '.3f'),
            (b['metrics']['bbox_mAP'], '.3f'),
            (b['metrics']['bbox_mAP'] - a['metrics']['bbox_mAP'], '+.3f'),
        )
    ]
    energy = [r['profile']['energy'] for r in (a, b)]
    assert rows['energy of the arithmetic, an image'][3] == f'{energy[1] / energy[0]:.2f}'
    memory = [r['profile']['memory_energy'] for r in (a, b)]
    assert rows['energy of the memory traffic, an image'][3] == f'{memory[1] / memory[0]:.2f}'
    assert rows['firing rate'][1] == 'n/a'
    names = chrome.execute_script(
        'return [...document.querySelectorAll(".shot h3")].map(h => h.textContent)'
    )
    assert names == [shot['name'] for shot in a['gallery']], '--like shows the same pictures'
    assert chrome.execute_script('return document.querySelectorAll(".pair img").length') == 10
    # Two curves and the legend of two.
    labels = chrome.execute_script(
        'return [...document.querySelectorAll(".charts text")].map(t => t.textContent)'
    )
    assert {'A: SpikingRetinaNet, SGResNet, T = 4', 'B: RetinaNet, ResNet'} <= set(labels)


def test_what_cannot_be_compared(report, classified, tmp_path, capsys):
    def said(a, b, *options):
        with pytest.raises(SystemExit) as ended:
            spike_report.main(
                ['--compare', str(a), str(b), '--out', str(tmp_path / 'c.html'), *options]
            )
        return f'{ended.value.code}{capsys.readouterr().err}'

    assert 'of different test data: one is of detection, the other of recognition' in said(
        report[0], classified[0]
    )
    assert 'no_such.json cannot be read (No such file' in said(report[0], tmp_path / 'no_such.html')
    (tmp_path / 'a.json').write_text('{}')
    assert 'a.json is no report' in said(report[0], tmp_path / 'a.json')
    (tmp_path / 'a.json').write_text('{')
    assert 'a.json is no JSON' in said(report[0], tmp_path / 'a.json')
    assert 'holds no spike_report.json' in said(report[0], tmp_path)
    other = dict(report[1], images=9)
    (tmp_path / 'b.json').write_text(json.dumps(other))
    assert 'one is of 8 images, the other of 9' in said(report[0], tmp_path / 'b.json')
    (tmp_path / 'c.html').write_text('mine')
    assert 'c.html is there already' in said(report[0], report[0])
    assert not any(tmp_path.glob('compare*'))

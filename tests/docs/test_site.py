"""The built site: its files, and its pages in a browser, narrow and wide, light and dark."""

import html
import re
from pathlib import Path

import pytest
from browser import open_chromium

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / 'docs' / '_build' / 'html'
#: One of each kind: cards, code, signatures, formulas, drawings, wide tables, an index.
KINDS = [
    'index.html',
    'tutorials/own-coco-data.html',
    'reference/backbones.html',
    'reference/ops.html',
    'concepts.html',
    'performance.html',
    'genindex.html',
]
#: What of a page can't be seen: boxes that stick out sideways where nothing scrolls them into view.
LOST = """
const width = document.documentElement.clientWidth
const scrolls = e => e && e.tagName != 'ARTICLE'
  && (['auto', 'scroll'].includes(getComputedStyle(e).overflowX) || scrolls(e.parentElement))
const lost = [...document.querySelectorAll('article, article *')].filter(e => {
  const box = e.getBoundingClientRect()
  const out = box.right > width + 1 || box.left < -1
  return box.width > 1 && box.height > 1 && out && !scrolls(e.parentElement)
})
return [document.documentElement.scrollWidth - width,
        lost.map(e => `${e.tagName} ${e.textContent.slice(0, 60)}`).slice(0, 3)]
"""


def test_pictures_are_told_in_one_line():
    """A break within the text that stands for a picture joins two words."""
    pages = [path for path in (ROOT / 'docs').rglob('*.md') if '_build' not in path.parts]
    broken = [path.name for path in pages if re.search(r'!\[[^\]]*\n', path.read_text())]
    assert broken == []


@pytest.fixture(scope='module')
def site():
    """The folder of the site, which `make docs` builds."""
    if not (SITE / 'index.html').is_file():
        pytest.skip('the site is not built: make docs')
    return SITE


def test_sgresnet_is_first_and_once(site):
    names = re.findall(r'<dt class="sig[^>]* id="([\w.]+)"', (site / KINDS[2]).read_text())
    classes = [name for name in names if name.rpartition('.')[2][0].isupper()]
    assert classes[0] == 'mmsnn.models.backbones.SGResNet'
    assert len({name.rpartition('.')[2] for name in classes}) == len(classes)


def test_reference_reads_as_written(site):
    """No 'T.' became a list, and no half of a sentence the type of an attribute."""
    for path in (site / 'reference').glob('*.html'):
        text = path.read_text()
        assert not re.search(r'<ol class="(upper|lower)', text), path.name
        types = re.findall(r'<dt[^>]*>Type<.*?<dd[^>]*>(.*?)</dd>', text, re.DOTALL)
        types = [html.unescape(re.sub('<[^>]+>', '', kind)).strip() for kind in types]
        a_type = re.compile(r'[\w.]+(\[.*\])?( \| None)?')
        assert [kind for kind in types if not a_type.fullmatch(kind)] == [], path.name


def test_no_page_names_a_folder_of_the_machine(site):
    pages = [path.name for path in site.rglob('*.html') if str(ROOT) in path.read_text()]
    assert pages == []


# --- in the browser ------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def browser(tmp_path_factory):
    """`browser(page, width, dark)` opens a page in Chromium."""
    with open_chromium(tmp_path_factory.mktemp('chromium')) as open_page:
        yield open_page


def faults(browser, site, names):
    """What is wrong with pages, at both widths, in light and in dark."""
    found = []
    for name in names:
        grounds = set()
        for width in (390, 1440):
            for dark in (False, True):
                chrome = browser(site / name, width, dark)
                chrome.execute_async_script(
                    'const done = arguments[0];'
                    'window.MathJax ? MathJax.startup.promise.then(() => done()) : done()'
                )
                wider, lost = chrome.execute_script(LOST)
                errors = [entry['message'] for entry in chrome.get_log('browser')]
                if wider > 0 or lost or errors:
                    found.append((name, width, dark, wider, lost, errors))
                grounds.add(
                    chrome.execute_script('return getComputedStyle(document.body).backgroundColor')
                )
        if len(grounds) != 2:
            found.append((name, 'light and dark are not two grounds', grounds))
    return found


@pytest.mark.parametrize('name', KINDS)
def test_page(browser, site, name):
    """No error in the console, nothing that scrolls sideways or is lost at the side."""
    assert faults(browser, site, [name]) == []


@pytest.mark.slow
def test_all_pages(browser, site):
    names = sorted(str(path.relative_to(site)) for path in site.rglob('*.html'))
    assert len(names) > 40
    assert faults(browser, site, names) == []


def test_lost_boxes_are_seen(browser, tmp_path):
    """The script finds one that is cut off, and none that can be scrolled to."""
    page = tmp_path / 'page.html'
    wide = '<div style="width: 900px">wide</div>'
    for style, is_lost in (('overflow: hidden', True), ('overflow: auto', False), ('', True)):
        page.write_text(
            '<!doctype html><meta name="viewport" content="width=device-width">'
            f'<article><section style="{style}">{wide}</section></article>'
        )
        wider, lost = browser(page, 390).execute_script(LOST)
        assert bool(lost) == is_lost, style
        assert (wider > 0) == (style == ''), style


def test_start_page(browser, site):
    """A picture, a command to copy, and cards that lead to pages."""
    chrome = browser(site / 'index.html', 390)
    assert chrome.execute_script(
        'return [...document.querySelectorAll("article img")].map(i => i.naturalWidth > 0)'
    ) == [True]
    links = chrome.execute_script(
        'return [...document.querySelectorAll(".cards > ul > li strong a")].map(a => a.pathname)'
    )
    cards = chrome.execute_script('return document.querySelectorAll(".cards > ul > li").length')
    assert len(links) == cards >= 6
    assert all(Path(link).is_file() for link in links)
    first = 'document.querySelector(".highlight-bash")'
    assert 'pip install' in chrome.execute_script(f'return {first}.textContent')
    chrome.execute_script(f'{first}.querySelector("button.copybtn").click()')
    chrome.execute_async_script(
        f'const look = () => {first}.querySelector("button.success") ? arguments[0]()'
        ' : setTimeout(look, 50); look()'
    )


def test_drawings_are_light_in_the_dark(browser, site):
    look = 'return getComputedStyle(document.querySelector("article img[src$=\'.svg\']")).filter'
    assert browser(site / 'concepts.html', dark=False).execute_script(look) == 'none'
    assert 'invert(1)' in browser(site / 'concepts.html', dark=True).execute_script(look)

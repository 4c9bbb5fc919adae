"""The built site, as files and in a browser, at a phone's and a desktop's width, in light and dark."""

import html
import re
from pathlib import Path

import pytest

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
        assert [kind for kind in types if not re.fullmatch(r'[\w.]+(\[.*\])?( \| None)?', kind)] == []


def test_no_page_names_a_folder_of_the_machine(site):
    for path in site.rglob('*.html'):
        assert str(ROOT) not in path.read_text(), path

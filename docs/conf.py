"""Sphinx configuration of the site; `make docs` builds it."""

import os
import sys
from pathlib import Path

# First: without mmcv's compiled ops, MMDetection's models import only behind it.
import mmsnn

project = 'mmsnn'
author = 'the mmsnn authors'
copyright = f'2026, {author}'
release = version = mmsnn.__version__

extensions = [
    'myst_nb',  # MyST, for pages and notebooks
    'sphinx.ext.autodoc',
    'sphinx.ext.githubpages',  # an empty .nojekyll, so that code hosts serve _static/
    'sphinx.ext.mathjax',
    'sphinx.ext.napoleon',
    'sphinx_copybutton',
    'sphinx-mathjax-offline',  # MathJax beside the pages: the site needs no network
    'sphinxcontrib.programoutput',
]
exclude_patterns = ['_build']

# --- pages -------------------------------------------------------------------------------------

# Headings are link targets by the names that code hosts give them.
myst_heading_anchors = 3

# ```math is a formula, here as on code hosts.
myst_fence_as_directive = ['math']

# Notebooks are run by the tests; the site shows them as they are committed.
nb_execution_mode = 'off'

# What one runs has a button that copies it; formulas, `--help` and folders have none.
copybutton_selector = ':is(.highlight-bash, .highlight-python, .highlight-bibtex) pre'

# --- reference ---------------------------------------------------------------------------------

autodoc_member_order = 'bysource'
autodoc_default_options = {'members': True, 'show-inheritance': True}
autodoc_typehints_format = 'short'
napoleon_numpy_docstring = False
napoleon_preprocess_types = False
python_maximum_signature_line_length = 88

# Every reference within mmsnn must resolve; those to other projects cannot, without a network.
nitpicky = True
nitpick_ignore_regex = [
    ('py:.*', r'(?!mmsnn\b).*'),
    ('py:class', r'mmsnn\..*\._\w+'),  # private bases
]

# --- tools -------------------------------------------------------------------------------------

# `--help` is run at build time, with this Python and at one width.
os.environ['PATH'] = f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'
os.environ['COLUMNS'] = '92'
programoutput_prompt_template = '{output}'

# --- HTML --------------------------------------------------------------------------------------

html_theme = 'furo'
html_title = f'mmsnn {release}'
html_static_path = ['_static']
html_css_files = ['mmsnn.css']
html_copy_source = False
html_show_sourcelink = False


def skip_fields(app, what, name, obj, skip, options):
    """Fields of named tuples stand in the docstrings; here they are 'Alias for field number 0'."""
    return True if type(obj).__name__ == '_tuplegetter' else None


def setup(app):
    """Connect it."""
    app.connect('autodoc-skip-member', skip_fields)

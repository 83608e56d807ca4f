"Settings of Sphinx for tools/docs/build.py."

import re
from configparser import ConfigParser
from inspect import isclass, isroutine
from pathlib import Path

from fastcore.docments import docments

ROOT = Path(__file__).resolve().parents[2]
settings = ConfigParser(delimiters=['='])
settings.read(ROOT / 'settings.ini', encoding='utf-8')

project = settings['DEFAULT']['lib_name']
author = settings['DEFAULT']['author']
release = settings['DEFAULT']['version']
html_title = f'{project} {release}'
html_theme = 'furo'
html_show_sphinx = False
extensions = ['myst_nb', 'sphinx.ext.autodoc', 'sphinx.ext.viewcode', 'sphinx_copybutton']
nb_execution_mode = 'off'  # the stored outputs are shown
nb_merge_streams = True
nb_render_markdown_format = 'myst'
myst_heading_anchors = 3
myst_enable_extensions = ['dollarmath', 'colon_fence']
copybutton_exclude = '.linenos, .gp'
autodoc_member_order = 'bysource'
autodoc_typehints = 'description'
autodoc_class_signature = 'separated'


def plain(text):
    "Text in which nothing but backticks is markup: docstrings here are plain sentences."
    text = re.sub(r'`+([^`]+)`+', '\0\\1\0', text)
    parts = text.split('\0')
    escaped = [re.sub(r'([|*\\])|(?<=\w)(_)\b', r'\\\1\2', p) for p in parts[::2]]
    code = [f'``{p}``' for p in parts[1::2]]
    return ''.join(a + b for a, b in zip(escaped, [*code, '']))


def add_parameters(app, what, name, thing, options, lines):
    "The comments beside parameters, which are this project's documentation of them."
    lines[:] = [*map(plain, lines), '']
    if not (isroutine(thing) or isclass(thing)):
        return
    try:
        told = docments(thing, full=True, returns=True)
    except (TypeError, ValueError, OSError):  # no source: a C function
        return
    for parameter, about in told.items():
        if about.get('docment'):
            field = 'returns' if parameter == 'return' else f'param {parameter}'
            lines.append(f':{field}: {plain(" ".join(about["docment"].split()))}')


def setup(app):
    app.connect('autodoc-process-docstring', add_parameters)

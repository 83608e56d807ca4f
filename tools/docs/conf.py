"Settings of Sphinx for tools/docs/build.py."

import re
from configparser import ConfigParser
from importlib import import_module
from inspect import isclass, isroutine
from pathlib import Path

from fastcore.docments import docments
from sphinx.addnodes import desc_signature

ROOT = Path(__file__).resolve().parents[2]
settings = ConfigParser(delimiters=['='])
settings.read(ROOT / 'settings.ini', encoding='utf-8')

project = settings['DEFAULT']['lib_name']
author = settings['DEFAULT']['author']
copyright = author  # of the footer
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
viewcode_follow_imported_members = False  # at_home says where


def plain(text):
    "Text in which only backticks and https addresses are markup: docstrings are plain sentences."
    text = re.sub(r'`+([^`]+)`+', '\0\\1\0', text)
    parts = text.split('\0')
    marks = r'[|*\\@]|(?<=\w)_\b|(?<!https):(?=//)'
    escaped = [re.sub(marks, r'\\\g<0>', p) for p in parts[::2]]
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


def at_home(app, doctree):
    """A name that a module passes on is also an anchor of the module that defines it.

    The source view knows one module for each source file, and links back to its names alone."""
    for sign in doctree.findall(desc_signature):
        name = sign['fullname']
        thing = getattr(import_module(sign['module']), name.split('.')[0])
        if (isclass(thing) or isroutine(thing)) and thing.__module__ != sign['module']:
            sign['module'] = thing.__module__
            sign['ids'].append(f'{thing.__module__}.{name}')


def setup(app):
    app.connect('doctree-read', at_home, priority=400)  # before the source view
    app.connect('autodoc-process-docstring', add_parameters)

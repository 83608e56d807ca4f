"The rules of the house that a machine can check; tools/house.py measures, ruff checks the rest."

import ast
import base64
import io
import json
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import outputs
import pytest
from house import RULES, STORED, House, measure, module_name, modules, notebooks
from matplotlib.figure import Figure
from PIL import Image

import hybridad
from hybridad.cli import ALIASES
from hybridad.visual.plots import as_png

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {'diffusers', 'transformers'}  # importing these costs seconds
# modules or sub-packages that are made of the libraries' classes
MAY_IMPORT_HEAVY = {'parts', 'backbone', 'pipeline', 'pretraining', 'families', 'tiny'}
LIGHT = {'config', 'data', 'losses', 'metrics'}  # never do, not even through one another
TREES = {name: ast.parse(text) for name, text in modules(ROOT).items()}
NOTEBOOKS = {p.relative_to(ROOT).as_posix(): p for p in notebooks(ROOT)}
KEPT = json.loads((ROOT / STORED).read_text(encoding='utf-8'))


def module_order(root=ROOT):
    "The modules in the order of their notebooks: a module may import only those before it."
    texts = (p.read_text(encoding='utf-8') for p in sorted((root / 'nbs').glob('[0-9]*.ipynb')))
    return [m for t in texts for m in re.findall(r'#\|\s*default_exp\s+([\w.]+)', t)]


def siblings(name, tree):
    "What the module `name` imports from hybridad, wherever in its text: modules and their members."
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            paths = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            inside = ['hybridad', *name.split('.')][: -node.level] if node.level else []
            base = '.'.join([*inside, *([node.module] if node.module else [])])
            paths = [base, *(f'{base}.{a.name}' for a in node.names)]
        else:
            continue
        yield from (p.removeprefix('hybridad.') for p in paths if p.startswith('hybridad.'))


def outsiders_on_import(tree):
    "The packages that importing a module imports at once: those outside any function."
    todo = list(tree.body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            yield from (a.name.split('.')[0] for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from [] if node.level else [node.module.split('.')[0]]
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            todo += ast.iter_child_nodes(node)


def swallows(handler):
    "True if an `except` hides any failure: it is bare, or broad with nothing done about it."
    kinds = getattr(handler.type, 'elts', [handler.type])
    broad = any(getattr(k, 'id', '') in ('Exception', 'BaseException') for k in kinds)
    idle = all(
        isinstance(s, (ast.Pass, ast.Continue))
        or isinstance(s, ast.Expr)
        and isinstance(s.value, ast.Constant)
        for s in handler.body
    )
    return handler.type is None or broad and idle


def each(kind):
    return [
        (name, n) for name, tree in TREES.items() for n in ast.walk(tree) if isinstance(n, kind)
    ]


@pytest.fixture(scope='module')
def figures():
    return measure(ROOT)


def test_every_rule_has_a_stored_figure():
    assert KEPT.keys() == RULES.keys(), f'run `python tools/house.py --store` and commit {STORED}'


@pytest.mark.parametrize('name', RULES)
def test_figure_is_no_worse_than_stored(name, figures):
    rule, now, stored = RULES[name], figures[name], KEPT[name]
    assert rule.meets(now, rule.allowed(stored)), (
        f'{rule.title}: {now:g}, and {stored:g} before (bar {rule.bar:g}); '
        f'`python tools/house.py --list {name}` names the places'
    )
    if now != stored and rule.meets(now, stored):
        warnings.warn(
            f'{rule.title}: {now:g} instead of {stored:g}, '
            f'`python tools/house.py --store` tightens {STORED}',
            stacklevel=1,
        )


def toy_cell(kind, text):
    return dict(cell_type=kind, source=text, metadata={}, **(OUTPUT if kind == 'code' else {}))


OUTPUT = dict(outputs=[], execution_count=None)
TOY = """#| export
def wide(a: int, b, c, d, *, e: str = ';') -> int:
    "What it says."
    x = 1; y = lambda: x
    return x


LIMIT = 3
def _hidden(): pass"""
LONE = 'def _private(a, b, c, d): pass\ndef lone(a, b, c, d): pass'  # neither is offered


@pytest.fixture
def toy(tmp_path):
    "A checkout with one notebook, whose module lies in a sub-package."
    cells = [
        toy_cell(
            'markdown', '# A title of many words\n\nFour [plain words](a/b.html) `code` here.'
        ),
        toy_cell('code', '#| default_exp models.toy'),
        toy_cell('code', TOY),
        toy_cell('code', 'wide(1, 2, 3, 4); "' + 'x' * 130 + '"'),
    ]
    for folder in ('nbs', 'hybridad/models'):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / 'nbs' / '00_toy.ipynb').write_text(json.dumps(dict(cells=cells)))
    head = "__all__ = ['LIMIT', 'wide']\nfrom ..losses import gone\n"
    (tmp_path / 'hybridad' / 'models' / 'toy.py').write_text(f'{head}{TOY}\n{LONE}' + '\n' * 400)
    (tmp_path / 'hybridad' / 'models' / '__init__.py').touch()
    private = "__all__ = ['seen_by_tests_alone']\ndef seen_by_tests_alone(x): pass\n"
    (tmp_path / 'hybridad' / '_dummies.py').write_text(private)
    (tmp_path / 'settings.ini').write_text('script = wide')
    return tmp_path


def test_measures_are_those_counted_by_hand(toy):
    found = measure(toy)
    assert found == {
        'columns_100': 0,  # the long line is not exported
        'columns_120': 0,
        'cell_median': 8,
        'cell_p90': 8,
        'cell_max': 8,
        'nodes_p90': 10,  # the signature: def, five arguments, three annotations, one default
        'nodes_p99': 10,
        'semicolons': 125.0,  # one in eight lines; those in a string or a note are none
        'lambdas': 125.0,
        'prose_median': 4,
        'prose_max': 4,
        'names': 2,
        'alone': 1,
        'arguments': 40.0,
        'returns': 100.0,
        'positional': 2,  # one of them not offered
        'modules': 1,
        'functions': 0,
        'docstrings': 1,
    }


def test_offenders_are_named_by_notebook_and_cell(toy):
    house = House(toy)
    listed = {name: [place for place, _ in r.offenders(house)] for name, r in RULES.items()}
    assert listed['semicolons'] == ['00_toy.ipynb[2]:3']
    assert listed['docstrings'] == ['00_toy.ipynb[2] wide']
    assert listed['modules'] == ['models.toy']
    assert listed['alone'] == ['models.toy.lone']
    assert listed['arguments'] == [f'models.toy.wide({a})' for a in 'bcd']
    assert house.names == [('models.toy.LIMIT', 0), ('models.toy.wide', 1)]


def test_dotted_modules_are_followed(toy):
    path = toy / 'hybridad' / 'models' / 'toy.py'
    name = module_name(path, toy)
    assert module_order(toy) == [name] == ['models.toy']
    assert list(siblings(name, ast.parse(path.read_text()))) == ['losses', 'losses.gone']
    near = ast.parse('from . import near\nfrom .near import x\nimport hybridad.data.io')
    assert {'models.near', 'models.near.x', 'data.io'} < set(siblings(name, near))
    flat = ast.parse('from .losses import x\nfrom hybridad.config import y')
    assert list(siblings('toy', flat)) == ['losses', 'losses.x', 'config', 'config.y']


def test_no_failure_is_swallowed():
    silent = [f'{name}.py:{h.lineno}' for name, h in each(ast.ExceptHandler) if swallows(h)]
    assert not silent, f'catches everything and says nothing: {silent}'


def test_imports_point_downwards():
    place = {m: i for i, m in enumerate(module_order())}
    assert place.keys() == TREES.keys(), 'each module has one notebook, each notebook one module'
    known = [(m, s) for m, tree in TREES.items() for s in siblings(m, tree) if s in place]
    assert len(known) > len(place), 'the modules import one another'
    upwards = sorted({f'{m} imports {s}' for m, s in known if place[s] >= place[m]})
    assert not upwards, f'against the order of the notebooks: {upwards}'


def test_heavy_imports_stay_where_they_belong():
    heavy = sorted(
        m
        for m, tree in TREES.items()
        if not MAY_IMPORT_HEAVY & set(m.split('.')) and HEAVY & set(outsiders_on_import(tree))
    )
    assert not heavy, (
        f'{heavy} import {sorted(HEAVY)} at module level: import inside the function that needs it'
    )


def test_light_modules_load_nothing_heavy():
    light = [m for m in TREES if m.split('.')[0] in LIGHT]
    assert {m.split('.')[0] for m in light} == LIGHT
    names = ', '.join(f'hybridad.{m}' for m in light)
    code = f'import sys, {names}; print(*({HEAVY} & set(sys.modules)))'
    r = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert r.returncode == 0, r.stderr
    assert not r.stdout.strip(), f'importing {names} also imports {r.stdout.strip()}'


def top_names(tree):
    "All names that a module has once it is imported."
    for node in tree.body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from (a.asname or a.name.split('.')[0] for a in node.names)
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        else:
            yield from (
                n.id
                for n in ast.walk(node)
                if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
            )


SCRIPTS = [p for folder in ('experiments', 'tools', 'tests') for p in (ROOT / folder).glob('*.py')]
OFFERED = {  # what can be imported: packages, modules and the names in them
    '',
    *TREES,
    *(m.rsplit('.', 1)[0] for m in TREES),
    *(f'{m}.{n}' for m, tree in TREES.items() for n in top_names(tree)),
    *hybridad.__all__,
    '__version__',
    *(f'cli.{old}' for old in ALIASES),
}


@pytest.mark.parametrize('path', SCRIPTS, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_scripts_import_what_exists(path):
    "Scripts that take hours are not run here, but a renamed function must not break them."
    lost = set(siblings('', ast.parse(path.read_text(encoding='utf-8')))) - OFFERED
    assert not lost, f'{path.name} imports from hybridad what is not there: {sorted(lost)}'


def test_modules_import_what_exists():
    lost = [(m, s) for m, tree in TREES.items() for s in siblings(m, tree) if s not in OFFERED]
    assert not lost, f'imported, inside functions too, but not there: {sorted(lost)}'


def test_no_line_of_a_guide_is_wider_than_100_columns():
    "They are shown at 1280 px, where a longer line needs a scroll bar."
    wide = [
        f'{name}[{i}]: {len(line)} columns'
        for name, path in NOTEBOOKS.items()
        if name.startswith('nbs/guides/')
        for i, cell in enumerate(json.loads(path.read_text(encoding='utf-8'))['cells'])
        for line in ''.join(cell['source']).splitlines()
        if cell['cell_type'] == 'code' and len(line) > 100
    ]
    assert not wide, wide


def pictures(nb):
    "Every stored image of a notebook, in bytes."
    for cell in nb['cells']:
        for out in cell.get('outputs', []):
            for mime, data in out.get('data', {}).items():
                text = ''.join(data) if isinstance(data, (str, list)) else ''
                if mime.startswith('image/'):
                    yield text.encode() if 'svg' in mime else base64.b64decode(text)


def drawn_at(picture):
    "Pixels of an inch of the figure in an image file; None where it does not say."
    return Image.open(io.BytesIO(picture)).info.get('dpi', [None])[0]


@pytest.mark.parametrize('name', [n for n in NOTEBOOKS if '/guides/' in n])
def test_text_in_the_pictures_of_a_guide_keeps_its_size(name):
    known = map(drawn_at, pictures(json.loads(NOTEBOOKS[name].read_text(encoding='utf-8'))))
    assert all(dpi > 95 for dpi in known if dpi), 'below 96 dpi, 9 points are no 9 points on screen'


@pytest.mark.parametrize('noise', (60, 255))
def test_a_stored_picture_has_fewer_colours_but_all_its_pixels(noise):
    fig = Figure(figsize=(4.2, 1.5), dpi=72)
    grain = np.random.default_rng(0).integers(0, noise, (144, 403, 3), np.uint8)
    fig.add_axes((0, 0, 1, 1)).imshow(grain, aspect='auto')
    png = as_png(fig)
    mime, stored = outputs.small(png, 12)
    picture = Image.open(io.BytesIO(stored))
    assert picture.size == Image.open(io.BytesIO(png)).size and picture.width >= 0.95 * 4.2 * 96
    assert len(stored) < len(png) and drawn_at(stored) > 95, mime


@pytest.mark.parametrize('name', NOTEBOOKS)
def test_notebook_is_small_and_sound(name):
    raw = NOTEBOOKS[name].read_text(encoding='utf-8')
    nb = json.loads(raw)
    code = [c for c in nb['cells'] if c['cell_type'] == 'code']
    wrong = []
    if len(raw.encode()) >= outputs.NOTEBOOK:
        wrong.append(f'{len(raw.encode())} bytes, {outputs.NOTEBOOK // 1000} kB allowed')
    if big := [len(b) for b in pictures(nb) if len(b) > 1000 * outputs.LIMITS[0]]:
        wrong.append(f'stored images of {big} bytes, {outputs.LIMITS[0]} kB allowed')
    if any(o['output_type'] == 'error' for c in code for o in c['outputs']):
        wrong.append('a stored error')
    if any(re.search(r'^#\|\s*eval:\s*false', ''.join(c['source']), re.M) for c in code):
        wrong.append('a cell that is never run')
    if paths := set(re.findall(r'(?<![\w./:-])/(?:root|home|Users|work)/[\w./-]*', raw)):
        wrong.append(f'paths of one machine: {paths}')
    hidden = [''.join(c['source']).startswith('#| hide') for c in code]
    if any(
        h != c['metadata'].get('jupyter', {}).get('source_hidden', False)
        for h, c in zip(hidden, code)
    ):
        wrong.append('hidden cells that JupyterLab does not fold: make prepare')
    shown = '\n'.join(''.join(c['source']) for h, c in zip(hidden, code) if not h)
    if re.search(r'^from fastcore\.test import', shown, re.M):
        wrong.append('an import for tests outside of a hidden cell')
    assert not wrong, f'{name}: ' + '; '.join(wrong)

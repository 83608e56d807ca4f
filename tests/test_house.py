"The rules of the house that a machine can check: short functions, honest handlers, imports that point downwards, small notebooks."

import ast
import base64
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {'diffusers', 'transformers'}  # importing these costs seconds
MAY_IMPORT_HEAVY = {'parts', 'backbone', 'pipeline', 'pretraining'}
LIGHT = ['config', 'data', 'losses', 'metrics']  # and these never do, not even through one another
TREES = {
    p.stem: ast.parse(p.read_text(encoding='utf-8'))
    for p in (ROOT / 'hybridad').glob('*.py')
    if p.stem[0] != '_'
}
NOTEBOOKS = {
    p.relative_to(ROOT).as_posix(): p
    for p in sorted((ROOT / 'nbs').rglob('*.ipynb'))
    if '.ipynb_checkpoints' not in p.parts
}


def module_order():
    "The modules in the order of their notebooks' numbers: a module may import only those before it."
    texts = (p.read_text(encoding='utf-8') for p in sorted((ROOT / 'nbs').glob('[0-9]*.ipynb')))
    return [m for t in texts for m in re.findall(r'#\|\s*default_exp\s+(\w+)', t)]


def siblings(tree):
    "The modules of hybridad that a module imports, wherever in its text."
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (a.name.split('.')[1] for a in node.names if a.name.startswith('hybridad.'))
        elif isinstance(node, ast.ImportFrom):
            inside = (
                node.module
                if node.level
                else (node.module or '').removeprefix('hybridad').lstrip('.')
            )
            if node.level or (node.module or '').split('.')[0] == 'hybridad':
                yield from [inside.split('.')[0]] if inside else (a.name for a in node.names)


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
    "Whether an `except` hides any failure whatever: bare, or broad with nothing done about it."
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


def test_functions_are_short():
    long = [
        f'{name}.{f.name}: {f.end_lineno - f.lineno + 1} lines'
        for name, f in each((ast.FunctionDef, ast.AsyncFunctionDef))
        if f.end_lineno - f.lineno + 1 > 55
    ]
    assert not long, f'longer than 55 lines, split by responsibility: {long}'


def test_no_failure_is_swallowed():
    silent = [f'{name}.py:{h.lineno}' for name, h in each(ast.ExceptHandler) if swallows(h)]
    assert not silent, f'catches everything and says nothing: {silent}'


def test_imports_point_downwards():
    place = {m: i for i, m in enumerate(module_order())}
    known = [
        (m, s) for m, tree in TREES.items() for s in siblings(tree) if m in place and s in place
    ]
    upwards = sorted({f'{m} imports {s}' for m, s in known if place[s] >= place[m]})
    assert not upwards, f'against the order of the notebooks: {upwards}'


def test_heavy_imports_stay_where_they_belong():
    heavy = sorted(
        m
        for m, tree in TREES.items()
        if m not in MAY_IMPORT_HEAVY and HEAVY & set(outsiders_on_import(tree))
    )
    assert not heavy, (
        f'{heavy} import {sorted(HEAVY)} at module level: import inside the function that needs it'
    )


def test_light_modules_load_nothing_heavy():
    names = ', '.join(f'hybridad.{m}' for m in LIGHT)
    code = f'import sys, {names}; print(*({HEAVY} & set(sys.modules)))'
    r = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert r.returncode == 0, r.stderr
    assert not r.stdout.strip(), f'importing {names} also imports {r.stdout.strip()}'


def pictures(nb):
    "The size in bytes of every stored picture of a notebook."
    for cell in nb['cells']:
        for out in cell.get('outputs', []):
            for mime, data in out.get('data', {}).items():
                text = ''.join(data) if isinstance(data, (str, list)) else ''
                if mime.startswith('image/'):
                    yield len(text if 'svg' in mime else base64.b64decode(text))


@pytest.mark.parametrize('name', NOTEBOOKS)
def test_notebook_is_small_and_sound(name):
    raw = NOTEBOOKS[name].read_text(encoding='utf-8')
    nb = json.loads(raw)
    code = [c for c in nb['cells'] if c['cell_type'] == 'code']
    wrong = []
    if len(raw.encode()) >= 300_000:
        wrong.append(f'{len(raw.encode())} bytes, 300 kB allowed')
    if big := [n for n in pictures(nb) if n >= 60_000]:
        wrong.append(f'stored pictures of {big} bytes, 60 kB allowed')
    if any(o['output_type'] == 'error' for c in code for o in c['outputs']):
        wrong.append('a stored error')
    if any(re.search(r'^#\|\s*eval:\s*false', ''.join(c['source']), re.M) for c in code):
        wrong.append('a cell that is never run')
    if paths := set(re.findall(r'(?<![\w./:-])/(?:root|home|Users|work)/[\w./-]*', raw)):
        wrong.append(f'paths of one machine: {paths}')
    assert not wrong, f'{name}: ' + '; '.join(wrong)

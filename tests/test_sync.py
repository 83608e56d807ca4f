"The repository is what its notebooks say: modules, README and the notebooks themselves come out of `make prepare` unchanged."

import re
import runpy
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REMEDY = '\nRun `make prepare` and commit what it changes.'


def tool(name, cwd):
    "Run an nbdev command of this environment in `cwd`."
    r = subprocess.run(
        [Path(sys.executable).parent / name], cwd=cwd, capture_output=True, text=True
    )
    assert r.returncode == 0, f'{name} failed: {r.stdout}{r.stderr}'


def notebooks(root):
    return {
        p.relative_to(root).as_posix(): p.read_bytes()
        for p in (root / 'nbs').rglob('*.ipynb')
        if not any(part.startswith(('.', '_')) for part in p.relative_to(root).parts)
    }


def modules(root):
    return {
        p.relative_to(root).as_posix(): p.read_text(encoding='utf-8')
        for p in (root / 'hybridad').rglob('*.py')
    }


def notebook_of(text):
    "The notebook a generated module says it comes from."
    found = re.search(r'File to edit: (?:\.\./)*(\S+\.ipynb)', text)
    return found[1] if found else 'the notebooks'


def difference(kept, fresh):
    "One sentence for each module that is not what the notebooks export."
    for name in sorted(kept.keys() | fresh.keys()):
        old, new = kept.get(name), fresh.get(name)
        if new is None:
            yield f'{name} is an orphan: no notebook exports it.'
        elif old is None:
            yield f'{name} is missing, {notebook_of(new)} exports it.'
        elif old != new:
            yield f'{name} differs from {notebook_of(new)}.'


def test_notebooks_and_modules_agree(copy_checkout, tmp_path):
    checkout = copy_checkout(tmp_path / 'checkout')
    kept, notes = modules(checkout), notebooks(checkout)
    for name in kept.keys() - {'hybridad/__init__.py'}:
        (checkout / name).unlink()
    tool('nbdev_clean', checkout)
    tool('nbdev_export', checkout)
    cleaned = notebooks(checkout)
    wrong = [f'{n} is not clean.' for n, data in sorted(notes.items()) if cleaned[n] != data]
    wrong += difference(kept, modules(checkout))
    assert not wrong, '\n'.join(wrong) + REMEDY


def test_one_notebook_one_module():
    homes = [
        (m, n)
        for n, data in notebooks(ROOT).items()
        for m in re.findall(r'#\|\s*default_exp\s+([\w.]+)', data.decode())
    ]
    twice = sorted({m for m, _ in homes if [h for h, _ in homes].count(m) > 1})
    assert not twice, f'More than one notebook exports {twice}: give each module one notebook.'


def test_readme_is_index_notebook():
    text, pictures = runpy.run_path(str(ROOT / 'tools' / 'readme.py'))['render']()
    assert (ROOT / 'README.md').read_text(encoding='utf-8') == text, (
        'README.md is not what nbs/index.ipynb says.' + REMEDY
    )
    stored = {p.relative_to(ROOT).as_posix(): p.read_bytes() for p in ROOT.glob('images/index_*')}
    assert stored == pictures, 'images/ does not hold the images of nbs/index.ipynb.' + REMEDY

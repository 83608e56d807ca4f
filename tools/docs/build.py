"""Build the documentation site in build/html from the notebooks: `make docs`.

The pages are staged in build/site in the layout of the repository, so that every link of a notebook
leads where it leads in JupyterLab. README.md is the first page. Needs the extra `docs`."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[2]
PAGES = (  # beside the notebooks
    *('DATA.md', 'CHANGELOG.md', 'CONTRIBUTING.md'),
    *('results/README.md', 'experiments/history.md'),
)
FILES = (  # what pages link to
    *('LICENSE', 'hybridad/backbones/LICENSE'),
    *('results/**/*.png', 'results/*.svg'),
)
GUIDES = (  # in the order of the questions that the index asks
    *('your_own_images', 'review', 'train', 'stable_diffusion', 'scale', 'visualize', 'results'),
    *('ablation', 'benchmark', 'similarity', 'mini_backbone'),
)
CHAPTERS = {  # first figure of a notebook's number: what it is about
    '0': 'Data and generated images',
    '1': 'Attention and backbone',
    '2': 'Prompts',
    '3': 'Loss',
    '4': 'Metrics and checkpoints',
    '5': 'Detector',
    '6': 'Training, evaluation, scoring',
    '7': 'Figures and explorers',
    '8': 'Export, demo, commands',
    '9': 'Commands',
}


def staged_notebook(nb: nbformat.NotebookNode) -> nbformat.NotebookNode:
    "A notebook without hidden cells and directives; `echo: false` hides a cell's code."
    nb.cells = [c for c in nb.cells if not re.match(r'#\|\s*hide\b', c.source)]
    for cell in nb.cells:
        if cell.cell_type == 'code':
            quiet = '#| echo: false' in cell.source
            cell.metadata = dict(tags=['remove-input'] if quiet else [])
            cell.source = re.sub(r'^#\|.*\n?', '', cell.source, flags=re.M).strip()
    nb.cells = [c for c in nb.cells if c.source]
    nb.metadata.language_info = dict(name='python', pygments_lexer='ipython3')  # knows ! and %
    return nb


def module_of(nb: nbformat.NotebookNode) -> str | None:
    "The module that a notebook exports; None for a guide."
    code = '\n'.join(c.source for c in nb.cells if c.cell_type == 'code')
    found = re.search(r'^#\|\s*default_exp\s+(\S+)', code, flags=re.M)
    return f'hybridad.{found[1]}' if found else None


def subtitle(nb: nbformat.NotebookNode) -> str:
    "The line under a notebook's title."
    return next(line[1:].strip() for line in nb.cells[0].source.splitlines() if line[:1] == '>')


def notebooks() -> dict[Path, nbformat.NotebookNode]:
    "Every notebook but the index, by its path from the root."
    found = sorted((ROOT / 'nbs').rglob('*.ipynb'))
    return {
        p.relative_to(ROOT): nbformat.read(p, as_version=4)
        for p in found
        if p.name != 'index.ipynb' and '.ipynb_checkpoints' not in p.parts
    }


def copied_files() -> dict[Path, bytes]:
    "The pages that are no notebooks, and the files that pages show or link to."
    found = (p for pattern in (*PAGES, *FILES) for p in ROOT.glob(pattern))
    return {p.relative_to(ROOT): p.read_bytes() for p in found}


def tree(caption: str, pages: list) -> str:
    "A table of contents that only the side bar shows."
    lines = '\n'.join(re.sub(r'\.(ipynb|md)$', '', Path(p).as_posix()) for p in pages)
    return f'```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{lines}\n```\n'


def reference_page(module: str, page: Path) -> str:
    "The reference of one module, beside the notebook it comes from."
    lines = f'.. automodule:: {module}\n   :members:\n   :show-inheritance:\n'
    return f'# {module}\n\nNotebook: [{page.stem}](../{page})\n\n```{{eval-rst}}\n{lines}```\n'


def reference(modules: dict[str, Path], told: dict[str, str]) -> dict[Path, str]:
    "A page for each module, and one that lists them with their subtitles."
    pages = {Path(f'api/{name}.md'): reference_page(name, modules[name]) for name in modules}
    rows = '\n'.join(f'- [{name}]({name}.md): {told[name]}' for name in sorted(modules))
    contents = tree('Modules', sorted(modules))
    return pages | {Path('api/index.md'): f'# API reference\n\n{rows}\n\n{contents}'}


def first_page(modules: dict[str, Path], guides: list) -> str:
    "README.md with the contents of the side bar."
    trees = [tree('Guides', guides), tree('Reference', ['api/index'])]
    for figure, caption in CHAPTERS.items():
        pages = [p for p in modules.values() if p.name.startswith(figure)]
        trees += [tree(caption, pages)] if pages else []
    trees.append(tree('Project', list(PAGES)))
    readme = (ROOT / 'README.md').read_text(encoding='utf-8')
    return '\n'.join([readme.replace('(nbs/index.ipynb)', '(#)'), *trees])


def pages() -> dict[Path, bytes]:
    "Everything that Sphinx reads, by its place."
    books = notebooks()
    modules = {m: p for p, nb in books.items() if (m := module_of(nb))}
    public = {m: p for m, p in modules.items() if '._' not in m}
    told = {m: subtitle(books[p]) for m, p in public.items()}
    guides = [Path(f'nbs/guides/{name}.ipynb') for name in GUIDES]
    texts = {p: nbformat.writes(staged_notebook(nb)) for p, nb in books.items()}
    texts |= reference(public, told) | {Path('index.md'): first_page(modules, guides)}
    return copied_files() | {p: t.encode() for p, t in texts.items()}


def stage(site: Path) -> bool:
    """Write what has changed, so that Sphinx reads no page again, and remove what is no page.

    True if something was removed."""
    wanted = pages()
    for path, content in wanted.items():
        to = site / path
        if not to.is_file() or to.read_bytes() != content:
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_bytes(content)
    files = [p for p in site.rglob('*') if p.is_file()]
    gone = [p for p in files if p.relative_to(site) not in wanted]
    for old in gone:
        old.unlink()
    return bool(gone)


def newer(built: Path, settings: Path) -> bool:
    "Whether a file was built after the settings were written."
    return built.is_file() and built.stat().st_mtime > settings.stat().st_mtime


if __name__ == '__main__':
    site, out, here = ROOT / 'build/site', ROOT / 'build/html', Path(__file__).parent
    known = ROOT / 'build/pages'
    if stage(site) or not newer(out / 'searchindex.js', here / 'conf.py'):
        for folder in (out, known):  # Sphinx removes no page and reads none again
            shutil.rmtree(folder, ignore_errors=True)
    strict = '-q', '-W', '--keep-going', '-d', known
    command = [sys.executable, '-m', 'sphinx', *strict, '-c', here, site, out]
    sys.exit(subprocess.run(command, cwd=ROOT).returncode)

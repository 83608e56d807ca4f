"""Write README.md from nbs/index.ipynb, with the images of its outputs in images/.

nbdev_readme would need Quarto; this reads the stored outputs and needs only nbconvert. Links
written for nbs/ are turned into links that work from the repository's front page. Hidden cells are
left out, `#| echo: false` hides a cell's code."""

import re
from pathlib import Path
from posixpath import join, normpath

import nbformat
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parents[1]
NOTE = '<!-- Written by `make prepare` from nbs/index.ipynb: edit that notebook, not this file. -->'


def from_root(text, root):
    "`text` with links that start from nbs/ and lead to a file rewritten to start from `root`."

    def fix(m):
        path, anchor = re.fullmatch(r'([^#]*)(.*)', m[2]).groups()
        return m[1] + (
            normpath(join('nbs', path)) + anchor
            if path and (root / 'nbs' / path).exists()
            else m[2]
        )

    return re.sub(r'(\]\(|(?:src|href)=")([^)"\s]+)', fix, text)


def prepare(cell, root):
    "`cell` with links from the root, without directives, and without its code if asked."
    if cell.cell_type == 'markdown':
        cell.source = from_root(cell.source, root)
    if cell.cell_type == 'code':
        cell.metadata.transient = {'remove_source': '#| echo: false' in cell.source}
        cell.source = re.sub(r'^#\|.*\n?', '', cell.source, flags=re.M).strip()
    return cell


def render(root=ROOT):
    "The text of README.md and a dict from image path to bytes."
    nb = nbformat.read(root / 'nbs' / 'index.ipynb', as_version=4)
    nb.metadata.language_info = {'name': 'python'}
    nb.cells = [prepare(c, root) for c in nb.cells if not re.match(r'#\|\s*hide\b', c.source)]
    text, resources = MarkdownExporter().from_notebook_node(
        nb, {'unique_key': 'index', 'output_files_dir': 'images'}
    )
    text = re.sub(r'([ \t]*\n){3,}', '\n\n', text).strip()
    return f'{NOTE}\n\n{text}\n', resources.get('outputs', {})


if __name__ == '__main__':
    text, pictures = render()
    for old in ROOT.glob('images/index_*'):
        old.unlink()
    for path, data in pictures.items():
        (ROOT / path).parent.mkdir(exist_ok=True)
        (ROOT / path).write_bytes(data)
    (ROOT / 'README.md').write_text(text, encoding='utf-8')

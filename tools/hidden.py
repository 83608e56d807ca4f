"""Fold the source of cells that begin with `#| hide`, as JupyterLab and VS Code understand it.

nbdev leaves such cells out of a site; whoever steps through a notebook would still read them.
`make prepare` runs this."""

import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
FOLDED = dict(jupyter=dict(source_hidden=True))


def is_hidden(cell: nbformat.NotebookNode) -> bool:
    return cell.cell_type == 'code' and cell.source.startswith('#| hide')


def fold(path: Path) -> bool:
    "Fold the hidden cells of a notebook; True where something changed."
    nb = nbformat.read(path, as_version=4)
    changed = False
    for cell in nb.cells:
        wanted = FOLDED if is_hidden(cell) else {}
        if cell.metadata.get('jupyter', {}) != wanted.get('jupyter', {}):
            cell.metadata.pop('jupyter', None)
            cell.metadata.update(wanted)
            changed = True
    if changed:
        path.write_text(nbformat.writes(nb, indent=1) + '\n', encoding='utf-8')
    return changed


def main() -> None:
    paths = [Path(a) for a in sys.argv[1:]] or sorted((ROOT / 'nbs').rglob('*.ipynb'))
    count = sum(fold(p) for p in paths if '.ipynb_checkpoints' not in p.parts)
    print(f'hidden cells folded in {count} notebooks')


if __name__ == '__main__':
    main()

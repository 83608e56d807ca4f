"""Measure how the code and the notebooks are written: python tools/house.py [--list RULE] [--store]

Prints every figure beside its bar. `--list RULE` names the offenders with notebook and cell.
`--store` writes today's figures into tests/house.json: tests/test_house.py lets none become worse.
Takes seconds and imports nothing of the package. What ruff can check is left to ruff, see
pyproject.toml."""

import argparse
import ast
import io
import json
import math
import re
import sys
import tokenize
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = 'hybridad'
WRITTEN = ('__init__', '_modidx')  # modules that no notebook defines
STORED = Path('tests', 'house.json')
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
OPENINGS = ('what', 'which', 'where', 'whether', 'how', 'those', 'who')
EXPORTED = re.compile(r'^\s*#\|\s*exports?i?\b', re.M)
DIRECTIVE = re.compile(r'\s*#\|')


@dataclass(frozen=True)
class Cell:
    "A cell of a notebook: its place in words, its kind and its lines."

    place: str
    kind: str
    text: str

    @property
    def exported(self) -> bool:
        return self.kind == 'code' and bool(EXPORTED.search(self.text))

    @cached_property
    def lines(self) -> list[str]:
        "The lines without nbdev's directives."
        return [s for s in self.text.strip().splitlines() if not DIRECTIVE.match(s)]


def notebooks(root: Path) -> list[Path]:
    "All notebooks that are source, guides included."
    return [
        p
        for p in sorted((root / 'nbs').rglob('*.ipynb'))
        if not any(part.startswith(('.', '_')) for part in p.relative_to(root).parts)
    ]


def cells_of(path: Path, root: Path) -> Iterator[Cell]:
    "The cells of a notebook, numbered as JupyterLab and nbcell count them: from 0."
    name = path.relative_to(root / 'nbs').as_posix()
    for i, cell in enumerate(json.loads(path.read_text(encoding='utf-8'))['cells']):
        yield Cell(f'{name}[{i}]', cell['cell_type'], ''.join(cell['source']))


def module_name(path: Path, root: Path) -> str:
    "The name of a module without the package's: `data.layouts` for hybridad/data/layouts.py."
    return '.'.join(path.relative_to(root / PACKAGE).with_suffix('').parts)


def modules(root: Path) -> dict[str, str]:
    "Text of every generated module by its name, in the package or in a sub-package."
    found = [p for p in sorted((root / PACKAGE).rglob('*.py')) if p.stem not in WRITTEN]
    return {module_name(p, root): p.read_text(encoding='utf-8') for p in found}


def is_private(module: str) -> bool:
    "True for a module, or one in a sub-package, whose name begins with `_`."
    return any(part.startswith('_') for part in module.split('.'))


def public_names(tree: ast.Module) -> set[str]:
    "Names that a module defines at its top and offers in `__all__`."
    offered, defined = set(), set()
    for node in tree.body:
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            defined.add(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = {n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)}
            if names == {'__all__'}:
                offered |= {e.value for e in node.value.elts}
            defined |= names
    return {n for n in offered & defined if not n.startswith('_')}


def open_names(tree: ast.Module) -> set[str]:
    "Functions and classes whose name does not begin with `_`, offered in `__all__` or not."
    kinds = (*FUNCTIONS, ast.ClassDef)
    return {n.name for n in tree.body if isinstance(n, kinds) and not n.name.startswith('_')}


def functions_of(tree: ast.Module, names: set[str]) -> Iterator[tuple[str, ast.FunctionDef, bool]]:
    "Named functions, and the public methods and `__init__` of named classes: name, node, method."
    for node in tree.body:
        if isinstance(node, FUNCTIONS) and node.name in names:
            yield node.name, node, False
        if isinstance(node, ast.ClassDef) and node.name in names:
            for f in node.body:
                if isinstance(f, FUNCTIONS) and (f.name[0] != '_' or f.name == '__init__'):
                    static = any(getattr(d, 'id', '') == 'staticmethod' for d in f.decorator_list)
                    yield f'{node.name}.{f.name}', f, not static


def prose(text: str) -> str:
    "The sentences of a markdown cell: no headings, tables, code, images or addresses of links."
    text = re.sub(r'^(```|~~~).*?^\1', ' ', text, flags=re.M | re.S)
    text = re.sub(r'\$\$.*?\$\$', ' ', text, flags=re.S)
    text = re.sub(r'^[ \t]*(#+\s|\||>).*$', ' ', text, flags=re.M)
    text = re.sub(r'`[^`]*`|\$[^$\n]*\$|<[^>]+>', ' ', text)
    text = re.sub(r'!\[[^\]]*\]\([^)]*\)', ' ', text)
    return re.sub(r'\[([^\]]*)\]\([^)]*\)', r'\1', text)


def words(text: str) -> int:
    return len(re.findall(r'\w[\w\'’.,-]*', prose(text)))


def separating_semicolons(text: str) -> list[int]:
    "Numbers of the lines in which a semicolon separates two statements."
    found = tokenize.generate_tokens(io.StringIO(text).readline)
    return [t.start[0] for t in found if t.type == tokenize.OP and t.string == ';']


def quantile(values: list[float], share: float) -> float:
    "The smallest value that at least `share` of the values do not exceed."
    return sorted(values)[math.ceil(share * len(values)) - 1] if values else 0


class House:
    "Notebooks and modules of a checkout, read once, and what is counted in them."

    def __init__(self, root: Path = ROOT):
        self.root = root
        self.cells = [c for p in notebooks(root) for c in cells_of(p, root)]
        self.exported = [c for c in self.cells if c.exported]
        self.texts = modules(root)
        self.trees = {name: ast.parse(text) for name, text in self.texts.items()}
        self.public = {name: t for name, t in self.trees.items() if not is_private(name)}

    @cached_property
    def lines(self) -> list[tuple[str, str]]:
        "Place and text of every exported line."
        return [(f'{c.place}:{i}', s) for c in self.exported for i, s in enumerate(c.lines, 1)]

    @cached_property
    def cell_trees(self) -> list[tuple[Cell, ast.Module]]:
        return [(c, ast.parse('\n'.join(c.lines))) for c in self.exported]

    @cached_property
    def functions(self) -> list[tuple[str, int]]:
        "Place and length of every exported function and method."
        return [
            (f'{c.place} {n.name}', n.end_lineno - n.lineno + 1)
            for c, tree in self.cell_trees
            for n in ast.walk(tree)
            if isinstance(n, FUNCTIONS)
        ]

    @cached_property
    def density(self) -> list[tuple[str, int]]:
        "Place and number of syntax nodes of every exported line that has any."
        return [
            (f'{cell.place}:{line}', count)
            for cell, tree in self.cell_trees
            for line, count in nodes_by_line(tree).items()
        ]

    @cached_property
    def prose(self) -> list[tuple[str, int]]:
        counted = [(c.place, words(c.text)) for c in self.cells if c.kind == 'markdown']
        return [(place, n) for place, n in counted if n]

    @cached_property
    def names(self) -> list[tuple[str, int]]:
        "Every public name with its module, and in how many other places it occurs, rarest first."
        places = users(self.root, self.texts)
        found = [
            (f'{module}.{name}', sum(name in used for m, used in places.items() if m != module))
            for module, tree in self.public.items()
            for name in public_names(tree)
        ]
        return sorted(found, key=lambda pair: (pair[1], pair[0]))

    @cached_property
    def alone(self) -> list[tuple[str, float]]:
        "Names neither offered nor private that no other module, script or notebook uses."
        places = users(self.root, self.texts) | users(self.root, {}, ('nbs',))
        uses = Counter(word for words in places.values() for word in words)
        found = []
        for module, tree in self.public.items():
            own = {module, *re.findall(r'nbs/\w+\.ipynb', self.texts[module])}
            here = Counter(word for place in own & places.keys() for word in places[place])
            lone = [n for n in open_names(tree) - public_names(tree) if uses[n] == here[n]]
            found += [(f'{module}.{name}', 1) for name in sorted(lone) if module != TO_SWAP]
        return found

    def signatures_of(self, chosen: Callable) -> list[tuple[str, ast.FunctionDef, bool]]:
        return [
            (f'{module}.{name}', f, method)
            for module, tree in self.public.items()
            for name, f, method in functions_of(tree, chosen(tree))
        ]

    @cached_property
    def signatures(self) -> list[tuple[str, ast.FunctionDef, bool]]:
        return self.signatures_of(public_names)

    @cached_property
    def arguments(self) -> list[tuple[str, bool]]:
        "Every public argument and whether it is annotated; self and cls do not count."
        return [
            (f'{name}({a.arg})', a.annotation is not None)
            for name, f, method in self.signatures
            for a in all_arguments(f)[method:]
        ]

    @cached_property
    def returns(self) -> list[tuple[str, bool]]:
        "Every public function but `__init__` and whether what it returns is annotated."
        return [(n, f.returns is not None) for n, f, _ in self.signatures if f.name != '__init__']

    @cached_property
    def docstrings(self) -> list[tuple[str, str]]:
        "Place and first word of every docstring."
        return [
            (f'{c.place} {n.name}', (ast.get_docstring(n) or '').split(maxsplit=1)[0])
            for c, tree in self.cell_trees
            for n in ast.walk(tree)
            if isinstance(n, (*FUNCTIONS, ast.ClassDef)) and ast.get_docstring(n)
        ]

    def per_thousand(self, count: int) -> float:
        return round(1000 * count / len(self.lines), 1)


def users(
    root: Path,
    texts: dict[str, str],
    folders: tuple[str, ...] = ('tests', 'tools', 'experiments', 'nbs/guides'),
) -> dict[str, set[str]]:
    "The words that each module, script, test and guide uses: a name in none of them is private."
    texts = dict(texts)
    for folder in folders:
        for path in sorted((root / folder).glob('*')):
            if path.suffix in ('.py', '.ipynb'):
                texts[f'{folder}/{path.name}'] = path.read_text(encoding='utf-8')
    texts['settings.ini'] = (root / 'settings.ini').read_text(encoding='utf-8')
    return {place: set(re.findall(r'\w+', text)) for place, text in texts.items()}


def nodes_by_line(tree: ast.Module) -> Counter:
    return Counter(n.lineno for n in ast.walk(tree) if hasattr(n, 'lineno'))


def all_arguments(f: ast.FunctionDef) -> list[ast.arg]:
    "The arguments of a function in their order, `*args` and `**kwargs` among them."
    a = f.args
    single = [x for x in (a.vararg, a.kwarg) if x]
    return [*a.posonlyargs, *a.args, *a.kwonlyargs, *single]


def by_position(f: ast.FunctionDef, method: bool) -> int:
    "Number of arguments that may be given by position, without self."
    return len(f.args.posonlyargs) + len(f.args.args) - method


@dataclass(frozen=True)
class Rule:
    "A figure of the table, its bar, and the places that a reader would change."

    title: str
    bar: float
    figure: Callable[[House], float]
    offenders: Callable[[House], list[tuple[str, float]]]
    at_least: bool = False  # the figure must reach the bar; otherwise it must not exceed it

    def meets(self, figure: float, limit: float) -> bool:
        return figure >= limit if self.at_least else figure <= limit

    def allowed(self, stored: float) -> float:
        "The worst figure that is not a step back: the stored one, or the bar once it is reached."
        return self.bar if self.meets(stored, self.bar) else stored


def percent(pairs: list[tuple[str, bool]]) -> float:
    return round(100 * sum(done for _, done in pairs) / max(len(pairs), 1), 1)


def missing(pairs: list[tuple[str, bool]]) -> list[tuple[str, float]]:
    return [(place, 1) for place, done in pairs if not done]


def over(pairs: list[tuple[str, float]], limit: float) -> list[tuple[str, float]]:
    "Pairs whose value exceeds a limit, the largest first."
    return sorted((p for p in pairs if p[1] > limit), key=lambda p: -p[1])


def too_long(house: House, columns: int) -> list[tuple[str, float]]:
    return over([(place, len(text)) for place, text in house.lines], columns)


def cell_lengths(house: House) -> list[tuple[str, float]]:
    return [(c.place, len(c.lines)) for c in house.exported]


def long_modules(house: House) -> list[tuple[str, float]]:
    return over([(name, text.count('\n')) for name, text in house.texts.items()], 400)


def semicolons(house: House) -> list[tuple[str, float]]:
    return [
        (f'{c.place}:{n}', 1)
        for c in house.exported
        for n in separating_semicolons('\n'.join(c.lines) + '\n')
    ]


def lambdas(house: House) -> list[tuple[str, float]]:
    return [
        (f'{c.place}:{n.lineno}', 1)
        for c, tree in house.cell_trees
        for n in ast.walk(tree)
        if isinstance(n, ast.Lambda)
    ]


# Its functions are public for a reader who writes a loss of his own from them.
TO_SWAP = 'losses'
# Scripts written for the first version call these with four arguments by position.
LONG_KNOWN = {'metrics.exact.anomaly_metrics', 'metrics.streaming.aupimo'}


def by_position_only(house: House) -> list[tuple[str, float]]:
    counts = [(name, by_position(f, m)) for name, f, m in house.signatures_of(open_names)]
    return over([(name, n) for name, n in counts if name not in LONG_KNOWN], 3)


def odd_docstrings(house: House) -> list[tuple[str, float]]:
    return [(p, 1) for p, word in house.docstrings if re.sub(r'\W', '', word).lower() in OPENINGS]


def spread(values: Callable[[House], list[tuple[str, float]]], share: float):
    "The figure of a rule: a quantile of measured values."
    return lambda house: quantile([n for _, n in values(house)], share)


def number(offenders: Callable[[House], list[tuple[str, float]]]):
    "The figure of a rule: how many offend."
    return lambda house: len(offenders(house))


def counted(title: str, bar: float, offenders: Callable) -> Rule:
    return Rule(title, bar, number(offenders), offenders)


def distribution(title: str, bar: float, values: Callable, share: float) -> Rule:
    return Rule(title, bar, spread(values, share), lambda house: over(values(house), bar))


def frequency(title: str, bar: float, offenders: Callable) -> Rule:
    return Rule(title, bar, lambda h: h.per_thousand(len(offenders(h))), offenders)


def share_of(title: str, bar: float, pairs: Callable) -> Rule:
    return Rule(title, bar, lambda h: percent(pairs(h)), lambda h: missing(pairs(h)), at_least=True)


RULES = {
    'columns_100': counted('exported lines over 100 columns', 0, lambda h: too_long(h, 100)),
    'columns_120': counted('exported lines over 120 columns', 0, lambda h: too_long(h, 120)),
    'cell_median': distribution('lines of an export cell, median', 15, cell_lengths, 0.5),
    'cell_p90': distribution('lines of an export cell, p90', 30, cell_lengths, 0.9),
    'cell_max': distribution('lines of an export cell, max', 40, cell_lengths, 1),
    'nodes_p90': distribution('syntax nodes per line, p90', 14, lambda h: h.density, 0.9),
    'nodes_p99': distribution('syntax nodes per line, p99', 22, lambda h: h.density, 0.99),
    'semicolons': frequency('semicolons per 1,000 lines', 1, semicolons),
    'lambdas': frequency('lambdas per 1,000 lines', 5, lambdas),
    'prose_median': distribution('words per prose cell, median', 28, lambda h: h.prose, 0.5),
    'prose_max': distribution('words per prose cell, max', 60, lambda h: h.prose, 1),
    'names': counted('public names', 260, lambda h: h.names),
    'alone': counted('names of one module alone without _', 0, lambda h: h.alone),
    'arguments': share_of('public arguments annotated, %', 95, lambda h: h.arguments),
    'returns': share_of('public returns annotated, %', 95, lambda h: h.returns),
    'positional': counted('functions with over 3 arguments by position', 0, by_position_only),
    'modules': counted('modules over 400 lines', 0, long_modules),
    'functions': counted('functions over 40 lines', 0, lambda h: over(h.functions, 40)),
    'docstrings': counted('docstrings that open with what, which, ...', 0, odd_docstrings),
}


def measure(root: Path = ROOT) -> dict[str, float]:
    "Today's figure of every rule."
    house = House(root)
    return {name: rule.figure(house) for name, rule in RULES.items()}


def table(figures: dict[str, float]) -> str:
    rows = [f'{"rule":<14}{"figure":<52}{"today":>8}{"bar":>9}']
    for name, rule in RULES.items():
        bar = f'{">=" if rule.at_least else "<="} {rule.bar:g}'
        done = '' if rule.meets(figures[name], rule.bar) else '  *'
        rows.append(f'{name:<14}{rule.title:<52}{figures[name]:>8g}{bar:>9}{done}')
    return '\n'.join(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--list', metavar='RULE', choices=RULES, help=', '.join(RULES))
    parser.add_argument('--store', action='store_true', help=f"write today's figures to {STORED}")
    asked = parser.parse_args()
    if asked.list:
        for place, value in RULES[asked.list].offenders(House()):
            print(f'{value:6g}  {place}')
        return 0
    figures = measure()
    print(table(figures))
    if asked.store:
        (ROOT / STORED).write_text(json.dumps(figures, indent=1) + '\n', encoding='utf-8')
    return 0


if __name__ == '__main__':
    sys.exit(main())

"Every flag of every command refuses what it cannot mean while the arguments are read."

import argparse
import contextlib
import io
import subprocess
import sys
from pathlib import Path

import pytest

from hybridad.cli import COMMANDS, command, hybridad
from hybridad.commands.flags import Number, backbone_name
from hybridad.commands.shared import Parser
from hybridad.config import settings


def parsers():
    "The words that begin a command line, and the parser of the rest."
    for name in COMMANDS:
        parser = Parser(prog=name)
        command(name).arguments(parser)
        subs = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
        yield from (((name, n), p) for s in subs for n, p in s.choices.items())
        if not subs:
            yield (name,), parser


HERE = Path(__file__).parent
FLAGS = [(words, a) for words, p in parsers() for a in p._actions if a.option_strings]


def beyond(limits):
    "Numbers just outside an interval."
    low, high = limits[1:-1].split(', ')
    yield from ([] if 'inf' in low else [str(int(float(low)) - 1)])
    yield from ([low] if limits[0] == '(' and 'inf' not in low else [])
    yield from ([] if high == 'inf' else [str(int(float(high)) + 1)])
    yield from ([high] if limits[-1] == ')' and high != 'inf' else [])


def wrong(words, action):
    "Texts that a flag must refuse, by its own declaration and by the setting it stands for."
    stands = action.dest in settings() and words[0] != 'data'  # its workers are no loaders
    rule = settings()[action.dest].metadata if stands else {}
    if action.choices or rule.get('choices'):
        yield 'nope'
    if action.type is backbone_name:
        yield 'nope'
    if isinstance(action.type, Number):
        yield from ('many', 'nan', 'inf', *beyond(action.type.limits))
    if rule.get('limits') and action.nargs != 0:
        yield from beyond(rule['limits'])


def refuse_all():
    "Give every flag what it must refuse; none may import torch to see it."
    for words, action in FLAGS:
        for flag, text in ((f, t) for f in action.option_strings for t in wrong(words, action)):
            several = action.nargs if isinstance(action.nargs, int) else 1
            with contextlib.redirect_stderr(io.StringIO()) as said:
                code = hybridad([*words, flag, *[text] * several])
            line = f'{" ".join(words)} {flag} {text}'
            assert code == 2 and f'argument {flag}: ' in said.getvalue(), (line, said.getvalue())
            print(line)
    assert 'torch' not in sys.modules


def test_wrong_flags_are_refused_before_torch_is_imported(tmp_path):
    code = f'import sys; sys.path.append({str(HERE)!r}); import test_flags as t; t.refuse_all()'
    told = dict(capture_output=True, text=True)
    found = subprocess.run([sys.executable, '-c', code], cwd=tmp_path, **told)
    assert found.returncode == 0, found.stderr
    lines = found.stdout.splitlines()
    asked = {'score --num_workers -1', 'train --device nope', 'test --image_size 7'}
    assert asked < set(lines) and len(lines) > 300
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize('words', sorted({words for words, _ in FLAGS}), ids=' '.join)
def test_every_number_has_a_range(words):
    bare = [a.option_strings[0] for w, a in FLAGS if w == words and a.type in (int, float)]
    assert not bare, f'say Number(...) as the type of {bare}, with the range that can work'

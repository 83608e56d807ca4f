"Names, checkpoints, servers and neighbours that mean harm, or are in the way: nothing is obeyed, nothing is lost."

import configparser
import csv
import hashlib
import io
import json
import multiprocessing as mp
import os
import re
import shutil
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from PIL import Image
from safetensors.torch import save

from hybridad import cli
from hybridad._dummies import dummy_tree
from hybridad.data.downloads import download
from hybridad.data.layouts import read_dataset
from hybridad.errors import csv_cell, from_csv_cell, printable
from hybridad.evaluation.evaluate import table
from hybridad.evaluation.reports import compare, write_csv
from hybridad.inference.scoring import SHIPPED
from hybridad.metrics.checks import METRICS
from hybridad.models.appearance import appearance, known_appearance
from hybridad.models.checkpoint import read_checkpoint
from hybridad.synthetic.plain import picture

ROOT = Path(__file__).resolve().parents[1]
FORK = mp.get_context('fork')
HOSTILE = '\x1b]0;TITLE\x07\x1b[31mred', 'a|b', 'two\nlines', '=cmd', '<img src=x>', 'gnp.\u202eexe'


# ---------------------------------------------------------------- names


@given(st.text())
def test_printable_text_is_one_line_that_steers_nothing(text):
    shown = printable(text)
    assert not re.search('[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]', shown)
    shown.encode()  # surrogates, too
    assert printable(shown) == shown


@given(st.text())
def test_csv_cells_come_back_and_are_no_formulas(text):
    cell = csv_cell(text)
    assert cell.strip()[:1] not in ('=', '+', '-', '@')
    assert from_csv_cell(cell) == printable(text)


def results_of(*names):
    row = {k: 0.5 for k in METRICS}
    return dict(
        mean=row, categories={n: row | dict(images=1) for n in names}, eval_size=64, floors={}
    )


def cells_of(text):
    "The cells of the first Markdown table, as a reader sees them."
    parser, rows = MarkdownIt().enable('table'), []
    for token in parser.parse(text):
        if token.type == 'tr_open':
            rows.append([])
        if token.type == 'inline' and rows:
            rows[-1].append(''.join(c.content for c in token.children))
            assert all(c.type in ('text', 'text_special') for c in token.children), token.content
    return rows


def test_markdown_tables_keep_their_shape():
    found = cells_of(table(results_of(*HOSTILE), 'github'))
    assert [r[0] for r in found[1:]] == [*map(printable, HOSTILE), 'mean']
    assert {len(r) for r in found} == {1 + len(METRICS)}
    runs = {name: results_of('disc') for name in HOSTILE}
    found = cells_of(compare(runs, 'github'))
    assert [r[0] for r in found[1:]] == [*map(printable, HOSTILE)]
    assert {len(r) for r in found} == {1 + len(METRICS)}


def test_terminal_and_html_tables_show_names_only():
    for style in ('simple', 'html'):
        text = table(results_of(*HOSTILE), style)
        assert '\x1b' not in text and '\u202e' not in text and 'two\\nlines' in text
    assert '<img' not in text and '&lt;img' in text


def test_csv_of_an_evaluation_holds_no_formula(tmp_path):
    rows = [dict(path=n, category=n, score=-1.5, regions=[1]) for n in HOSTILE]
    path = write_csv(tmp_path / 'images.csv', rows)
    found = list(csv.DictReader(io.StringIO(path.read_text())))
    assert [from_csv_cell(r['category']) for r in found] == [*map(printable, HOSTILE)]
    assert all(r['score'] == '-1.5' for r in found)
    assert "'=cmd" in path.read_text() and '\x1b' not in path.read_text()


def hostile_set(root):
    "Categories, defects and files with names that steer terminals and break tables."
    dummy_tree(root, categories=('disc',), n=1)
    (root / 'disc' / 'test' / 'hole').rename(root / 'disc' / 'test' / 'ho\x1b[2Jle')
    (root / 'disc' / 'ground_truth' / 'hole').rename(root / 'disc' / 'ground_truth' / 'ho\x1b[2Jle')
    (root / 'disc' / 'test' / 'good' / '\x1b]0;TITLE\x07.png').write_text('x')
    (root / 'disc').rename(root / 'di\x1b[31msc')
    return root


@pytest.mark.parametrize(
    'command, args',
    [
        (cli.hybridad_data, ('check', 'SET')),
        (cli.hybridad_train, ('--data_path', 'SET', '--device', 'cpu', '--out', 'OUT')),
        (cli.hybridad_test, ('--data_path', 'SET', '--device', 'cpu', '--out', 'OUT')),
        (cli.hybridad_score, ('SET', '--checkpoint_path', 'SET/\x1b[31m', '--out', 'OUT')),
        (cli.hybridad_train, ('--data_path', 'SET/\x1b[31m\n', '--out', 'OUT')),
    ],
)
def test_no_command_passes_escapes_on(command, args, tmp_path, capfd):
    places = dict(SET=hostile_set(tmp_path / 'set'), OUT=tmp_path / 'out')
    for word, path in places.items():
        args = [a.replace(word, str(path)) for a in args]
    assert command(args) == 2
    said = ''.join(capfd.readouterr())
    assert said and not re.search('\x1b(?!\\[A)|\x07', said)
    assert not (tmp_path / 'out' / 'config.json').exists()


# ---------------------------------------------------------------- downloads


class Slow(BaseHTTPRequestHandler):
    "Sends a file by ranges, or not, and slowly."

    body, ranges, pause, asked = b'', True, 0.0, []

    def do_GET(self):
        begin, wanted = 0, self.headers.get('Range')
        self.asked.append(wanted)
        if self.ranges and wanted:
            begin = int(wanted.removeprefix('bytes=').rstrip('-'))
        self.send_response(206 if begin else 200)
        if self.ranges:
            self.send_header('Accept-Ranges', 'bytes')
            self.send_header(
                'Content-Range', f'bytes {begin}-{len(self.body) - 1}/{len(self.body)}'
            )
        self.send_header('Content-Length', str(len(self.body) - begin))
        self.end_headers()
        try:
            for i in range(begin, len(self.body), 1 << 18):
                self.wfile.write(self.body[i : i + (1 << 18)])
                time.sleep(self.pause)
        except OSError:
            pass  # the client was killed: that is the test

    def log_message(self, *_):
        pass


@pytest.fixture
def slow(tmp_path):
    "A server of an archive of 8 MB, and its hash."
    dummy_tree(tmp_path / 'pack' / 'top', n=1)
    filler = np.random.default_rng(0).bytes(8_000_000)
    (tmp_path / 'pack' / 'top' / 'notes.bin').write_bytes(filler)
    archive = Path(shutil.make_archive(tmp_path / 'archive', 'tar', tmp_path / 'pack'))
    Slow.body, Slow.pause, Slow.asked = archive.read_bytes(), 0.05, []
    http = ThreadingHTTPServer(('127.0.0.1', 0), Slow)
    threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
    yield f'http://127.0.0.1:{http.server_port}/set.tar', hashlib.sha256(Slow.body).hexdigest()
    http.shutdown()
    http.server_close()
    Slow.ranges = True


def killed_download(folder, url, sha256):
    "Kill a process that downloads once a megabyte has come."
    child = FORK.Process(
        target=download, args=('plates', folder, url), kwargs=dict(sha256=sha256, progress=False)
    )
    child.start()
    part = folder / 'plates.partial' / 'plates.partial'
    until = time.time() + 60
    while not (part.exists() and part.stat().st_size > 1 << 20):
        assert child.is_alive() and time.time() < until
        time.sleep(0.005)
    child.kill()
    child.join()
    return part.stat().st_size


@pytest.mark.parametrize('ranges', [True, False])
def test_a_killed_download_is_continued_or_cleared_up(slow, tmp_path, ranges):
    Slow.ranges, folder = ranges, tmp_path / 'sets'
    url, sha256 = slow
    had = killed_download(folder, url, sha256)
    Slow.pause, Slow.asked = 0.0, []
    found = download('plates', folder, url, sha256=sha256, progress=False)
    assert len(read_dataset(found)) == 8
    assert Slow.asked == ([f'bytes={had}-'] if ranges else [None])
    assert [p.name for p in folder.iterdir()] == ['plates']


def test_ctrl_c_names_what_is_kept(slow, tmp_path, monkeypatch, capsys):
    def interrupted(answer, f, bar):
        f.write(answer.read(2_000_000))
        raise KeyboardInterrupt

    monkeypatch.setattr('hybridad.data.downloads._copy', interrupted)
    url, sha256 = slow
    args = ['download', 'plates', str(tmp_path / 'sets'), '--url', url, '--sha256', sha256]
    assert cli.hybridad_data(args) == 130
    part = tmp_path / 'sets' / 'plates.partial' / 'plates.partial'
    assert f'the first 2.0 MB are kept in {part}' in capsys.readouterr().err
    monkeypatch.undo()
    assert cli.hybridad_data(args) == 0 and Slow.asked[-1] == 'bytes=2000000-'


def test_a_download_of_another_address_begins_anew(slow, tmp_path):
    url, sha256 = slow
    killed_download(tmp_path, url, sha256)
    Slow.pause, Slow.asked = 0.0, []
    download('plates', tmp_path, url + '?again', sha256=sha256, progress=False)
    assert Slow.asked == [None]


def test_what_an_older_version_left_is_removed(slow, tmp_path):
    old, new = tmp_path / '.plates-abcd1234', tmp_path / '.plates-efgh5678'
    for folder in (old, new):
        folder.mkdir()
        (folder / 'plates.partial').write_bytes(b'x')
    os.utime(old, (1, 1))
    Slow.pause = 0.0
    url, sha256 = slow
    download('plates', tmp_path, url, sha256=sha256, progress=False)
    assert not old.exists() and new.exists()  # the second may belong to a running process


# ---------------------------------------------------------------- photographs of another world


def written(folder, images):
    "Save (N, H, W, 3) uint8 images."
    folder.mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / f'{i:02d}.png')
    return folder


def test_photographs_unlike_those_learned_on_are_told(tmp_path, capsys):
    seen = lambda seed, n, split: np.stack(
        [picture(seed, i, 64, split=split).image for i in range(n)]
    )
    tensor = lambda images: torch.from_numpy(images).movedim(-1, 1) / 127.5 - 1
    known = known_appearance(appearance(tensor(seen(0, 100, 'auxiliary'))))
    tensors, about = read_checkpoint(SHIPPED)
    about['config']['model'] |= dict(views=1, scales=None)  # one look is enough
    told = tmp_path / 'told.safetensors'
    told.write_bytes(save(tensors, {'hybridad': json.dumps(about | dict(appearance=known))}))
    noise = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)
    folders = dict(
        fine=written(tmp_path / 'fine', seen(3, 6, 'held_out')),
        noise=written(tmp_path / 'noise', noise),
    )
    odd = {}
    for name, folder in folders.items():
        out = tmp_path / f'out-{name}'
        args = ['--checkpoint_path', told, '--out', out, '--quiet', '--pictures', 'none']
        assert cli.hybridad_score([*map(str, [folder, *args]), '--device', 'cpu']) == 0
        odd[name] = capsys.readouterr().out
    assert 'warning' not in odd['fine'] and 'warning: 6 of 6 photographs' in odd['noise']
    assert '--normals' in odd['noise'] and 'larger backbone' in odd['noise']
    assert 'to score: 6 photographs in 1 folder (6 .png)' in odd['fine']


# ---------------------------------------------------------------- what is installed


def test_no_version_with_an_advisory_on_loading_files_is_admitted():
    settings = configparser.ConfigParser(delimiters=['='])
    settings.read(ROOT / 'settings.ini')
    bounds = dict(re.findall(r'([\w-]+)>=([\d.]+)', settings['DEFAULT']['requirements']))
    number = lambda text: tuple(map(int, text.split('.')))
    assert number(bounds['torch']) >= (2, 10)  # CVE-2026-24747
    assert number(bounds['transformers']) >= (5, 3)  # CVE-2026-4372
    pinned = dict(re.findall(r'(?m)^([\w-]+)==([\d.]+)', (ROOT / 'constraints.txt').read_text()))
    assert all(number(pinned[n]) >= number(v) for n, v in bounds.items() if n in pinned)

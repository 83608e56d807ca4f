"The documentation site: what is staged for it, and what `make docs` built, in a real browser."

import ast
import functools
import http.server
import json
import re
import runpy
import shutil
import threading
from fnmatch import fnmatch
from html import unescape
from pathlib import Path
from posixpath import dirname, join, normpath
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / 'build/html'
CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser')
LINK = re.compile(r'\]\(([^)\s#]+)(?:#[^)\s]*)?\)')
BROKEN = (
    """() => [...document.images].filter(i => !(i.complete && i.naturalWidth)).map(i => i.src)"""
)


@pytest.fixture(scope='module')
def staged(tmp_path_factory):
    "The folder that Sphinx would read."
    site = tmp_path_factory.mktemp('site')
    runpy.run_path(str(ROOT / 'tools/docs/build.py'))['stage'](site)
    return site


def prose(page):
    "The Markdown of a staged page."
    if page.suffix == '.md':
        return page.read_text(encoding='utf-8')
    cells = json.loads(page.read_text(encoding='utf-8'))['cells']
    return '\n'.join(''.join(c['source']) for c in cells if c['cell_type'] == 'markdown')


def test_every_notebook_is_a_page_and_every_link_leads_somewhere(staged):
    found = [p for p in (ROOT / 'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts]
    names = {p.relative_to(ROOT) for p in found} - {Path('nbs/index.ipynb')}
    assert {p.relative_to(staged) for p in staged.rglob('*.ipynb')} == names
    for page in [*staged.rglob('*.md'), *staged.rglob('*.ipynb')]:
        text = re.sub(r'^```.*?^```', '', prose(page), flags=re.M | re.S)
        local = [unquote(a) for a in LINK.findall(text) if not re.match(r'\w+:', a)]
        lost = [a for a in local if not (page.parent / a).exists()]
        assert not lost, (page.relative_to(staged), lost)


def test_the_side_bar_leads_to_every_guide(staged):
    first = (staged / 'index.md').read_text(encoding='utf-8')
    guides = {p.stem for p in (ROOT / 'nbs/guides').glob('*.ipynb')}
    assert set(re.findall(r'^nbs/guides/(\w+)$', first, re.M)) == guides


def shown(name):
    "(file of a photograph, what stands below it) of a notebook."
    cells = json.loads(name.read_text(encoding='utf-8'))['cells']
    for cell, below in zip(cells, cells[1:]):
        for file in re.findall(r'(?:real|worst)_\w+\.png', ''.join(cell['source'])):
            if cell['cell_type'] == 'markdown' or 'Image(' in ''.join(cell['source']):
                yield file, ''.join(below['source'])


def test_photographs_stand_beside_their_source_and_licence():
    found = [x for p in (ROOT / 'nbs').rglob('*.ipynb') for x in shown(p)]
    assert found
    for file, below in found:
        assert 'github.com/' in below and 'academic use' in below and 'DATA.md' in below, file
    stored = [p.name for p in (ROOT / 'results').rglob('*.png') if re.match('real|worst', p.name)]
    lines = (ROOT / 'results/README.md').read_text(encoding='utf-8').splitlines()
    for file in stored:
        [line] = [l for l in lines if l.startswith('| `') and f'`{file}`' in l and 'https://' in l]
        assert 'academic use' in line or 'Apache-2.0' in line, file


def test_every_result_is_in_the_index_and_every_experiment_says_what_it_takes():
    index = (ROOT / 'results/README.md').read_text(encoding='utf-8')
    names = re.findall(r'`([\w./*]+)`', index)  # `_kinds` is miniature_kinds.json
    patterns = [f'*{n}.*' if n[0] == '_' else n for n in names]
    for path in (ROOT / 'results').rglob('*.*'):
        file = path.relative_to(ROOT / 'results').as_posix()
        assert file == 'README.md' or any(fnmatch(file, n) for n in patterns), file
    for script in sorted((ROOT / 'experiments').glob('*.py')):
        told = ast.get_docstring(ast.parse(script.read_text(encoding='utf-8')))
        for word in ('Command', 'Duration', 'Data') if script.stem != 'common' else ():
            assert f'{word}:' in told, (script.name, word)


def test_hidden_cells_and_directives_are_no_part_of_a_page(staged):
    text = (staged / 'nbs/71_explore.ipynb').read_text(encoding='utf-8')
    assert '#| ' not in text and 'expect_fail(' in text and 'nbdev_export()' not in text
    assert 'automodule:: hybridad.visual.explore' in (
        staged / 'api/hybridad.visual.explore.md'
    ).read_text(encoding='utf-8')


def test_staging_twice_writes_nothing_again(staged):
    before = {p: p.stat().st_mtime_ns for p in staged.rglob('*') if p.is_file()}
    (staged / 'old.md').write_text('no page any more')
    assert runpy.run_path(str(ROOT / 'tools/docs/build.py'))['stage'](staged)  # one is gone
    assert {p: p.stat().st_mtime_ns for p in staged.rglob('*') if p.is_file()} == before


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def built():
    "The folder of the built site."
    if not (SITE / 'searchindex.js').is_file():
        pytest.skip('the site is not built: make docs')
    return SITE


def attributes(text, names):
    "The values of an attribute in the tags of a page; a parser takes six times as long."
    return {unescape(v) for v in re.findall(rf'<\w[^<>]*?\s(?:{names})="([^"]*)"', text)}


def dead_links(built):
    "(page, link) that leads to no file or place of the site, nor to the web: no `mailto:` is meant."
    files = {p.relative_to(built).as_posix() for p in built.rglob('*') if p.is_file()}
    texts = {f: (built / f).read_text(encoding='utf-8') for f in files if f.endswith('.html')}
    places = {f: attributes(text, 'id') for f, text in texts.items()}
    for page, text in texts.items():
        for link in attributes(text, 'href|src'):
            if re.match('https?:|data:', link):
                continue
            path, place = map(unquote, re.match(r'([^?#]*)[^#]*#?(.*)', link).groups())
            to = normpath(join(dirname(page), path)) if path else page
            if to not in files or place and place not in places.get(to, [place]):
                yield page, link


def test_every_link_of_the_built_site_leads_somewhere(built):
    dead = list(dead_links(built))
    assert not dead, (len(dead), dead[:20])


def test_a_dead_link_of_a_built_page_is_found(tmp_path):
    page = '<h1 id="a b">T</h1> <a href="two.html#x">1</a> <a href="#a%20b">2</a> <a href="#">3</a>'
    (tmp_path / 'one.html').write_text(page + '<img src="no.png"> <a href="mailto:a@b">4</a>')
    assert {l for _, l in dead_links(tmp_path)} == {'two.html#x', 'no.png', 'mailto:a@b'}
    (tmp_path / 'two.html').write_text('<p id="y"> <a href="one.html?q=1">5</a>')
    assert [p for p, _ in dead_links(tmp_path)] == ['one.html'] * 3


@pytest.fixture
def address(built):
    "The built site on a port of its own."
    handler = functools.partial(Quiet, directory=built)
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{server.server_port}'
        server.shutdown()


@pytest.fixture
def page(address):
    "The first page in a browser; nothing on the way may fail."
    api = pytest.importorskip('playwright.sync_api', reason='pip install playwright')
    if not CHROMIUM:
        pytest.skip('no chromium on this machine')
    with api.sync_playwright() as play:
        flags = ['--no-sandbox', '--disable-gpu']
        browser = play.chromium.launch(executable_path=CHROMIUM, args=flags)
        page = browser.new_page(viewport={'width': 1280, 'height': 800})
        page.failed = []
        page.on('response', lambda r: r.status >= 400 and page.failed.append(r.url))
        page.on('pageerror', lambda e: page.failed.append(str(e)))
        page.goto(f'{address}/index.html')
        yield page
        browser.close()


def check_page(page, name):
    "No broken image, no failed request; a screenshot to look at."
    page.wait_for_load_state('networkidle')
    assert page.evaluate(BROKEN) == [] and page.failed == [], (name, page.failed)
    shots = ROOT / 'build/screenshots'
    shots.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=shots / f'docs_{name}.png')


def test_the_site_opens_searches_and_leads_on(page, address):
    check_page(page, 'first')
    side = page.locator('.sidebar-tree')
    for name, link, told in (
        ('guide', 'Visualize', 'Where should the threshold lie?'),
        ('reference', 'API reference', 'hybridad.visual.explore'),
        ('notebook', 'Explore', 'Results browser'),
    ):
        side.locator('a', has_text=re.compile(f'^{link}$')).first.click()
        page.wait_for_selector(f'text={told}')
        check_page(page, name)
    page.locator('input[name=q]').fill('AUPRO')
    page.locator('input[name=q]').press('Enter')
    page.wait_for_selector('#search-results li a')
    assert page.locator('#search-results li a').count() >= 3
    check_page(page, 'search')


def test_the_reference_tells_parameters_and_their_meaning(page, address):
    page.goto(f'{address}/api/hybridad.visual.explore.html')
    text = page.locator('article').inner_text()
    assert 'DecisionExplorer' in text and '(N, h, w) log-ratio maps' in text
    page.locator('a', has_text='71_explore').first.click()
    page.wait_for_selector('h1:has-text("Explore")')

"The visualize guide in JupyterLab with a live kernel: sizes, sliders, clicks, an upload, errors."

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hybridad.data.corrections import Corrections
from hybridad.data.shapes import drawn_pixels

ROOT = Path(__file__).resolve().parents[1]
SHOTS = ROOT / 'build' / 'screenshots'
CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser')
SCREENS = {'small': (1280, 800), 'large': (1920, 1080)}
SIDES = 'height', 'width'
FLAGS = [
    '--no-sandbox',
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
]
EXPLORERS = dict(
    attention='attention = AttentionExplorer',
    decision='decision = DecisionExplorer',
    browser='browser = ResultsBrowser',
    compare='compare = CompareExplorer',
)
# for each image of a cell: what it is, its own size, the size it is shown at, and how much of
# that its surroundings cut off
SIZES = """cell => [...cell.querySelectorAll('img.widget-image, .hybridad-picture img')]
  .filter(e => e.getBoundingClientRect().width > 0)
  .map(e => {
    const shown = e.getBoundingClientRect();
    let cut = 0;
    for (let p = e.parentElement; p && !p.classList.contains('jp-Notebook'); p = p.parentElement) {
      if (getComputedStyle(p).overflowX === 'visible') continue;
      const box = p.getBoundingClientRect();
      cut = Math.max(cut, shown.right - box.right, box.left - shown.left);
    }
    const kind = e.matches('.widget-image') ? 'figure' : 'picture';
    const own = [e.naturalWidth, e.naturalHeight];
    return {kind: kind, own: own, shown: [shown.width, shown.height], cut: cut};
  })"""
# whether the notebook has taken the width of the window, in two looks a frame apart
FITS = """() => new Promise(done => {
  const book = document.querySelector('.jp-Notebook');
  const gap = () => innerWidth - book.getBoundingClientRect().right;
  const first = gap();
  requestAnimationFrame(() => requestAnimationFrame(
    () => done(Math.abs(first) < 100 && gap() === first)));
})"""
# the badge of a guide, which lies above the folder that is served: all that may be missing
NOT_STORED = r'status of 404 .*/results/colab\.svg'  # asked for at /files or beside it
SCROLLERS = """() => [...document.querySelectorAll('.jp-CodeCell .jp-InputArea .cm-scroller')]
  .map(e => e.scrollWidth - e.clientWidth)"""

pytestmark = pytest.mark.skipif(
    not CHROMIUM,
    reason='no chromium on this machine: apt-get install chromium to test the widgets in a browser',
)


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def lab_command(port):
    return [
        *(sys.executable, '-m', 'jupyterlab', '--no-browser', f'--port={port}', '--allow-root'),
        '--IdentityProvider.token=',
        '--ServerApp.password=',
        '--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate',
    ]


def wait_for(address, log):
    "Until JupyterLab answers."
    end = time.monotonic() + 90
    while time.monotonic() < end:
        try:
            urllib.request.urlopen(f'{address}/api', timeout=5)
            return
        except OSError:
            time.sleep(0.1)
    pytest.fail(f'JupyterLab did not answer in 90 s: {log.read_text()[-2000:]}')


@contextmanager
def running_lab(folder):
    "JupyterLab over a folder; its address."
    quiet = folder / 'settings' / '@jupyterlab' / 'apputils-extension'
    quiet.mkdir(parents=True)
    (quiet / 'notification.jupyterlab-settings').write_text(
        '{"fetchNews": "false", "checkForUpdates": false}'
    )  # no bubble over the images
    port = free_port()
    address = f'http://127.0.0.1:{port}'
    environment = os.environ | dict(
        HF_HUB_OFFLINE='1',
        JUPYTER_CONFIG_DIR=str(folder / 'config'),
        JUPYTERLAB_WORKSPACES_DIR=str(folder / 'workspaces'),
        JUPYTERLAB_SETTINGS_DIR=str(folder / 'settings'),
    )
    with open(folder / 'lab.log', 'w') as log:
        options = dict(cwd=folder, env=environment, stdout=log, stderr=log)
        process = subprocess.Popen(lab_command(port), **options)
        try:
            wait_for(address, folder / 'lab.log')
            yield address
        finally:
            process.terminate()
            process.wait(30)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "The folder that JupyterLab shows."
    return tmp_path_factory.mktemp('lab')


@pytest.fixture(scope='module')
def lab(folder):
    "The address of a JupyterLab that all tests share."
    with running_lab(folder) as address:
        yield address


@pytest.fixture(scope='module')
def chromium():
    "A browser that all tests share."
    sync_api = pytest.importorskip(
        'playwright.sync_api', reason='playwright is not installed: pip install playwright'
    )
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


def told(message):
    "What the console says, and of which address."
    return f'{message.text} {message.location.get("url", "")}'


@pytest.fixture
def small_page(chromium):
    "An empty page of a small screen."
    width, height = SCREENS['small']
    page = chromium.new_page(viewport={'width': width, 'height': height})
    page.set_default_timeout(60_000)
    page.wrong = []
    page.on('console', lambda m: m.type == 'error' and page.wrong.append(told(m)))
    page.on('pageerror', lambda error: page.wrong.append(str(error)))
    yield page
    page.close()


@pytest.fixture
def page(small_page, folder, lab):
    "A copy of the guide, open in JupyterLab."
    guide = (ROOT / 'nbs/guides/visualize.ipynb').read_text(encoding='utf-8')
    assert 'count = 4' in guide
    fewer = guide.replace('count = 4', 'count = 2')  # images of a category
    (folder / 'visualize.ipynb').write_text(fewer, encoding='utf-8')
    small_page.goto(f'{lab}/lab/tree/visualize.ipynb?reset')
    small_page.wait_for_selector('.jp-Notebook', timeout=120_000)
    yield small_page


def resized(page, size):
    "Wait until JupyterLab fills a window of another size."
    page.set_viewport_size(size)
    page.wait_for_function(FITS)


def picture_of(cell):
    return cell.locator('img.widget-image').last.get_attribute('src')


def other_than(page, cell, before, seconds):
    "The address of the figure of an explorer as soon as it is another, at the latest in so long."
    end = time.monotonic() + seconds
    while (now := picture_of(cell)) == before and time.monotonic() < end:
        page.wait_for_timeout(50)
    return now


def changed(page, cell, before, seconds=60):
    "Wait until the explorer in a cell shows another figure; its address."
    now = other_than(page, cell, before, seconds)
    assert now != before, f'the figure did not change in {seconds} s'
    return now


def cell_with(page, name):
    "The code cell of an explorer, scrolled into view."
    code = page.locator('.jp-InputArea-editor', has_text=EXPLORERS[name])
    cell = page.locator('.jp-CodeCell').filter(has=code).first
    cell.scroll_into_view_if_needed()
    return cell


def shoot(cell, name):
    "A picture of the whole output of a cell at the present width, on a screen that holds it."
    SHOTS.mkdir(parents=True, exist_ok=True)
    page, screen = cell.page, cell.page.viewport_size
    resized(page, screen | dict(height=2600))
    cell.locator('.jp-OutputArea-output').last.screenshot(path=SHOTS / f'{name}.png')
    resized(page, screen)
    cell.scroll_into_view_if_needed()


def keeps_shape(found):
    "Whether an image keeps its shape, and a figure is not enlarged beyond its pixels."
    (width, height), (wide, high) = found['own'], found['shown']
    kept = abs(wide * height / width - high) <= 1.5
    return kept and (found['kind'] == 'picture' or wide <= width + 1)


def check_sizes(page, name, count):
    "Every image of an explorer in its own shape and uncut; the figure's width."
    cell = cell_with(page, name)
    found = cell.evaluate(SIZES)
    figures = [f['shown'][0] for f in found if f['kind'] == 'figure']
    assert len(figures) == 1 and len(found) >= count, (name, found)
    for f in found:
        assert keeps_shape(f) and f['cut'] <= 1, (name, page.viewport_size, f)
    return figures[0]


def check_all_sizes(page, tag, names=tuple(EXPLORERS)):
    "Explorers at both widths: a wide screen shows larger figures."
    wide = {}
    for screen, (width, height) in SCREENS.items():
        resized(page, {'width': width, 'height': height})
        for name in names:
            wide[name, screen] = check_sizes(
                page, name, 2 if name in ('attention', 'browser') else 1
            )
            shoot(cell_with(page, name), f'{name}_{tag}_{screen}')
    for name in names:
        assert wide[name, 'large'] > 1.2 * wide[name, 'small'], (name, wide)
    width, height = SCREENS['small']
    resized(page, {'width': width, 'height': height})


def click_edges(page, cell):
    "Click near the four edges of the small image: each redraws the figure."
    before = picture_of(cell)
    picture = cell.locator('.hybridad-picture img').last
    picture.scroll_into_view_if_needed()
    box = picture.bounding_box()
    width, height = box['width'], box['height']
    edges = (4, height / 2), (width - 4, height / 2), (width / 2, 4), (width / 2, height - 4)
    for x, y in edges:
        picture.click(position={'x': x, 'y': y})
        before = changed(page, cell, before)


def run_all(page):
    page.wait_for_selector('text=| Idle', timeout=120_000)
    page.click('.lm-MenuBar-item >> text=Run')
    page.click('.lm-Menu-item >> text=Run All Cells')
    page.wait_for_timeout(2000)
    compare = cell_with(page, 'compare')
    compare.locator('img.widget-image').last.wait_for(timeout=400_000)  # the last: all cells ran
    assert no_error(page)


def no_error(page):
    "Whether no cell failed and the browser's console tells of no error."
    wrong = [x for x in page.wrong if not re.search(NOT_STORED, x)]
    assert not wrong, wrong
    return page.locator('[data-mime-type="application/vnd.jupyter.error"]').count() == 0


def control(cell, label):
    "The input of a control with a name."
    beside = 'following-sibling::*[self::select or self::input]'
    return cell.locator(f'xpath=.//label[normalize-space()="{label}"]/{beside}').first


def try_attention(page, photo):
    "Edges, learned prompts, words, nouns, an upload."
    cell = cell_with(page, 'attention')
    click_edges(page, cell)
    shoot(cell, 'attention_click')
    before = picture_of(cell)
    control(cell, 'prompts').select_option('learned')
    before = changed(page, cell, before)
    cell.locator('table').first.wait_for()
    check_all_sizes(page, 'learned', ['attention'])  # the others show what they did
    control(cell, 'prompts').select_option('typed')
    before = changed(page, cell, before)
    words = control(cell, 'damaged prompt')
    for box, text in ((words, 'a photo of a scratch'), (control(cell, 'nouns'), 'hole, leather')):
        box.fill(text)
        box.press('Enter')
        before = changed(page, cell, before)
    with page.expect_file_chooser() as chooser:
        cell.locator('button.widget-upload, .widget-upload button').first.click()
    chooser.value.set_files(photo)
    changed(page, cell, before)
    shoot(cell, 'attention_upload')
    assert photo.name in control(cell, 'image').inner_text()
    check_sizes(page, 'attention', 2)


def try_too_long(page):
    "A prompt longer than the encoder takes: a sentence, and the figure stays."
    cell = cell_with(page, 'attention')
    before, words = picture_of(cell), control(cell, 'damaged prompt')
    words.fill('defect ' * 60)
    words.press('Enter')
    complaint = cell.locator('.widget-html b')
    complaint.wait_for()
    assert 'tokens' in complaint.inner_text() and picture_of(cell) == before
    words.fill('a photo of a hole')
    words.press('Enter')
    complaint.wait_for(state='detached')


INDEX = 'nbs/index.ipynb', 'results/method.png', 'results/demo/examples.png'
NATURAL = """() => [...document.querySelectorAll('.jp-Notebook img')].map(i => i.naturalWidth)"""
BOTH_LOADED = f'() => ({NATURAL})().length >= 2 && Math.min(...({NATURAL})()) > 0'


def test_the_index_shows_its_pictures_and_the_guides_come_first(small_page, folder, lab):
    for name in (*INDEX, 'nbs/guides/visualize.ipynb', 'nbs/00_errors.ipynb'):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    made = next(x for x in (ROOT / 'Makefile').read_text().splitlines() if 'jupyter lab' in x)
    opens = re.search(r'--LabApp.default_url=(\S+)', made)[1]
    assert "--ServerApp.root_dir='$(CURDIR)'" in made
    small_page.goto(f'{lab}{opens}?reset')
    small_page.wait_for_selector('.jp-Notebook img', timeout=120_000)
    small_page.wait_for_function(BOTH_LOADED)
    assert len(widths := small_page.evaluate(NATURAL)) == 2 and min(widths) > 300, widths
    listed = small_page.locator('.jp-DirListing-item .jp-DirListing-itemText')
    listed.filter(has_text='guides').wait_for()
    assert listed.first.inner_text() == 'guides'
    assert 'Start here' in small_page.locator('.jp-Notebook').inner_text()
    SHOTS.mkdir(parents=True, exist_ok=True)
    small_page.screenshot(path=SHOTS / 'lab.png')


def test_the_guide_answers_in_jupyterlab(page, tmp_path):
    run_all(page)
    assert max(page.evaluate(SCROLLERS)) <= 1, 'a code cell needs a scroll bar at 1280 px'
    check_all_sizes(page, 'first')
    photo = tmp_path / 'my_photo.png'
    Image.effect_mandelbrot((300, 200), (-2, -1, 1, 1), 60).convert('P').save(photo)
    try_attention(page, photo)

    decision = cell_with(page, 'decision')
    before = picture_of(decision)
    decision.locator('.noUi-handle').first.focus()
    for _ in range(8):
        page.keyboard.press('ArrowRight')
    changed(page, decision, before)
    shoot(decision, 'decision')

    browser = cell_with(page, 'browser')
    before = picture_of(browser)
    sheet = browser.locator('.hybridad-picture img').last
    sheet.click(position={'x': 200, 'y': 60})
    if other_than(page, browser, before, 3) == before:  # the guide had opened this one
        sheet.click(position={'x': 470, 'y': 60})
    changed(page, browser, before)
    shoot(browser, 'browser')

    compare = cell_with(page, 'compare')
    before = picture_of(compare)
    control(compare, 'image').select_option(index=3)
    changed(page, compare, before)
    shoot(compare, 'compare')

    try_too_long(page)
    for name in EXPLORERS:
        said = cell_with(page, name).locator('.widget-html b')
        assert said.count() == 0, said.inner_text()
    assert no_error(page)


REVIEW = """from hybridad.visual.review import ReviewExplorer

review = ReviewExplorer('run')
review"""


def notebook_of(path, code):
    "A notebook of one cell."
    cell = dict(cell_type='code', id='one', metadata={}, source=code, outputs=[])
    kernel = dict(name='python3', display_name='Python 3', language='python')
    about = dict(metadata=dict(kernelspec=kernel), nbformat=4, nbformat_minor=5)
    path.write_text(json.dumps(about | dict(cells=[cell | dict(execution_count=None)])))


def reviewing(page, place, address, pictures):
    "A page that reviews a run on pictures, all of which have passed."
    from hybridad.inference.scoring import load_scorer
    from hybridad.inference.scoring_runs import score_folder

    (place / 'photos').mkdir(parents=True)
    for i, pixels in enumerate(pictures):
        Image.fromarray(pixels).save(place / 'photos' / f'{i}.png')
    scorer = load_scorer(device='cpu', threshold=99.0)  # everything passes
    score_folder(place / 'photos', place / 'run', scorer, progress=False)
    notebook_of(place / 'review.ipynb', REVIEW)
    page.goto(f'{address}/review.ipynb?reset')
    page.wait_for_selector('text=| Idle', timeout=120_000)
    page.click('.lm-MenuBar-item >> text=Run')
    page.click('.lm-Menu-item >> text=Run All Cells')
    return page


@pytest.fixture
def reviewed(small_page, folder, lab):
    "A scored folder of three images, and its review open in JupyterLab."
    from hybridad.synthetic.plain import picture

    three = [picture(5, i).image[:96] for i in range(3)]
    return reviewing(small_page, folder, f'{lab}/lab/tree', three)


def verdicts(run, count, seconds=30):
    "The stored corrections, once there are so many."
    path = run / 'corrections.json'
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        images = json.loads(path.read_text())['images'] if path.exists() else []
        if len(images) == count:
            return images
        time.sleep(0.05)
    pytest.fail(f'{count} verdicts were not stored in {seconds} s: {images}')


def drag(page, box, *places):
    "Press the mouse at the first place of a picture and release it at the last."
    at = [(box['x'] + x * box['width'], box['y'] + y * box['height']) for x, y in places]
    page.mouse.move(*at[0])
    page.mouse.down()
    for place in at[1:]:
        page.mouse.move(*place, steps=8)
    page.mouse.up()


def brush_over(page, box, run):
    "A stroke of the fine brush, around a corner; the file and the mask hold it."
    page.keyboard.press('b')
    page.locator('button.mod-active', has_text='fine brush').wait_for()
    drag(page, box, (0.25, 0.25), (0.5, 0.25), (0.5, 0.75))
    for _ in range(40):
        missed = verdicts(run, 3)[2]
        if missed['strokes']:
            break
        page.wait_for_timeout(250)
    page.wait_for_timeout(500)
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / 'review.png')
    assert len(missed['boxes']) == 1
    [[width, points]] = missed['strokes']
    assert abs(width - 5 * 128 / box['width']) < 0.1  # the image is 128 px wide
    ends = zip(points[:2] + points[-2:], (32, 24, 64, 72))
    assert max(abs(a - b) for a, b in ends) < 1.5, points
    mask = drawn_pixels(Corrections(run / 'corrections.json').samples()[2].mask)
    marked = mask.copy()
    marked[48:87, 32:96] = False  # the box of before
    assert marked[24, 34:62].all() and marked[26:46, 64].all()
    assert marked.sum() < 1.3 * (32 + 24) * (width + 1) and not marked[:20].any()


def check_review_sizes(page):
    "The clickable image and the figure keep their shapes on both screens, and nothing is cut off."
    cell = page.locator('.jp-CodeCell').first
    for screen, (width, height) in SCREENS.items():
        resized(page, {'width': width, 'height': height})
        found = cell.evaluate(SIZES)
        assert sorted(f['kind'] for f in found) == ['figure', 'picture'], found
        assert all(keeps_shape(f) and f['cut'] <= 1 for f in found), (screen, found)
        shoot(cell, f'review_{screen}')


def test_a_key_a_click_a_box_and_a_brush_are_stored_at_once(reviewed, folder):
    picture = reviewed.locator('.hybridad-picture img').last
    picture.wait_for(timeout=120_000)
    reviewed.wait_for_timeout(1000)
    picture.click()
    reviewed.keyboard.press('m')  # which JupyterLab would take for "make this cell Markdown"
    assert [c['verdict'] for c in verdicts(folder / 'run', 1)] == ['missed']
    reviewed.locator('button', has_text='right (r)').click()
    assert [c['verdict'] for c in verdicts(folder / 'run', 2)] == ['missed', 'right']

    reviewed.locator('text=3 of 3').wait_for()
    picture.scroll_into_view_if_needed()
    box = picture.bounding_box()
    assert abs(box['width'] / box['height'] - 128 / 96) < 0.02  # the shape of the file
    drag(reviewed, box, (0.25, 0.5), (0.75, 0.9))
    missed = verdicts(folder / 'run', 3)[2]
    wanted = 32, 48, 96, 86.4  # px of the file
    assert max(abs(a - b) for a, b in zip(missed['boxes'][0], wanted)) < 1.5, missed
    brush_over(reviewed, box, folder / 'run')
    drag(reviewed, box, (0.005, 0.005), (0.995, 0.995))  # from edge to edge
    check_review_sizes(reviewed)
    reviewed.locator('button', has_text='false alarm (f)').click()
    reviewed.locator('.widget-html b', has_text='say right or missed').wait_for()
    assert len(verdicts(folder / 'run', 3)) == 3 and no_error(reviewed)


@pytest.mark.parametrize('shape', [(30, 1500), (1500, 30)], ids=['wide', 'tall'])
def test_a_strip_is_reviewed_in_a_box_that_scrolls(shape, small_page, folder, lab):
    place, along = folder / f'strip_{shape[0]}', int(shape[0] < shape[1])  # 0: y, 1: x
    pixels = np.random.default_rng(0).integers(90, 110, (*shape, 3), np.uint8)
    pixels[tuple(slice(s // 3, s // 2) for s in shape)] = 240
    page = reviewing(small_page, place, f'{lab}/lab/tree/{place.name}', [pixels])
    picture, view = (page.locator(f'.hybridad-picture{x}').last for x in (' img', ''))
    picture.wait_for(timeout=120_000)
    page.wait_for_timeout(1000)
    view.scroll_into_view_if_needed()
    high, wide = sizes = [(view.bounding_box()[k], picture.bounding_box()[k]) for k in SIDES]
    shown, whole = sizes[along]
    assert min(high[1], wide[1]) == 40 and whole == 2000 and 300 < shown <= 400, sizes
    assert sizes[1 - along][0] < 60, sizes  # the picture and a scroll bar
    assert page.locator('text=scroll to see all of it').is_visible()
    view.evaluate('v => v.scrollTo(900, 900)')
    page.wait_for_timeout(100)

    def at(share, across):
        "The place of the screen at a share of what is seen of the strip."
        box = view.bounding_box()
        return [box['yx'[i]] + (share * shown if i == along else across) for i in (1, 0)]

    page.mouse.move(*at(0.25, 10))
    page.mouse.down()
    page.mouse.move(*at(0.75, 30), steps=8)
    page.mouse.up()
    [box] = verdicts(place / 'run', 1)[0]['boxes']
    lengths, across = [box[1 - along], box[3 - along]], [box[along], box[2 + along]]
    wanted = [(900 + share * shown) * 0.75 for share in (0.25, 0.75)]  # 1500 px on 2000
    assert max(abs(a - b) for a, b in zip(lengths, wanted)) < 1.5, (box, wanted)
    assert max(abs(a - b) for a, b in zip(across, (7.5, 22.5))) < 1.5, box
    shoot(page.locator('.jp-CodeCell').first, place.name)

    page.keyboard.press('b')
    page.locator('button.mod-active', has_text='fine brush').wait_for()
    page.mouse.move(*at(0.5, 20))
    page.mouse.down()
    page.mouse.move(*at(1.2, 20), steps=4)  # past the edge: the strip scrolls
    page.mouse.up()
    assert view.evaluate('v => Math.max(v.scrollLeft, v.scrollTop)') > 950
    page.wait_for_timeout(1000)
    [(width, points)] = verdicts(place / 'run', 1)[0]['strokes']
    assert abs(width - 5 * 0.75) < 0.1
    assert abs(points[1 - along] - (900 + shown / 2) * 0.75) < 1.5, points
    assert points[-1 - along] > (950 + shown) * 0.75 and no_error(page)

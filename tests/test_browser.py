"The visualize guide in JupyterLab with a live kernel: run all, move a slider, click a place, upload a picture, compare another one."

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
SHOTS = ROOT / 'build' / 'screenshots'
CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser')
FLAGS = [
    '--no-sandbox',
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
]

pytestmark = pytest.mark.skipif(
    not CHROMIUM,
    reason='no chromium on this machine: apt-get install chromium to test the widgets in a browser',
)


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


@pytest.fixture
def lab(tmp_path):
    "JupyterLab over a copy of the guide; its address."
    shutil.copy(ROOT / 'nbs/guides/visualize.ipynb', tmp_path / 'visualize.ipynb')
    quiet = tmp_path / 'settings' / '@jupyterlab' / 'apputils-extension'
    quiet.mkdir(parents=True)
    (quiet / 'notification.jupyterlab-settings').write_text(
        '{"fetchNews": "false", "checkForUpdates": false}'
    )  # no bubble over the pictures
    port = free_port()
    address = f'http://127.0.0.1:{port}'
    environment = os.environ | dict(
        HF_HUB_OFFLINE='1',
        JUPYTER_CONFIG_DIR=str(tmp_path / 'config'),
        JUPYTERLAB_WORKSPACES_DIR=str(tmp_path / 'workspaces'),
        JUPYTERLAB_SETTINGS_DIR=str(tmp_path / 'settings'),
    )
    command = [
        sys.executable,
        '-m',
        'jupyterlab',
        '--no-browser',
        f'--port={port}',
        '--allow-root',
        '--IdentityProvider.token=',
        '--ServerApp.password=',
        '--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate',
    ]
    with open(tmp_path / 'lab.log', 'w') as log:
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log)
        try:
            for _ in range(90):
                try:
                    urllib.request.urlopen(f'{address}/api', timeout=5)
                    break
                except OSError:
                    time.sleep(1)
            else:
                pytest.fail(
                    f'JupyterLab did not answer in 90 s: {(tmp_path / "lab.log").read_text()[-2000:]}'
                )
            yield address
        finally:
            process.terminate()
            process.wait(30)


@pytest.fixture
def page(lab):
    sync_api = pytest.importorskip(
        'playwright.sync_api', reason='playwright is not installed: pip install playwright'
    )
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={'width': 1280, 'height': 1000})
        page.goto(f'{lab}/lab/tree/visualize.ipynb?reset')
        page.wait_for_selector('.jp-Notebook', timeout=120_000)
        yield page
        browser.close()


def picture_of(page, cell):
    return cell.locator('img.widget-image').last.get_attribute('src')


def changed(page, cell, before, seconds=60):
    "Wait until the explorer in a cell shows another picture; its address."
    for _ in range(seconds * 4):
        now = picture_of(page, cell)
        if now != before:
            return now
        page.wait_for_timeout(250)
    pytest.fail(f'the picture did not change in {seconds} s')


def cell_with(page, code):
    "The code cell that holds a text, scrolled into view."
    cell = (
        page.locator('.jp-CodeCell')
        .filter(has=page.locator('.jp-InputArea-editor', has_text=code))
        .first
    )
    cell.scroll_into_view_if_needed(timeout=60_000)
    return cell


def shoot(page, cell, name):
    SHOTS.mkdir(parents=True, exist_ok=True)
    cell.locator('.jp-OutputArea-output').first.screenshot(path=SHOTS / f'{name}.png')


def test_the_guide_answers_in_jupyterlab(page, tmp_path):
    page.wait_for_selector('text=| Idle', timeout=120_000)
    page.click('.lm-MenuBar-item >> text=Run')
    page.click('.lm-Menu-item >> text=Run All Cells')
    page.wait_for_timeout(2000)
    compare = cell_with(page, 'compare = CompareExplorer')
    compare.locator('img.widget-image').last.wait_for(
        timeout=300_000
    )  # the last explorer: all cells ran
    assert page.locator('[data-mime-type="application/vnd.jupyter.error"]').count() == 0

    decision = cell_with(page, 'decision = DecisionExplorer')
    before = picture_of(page, decision)
    decision.locator('.noUi-handle').first.focus()
    for _ in range(8):
        page.keyboard.press('ArrowRight')
    changed(page, decision, before)
    shoot(page, decision, 'decision')

    attention = cell_with(page, 'attention = AttentionExplorer')
    before = picture_of(page, attention)
    attention.locator('.jupyter-matplotlib canvas').last.click(position={'x': 40, 'y': 60})
    before = changed(page, attention, before)
    shoot(page, attention, 'attention_click')
    words = attention.locator('input[type=text]').first
    words.fill('a photo of a scratch')
    words.press('Enter')
    before = changed(page, attention, before)
    photo = tmp_path / 'my_photo.png'
    Image.effect_mandelbrot((300, 200), (-2, -1, 1, 1), 60).convert('P').save(photo)
    with page.expect_file_chooser() as chooser:
        attention.locator('button.widget-upload, .widget-upload button').first.click()
    chooser.value.set_files(photo)
    changed(page, attention, before)
    shoot(page, attention, 'attention_upload')
    assert 'my_photo.png' in attention.locator('select').first.inner_text()

    browser = cell_with(page, 'browser = ResultsBrowser')
    before = picture_of(page, browser)
    for n in (3, 4):
        browser.locator('button').nth(
            n
        ).click()  # two, since the guide may have opened the first of them
    changed(page, browser, before)
    shoot(page, browser, 'browser')

    before = picture_of(page, compare)
    compare.locator('select').first.select_option(index=3)
    changed(page, compare, before)
    shoot(page, compare, 'compare')

    before = picture_of(page, attention)
    words.fill('defect ' * 60)
    words.press('Enter')  # longer than the encoder takes: a sentence, and the picture stays
    complaint = attention.locator('.widget-html b')
    complaint.wait_for(timeout=60_000)
    assert 'tokens' in complaint.inner_text() and picture_of(page, attention) == before
    words.fill('a photo of a hole')
    words.press('Enter')
    complaint.wait_for(state='detached', timeout=60_000)
    for cell in (attention, decision, browser, compare):
        assert cell.locator('.widget-html b').count() == 0, cell.locator(
            '.widget-html b'
        ).inner_text()
    assert page.locator('[data-mime-type="application/vnd.jupyter.error"]').count() == 0

"The report of a run in a real browser: opened, filtered, printed; and decided anew in a second."

import csv
import json
import re
import subprocess
import sys
from collections import Counter

import pytest
from PIL import Image
from test_browser import CHROMIUM, FLAGS

from hybridad.cli import hybridad
from hybridad.inference.overlays import CAPTION
from hybridad.inference.report import report_of_scores
from hybridad.inference.rows import FILE, encode
from hybridad.runs import write_json
from hybridad.synthetic.plain import write_dataset

COUNT = 1000
EVIL = '<img src=x onerror="document.title=1">.png'


def row(i):
    "One of a thousand rows: every fourth is anomalous, its region named, the first name a trap."
    odd = i % 4 == 0
    regions = [dict(box=[8, 8, 64, 48], area=9, peak=2.0, names=dict(hole=0.7))] * odd
    return dict(
        image=f'photos/{EVIL if i == 0 else f"{i:04d}.png"}',
        decision='anomalous' if odd else 'normal',
        score=1 + i / COUNT if odd else -i / COUNT,
        regions=json.dumps(regions),
        width=512,
        height=384,
        reason='',
        name='hole' if odd else '',
        overlay=f'pictures/{i % 5}.jpg',
    ) | dict(zip(FILE, (0, 0, 0, '')))


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    "A finished scored folder with overlays that hardly compress."
    out = tmp_path_factory.mktemp('scored')
    (out / 'pictures').mkdir()
    (out / 'parts').mkdir()
    for i in range(5):
        Image.effect_noise((512, 384 + CAPTION), 60 + i).convert('RGB').save(
            out / 'pictures' / f'{i}.jpg'
        )
    (out / 'parts' / 'part-000000.csv').write_bytes(encode([row(i) for i in range(COUNT)], 'csv'))
    asked = dict(source='prompts of a file', image_size=128, tiles=1, names=['hole'], format='csv')
    asked |= dict(image_threshold=0.5, pixel_threshold=0.5)
    origin = dict(backbone='mini', good=[i / 60 for i in range(60)])
    about = dict(command='score', asked=asked, provenance=origin, state='finished')
    write_json(out / 'run.json', about)
    report_of_scores(out)
    return out


def test_a_thousand_images_fit_into_a_mail(run):
    html = (run / 'report.html').read_text()
    assert html.count('<article') == html.count('<img') == COUNT
    assert (run / 'report.html').stat().st_size < 5_000_000
    assert not re.search(r'(src|href)="(?!data:)', html)


def test_deciding_anew_takes_a_second(run):
    command = [
        sys.executable,
        '-m',
        'timeit',
        '-n1',
        '-r1',
        '-s',
        'from hybridad.cli import hybridad',
    ]
    command.append(f'hybridad(["decide", {str(run)!r}, "--false_alarms", "0.05"])')
    usage = subprocess.run(
        [sys.executable, '-c', CHILD, *command], capture_output=True, text=True, check=True
    )
    assert float(usage.stdout.splitlines()[-1]) < 3  # s of processor time; about 1 on a free core
    assert 'before at 0.500' in (run / 'report.html').read_text()
    assert '2 of 60 known good images alarm' in usage.stdout


CHILD = """
import resource, subprocess, sys
print(subprocess.run(sys.argv[1:], capture_output=True, text=True, check=True).stdout)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime)
"""


def pages(pdf):
    "Pages of a PDF as Chromium writes it."
    return len(re.findall(rb'/Type\s*/Page\b', pdf))


@pytest.mark.skipif(not CHROMIUM, reason='no chromium: apt-get install chromium to test the report')
def test_it_is_filtered_and_printed(run, tmp_path):
    sync_api = pytest.importorskip('playwright.sync_api', reason='pip install playwright')
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={'width': 1280, 'height': 800})
        page.set_default_timeout(120_000)
        asked = []
        page.on('request', lambda r: asked.append(r.url))
        page.goto((run / 'report.html').as_uri())
        assert page.title().startswith('hybridad score')  # the trap did not run
        assert page.locator('article:visible').count() == COUNT
        assert page.locator('b', has_text=EVIL).count() == 1
        page.locator('select[name=name]').select_option('hole')
        assert page.locator('output').text_content() == '250 images'
        assert page.locator('article:visible').count() == 250
        page.locator('select[name=outcome]').select_option('normal')
        assert page.locator('article:visible').count() == 0
        page.screenshot(path=tmp_path / 'report.png')
        page.locator('select[name=name]').select_option('')
        page.emulate_media(media='print')
        assert not page.locator('.controls').is_visible()
        assert (
            pages(page.pdf(path=tmp_path / 'report.pdf')) > 0.75 * COUNT / 40
        )  # the filter holds on paper, too
        assert all(a.startswith(('file:', 'data:')) for a in asked)
        browser.close()


@pytest.fixture(scope='module')
def tested(tmp_path_factory):
    "A finished test of ten images in two categories with the prompts of the package."
    root = tmp_path_factory.mktemp('tested')
    data = write_dataset(
        root / 'data', seed=5, count=5, split='held_out', progress=False, workers=1
    )
    places = [str(data), '--out', str(root / 'run')]
    assert hybridad(['test', *places, '--categories', 'leather', 'brick']) == 0
    return root / 'run'


def outcome_of(row):
    "What became of an image whose label is known."
    found = row['decision'] == 'anomalous'
    return ('missed', 'found')[found] if int(row['label']) else ('passed', 'false alarm')[found]


@pytest.mark.skipif(not CHROMIUM, reason='no chromium: apt-get install chromium to test the report')
def test_the_report_of_a_test_tells_misses_and_false_alarms(tested, tmp_path):
    sync_api = pytest.importorskip('playwright.sync_api', reason='pip install playwright')
    with open(tested / 'images.csv', newline='') as file:
        rows = [*csv.DictReader(file)]
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={'width': 1280, 'height': 800})
        page.set_default_timeout(120_000)
        page.goto((tested / 'report.html').as_uri())
        assert page.title().startswith('hybridad test')
        assert page.locator('article:visible').count() == len(rows)
        for outcome, count in Counter(map(outcome_of, rows)).items():
            page.locator('select[name=outcome]').select_option(outcome)
            assert page.locator('article:visible').count() == count, outcome
        page.emulate_media(media='print')
        assert pages(page.pdf(path=tmp_path / 'report.pdf')) > 0
        browser.close()

"""Score a folder of 20,000 pictures with one kill half-way: memory must stay flat and every picture be scored once.

python proof/scale.py [--images 20000] [--out results/scale.json]
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from hybridad.scoring_runs import read_scores
from hybridad.synthetic import picture

CODE = """
import sys, json, os
from hybridad.scoring import load_scorer
from hybridad.scoring_runs import score_folder
photos, out, trace, resume = sys.argv[1:]
page, log, seen = os.sysconf('SC_PAGE_SIZE'), open(trace, 'a'), 0
def tell(f):
    global seen
    seen += 1
    if seen % 50 == 0: print(int(open('/proc/self/statm').read().split()[1])*page, file=log, flush=True)
scorer = load_scorer(device='cpu'); scorer.detector.config.model.views, scorer.detector.config.model.scales = 1, None # minutes in place of hours
score_folder(photos, out, scorer, resume=resume == 'resume', part=256, form='parquet', pictures='none', batch_size=16, progress=False, tell=tell)
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--images', type=int, default=20_000)
    parser.add_argument('--out', type=Path, default=Path('results/scale.json'))
    a = parser.parse_args()
    work = Path(tempfile.mkdtemp())
    photos = work / 'photos'
    photos.mkdir()
    own = min(500, a.images)
    for i in range(own):
        Image.fromarray(picture(9, i).image).save(photos / f'{i:06d}.png')
    for i in range(own, a.images):
        os.link(
            photos / f'{i % own:06d}.png', photos / f'{i:06d}.png'
        )  # other names for the drawn ones
    start = lambda resume: subprocess.Popen(
        [sys.executable, '-c', CODE, photos, work / 'out', work / f'trace_{resume}', resume],
        text=True,
    )
    parts, begun = -(-a.images // 256), time.perf_counter()
    done = lambda: len(list((work / 'out' / 'parts').glob('part-*.parquet')))
    child = start('begin')
    while done() < parts // 2 and child.poll() is None:
        time.sleep(1)
    child.send_signal(signal.SIGKILL)
    child.wait()
    before = done()
    child = start('resume')
    child.wait()
    seconds = time.perf_counter() - begun
    names = [r['image'] for r in read_scores(work / 'out')]
    told = dict(
        images=a.images,
        scored=len(names),
        distinct=len(set(names)),
        parts_before_the_kill=before,
        parts=parts,
        seconds=round(seconds, 1),
        images_per_second=round(a.images / seconds, 2),
        days_for_a_million=round(1e6 / a.images * seconds / 86400, 2),
    )
    for phase in ('begin', 'resume'):
        memory = np.array([int(x) for x in (work / f'trace_{phase}').read_text().split()]) / 2**20
        tenth = max(1, len(memory) // 10)
        told[f'memory_{phase}'] = dict(
            second_tenth_mb=round(float(memory[tenth : 2 * tenth].mean()), 1),
            last_tenth_mb=round(float(memory[-tenth:].mean()), 1),
        )
    a.out.write_text(json.dumps(told, indent=1) + '\n')
    print(json.dumps(told, indent=1))
    shutil.rmtree(work)
    assert child.returncode == 0 and len(names) == len(set(names)) == a.images, (
        'images were missed or scored twice'
    )
    for phase in ('begin', 'resume'):
        m = told[f'memory_{phase}']
        assert abs(m['last_tenth_mb'] / m['second_tenth_mb'] - 1) <= 0.05, (
            f'memory is not flat: {m}'
        )


if __name__ == '__main__':
    main()

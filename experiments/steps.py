"""What reading, decoding, drawing and writing cost for one image, for plans on paper.

Command:  python experiments/steps.py
Duration: 20 s of one core
Data:     20 photographs of hazelnuts (DATA.md), scaled to 512 px, JPEG files of quality 92

Times are processor time of one thread, which counts less of what else the machine does than a
clock, but still shares its caches with that; the load stands beside them. The detector is that of
the package and only provides findings to draw: its own time is not measured here."""

import os
import time

import numpy as np
import torch
from common import RESULTS, SHARED, about, fresh
from PIL import Image

from hybridad.evaluation.reports import outlined_regions
from hybridad.inference.image_files import Photos, upright
from hybridad.inference.overlays import captioned
from hybridad.inference.rows import encode, row_of
from hybridad.inference.scoring import load_scorer
from hybridad.runs import write_json

COUNT, SIDE = 20, 512


def cost(work, items):
    "Milliseconds of processor time for each item, once everything is warm."
    for item in items[:3]:
        work(item)
    begun = time.process_time()
    for item in items:
        work(item)
    return round(1000 * (time.process_time() - begun) / len(items), 2)


def main():
    torch.set_num_threads(1)
    root = fresh('steps')
    root.mkdir(parents=True)
    paths = [str(root / f'{k}.jpg') for k in range(COUNT)]
    photographs = sorted((SHARED / 'data' / 'hazelnut_toy').rglob('good/*.jpg'))
    for photograph, path in zip(photographs, paths, strict=False):
        Image.open(photograph).convert('RGB').resize((SIDE, SIDE)).save(path, quality=92)
    scorer = load_scorer(device='cpu')
    kept = Photos(paths, scorer.fit)
    found = [f for k in range(0, COUNT, 8) for f in scorer([kept[k]])]
    photos, places = Photos(paths, SIDE), range(COUNT)
    plain = Photos(paths, SIDE, sight=0)
    drawn = root / 'overlay.jpg'

    def draw(finding):
        captioned(finding, 0.0).save(drawn, 'JPEG', quality=90)

    result = dict(
        images=COUNT,
        side=SIDE,
        file_kb=round(float(np.mean([os.path.getsize(p) for p in paths])) / 1000, 1),
        read_ms=cost(lambda p: open(p, 'rb').read(), paths),
        decode_ms=cost(upright, paths),
        item_ms=cost(plain.__getitem__, places),
        item_to_draw_ms=cost(photos.__getitem__, places),
        regions_ms=cost(lambda f: outlined_regions(f.map, f.cut, (SIDE, SIDE)), found),
        overlay_ms=cost(draw, found),
        overlay_kb=round(drawn.stat().st_size / 1000, 1),
        row_ms=round(cost(lambda f: encode([row_of(f)] * 256, 'csv'), found) / 256, 3),
        row_bytes=len(encode([row_of(f) for f in found] * 100, 'csv')) // (100 * len(found)),
        load_average=round(os.getloadavg()[0], 2),
    )
    print(result)
    write_json(RESULTS / 'steps.json', about('python experiments/steps.py', None) | result)


if __name__ == '__main__':
    main()

"""Time and memory of the pixel metrics at full scale, against scikit-learn.

Command:  OMP_NUM_THREADS=1 python experiments/metrics.py [--images 167] [--streamed 1725]
          [--size 512] [--out results/metrics.json]
Duration: the seconds of every case are in the result
Data:     smooth noise, generated

Each case runs in a process of its own. The largest (1725 images of 512x512, exact as well as
streamed) needs about 6 GB; --streamed 0 leaves it out."""

import argparse
import json
import multiprocessing as mp
import os
import platform
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import sklearn
from PIL import Image

from hybridad.metrics.exact import pixel_metrics
from hybridad.metrics.streaming import PixelStream

COMPARED = 'auroc', 'ap', 'f1max', 'aupro'


def one(i, size):
    "Map and mask of the i-th image: noise, in every other image higher in a few regions."
    rng = np.random.default_rng(i)
    mask = np.zeros((size, size), bool)
    for _ in range(0 if i % 2 else 4):
        (y, x), (h, w) = rng.integers(0, size * 3 // 4, 2), rng.integers(size // 64, size // 8, 2)
        mask[y : y + h, x : x + w] = True
    score = rng.standard_normal((size, size), np.float32) + np.float32(1.5) * mask
    return 1 / (1 + np.exp(2 - score)), mask


def many(n, size):
    maps, masks = np.empty((n, size, size), np.float32), np.empty((n, size, size), bool)
    for i in range(n):
        maps[i], masks[i] = one(i, size)
    return maps, masks


def ours(maps, masks):
    return {k: v for k, v in pixel_metrics(maps, masks).items() if k in COMPARED}


def theirs(maps, masks):
    from sklearn.metrics import average_precision_score, roc_auc_score

    y, s = masks.ravel(), maps.ravel()
    return dict(auroc=float(roc_auc_score(y, s)), ap=float(average_precision_score(y, s)))


def at_once(work, n, size):
    "CPU seconds and bytes a pixel beyond the maps of one function of all maps."
    work(*many(2, size))  # imports and caches do not count
    maps, masks = many(n, size)
    before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    found = work(maps, masks)
    return dict(
        found,
        cpu_seconds=round(time.process_time() - begun, 2),
        pixels=maps.size,
        defect_share=round(float(masks.mean()), 4),
        bytes_per_pixel=round(
            (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / maps.size, 2
        ),
    )


def streamed(n, size):
    "The same for a stream; making the images is not counted."
    one(0, size)
    before, spent, stream = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0.0, PixelStream()
    for i in range(n):
        score, mask = one(i, size)
        begun = time.process_time()
        stream.add(score, mask)
        spent += time.process_time() - begun
    begun = time.process_time()
    found = stream.result()
    spent += time.process_time() - begun
    return {k: found[k] for k in (*COMPARED, 'error')} | dict(
        cpu_seconds=round(spent, 2),
        pixels=n * size * size,
        megabytes=round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, 1),
    )


def loader(size, images=400, workers=2):
    "Images a second from PNG files to batches of normalised tensors."
    from hybridad.data.loading import make_loader
    from hybridad.data.pairing import Sample

    with tempfile.TemporaryDirectory() as tmp:
        samples = [
            Sample(Path(tmp) / f'{i}.png', None, 0, 'c', 'good', 'test') for i in range(images)
        ]
        y, x = np.mgrid[:size, :size]
        for i, s in enumerate(samples):
            texture = (
                120
                + 60 * np.sin(x / 9 + i)[..., None]
                + np.random.default_rng(i).normal(0, 6, (size, size, 3))
            )
            Image.fromarray(texture.clip(0, 255).astype(np.uint8)).save(s.image)
        begun = time.perf_counter()
        for _ in make_loader(samples, size, 16, num_workers=workers):
            pass
        return dict(
            images_per_second=round(images / (time.perf_counter() - begun), 1),
            workers=workers,
            size=size,
        )


def alone(work, *args):
    "The result of a function in a fresh process, so that its peak of memory is its own."
    with mp.get_context('spawn').Pool(1) as pool:
        return pool.apply(work, args)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--images', type=int, default=167, help='of the exact comparison')
    parser.add_argument(
        '--streamed', type=int, default=1725, help='of the streamed one; 0 leaves it out'
    )
    parser.add_argument('--size', type=int, default=512)
    parser.add_argument('--out', type=Path, default=Path('results/metrics.json'))
    a = parser.parse_args()
    found = dict(
        command='python ' + ' '.join(sys.argv),
        versions=dict(
            python=platform.python_version(), numpy=np.__version__, sklearn=sklearn.__version__
        ),
        processor=platform.processor() or platform.machine(),
        cores=os.cpu_count(),
        threads=os.environ.get('OMP_NUM_THREADS'),
        date=time.strftime('%Y-%m-%d'),
    )
    found['exact'] = dict(
        ours=alone(at_once, ours, a.images, a.size),
        sklearn_auroc_and_ap=alone(at_once, theirs, a.images, a.size),
    )
    mine, other = found['exact'].values()
    found['exact'] |= dict(
        times_faster=round(other['cpu_seconds'] / mine['cpu_seconds'], 1),
        largest_difference=max(abs(mine[k] - other[k]) for k in ('auroc', 'ap')),
    )
    print(json.dumps(found['exact'], indent=1))
    if a.streamed:
        found['streamed'] = dict(
            stream=alone(streamed, a.streamed, a.size),
            exact=alone(at_once, ours, a.streamed, a.size),
        )
        mine, other = found['streamed'].values()
        found['streamed']['largest_difference'] = max(abs(mine[k] - other[k]) for k in COMPARED)
        print(json.dumps(found['streamed'], indent=1))
    found['loader'] = loader(a.size)
    print(json.dumps(found['loader']))
    a.out.parent.mkdir(parents=True, exist_ok=True)
    a.out.write_text(json.dumps(found, indent=1) + '\n')


if __name__ == '__main__':
    main()

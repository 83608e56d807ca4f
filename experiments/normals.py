"""Photographs with a few reference images beside the prompts, or compared with each other.

Command:  python experiments/normals.py (writes results/normals.json)
Duration: `seconds` of each set are in the results
Data:     the sets of DATA.md with normal images to learn on, from the folder HYBRIDAD_SHARED
          names; prompts that ship, as they are read by default

Reference images are drawn from the normal ones to learn on: none, and 8 in three draws. `among`
has no reference image: the normal test images and a quarter as many damaged ones are compared with
each other, and `alone` is what the prompts say of the same images. False alarms and hits are told
for the threshold in use and for others: so many robust deviations above the median of the
references, or their highest score, whichever is lower. A set that is in the file
already, of the same weights and prompts and as many images, is not measured again."""

import time

import numpy as np
import torch
from common import SHARED, SIZE, Timed, arguments, short

from hybridad.data.layouts import read_dataset
from hybridad.data.loading import sample_digest
from hybridad.evaluation.evaluate import EvalSet, summarise
from hybridad.models.among import AmongDetector, spread
from hybridad.models.detector import HybridAnomalyDetector
from hybridad.models.evidence import References
from hybridad.models.features import FeatureCache, read_cached
from hybridad.models.parts import MINI
from hybridad.models.reference import ReferenceDetector, end_of_normal, load_references
from hybridad.runs import read_json

SETS = 'hazelnut_toy', 'aliens', 'ballscrew', 'leather', 'asphalt', 'magnetic_tile'
DRAWS = 3  # of eight reference images


def ends(references: References) -> dict:
    "The image threshold, and what other rules would make of the same scores of references."
    good = torch.tensor(references.thresholds['good'])
    others = {f', {k} deviations': k for k in (2, 3, 4)} | {', highest': float('inf')}
    found = {n: end_of_normal(good, references.spread, deviations=k) for n, k in others.items()}
    return {'': references.thresholds['image']} | found


class Bench:
    "The images of a set, seen once with every layer that references want."

    def __init__(self, detector: HybridAnomalyDetector, name: str, small: bool):
        every = read_dataset(SHARED / 'data' / name)
        test = [s for s in every if s.split == 'test']
        self.samples = spread(test, 24) if small else test
        self.good = [s.image for s in every if s.split == 'train' and s.label == 0]
        self.detector, self.truth = detector, EvalSet(self.samples, SIZE, progress=False)
        first = ReferenceDetector(detector, load_references(self.good[:1], detector.fit))
        self.cached = FeatureCache(first, self.samples, progress=False)

    def beside(self, count: int, draw: int) -> dict:
        "Metrics with so many reference images, and what their threshold flags."
        detector = self.detector
        if count:
            order = np.random.default_rng([draw, count]).permutation(len(self.good))[:count]
            images = load_references([self.good[i] for i in order], detector.fit)
            detector = ReferenceDetector(detector, images)
        maps, scores = read_cached(detector, self.cached, SIZE)
        found = short(summarise(self.truth, maps, scores), 'defect_mean')
        for name, end in ends(detector.references).items() if count > 1 else ():
            flagged = scores >= end
            found[f'false_alarms{name}'] = float(flagged[self.truth.labels == 0].mean())
            found[f'hits{name}'] = float(flagged[self.truth.labels == 1].mean())
        return found

    def among(self) -> dict:
        "Metrics of images that are compared with each other, four in five of them normal."
        fine = [s for s in self.samples if not s.label]
        damaged = spread([s for s in self.samples if s.label], max(1, len(fine) // 4))
        samples = [*fine, *damaged]
        truth = EvalSet(samples, SIZE, progress=False)
        images = load_references([s.image for s in spread(samples)], self.detector.fit)
        both = dict(alone=self.detector, among=AmongDetector(self.detector, images))
        cached = FeatureCache(both['among'], samples, progress=False)
        rows = {n: summarise(truth, *read_cached(d, cached, SIZE)) for n, d in both.items()}
        return {n: short(r, 'defect_mean') for n, r in rows.items()} | dict(damaged=len(damaged))


def rounded(v):
    "Figures with four decimals, whatever they are in."
    if isinstance(v, dict):
        return {k: rounded(x) for k, x in v.items()}
    return [rounded(x) for x in v] if isinstance(v, list) else round(v, 4)


def one_set(detector: HybridAnomalyDetector, name: str, small: bool) -> dict:
    "Metrics by the number of reference images, of one set."
    begun, bench = time.perf_counter(), Bench(detector, name, small)
    rows = {}
    for count in (0, 8):
        draws = range(DRAWS if count == 8 and not small else 1)
        figures = [bench.beside(count, draw) for draw in draws]
        row = {m: [f[m] for f in figures] for m in figures[0]}
        rows[str(count)] = rounded(row) | dict(images=count)
        print(name, count, {m: np.round(v, 3).tolist() for m, v in row.items()}, flush=True)
    rows['compared with each other'] = rounded(bench.among())
    print(name, rows['compared with each other'], flush=True)
    return rows | dict(seconds=round(time.perf_counter() - begun))


def main():
    a = arguments(__doc__, dict.fromkeys(SETS))
    timed = Timed(a, 'normals', 'python experiments/normals.py')
    prompts = MINI / 'prompts.safetensors'
    detector, _ = HybridAnomalyDetector.from_checkpoint(prompts, a.backbone, 'cpu')
    about = dict(backbone_hash=detector.backbone.hash, prompts_hash=sample_digest(prompts)[:16])
    before = read_json(timed.path) if timed.path.is_file() else {}
    same = all(before.get(k) == v for k, v in about.items())
    same &= bool(before.get('small')) == a.small
    found = before['sets'] if same else {}
    for name in a.parts or SETS:
        if name not in found:
            found[name] = one_set(detector, name, a.small)
            timed.write(dict(sets={k: found[k] for k in SETS if k in found}) | about)


if __name__ == '__main__':
    torch.set_num_threads(1)
    main()

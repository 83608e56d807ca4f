"""Photographs with a few reference images beside the prompts: 0 to all, eight in three draws.

Command:  python experiments/normals.py (writes results/normals.json)
Duration: `seconds` of each set are in the results
Data:     the sets of DATA.md with normal images to learn on, from the folder HYBRIDAD_SHARED
          names; prompts that ship"""

import time

import numpy as np
import torch
from common import RESULTS, SHARED, SIZE, about, short

from hybridad.data.layouts import read_dataset
from hybridad.evaluation.evaluate import EvalSet, evaluate
from hybridad.models.detector import HybridAnomalyDetector
from hybridad.models.parts import MINI
from hybridad.models.reference import ReferenceDetector, load_references
from hybridad.runs import write_json

PROMPTS = MINI / 'prompts.safetensors'
SETS = 'hazelnut_toy', 'aliens', 'asphalt', 'leather', 'ballscrew', 'magnetic_tile'


def with_references(samples, truth, good, k, draw) -> dict:
    "Metrics with k of the good images, and what their highest score flags as a threshold."
    detector, _ = HybridAnomalyDetector.from_checkpoint(PROMPTS, device='cpu')
    order = np.random.default_rng([draw, k]).permutation(len(good))
    if k:
        chosen = [good[i] for i in order[:k]]
        detector = ReferenceDetector(detector, load_references(chosen, detector.load_size))
    results, _, scores = evaluate(detector, samples, truth)
    found = short(results, 'defect_mean')
    if k > 1:
        flagged = scores >= detector.references.thresholds['image']
        found['false_alarms'] = float(flagged[truth.labels == 0].mean())
        found['hits'] = float(flagged[truth.labels == 1].mean())
    return found


def one_set(name) -> dict:
    "Metrics by the number of reference images, of one set."
    begun = time.perf_counter()
    every = read_dataset(SHARED / 'data' / name)
    samples = [s for s in every if s.split == 'test']
    good = [s.image for s in every if s.split == 'train' and s.label == 0]
    truth, rows = EvalSet(samples, SIZE), {}
    for k in (0, 1, 2, 4, 8, len(good)):
        draws = range(3 if k == 8 else 1)
        figures = [with_references(samples, truth, good, k, draw) for draw in draws]
        row = {m: [round(f[m], 4) for f in figures] for m in figures[0]} | dict(pictures=k)
        rows['all' if k == len(good) else str(k)] = row
        print(name, k, row, flush=True)
    return rows | dict(seconds=round(time.perf_counter() - begun))


def main():
    found = {}
    for name in SETS:
        found[name] = one_set(name)
        write_json(
            RESULTS / 'normals.json',
            dict(sets=found, **about('python experiments/normals.py')),
        )


if __name__ == '__main__':
    torch.set_num_threads(1)
    main()

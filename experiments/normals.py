"""Photographs with a few reference images beside the prompts: 0 to all, eight in three draws.

Command:  python experiments/normals.py, after demo.py (writes results/normals.json)
Duration: not recorded
Data:     magnetic_tile and hazelnut_toy of DATA.md, from the folder HYBRIDAD_SHARED names"""

import numpy as np
import torch
from common import RESULTS, RUNS, SHARED, SIZE, about, short

from hybridad.data.layouts import read_dataset
from hybridad.evaluation.evaluate import EvalSet, evaluate
from hybridad.models.detector import HybridAnomalyDetector
from hybridad.models.reference import ReferenceDetector, load_references
from hybridad.runs import write_json

CHECKPOINT = RUNS / 'demo' / 'learned' / 'best.safetensors'


def with_references(samples, truth, good, k, draw) -> dict:
    "Metrics with k of the good images, and what their highest score flags as a threshold."
    detector, _ = HybridAnomalyDetector.from_checkpoint(CHECKPOINT, device='cpu')
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


def main():
    found = {}
    for name in ('magnetic_tile', 'hazelnut_toy'):
        every = read_dataset(SHARED / 'data' / name)
        samples = [s for s in every if s.split == 'test']
        good = [s.image for s in every if s.split == 'train' and s.label == 0]
        truth, rows = EvalSet(samples, SIZE), {}
        for k in (0, 1, 2, 4, 8, len(good)):
            draws = range(3 if k == 8 else 1)
            figures = [with_references(samples, truth, good, k, draw) for draw in draws]
            row = {m: [round(f[m], 4) for f in figures] for m in figures[0]} | dict(pictures=k)
            rows['all' if k == len(good) else str(k)] = row
            print(name, k, row)
        found[name] = rows
    told = dict(sets=found, **about('python experiments/normals.py'))
    write_json(RESULTS / 'normals.json', told)


if __name__ == '__main__':
    torch.set_num_threads(2)
    main()

"""Prompts learned on synthetic images only, scored on photographs, beside words and baselines.

Command:  python experiments/real.py, after demo.py and seeds.py
          (writes results/real.json, real_*.png, worst_magnetic_tile.png)
Duration: not recorded
Data:     magnetic_tile, hazelnut_toy and steel_strip of DATA.md, from the folder that
          HYBRIDAD_SHARED names

The prompts of the demo are the first of three seeds. DATA.md says which sets may be shown."""

import json

import numpy as np
import torch
from common import RESULTS, RUNS, SIZE, about, photographs, short

from hybridad.demo.summaries import examples
from hybridad.evaluation.baselines import WordsDetector
from hybridad.evaluation.evaluate import EvalSet, contrast_baseline, evaluate
from hybridad.models.detector import HybridAnomalyDetector
from hybridad.models.features import FeatureCache
from hybridad.runs import write_json
from hybridad.visual.plots import map_grid, save_figure

SHOWN = 'magnetic_tile', 'hazelnut_toy'  # whose images may be shown, see DATA.md


def worst(truth, maps, scores, each=3) -> list[dict]:
    "Records for map_grid: defective images with the lowest scores, normal ones with the highest."
    order = np.argsort(scores, kind='stable')
    defective = truth.labels[order] == 1
    chosen = dict(missed=order[defective][:each])
    chosen['false alarm'] = order[~defective][::-1][:each]
    return [
        dict(
            image=truth.images[i].permute(1, 2, 0).numpy(),
            mask=truth.masks[i],
            title=f'{title}\n{truth.samples[i].defect}',
            maps={'map': maps[i]},
        )
        for title, indices in chosen.items()
        for i in indices
    ]


def save(records, name, **how):
    figure = map_grid(records, across=True, label='log-ratio', cell=1.1, **how)
    save_figure(figure, RESULTS / name, max_kb=59)


def measured(name, detector, more, blank) -> dict:
    "Metrics of one set of photographs; figures of those that may be shown are saved."
    samples = photographs(name)
    truth, kept = EvalSet(samples, SIZE), FeatureCache(detector, samples)
    results, maps, scores = evaluate(detector, samples, truth, cached=kept)
    by_words = WordsDetector(detector.config, detector.backbone)
    words, words_maps, _ = evaluate(by_words, samples, truth, cached=kept)
    random, *_ = evaluate(blank, samples, truth, cached=kept.with_backbone(blank))
    others = [evaluate(d, samples, truth, cached=kept.with_backbone(d))[0] for d in more]
    if name == SHOWN[0]:
        columns = ['image', 'mask', 'map']
        save(worst(truth, maps, scores), 'worst_magnetic_tile.png', columns=columns)
    if name in SHOWN:
        shown = examples(truth, {'words': words_maps, 'learned': maps}, scores, 5)
        save(shown, f'real_{name}.png')
    return dict(
        images=len(samples),
        learned=[short(r, 'defect_mean') for r in (results, *others)],
        words=short(words, 'defect_mean'),
        local_contrast=short(contrast_baseline(truth), 'defect_mean'),
        random_backbone=short(random, 'defect_mean'),
    )


def main():
    detector, *more = (
        HybridAnomalyDetector.from_checkpoint(RUNS / run / 'best.safetensors', device='cpu')[0]
        for run in ('demo/learned', 'seed1', 'seed2')
    )
    blank = HybridAnomalyDetector(detector.config, detector.backbone.reinitialised(0))
    blank.load_checkpoint(RUNS / 'demo' / 'random_backbone' / 'best.safetensors')
    found = {}
    for name in ('magnetic_tile', 'hazelnut_toy', 'steel_strip'):
        found[name] = measured(name, detector, more, blank)
        print(name, json.dumps(found[name], indent=1, default=str))
    write_json(RESULTS / 'real.json', dict(sets=found, **about('python experiments/real.py')))


if __name__ == '__main__':
    torch.set_num_threads(2)
    main()

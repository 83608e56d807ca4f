"""What reference images should say, and how much it should count.

Command:  python experiments/choose_normals.py (writes results/reference_choice.json)
          with --backbone DIR --words NORMAL ABNORMAL for hand-written words on other weights, and
          --out FILE for another place of the results
Duration: `seconds` in the result
Data:     ballscrew, asphalt, leather and aliens, the validation sets of DATA.md that have normal
          images, from the folder HYBRIDAD_SHARED names

Of each set eight normal images are the references and at most forty are tested, in one view. The
UNet sees a test image once; its queries are then compared in one way after the other."""

import argparse
import copy
import math
import time
from pathlib import Path

import torch
from common import RESULTS, SHARED, SIZE, about, short

from hybridad.config import get_default_config
from hybridad.data.layouts import read_dataset
from hybridad.data.pairing import Sample
from hybridad.evaluation.baselines import WordsDetector
from hybridad.evaluation.evaluate import EvalSet, summarise
from hybridad.inference.scoring import load_scorer
from hybridad.models.among import spread
from hybridad.models.detector import HybridAnomalyDetector
from hybridad.models.features import FeatureCache, read_cached
from hybridad.models.reference import ReferenceDetector, load_references
from hybridad.runs import write_json

SETS = 'ballscrew', 'asphalt', 'leather', 'aliens'
NORMALS, GOOD, BAD = 8, 16, 24
LAYERS = {  # None: those of the package
    'first and last layer': None,
    'first layer': ['down_blocks.0'],
    'last layer': ['up_blocks.2.attentions.1'],
    'first of the last stage': ['up_blocks.2.attentions.0'],
    'all after the middle': ['up_blocks'],
}
CHANGES = {  # one at a time, of the first of these ways
    'weight': (0.0, 0.15, 0.3, 0.6),  # of cells, beside what the references find themselves
    'whole': (0.0, 1.0, 4.0),  # of images as a whole, in deviations of their scores
    'most': (1.5, 2.0, 4.0, 6.0, math.inf),  # deviations of an image that count
}


def detector_of(backbone: str | None, words: list[str] | None) -> HybridAnomalyDetector:
    "The prompts of the package, or hand-written words on a backbone; one view."
    if backbone is None:
        detector = load_scorer(device='cpu').detector
        detector.config.model.views, detector.config.model.scales = 1, None
        return detector
    detector = WordsDetector(get_default_config(backbone=backbone, device='cpu'))
    if words:
        detector.backbone.settings.update(normal=words[0], abnormal=words[1])
    return detector.eval()


def chosen_of(name: str) -> tuple[list[Sample], list[Sample]]:
    "Normal images to refer to, and images to test on, of each kind of defect the same number."
    every = read_dataset(SHARED / 'data' / name)
    test = [s for s in every if s.split == 'test']
    kinds = sorted({s.defect for s in test if s.label})
    bad = [spread([s for s in test if s.label and s.defect == k], BAD // len(kinds)) for k in kinds]
    good = spread([s for s in test if not s.label], GOOD)
    known = spread([s for s in every if s.split == 'train' and not s.label], NORMALS)
    return known, good + sum(bad, [])


def row(truth: EvalSet, detector, cached: FeatureCache) -> dict:
    "Headline metrics; None where they are not defined."
    found = short(summarise(truth, *read_cached(detector, cached, SIZE)), 'defect_mean')
    return {k: None if math.isnan(v) else round(v, 4) for k, v in found.items()}


def changed(truth: EvalSet, beside: ReferenceDetector, cached: FeatureCache, **to: float) -> dict:
    "Metrics with one setting of the references changed."
    usual, beside.references = beside.references, copy.deepcopy(beside.references)
    for name, value in to.items():
        parts = beside.references.banks.values() if name == 'most' else [beside.references]
        for one in parts:
            setattr(one, name, value)
    found = row(truth, beside, cached)
    beside.references = usual
    return found


def rows_of(name: str, detector: HybridAnomalyDetector) -> dict:
    "Metrics of a set for each way of comparing."
    known, samples = chosen_of(name)
    truth = EvalSet(samples, SIZE, progress=False)
    images = load_references([s.image for s in known], detector.fit)
    deep = ReferenceDetector(detector, images[:2], layers=[''])  # so that all layers are cached
    cached = FeatureCache(deep, samples, progress=False)
    rows = {'prompts alone': row(truth, detector, cached)}
    for way, layers in LAYERS.items():
        beside = ReferenceDetector(detector, images, layers=layers)
        rows[way] = row(truth, beside, cached)
        if layers is None:
            for name, values in CHANGES.items():
                for v in values:
                    rows[f'{name} {v:g}'] = changed(truth, beside, cached, **{name: v})
    return rows


def choose(a: argparse.Namespace):
    "Compare, print and write."
    detector, sets, begun = detector_of(a.backbone, a.words), {}, time.perf_counter()
    for name in SETS:
        sets[name] = rows_of(name, detector)
        for way, figures in sets[name].items():
            print(f'{name:10} {way:45}', *figures.values(), flush=True)
    told = dict(normals=NORMALS, backbone=detector.backbone.hash, words=a.words, sets=sets)
    told['seconds'] = round(time.perf_counter() - begun)
    write_json(a.out, told | about('python experiments/choose_normals.py'))


if __name__ == '__main__':
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--backbone', help='a folder; default: that of the package')
    parser.add_argument('--words', nargs=2, metavar=('NORMAL', 'ABNORMAL'))
    parser.add_argument('--out', type=Path, default=RESULTS / 'reference_choice.json')
    choose(parser.parse_args())

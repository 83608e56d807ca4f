"""In which views and sizes a picture is best looked at, and how much the last layer should count: python tools/choose_readout.py

Draws fresh pictures of the auxiliary categories in two sizes and fresh hard ones, adds every third steel strip where HYBRIDAD_SHARED has them, reads all with
hand-written words, as tools/ship_backbone.py does, and writes results/readout_choice.json. No category and no photograph of a test set takes part."""

import numpy as np
import torch

from hybridad.config import get_default_config
from hybridad.data import read_dataset
from hybridad.evaluation import Truth, WordsDetector, evaluate, write_json
from hybridad.hard import write_hard
from hybridad.synthetic import write_dataset
from hybridad.training import KeptInputs

from measure import RESULTS, RUNS, SHARED, about, short
from ship_backbone import weights

SEED = 21  # of pictures that neither backbone nor prompts have seen
EQUAL = 1 / 6  # of six layers; what the last one does not get, the others share
CHOICES = {
    'one view': (1, None, EQUAL),
    'one view, last layer 40%': (1, None, 0.4),
    'two views': (2, None, EQUAL),
    'four views': (4, None, EQUAL),
    'twice the size': (1, (2.0,), EQUAL),
    'sizes 1 and 1.5': (2, (1.0, 1.5), EQUAL),
    'sizes 1 and 2': (2, (1.0, 2.0), EQUAL),
    **{f'sizes 1 and 2, last layer {w:.0%}': (2, (1.0, 2.0), w) for w in (0.3, 0.4, 0.5, 0.7)},
}


def pictures():  # name -> list of Sample
    "Four validation sets, drawn once."
    root, draw = (
        RUNS / 'readout_choice',
        {
            'clean 128 px': (write_dataset, 128, 6),
            'clean 256 px': (write_dataset, 256, 4),
            'rough 256 px': (write_hard, 256, 4),
        },
    )
    for name, (write, size, count) in draw.items():
        if not (root / name).exists():
            write(root / name, size=size, seed=SEED, count=count)
    folders = {name: root / name for name in draw} | (
        {'steel strip': SHARED / 'data' / 'steel_strip'}
        if (SHARED / 'data' / 'steel_strip').exists()
        else {}
    )
    found = {name: [s for s in read_dataset(f) if s.split == 'test'] for name, f in folders.items()}
    return {
        name: samples[::3] if name == 'steel strip' else samples for name, samples in found.items()
    }


def choose():
    detector, rows, samples = WordsDetector(get_default_config(device='cpu')), [], pictures()
    truths, looked = {name: Truth(s, 128) for name, s in samples.items()}, None
    for name, (detector.config.model.views, detector.config.model.scales, last) in CHOICES.items():
        looks = detector.config.model.views, detector.config.model.scales
        if looks != looked:
            kept, looked = (
                {s: KeptInputs(detector, samples[s], progress=False) for s in samples},
                looks,
            )
        detector.layer_logits.data = torch.tensor(weights(last)).log()
        found = {
            s: short(
                evaluate(detector, samples[s], truths[s], kept[s], progress=False)[0], 'defect_mean'
            )
            for s in samples
        }
        means = {s: round(float(np.nanmean(list(f.values()))), 4) for s, f in found.items()}
        rows.append(
            dict(
                choice=name,
                views=looks[0],
                scales=looks[1],
                last_layer=round(last, 3),
                cost=detector.looks,
                mean=round(float(np.mean(list(means.values()))), 4),
                means=means,
                sets=found,
            )
        )
        print({k: v for k, v in rows[-1].items() if k != 'sets'}, flush=True)
    write_json(
        RESULTS / 'readout_choice.json',
        dict(
            seed=SEED,
            images={n: len(s) for n, s in samples.items()},
            choices=rows,
            **about('python tools/choose_readout.py'),
        ),
    )


if __name__ == '__main__':
    choose()

"""How prompts should be learned: where they start, for how long, at what rate: python tools/choose_prompts.py

Learns prompts as the demo does and reads with them the pictures on which tools/ship_backbone.py chooses weights:
clean and rough ones of the auxiliary categories and every third steel strip. Three seeds; writes results/prompt_choice.json. No held-out category, tile or hazelnut takes part."""

import numpy as np

from hybridad.backbone import load_backbone
from hybridad.config import LEARN, get_default_config
from hybridad.detector import HybridAnomalyDetector
from hybridad.evaluation import Truth, WordsDetector, evaluate, write_json
from hybridad.training import KeptInputs, fit, keep_parts

from measure import RESULTS, about, fresh, sets, short
from ship_backbone import validation_sets

NOISE, SEEDS = dict(ctx_init=None), range(3)
CHOICES = {
    'from words': {},  # as the demo does
    'from noise, learning rate 0.005': NOISE | dict(learning_rate=5e-3),
    'from noise, 16 epochs': NOISE | dict(epochs=16),
}


def choose():
    learn, every, rows, kept = [*sets()][0], validation_sets(), {}, {}
    truths, backbone = {n: Truth(s, 128) for n, s in every.items()}, load_backbone('mini', 'cpu')
    for seed in SEEDS:
        settings = lambda **changes: get_default_config(
            batch_size=32, seed=seed, device='cpu', **LEARN | dict(epochs=8) | changes
        )
        plain = HybridAnomalyDetector(settings(), backbone)
        parts = keep_parts(plain, learn)
        kept = {
            n: kept[n].asked_again(plain, False) if seed else KeptInputs(plain, s, progress=False)
            for n, s in every.items()
        }

        def read(name, detector):
            found = {
                n: short(
                    evaluate(detector, s, truths[n], kept[n], progress=False)[0], 'defect_mean'
                )
                for n, s in every.items()
            }
            score = float(np.mean([np.nanmean(list(f.values())) for f in found.values()]))
            rows.setdefault(name, []).append(dict(seed=seed, mean=round(score, 4), sets=found))
            print(
                name,
                seed,
                round(score, 4),
                {n: {m: round(v, 3) for m, v in f.items()} for n, f in found.items()},
                flush=True,
            )

        if seed == 0:
            read('hand-written words', WordsDetector(settings(), backbone))
        for name, changes in CHOICES.items():
            detector = HybridAnomalyDetector(config := settings(**changes), backbone)
            fit(config, parts, fresh('prompt_choice'), detector, progress=False)
            read(name, detector)
    write_json(
        RESULTS / 'prompt_choice.json',
        dict(
            images={n: len(s) for n, s in every.items()},
            choices=rows,
            **about('python tools/choose_prompts.py'),
        ),
    )


if __name__ == '__main__':
    choose()

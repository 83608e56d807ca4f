"""What grounding, the moving average and a weighting of the noise levels do in a short training from random weights: python tools/choose_pretraining.py

Trains miniatures on one corpus with the autoencoder that ships, reads the pictures on which tools/ship_backbone.py chooses weights with
hand-written words, and writes results/pretraining_choice.json. A quarter of an hour on two cores. No held-out category, tile or hazelnut takes part."""

import json
import shutil
from dataclasses import asdict
from unittest.mock import patch

import numpy as np
import torch

from hybridad import pretraining
from hybridad.backbone import MINI, load_backbone
from hybridad.config import get_default_config
from hybridad.evaluation import Truth, WordsDetector, evaluate
from hybridad.pretraining import DiffusionTrainer, Recipe, pretrain
from hybridad.runs import write_json

from measure import RESULTS, about, fresh, short
from ship_backbone import validation_sets

RECIPE = dict(seed=5, pictures=1500, steps=400, full_from=400, rough=0.5, compiled=True)


class MinSNR(DiffusionTrainer):
    "Noise levels weighted by min(SNR, 5)/SNR (Hang et al. 2023, arXiv 2303.09556)."

    def denoising(self, out, eps, t):
        kept = self.scheduler.alphas_cumprod[t]
        snr = kept / (1 - kept)
        return (snr.clamp(max=5) / snr * (out - eps).square().mean((1, 2, 3))).mean()


def trained(name, corpus=None, trainer=DiffusionTrainer, **changes):  # folder of the run
    folder, recipe = fresh(f'pretraining_{name}'), Recipe(**RECIPE | changes)
    shutil.copytree(MINI / 'vae', folder / 'vae')
    (folder / 'recipe.json').write_text(json.dumps(asdict(recipe)))
    if corpus:
        shutil.copytree(corpus, folder / 'corpus')
    with patch.object(pretraining, 'DiffusionTrainer', trainer):
        pretrain(folder, recipe, resume=True)
    return folder


def without_average(
    run,
):  # folder of the same run, its last weights in place of their moving average
    folder = fresh('pretraining_last')
    shutil.copytree(run, folder, ignore=shutil.ignore_patterns('backbone'))
    state = torch.load(folder / 'state.pt', weights_only=True)
    torch.save(state | dict(ema=state['params']), folder / 'state.pt')
    pretrain(folder, Recipe(**RECIPE), resume=True)
    return folder


def choose():
    sets, found = validation_sets(), {}
    truths = {n: Truth(s, 128) for n, s in sets.items()}

    def read(name, folder):
        words = WordsDetector(
            get_default_config(device='cpu'), load_backbone(str(folder / 'backbone'), 'cpu')
        )
        figures = {
            n: short(evaluate(words, s, truths[n], progress=False)[0], 'defect_mean')
            for n, s in sets.items()
        }
        found[name] = dict(
            mean=round(
                float(
                    np.mean(
                        [
                            np.nanmean([v for v in f.values() if v is not None])
                            for f in figures.values()
                        ]
                    )
                ),
                4,
            ),
            sets=figures,
        )
        print(
            name,
            found[name]['mean'],
            {n: {m: v and round(v, 3) for m, v in f.items()} for n, f in figures.items()},
            flush=True,
        )

    read('the recipe as it is', run := trained('plain'))
    read('last weights, no average', without_average(run))
    read('no grounding', trained('ungrounded', run / 'corpus', ground=0.0))
    read('min-SNR weighting', trained('min_snr', run / 'corpus', MinSNR))
    write_json(
        RESULTS / 'pretraining_choice.json',
        dict(
            recipe=RECIPE,
            images={n: len(s) for n, s in sets.items()},
            choices=found,
            **about('python tools/choose_pretraining.py'),
        ),
    )


if __name__ == '__main__':
    torch.set_num_threads(2)
    choose()

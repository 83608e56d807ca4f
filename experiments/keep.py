"""How much of the UNet that a training began with to keep: what photographs and nouns say.

Command:  python experiments/keep.py RUN (writes results/keep.json)
          RUN is a folder of `hybridad pretrain` whose recipe keeps a share
Duration: `seconds` in the result
Data:     validation photographs as prompts.py has them, which choose the share; beside them the
          nouns and controls of miniature.py

A share of 0 is what training alone gives; with 1, keys, values and the text encoder are all that
is left of it. The share was chosen after the training had ended."""

import argparse
import shutil
import tempfile
from pathlib import Path

import torch
from common import RESULTS, Timed, fresh
from miniature import part_controls, part_kinds, part_nouns
from prompts import Study
from safetensors.torch import load_file, save_file

from hybridad.config import ONE_VIEW
from hybridad.pretraining.parts import READS_TEXT
from hybridad.pretraining.run import recipe_of

SHARES = 0.0, 0.25, 0.5, 0.75, 1.0
UNET = Path('unet') / 'diffusion_pytorch_model.safetensors'


def trained_alone(kept: dict, first: dict, share: float) -> dict:
    "The weights as training left them, from an average of which `share` is `first`."
    return {
        k: w if k.endswith(READS_TEXT) else (w - share * first[k]) / (1 - share)
        for k, w in kept.items()
    }


def averaged(run: Path, share: float, out: Path) -> Path:
    "The exported backbone with another share of the weights that the run began with."
    first = load_file(run / 'first.safetensors')
    kept = {k: w.float() for k, w in load_file(run / 'backbone' / UNET).items()}
    trained = trained_alone(kept, first, recipe_of(run).keep)
    shutil.copytree(run / 'backbone', out)
    found = {
        k: w if k.endswith(READS_TEXT) else w.lerp(first[k], share) for k, w in trained.items()
    }
    save_file({k: w.half().contiguous() for k, w in found.items()}, out / UNET, {'format': 'pt'})
    return out


def measured(backbone: str, small: bool) -> dict:
    "Means over validation photographs, and what the nouns of a backbone do."
    study = Study(argparse.Namespace(backbone=backbone, small=small))
    seeds = range(1 if small else 2)
    learned = [study.learned('photo', s, fresh('keep'), batch_size=16, **ONE_VIEW) for s in seeds]
    nouns, controls, kinds = part_nouns(backbone), part_controls(backbone), part_kinds(backbone)
    return dict(
        photographs=dict(
            learned=[study.validation.read(d)['mean'] for d in learned],
            nouns=study.by_hand('nouns')['mean'],
        ),
        nouns={k: v['mean'] for k, v in nouns.items()},
        lists_of_nouns={k: controls['lists of nouns'][k] for k in ('pixel_auroc', 'pixel_ap')},
        state_words={k: controls['state words'][k] for k in ('pixel_auroc', 'pixel_ap')},
        kinds=dict(gain=kinds['mean_gain'], positive=kinds['positive'], of=kinds['kinds']),
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('run', type=Path)
    parser.add_argument('--out', type=Path, default=RESULTS)
    parser.add_argument('--small', action='store_true')
    a = parser.parse_args()
    a.backbone = str(a.run / 'backbone')
    timed, found = Timed(a, 'keep', ''), {}
    timed.command = f'python experiments/keep.py runs/{a.run.name}'
    for share in SHARES:
        with tempfile.TemporaryDirectory() as folder:
            backbone = averaged(a.run, share, Path(folder) / f'keep{share:.2f}')
            found[str(share)] = measured(str(backbone), a.small)
        print(share, found[str(share)], flush=True)
        timed.write(dict(shares=found))


if __name__ == '__main__':
    torch.set_num_threads(1)
    main()

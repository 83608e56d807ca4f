"""What the miniature's words mean.

Command:  python experiments/miniature.py BACKBONE nouns controls kinds samples
          (writes results/miniature_PART.json, or into --out)
Duration: about 12 minutes on two cores for all parts
Data:     images of the corpus under a seed that no training uses, and held-out synthetic images

BACKBONE is 'mini' or a diffusers folder."""

import argparse
import json
import os
import time
from collections import defaultdict
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from samples import part_samples
from sklearn.metrics import roc_auc_score

from hybridad.metrics.exact import pixel_metrics
from hybridad.models.backbone import load_backbone
from hybridad.models.pipeline import EasonADPipeline
from hybridad.pretraining.corpus import as_tensor, contents_of, corpus_picture
from hybridad.pretraining.grounding import Contents, words_of
from hybridad.runs import write_atomic, write_json
from hybridad.synthetic.defects import KINDS
from hybridad.synthetic.plain import HELD_OUT_KINDS, picture
from hybridad.visual.plots import as_png

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get('HYBRIDAD_SHARED', ROOT.parent / 'shared'))
SEED = 987_001  # of images that no training has seen
NORMAL = 'object , surface , background , label'
DEFECTS = 'hole , scratch , stain , crack , patch , spots'
KIND_NAMES = [k for k in KINDS if k not in HELD_OUT_KINDS]


@lru_cache
def held_out(count: int, damaged: bool = True) -> list:
    "Held-out images: (image, labels, Contents, mask, kind)."
    rows, i = [], 0
    while len(rows) < count:
        p = picture(SEED, i, 128, split='held_out')
        i += 1
        if not damaged or (p.mask.any() and p.kind in KIND_NAMES):
            rows.append((p.image, p.labels, contents_of(p, 'clean'), p.mask, p.kind))
    return rows


@lru_cache
def auxiliary(count: int) -> list:
    "Corpus images of an unused seed: (image, labels, Contents)."
    textures = SHARED / 'textures'
    folder = str(textures) if textures.is_dir() else ''
    return [corpus_picture(SEED, i, 128, textures=folder) for i in range(count)]


class Reader:
    "Maps of any texts from queries that are computed once."

    def __init__(self, name: str, images: list):
        backbone = load_backbone(name, 'cpu')
        self.pipeline = EasonADPipeline(backbone, map_size=64)
        with torch.no_grad():
            batches = as_tensor(np.stack(images)).split(16)
            latents = [backbone.encode_image(b) for b in batches]
            self.queries = [self.pipeline.queries(z) for z in latents]

    def masses(self, texts: list, size: int = 128) -> np.ndarray:  # (N, P, size, size)
        "Log masses of texts that compete."
        with torch.no_grad():
            found = torch.cat([self.pipeline.prompt_masses(q, texts) for q in self.queries])
            return F.interpolate(found, (size, size), mode='bilinear').numpy()

    def one(self, at: int, texts: list, size: int = 128) -> np.ndarray:  # (P, size, size)
        "Log masses of texts for one image."
        part, row = divmod(at, 16)
        queries = {k: q[row : row + 1] for k, q in self.queries[part].items()}
        with torch.no_grad():
            found = self.pipeline.prompt_masses(queries, texts)
            return F.interpolate(found, (size, size), mode='bilinear')[0].numpy()


def others(shown: Contents, noun: str) -> str | None:
    "The other things in an image as one prompt."
    rest = [words_of(n)[0] for n in shown.names if n != noun]
    return ' , '.join(rest) if rest else None


def noun_aurocs(reader: Reader, rows: list, wanted) -> dict:  # noun -> list of pixel AUROC
    "Map of a noun against the other things in the image, for each image that shows it."
    found = defaultdict(list)
    for at, (_, labels, shown, *_) in enumerate(rows):
        for i, noun in enumerate(shown.names):
            area, rest = (labels == i).mean(), others(shown, noun)
            if not wanted(noun) or rest is None or not 0.002 < area < 0.998:
                continue
            m = reader.one(at, ['a photo of a ' + words_of(noun)[0], rest])
            found[noun].append(roc_auc_score((labels == i).ravel(), (m[0] - m[1]).ravel()))
    return found


def summary(found: dict, least: int = 3) -> dict:
    "Mean over nouns that enough images show."
    means = {k: round(float(np.mean(v)), 4) for k, v in sorted(found.items()) if len(v) >= least}
    return dict(mean=round(float(np.mean(list(means.values()))), 4), nouns=len(means), each=means)


def part_nouns(name: str) -> dict:
    "Grounding of nouns on unseen images; of kinds on auxiliary and on held-out categories."
    rows, held = auxiliary(600), held_out(200)
    reader, other = Reader(name, [r[0] for r in rows]), Reader(name, [r[0] for r in held])
    return dict(
        design=summary(noun_aurocs(reader, rows, lambda n: n not in KINDS)),
        kinds_auxiliary=summary(noun_aurocs(reader, rows, KINDS.__contains__)),
        kinds_held_out=summary(noun_aurocs(other, held, KINDS.__contains__)),
    )


def ratio(reader: Reader, normal: str, abnormal: str) -> np.ndarray:
    "Log-ratio maps of two prompts."
    m = reader.masses([normal, abnormal])
    return m[:, 1] - m[:, 0]


PAIRS = {
    'state words': ('a photo of a flawless object', 'a photo of a damaged object'),
    'nonsense and the noun': ('a photo of a flawless object', 'a photo of a sdfgh object'),
    'colour and the noun': ('a photo of a flawless object', 'a photo of a green object'),
    'not an object': ('a photo of an object', 'sdfgh'),
    'nonsense': ('qwxz', 'sdfgh'),
    'lists of nouns': (NORMAL, DEFECTS),
}


def part_controls(name: str) -> dict:
    "Control 1: pairs of prompts on damaged held-out images."
    rows = held_out(200)
    reader, masks = Reader(name, [r[0] for r in rows]), np.stack([r[3] for r in rows])
    out = {}
    for label, pair in PAIRS.items():
        found = pixel_metrics(ratio(reader, *pair), masks)
        out[label] = dict(
            prompts=pair, pixel_auroc=round(found['auroc'], 4), pixel_ap=round(found['ap'], 4)
        )
    return out


def part_kinds(name: str) -> dict:
    "Control 2: pixel AP of each kind's own noun minus the mean of the other kinds' nouns."
    rows = held_out(300)
    reader, masks = Reader(name, [r[0] for r in rows]), np.stack([r[3] for r in rows])
    kinds = np.array([r[4] for r in rows])
    present = [k for k in KIND_NAMES if (kinds == k).sum() >= 5]
    base = 'a photo of an object'
    maps = {k: ratio(reader, base, f'{base} with a {KINDS[k][0]}') for k in present}
    gains = {}
    for k in present:
        at = kinds == k
        ap = {j: pixel_metrics(maps[j][at], masks[at])['ap'] for j in present}
        own = ap.pop(k)
        gains[k] = dict(own=round(own, 4), others=round(float(np.mean(list(ap.values()))), 4))
    gain = [g['own'] - g['others'] for g in gains.values()]
    return dict(
        mean_gain=round(float(np.mean(gain)), 4),
        positive=int(np.sum(np.array(gain) > 0)),
        kinds=len(gain),
        each=gains,
    )


PARTS = dict(
    nouns=part_nouns,
    controls=part_controls,
    kinds=part_kinds,
    samples=part_samples,
)


def main():
    "Run the parts that are named."
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('backbone')
    parser.add_argument('parts', nargs='+', choices=list(PARTS))
    parser.add_argument('--out', type=Path, default=ROOT / 'results')
    a = parser.parse_args()
    torch.set_num_threads(int(os.environ.get('OMP_NUM_THREADS', 2)))
    for part in a.parts:
        begun = time.time()
        found = PARTS[part](a.backbone)
        command = f'python experiments/miniature.py {a.backbone} {part}'
        about = dict(command=command, seconds=round(time.time() - begun))
        a.out.mkdir(parents=True, exist_ok=True)
        if figure := found.pop('sheet', None):
            write_atomic(a.out / f'miniature_{part}.png', as_png(figure))
        write_json(a.out / f'miniature_{part}.json', found | about)
        print(part, json.dumps(found)[:1500], flush=True)


if __name__ == '__main__':
    main()

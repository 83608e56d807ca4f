"""What normal images should say, and how much it should count.

Command:  python experiments/choose_normals.py (writes results/normals_choice.json)
Duration: not recorded
Data:     product lines of generated photo-like images under one camera each

Lines are of every third auxiliary category and surface: objects and framed parts lie in one place,
bare surfaces are seen at others; once with parts of one design, once with a design for each part.
They are read in one view with the prompts of the package and some normal images, while one part of
the reference after the other is changed."""

import shutil
from contextlib import ExitStack
from unittest.mock import patch

import numpy as np
import torch
from common import RESULTS, RUNS, about, short
from PIL import Image

from hybridad.data.layouts import read_mvtec
from hybridad.evaluation.evaluate import EvalSet, summarise
from hybridad.inference.scoring import load_scorer
from hybridad.models import reference as normals
from hybridad.models.features import FeatureCache, read_cached
from hybridad.models.reference import NormalReference, load_normals, use_normals
from hybridad.runs import write_json
from hybridad.synthetic.camera import photo_camera
from hybridad.synthetic.hard import _NEW, _OLD, HARD_DEFECTS, _damaged, _Invisible, _scene
from hybridad.synthetic.objects import CATEGORIES, OBJECTS
from hybridad.synthetic.plain import HELD_OUT_CATEGORIES
from hybridad.synthetic.surfaces import SURFACES, framed

SIZE, NORMALS, TESTS = 128, 8, 15
KEPT = [c for c in CATEGORIES if c not in HELD_OUT_CATEGORIES]
LINES = [
    *((n, False) for n in [*KEPT, *SURFACES][::3]),
    *((n, True) for n in [*SURFACES][::3]),
]  # name, its own edges in view


def _hurt(rng, image, region):
    "A part with a defect of any kind: kind, image, mask; 'good' where none shows."
    kinds = [*_OLD, *_NEW]
    try:
        drawn, (image, mask, _) = _damaged(rng, image, region, kinds[rng.integers(len(kinds))])
    except _Invisible:
        return 'good', image, np.zeros(region.shape, bool)
    return HARD_DEFECTS[drawn][1], image, mask


def line_pictures(number, name, edges, differ):
    """The normal pictures of a production line, then its tests: (part, kind, image, mask) each.
    Objects and framed parts lie in one place, bare surfaces are seen at others."""
    large = SIZE + SIZE // 8 if name in OBJECTS else 2 * SIZE
    design = np.random.default_rng([0, number])
    scene, everywhere, _ = _scene(design, large, name)
    camera, frame = (int(design.integers(2**31)) for _ in range(2))
    spread = design.choice([0.05, 0.2, 0.5])  # of the exposure
    for i in range(NORMALS + TESTS):
        rng = np.random.default_rng([0, number, i])
        if differ:
            scene, everywhere, _ = _scene(rng, large, name)
        y, x = rng.integers(0, large - SIZE + 1, 2)
        at = np.s_[y : y + SIZE, x : x + SIZE]
        kind, image, region = 'good', scene[at], everywhere[at]
        if edges:
            image, region, _ = framed(np.random.default_rng(frame), image, region)
        mask = np.zeros((SIZE, SIZE), bool)
        if i >= NORMALS and (i - NORMALS) % 5 not in (2, 3):
            kind, image, mask = _hurt(rng, image, region)
        exposed = np.clip(image * rng.uniform(1 - spread, 1 + spread), 0, 1)
        shot = photo_camera(np.random.default_rng(camera), image)(exposed)
        shot = np.clip(shot + rng.normal(0, 2, (SIZE, SIZE, 1)), 0, 255).astype(np.uint8)
        yield 'test' if i >= NORMALS else 'train', kind, shot, mask


def lines(differ):
    "The folder of all lines in MVTec layout."
    root = RUNS / ('lines_that_differ' if differ else 'lines')
    if not root.exists():
        _draw(drawn := root.with_name(root.name + '.partial'), differ)
        drawn.rename(root)
    return read_mvtec(root)


def _draw(root, differ):
    if root.exists():
        shutil.rmtree(root)
    for number, (name, edges) in enumerate(LINES):
        for i, (part, kind, image, mask) in enumerate(line_pictures(number, name, edges, differ)):
            for folder, pixels in (
                (f'{part}/{kind}', image),
                (f'ground_truth/{kind}', (mask * 255).astype(np.uint8)),
            ):
                if folder == 'ground_truth/good':
                    continue
                at = root / (name + '_framed' * edges) / folder
                at.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(
                    at / f'{i:03d}{"_mask" * folder.startswith("ground")}.png'
                )


class Levelled(NormalReference):
    "Less half the median of each picture, since exposure moves all its cells."

    def distance(self, features, leave_out=()):
        d = super().distance(features, leave_out)
        return d - d.flatten(1).median(1).values[:, None, None] / 2


CHOICES = {  # what is changed in the reference, what it is told, how many pictures it sees
    'prompts alone': ({}, {}, 0),
    **{f'as shipped, {k}': ({}, {}, k) for k in (1, 2, 4, NORMALS)},
    **{f'weight {w:g}, {k}': ({}, dict(weight=w), k) for w in (0.5, 1.0) for k in (2, NORMALS)},
    'trusted below a third': (
        {'trust': lambda d: max(0.0, 1 - 3 * d.mean().exp().item())},
        {},
        NORMALS,
    ),
    'trusted below a fifth': (
        {'trust': lambda d: max(0.0, 1 - 5 * d.mean().exp().item())},
        {},
        NORMALS,
    ),
    'levelled': ({'NormalReference': Levelled}, {}, NORMALS),
    'each cell alone': ({'with_neighbours': lambda f: f}, {}, NORMALS),
    'not whitened': (
        {'whitening': lambda c: (c.mean(0), torch.eye(c.shape[1]) / c.var(0).mean().sqrt())},
        {},
        NORMALS,
    ),
    'layer up_blocks.2': (
        {},
        dict(layer='up_blocks.2.attentions.0.transformer_blocks.0.attn2'),
        NORMALS,
    ),
}


def read_lines(detector, every, changed, told, count):  # figures of one choice
    test = {
        c: [s for s in every if s.category == c and s.split == 'test']
        for c in sorted({s.category for s in every})
    }
    found = []
    for c, samples in test.items():
        good = (
            load_normals(
                [s.image for s in every if s.category == c and s.split == 'train'][:count], SIZE
            )
            if count
            else None
        )
        with ExitStack() as changes:
            for name, new in changed.items():
                changes.enter_context(patch.object(normals, name, new))
            use_normals(detector, good, **told)
            found.append(
                read_cached(detector, FeatureCache(detector, samples, progress=False), SIZE)
            )
    return short(
        summarise(
            EvalSet([s for samples in test.values() for s in samples], SIZE),
            *map(np.concatenate, zip(*found)),
        )
    )


def choose():
    detector, rows = load_scorer(device='cpu').detector, []
    detector.config.model.views, detector.config.model.scales = 1, None
    for choice, how in CHOICES.items():
        rows.append(
            dict(
                choice=choice,
                alike=read_lines(detector, lines(False), *how),
                differ=read_lines(detector, lines(True), *how),
            )
        )
        print(
            choice,
            *({k: round(v, 3) for k, v in rows[-1][n].items()} for n in ('alike', 'differ')),
            flush=True,
        )
    write_json(
        RESULTS / 'normals_choice.json',
        dict(
            lines=len(LINES),
            normals=NORMALS,
            choices=rows,
            **about('python tools/choose_normals.py'),
        ),
    )


if __name__ == '__main__':
    torch.set_num_threads(2)
    choose()

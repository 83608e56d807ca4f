"""Which layer's queries say best what is normal, and how much they should count: python tools/choose_normals.py

Draws production lines (one design of each auxiliary category and surface, seen at other places under one camera), reads them with the prompts
that come with the package and eight normal pictures, and writes results/normals_choice.json. No photograph takes part."""
import itertools

import numpy as np
import torch
from PIL import Image

from hybridad.attention import cross_attention
from hybridad.data import read_mvtec
from hybridad.evaluation import Truth, summarise, write_json
from hybridad.normals import load_normals, use_normals
from hybridad.rough import KEPT, OLD, NEW, ROUGH_DEFECTS, SURFACES, _damaged, _scene, rough_camera
from hybridad.scoring import load_scorer
from hybridad.synthetic import OBJECTS
from hybridad.training import KeptInputs, read_kept

from measure import RESULTS, RUNS, about, short

SIZE, NORMALS, TESTS = 128, 8, 15

def shots(name, number, seed=0): # yields part, kind, (S, S, 3) uint8, (S, S) bool
    "One line: eight normal pictures, then fifteen of which nine have a defect."
    large = SIZE + 16 if name in OBJECTS else 2*SIZE
    design = np.random.default_rng([seed, number]); scene, region = _scene(design, large, name); camera = int(design.integers(2**31))
    for i in range(NORMALS + TESTS):
        rng = np.random.default_rng([seed, number, i]); y, x = rng.integers(0, large - SIZE + 1, 2); at = np.s_[y:y + SIZE, x:x + SIZE]
        image, mask, kind = scene[at], np.zeros((SIZE, SIZE), bool), 'good'
        if i >= NORMALS and i % 5 >= 2:
            kind, (image, mask, _) = _damaged(rng, image, region[at], (OLD + list(NEW))[rng.integers(len(OLD) + len(NEW))]); kind = ROUGH_DEFECTS[kind][1]
        shot = rough_camera(np.random.default_rng(camera), image)(np.clip(image*rng.uniform(.93, 1.07), 0, 1))
        yield 'test' if i >= NORMALS else 'train', kind, np.clip(shot + rng.normal(0, 2, (SIZE, SIZE, 1)), 0, 255).astype(np.uint8), mask

def lines():
    "The folder of all lines in MVTec layout."
    root = RUNS/'lines'
    for number, name in enumerate([] if root.exists() else [*KEPT, *SURFACES]):
        for i, (part, kind, image, mask) in enumerate(shots(name, number)):
            for folder, pixels in ((f'{part}/{kind}', image), (f'ground_truth/{kind}', (mask*255).astype(np.uint8))):
                if folder == 'ground_truth/good': continue
                (root/name/folder).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(root/name/folder/f'{i:03d}{"_mask"*folder.startswith("ground")}.png')
    return root

def choose():
    every, detector, rows = read_mvtec(lines()), load_scorer(device='cpu').detector, []
    detector.config.model.views, detector.config.model.scales = 1, None
    test = {c: [s for s in every if s.category == c and s.split == 'test'] for c in sorted({s.category for s in every})}
    truth = Truth([s for samples in test.values() for s in samples], SIZE)
    good = {c: load_normals([s.image for s in every if s.category == c and s.split == 'train'], SIZE) for c in test}
    for layer, weight in [(None, 0.), *itertools.product(cross_attention(detector.backbone.unet), (1.,)), *itertools.product([next(iter(cross_attention(detector.backbone.unet)))], (.5, 2.))]:
        found = []
        for c, samples in test.items():
            use_normals(detector, good[c] if weight else None, **(dict(layer=layer, weight=weight) if weight else {}))
            found.append(read_kept(detector, KeptInputs(detector, samples, progress=False), SIZE))
        rows.append(dict(layer=layer, weight=weight, **short(summarise(truth, *map(np.concatenate, zip(*found))))))
        print({k: round(v, 3) if isinstance(v, float) else v for k, v in rows[-1].items()}, flush=True)
    write_json(RESULTS/'normals_choice.json', dict(lines=len(test), normals=NORMALS, choices=rows, **about('python tools/choose_normals.py')))

if __name__ == '__main__':
    torch.set_num_threads(2)
    choose()

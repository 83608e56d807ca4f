"""What more compute, a larger UNet and more images would give the miniature: why bars are missed.

Command:  python experiments/scaling.py [middle] [compute] [size] [data] [probe] [figure]
          (writes results/scaling.json, .png; a part that is not named keeps its rows)
Duration: `cpu_seconds` inside, two hours of one core in all
Data:     a corpus of the recipe of its own seed, with texture photographs where HYBRIDAD_SHARED has
          them; the images of miniature.py; validation photographs as prompts.py has them

Every run begins with random weights (the autoencoder is the miniature's) and follows the recipe,
two thirds of its steps on crops, the rest on whole latents. `compute` changes the number of steps,
`size` the width of the UNet, `data` the number of images, each from the same `middle`. `probe` asks
what the queries of the miniature that ships know at all: a classifier learned on them, with every
label given, in place of words. It is an upper bound for words on these queries."""

import argparse
import os
import time
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from common import RESULTS, RUNS, SHARED, about, generator
from matplotlib.figure import Figure
from miniature import part_controls, part_kinds, part_nouns
from prompts import Study
from seeds import Bench
from sklearn.metrics import roc_auc_score
from torch import nn

from hybridad.metrics.checks import METRICS
from hybridad.models.backbone import load_backbone
from hybridad.models.pipeline import EasonADPipeline
from hybridad.pretraining.corpus import Corpus
from hybridad.pretraining.recipe import Recipe
from hybridad.pretraining.run import pretrain
from hybridad.runs import read_json, write_atomic, write_json
from hybridad.synthetic.defects import KINDS
from hybridad.visual.plots import as_png

STEPS, PICTURES = 800, 16_000  # of the middle
COMPUTE, WIDTHS, IMAGES = (400, 1600), (0.5, 1.5), (500, 4000)
OUT, FOLDER = RESULTS / 'scaling.json', RUNS / 'scaling'
BARS = dict(design=0.93, kinds_auxiliary=0.95, kinds_held_out=0.92, own_noun=0.05)
BARS |= dict(learned_image_auroc=0.91, learned_pixel_auroc=0.965, learned_aupro=0.93)


def recipe(steps: int = STEPS, pictures: int = PICTURES, **changes) -> Recipe:
    "The recipe of a run, on images that the first one generated."
    textures = SHARED / 'textures'
    usual = dict(seed=41, start='mini', pictures=pictures, full_from=steps * 2 // 3, ema=0.99)
    usual |= dict(textures=str(textures) if textures.is_dir() else '', steps=steps, lr=1e-3)
    return Recipe(**usual | changes)


def images() -> Path:
    "The run whose corpus all others use; it is encoded to the end before its only step."
    folder = FOLDER / f'corpus_{generator()}'
    pretrain(folder, recipe(1, ahead=1.0), folder.exists(), workers=2)
    return folder


def some_images(count: int) -> Path:
    "A folder with the first images of the corpus."
    whole, some = images(), FOLDER / f'corpus{count}_{generator()}'
    if count == PICTURES:
        return whole
    for file in [*sorted((whole / 'corpus').glob('*.npz'))[: count // 100], *whole.glob('vae/*')]:
        link = some / file.relative_to(whole)
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            os.link(file, link)
    return some


def measured(backbone: str) -> dict:
    "What words of a backbone mean, and what a list of nouns finds on photographs."
    nouns, controls, kinds = part_nouns(backbone), part_controls(backbone), part_kinds(backbone)
    study = Study(argparse.Namespace(backbone=backbone, small=False))
    found = {k: v['mean'] for k, v in nouns.items()}
    found |= dict(own_noun=kinds['mean_gain'], own_noun_positive=kinds['positive'])
    lists = controls['lists of nouns']
    found |= {f'list_{k}': lists[k] for k in ('pixel_auroc', 'pixel_ap')}
    found |= dict(photographs=round(study.by_hand('nouns')['mean'], 4))
    return found | {f'learned_{k}': v for k, v in learned(backbone).items()}


def learned(backbone: str) -> dict:
    "Prompts learned on auxiliary categories, seed 0, on held-out ones."
    bench = Bench(argparse.Namespace(backbone=backbone, small=False), 'scaling')
    return {k: round(v, 4) for k, v in bench.figures(bench.learned(0)).items() if k in METRICS}


def trained(steps: int = STEPS, pictures: int = PICTURES, width: float = 1.0) -> dict:
    "A run, or what is left of it, and its figures."
    folder = FOLDER / f'{steps}_{pictures}_{width}'
    asked = recipe(steps, pictures, width=width, corpus=str(some_images(pictures)))
    begun, spent = time.process_time(), folder / 'cpu_seconds.json'  # of attempts that ended
    before = read_json(spent) if spent.exists() else 0
    backbone = pretrain(folder, asked, folder.exists())
    took, unet = before + time.process_time() - begun, load_backbone(backbone, 'cpu').unet
    write_json(spent, took)
    seen = sum(asked.batch if i < asked.full_from else asked.full_batch for i in range(steps))
    row = dict(steps=steps, pictures=pictures, width=width, seen=seen, cpu_seconds=round(took))
    row |= dict(parameters=sum(p.numel() for p in unet.parameters()))
    return row | measured(str(backbone))


def queries_of(pipeline: EasonADPipeline, latents: torch.Tensor) -> torch.Tensor:  # (B, C, h, w)
    "Queries of all layers at the latent's size."
    size, found = latents.shape[-2:], pipeline.queries(latents).values()
    maps = (q.movedim(-1, -3).flatten(1, -3).float() for q in found)
    return torch.cat([nn.functional.interpolate(m, size, mode='nearest') for m in maps], 1)


def some_cells(queries: torch.Tensor, labels: np.ndarray, rng: np.random.Generator) -> tuple:
    "A few cells of each label of an image: (N, C) queries, (N,) labels."
    flat = labels.ravel()
    each = (np.flatnonzero(flat == v) for v in np.unique(flat))
    at = np.concatenate([rng.choice(e, min(12, len(e)), replace=False) for e in each])
    return queries.flatten(1).T[at].half(), flat[at]


def named_cells(backbone: str, count: int) -> tuple:
    "Queries and labels of cells to learn on, whole images to test on, numbers of names."
    pipeline = EasonADPipeline(load_backbone(backbone, 'cpu'), map_size=32)
    corpus, rng = Corpus(images(), asdict(recipe())), np.random.default_rng(0)
    corpus.wait(count // 100)
    learn, test, names = [], [], defaultdict(lambda: len(names))
    for i in range(0, count, 20):
        rows = [corpus[j] for j in range(i, i + 20)]
        with torch.no_grad():
            found = queries_of(pipeline, torch.stack([r[0] for r in rows]))
        for q, (_, labels, shown) in zip(found, rows):
            numbers = np.array([names[n] for n in shown.names])
            if i < 300:
                test.append((q.half(), labels, shown.names))
            else:
                learn.append(some_cells(q, numbers[labels], rng))
    x, y = zip(*learn)
    return torch.cat(x).float(), torch.from_numpy(np.concatenate(y)), test, dict(names)


def auroc_by_name(rows, names: dict) -> dict:
    "Names against the other names of their image; rows: logits (cells, names), labels, shown."
    found = defaultdict(list)
    for logits, labels, shown in rows:
        scores = logits[:, [names[n] for n in shown]]
        for i, name in enumerate(shown):
            here = labels.ravel() == i
            if len(shown) > 1 and 0.002 < here.mean() < 0.998:
                rest = scores[:, [k for k in range(len(shown)) if k != i]].logsumexp(1)
                found[name].append(roc_auc_score(here, (scores[:, i] - rest).numpy()))
    each = {k: np.mean(v) for k, v in found.items() if len(v) >= 3}
    design, kinds = ([v for k, v in each.items() if (k in KINDS) == w] for w in (False, True))
    return dict(design=round(float(np.mean(design)), 4), kinds=round(float(np.mean(kinds)), 4))


def probe_aurocs(model: nn.Module, test: list, names: dict, norm: tuple) -> dict:
    "Names of whole images by a classifier of cells."
    mean, spread = norm
    with torch.no_grad():
        cells = [((q.float().flatten(1).T - mean) / spread, *rest) for q, *rest in test]
        return auroc_by_name([(model(x), *rest) for x, *rest in cells], names)


def probed(backbone: str = 'mini', count: int = 3000) -> dict:
    "Nouns by a linear classifier of queries and by one with a hidden layer, labels given."
    x, y, test, names = named_cells(backbone, count)
    norm = x.mean(0), x.std(0) + 1e-5
    x, wide, found = (x - norm[0]) / norm[1], x.shape[1], {}
    hidden = nn.Sequential(nn.Linear(wide, 256), nn.GELU(), nn.Linear(256, len(names)))
    for name, model in dict(linear=nn.Linear(wide, len(names)), hidden=hidden).items():
        optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=1e-3)
        for _ in range(6):
            for at in torch.randperm(len(x)).split(512):
                loss = nn.functional.cross_entropy(model(x[at]), y[at])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        found[name] = probe_aurocs(model, test, names, norm)
    return found | dict(images=count, cells=len(x), names=len(names))


def note(rows: dict):
    "Add rows to the result."
    found = read_json(OUT) if OUT.exists() else {}
    write_json(OUT, found | about('python experiments/scaling.py', None) | dict(bars=BARS) | rows)
    print(rows, flush=True)


def rows_of(part: str) -> list:
    "Runs of a part, the middle of all apart."
    if part == 'compute':
        return [dict(steps=n) for n in COMPUTE]
    return [dict(width=w) for w in WIDTHS] if part == 'size' else [dict(pictures=n) for n in IMAGES]


SHOWN = {
    'design': 'nouns\nof the design',
    'kinds_held_out': 'kinds of\ndefects',
    'own_noun': 'own noun\nover others',
    'learned_image_auroc': 'learned:\nimage AUROC',
    'learned_aupro': 'learned:\nAUPRO',
    'photographs': 'photographs,\nlist of nouns',
}
AXES = dict(compute='cpu_seconds', size='parameters', data='pictures')


def drawn(ax, rows: list, name: str, x: str, colour: str):
    "A figure of some runs, in the order of x."
    rows = sorted((r for r in rows if name in r), key=lambda r: r[x])
    ax.plot([r[x] for r in rows], [r[name] for r in rows], 'o-', color=colour)
    return [r[x] for r in rows]


def figure():
    "Each figure against compute, size and data, with its bar; in orange what labels teach."
    found, sheet = read_json(OUT), Figure((9, 8.5), layout='constrained')
    axes = sheet.subplots(len(SHOWN), 3, sharey='row', sharex='col')
    for row, (name, title) in zip(axes, SHOWN.items()):
        for ax, (part, x) in zip(row, AXES.items()):
            rows = [r for k, r in found.items() if k == 'middle' or k.startswith(part)]
            ticks = drawn(ax, rows, name, x, 'C0')
            if part == 'compute':
                taught = [r for k, r in found.items() if k.startswith('supervised')]
                drawn(ax, taught, name, x, 'C1')
            ax.set_xscale('log')
            ax.set_xticks(ticks, [f'{t:,}' for t in ticks], fontsize=8)
            ax.minorticks_off()
            if name in BARS:
                ax.axhline(BARS[name], color='C3', lw=1)
        row[0].set_ylabel(title, fontsize=8)
    for ax, (part, x) in zip(axes[-1], AXES.items()):
        ax.set_xlabel(f'{part}: {x.replace("_", " ")}')
    write_atomic(RESULTS / 'scaling.png', as_png(sheet))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = 'middle', 'compute', 'size', 'data', 'probe', 'figure'
    parser.add_argument('parts', nargs='*', choices=parts, default=list(parts))
    for part in parser.parse_args().parts:
        if part == 'figure':
            figure()
        elif part == 'probe':
            note(dict(probe=probed()))
        elif part == 'middle':
            note(dict(middle=trained()))
        else:
            for k, how in enumerate(rows_of(part)):
                note({f'{part}{k}': trained(**how)})


if __name__ == '__main__':
    torch.set_num_threads(1)
    main()

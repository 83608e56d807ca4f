"""Turn a finished pretraining run into the embedded backbone: python tools/ship_backbone.py RUN

Copies RUN/backbone to hybridad/backbones/mini, samples a few captions, and writes the model card
and results/pretraining.json. Prompts fit one set of weights only: `make results` afterwards learns
new ones and measures again."""

import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from hybridad.models.backbone import load_backbone
from hybridad.models.parts import quiet
from hybridad.pretraining.corpus import open_textures
from hybridad.pretraining.grounding import KNOWN_KINDS, WEIGHTS
from hybridad.pretraining.recipe import Recipe
from hybridad.pretraining.run import recipe_of
from hybridad.runs import read_log, write_json
from hybridad.synthetic.plain import HELD_OUT_CATEGORIES, HELD_OUT_KINDS
from hybridad.visual.plots import map_grid, save_figure

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'experiments'))
from common import ROOT, about  # noqa: E402

MINI = ROOT / 'hybridad' / 'backbones' / 'mini'
CAPTIONS = [
    f'a photo of a {words}'
    for words in (
        'flawless carpet',
        'perfect wood',
        'intact gear',
        'clean granite',
        'flawless bolt on wood',
        'damaged plaster with a hole',
    )
]
CARD = """---
license: cc-by-4.0
library_name: diffusers
tags: [anomaly-detection, latent-diffusion, synthetic-data]
---
# hybridad mini

A latent diffusion model of {millions:.1f} million parameters, made so that hybridad runs and can
be measured without a download. It is not Stable Diffusion and knows nothing of the world. Its nouns
are grounded: among prompts that compete, a pixel attends to the one that names it. Words of state
(damaged, flawless, ...) occur in captions alone.

![samples](samples.png)

*Samples for: {captions}.*

## One recipe

{commands}

| stage | what | amount |
|---|---|---|
{stages}

Of each batch {grounded_share:.0%} is grounded, the rest only denoised; in the cells of each defect
all {known_kinds} kinds compete. Seen: {seen:,} crops and latents, in {hours:.1f} hours on {cpu}.
Last losses: {final}.
{start}

## Prompts

`prompts.safetensors` holds prompts learned on 300 images with generated defects on the texture
photographs below. Validation photographs chose that mix among six (`results/prompts.json`).
`names.safetensors` holds a prompt for each kind of defect, and what the shape of a region says of
kinds, learned on regions of 7,000 generated images, to name regions (`results/names.json`).

## Data

Images generated from {seeds}, and photographs of textures:

{sources}

Left out altogether: the categories {held_categories} and the kinds {held_kinds}.

## Limits

Trained on images of 128 px. Its vocabulary has some {words} words; any other word
falls into letters.
"""
STARTED = """{parts} began with the weights of the
miniature before it (*mini* in the command, commit {commit} of this repository)."""
KEPT = """ Validation
photographs chose the share to average with, after the run had ended (`results/keep.json`)."""


def hours_of(rows: list) -> float:
    "Hours of work: gaps of over twenty minutes between log rows were pauses."
    times = [r['time'] for r in rows]
    return sum(b - a for a, b in zip(times, times[1:]) if b - a < 1200) / 3600


def chain(run: Path) -> list[Path]:
    "Runs from the first one to this, each of which began with the weights of the one before."
    before = Path(recipe_of(run).start).parent
    return [*(chain(before) if (before / 'log.jsonl').is_file() else []), run]


def told(run: Path) -> dict:
    "The recipe of a run, folders by their names."
    recipe = asdict(recipe_of(run))
    start, corpus = Path(recipe['start']), filter(None, recipe['corpus'].split(','))
    if (start.parent / 'log.jsonl').is_file():
        recipe['start'] = f'runs/{start.parent.name}/{start.name}'
    recipe['corpus'] = ','.join(f'runs/{Path(c).name}' for c in corpus)
    return recipe | dict(textures=bool(recipe['textures']))


def command_of(run: Path) -> str:
    "What repeats a run; settings that are the recipe's own are left out."
    usual = asdict(Recipe())
    asked = {k: v for k, v in told(run).items() if v != usual[k] and k != 'textures'}
    settings = ' '.join(f'{k}={v}' for k, v in asked.items())
    return f'hybridad pretrain --out runs/{run.name} --set {settings} textures=TEXTURES'


def steps_of(run: Path) -> list[dict]:
    "Rows of the log on the diffusion model."
    return [r for r in read_log(run / 'log.jsonl', 'time') if r['stage'] == 'diffusion']


def corpora(runs: list[Path]) -> list[Path]:
    "Runs of which only the images were used."
    used = {Path(c) for run in runs for c in filter(None, recipe_of(run).corpus.split(','))}
    return sorted(used - set(runs))


def facts_of(run: Path) -> dict:
    "What the runs behind a backbone were asked, saw and lost."
    runs, terms = chain(run), ('mse', *WEIGHTS, 'names')
    rows = [steps_of(r) for r in runs]
    log = [dict(run=run.name) | row for run, of in zip(runs, rows) for row in of]
    return about(command_of(run)) | dict(
        recipe=told(run),
        runs={r.name: command_of(r) for r in [*corpora(runs), *runs]},
        hours=sum(hours_of(read_log(r / 'log.jsonl', 'time')) for r in runs),
        seen=sum(of[-1]['seen'] for of in rows),
        final={k: rows[-1][-1][k] for k in terms if k in rows[-1][-1]},
        log=[{k: r[k] for k in ('run', 'step', *terms) if k in r} for r in log],
    )


def stages(run: Path) -> list[str]:
    "Rows of the card's table for one run."
    r, rows = recipe_of(run), []
    if r.corpus:
        rows.append(
            f'images | those of {told(run)["corpus"].replace(",", " and ")} | {r.pictures:,}'
        )
    else:
        shares = ', '.join(f'{v:.0%} {k}' for k, v in r.shares.items())
        rows.append(f'images | {shares}; every pixel labelled; encoded once | {r.pictures:,}')
    crops = min(r.full_from, r.steps)
    how = f'denoising and grounding, kinds from step {r.kinds_from:,}'
    how += f', all names at a weight of {r.names:g}' if r.names else ''
    if crops:
        rows.append(
            f'crops | {how}, crops of {r.crop}x{r.crop} latents | {crops:,} steps of {r.batch}'
        )
    rows.append(f'whole | {how}, whole latents | {r.steps - crops:,} steps of {r.full_batch}')
    if r.keep:
        rows.append(
            f'average | {r.keep:.0%} of the UNet begun with, but for what reads text | none'
        )
    return [f'| {run.name}, {row} |' for row in rows]


def sources_of(folder: str) -> str:
    "Lines on the texture photographs, with their licences."
    if not folder:
        return '- none'
    rows = open_textures(folder).sources.items()
    return '\n'.join(f'- {n}: {r["files"]} files, {r["licence"]}' for n, r in rows)


def started(first) -> str:
    "What the first run took over, from which commit."
    if not first.unet:
        return ''
    before = ('git', 'log', '-1', '--format=%h', '--', str(MINI / 'unet'))
    commit = subprocess.run(before, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    parts = 'All parts' if first.text else 'Autoencoder and UNet, but for what reads text,'
    return STARTED.format(parts=parts, commit=commit.strip())


def card(run: Path, facts: dict, backbone) -> str:
    "The model card."
    runs, recipe = chain(run), asdict(recipe_of(run))
    first = recipe_of(runs[0])
    modules = backbone.unet, backbone.text_encoder, backbone.vae
    taken = (
        f'taken over from {first.start} | none'
        if first.start
        else (f'L1, gradient L1, KL | {first.vae_steps:,} steps')
    )
    table = [f'| autoencoder | {taken} |', *(row for r in runs for row in stages(r))]
    seeds = sorted({recipe_of(r).seed for r in [*corpora(runs), *runs]})
    return CARD.format(
        **recipe | dict(start=started(first) + (KEPT if recipe['keep'] else '')),
        millions=sum(p.numel() for m in modules for p in m.parameters()) / 1e6,
        captions='; '.join(c[13:] for c in CAPTIONS),
        commands='\n\n'.join(f'`{c}`' for c in facts['runs'].values()),
        stages='\n'.join(table),
        hours=facts['hours'],
        cpu=facts['cpu'],
        final=', '.join(f'{k} {v:.3f}' for k, v in facts['final'].items()),
        sources=sources_of(recipe['textures']),
        known_kinds=len(KNOWN_KINDS),
        seen=facts['seen'],
        seeds=('seed ' if len(seeds) == 1 else 'seeds ') + ' and '.join(map(str, seeds)),
        held_categories=', '.join(HELD_OUT_CATEGORIES),
        held_kinds=' and '.join(HELD_OUT_KINDS),
        words=len(backbone.tokenizer) - 190,
    )


def samples(folder: Path):
    "Images for CAPTIONS, saved beside the weights."
    with quiet():
        from diffusers import StableDiffusionPipeline

        pipe = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    images = pipe(
        CAPTIONS,
        num_inference_steps=25,
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(1),
        output_type='np',
    ).images
    rows = [dict(image=x, title=c[13:]) for x, c in zip(images, CAPTIONS)]
    save_figure(map_grid(rows, ['image'], across=True), folder / 'samples.png', max_kb=100)


def ship(run: Path):
    "Put a run's backbone into the package, with its card."
    backbone, facts = load_backbone(str(run / 'backbone'), 'cpu'), facts_of(run)
    text = card(run, facts, backbone)  # before anything is replaced
    if MINI.exists():
        shutil.rmtree(MINI)
    shutil.copytree(run / 'backbone', MINI)
    for name in ('vocab.json', 'merges.txt'):
        shutil.copy(run / 'tokenizer' / name, MINI / 'tokenizer' / name)
    write_json(MINI / 'recipe.json', facts['recipe'])
    samples(MINI)
    (MINI / 'README.md').write_text(text)
    write_json(ROOT / 'results' / 'pretraining.json', facts)


if __name__ == '__main__':
    torch.set_num_threads(2)
    ship(Path(sys.argv[1]))

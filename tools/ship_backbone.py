"""Turn a finished pretraining run into the embedded backbone: python tools/ship_backbone.py RUN

Copies RUN/backbone to hybridad/backbones/mini, samples a few captions, and writes the model card
and results/pretraining.json. Prompts fit one set of weights only: `make results` afterwards learns
new ones and measures again."""

import json
import shutil
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from hybridad.models.backbone import load_backbone
from hybridad.models.parts import quiet
from hybridad.pretraining.corpus import SHARES, open_textures
from hybridad.pretraining.grounding import KNOWN_KINDS, WEIGHTS
from hybridad.pretraining.run import recipe_of
from hybridad.runs import write_json
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

`{command}`

| stage | what | amount |
|---|---|---|
| autoencoder | {autoencoder} | {vae_amount} |
| corpus | {shares}; every pixel labelled; encoded once | {pictures:,} images |
| crops | denoising and grounding, crops of {crop}x{crop} latents | {full_from:,} steps of {batch} |
| kinds | from step {kinds_from:,}, all {known_kinds} kinds compete in the cells of each defect | |
| whole | the same on whole latents | {whole:,} steps of {full_batch} |

Of each batch {grounded_share:.0%} is grounded, the rest only denoised. Seen: {seen:,} crops and
latents, in {hours:.1f} hours on {cpu}.
Last losses: {final}. {start}

## Prompts

`prompts.safetensors` holds prompts learned on 300 images with generated defects on the texture
photographs below. Validation photographs chose that mix among six (`results/prompts.json`).

## Data

Images generated from seed {seed}, and photographs of textures:

{sources}

Left out altogether: the categories {held_categories} and the kinds {held_kinds}.

## Limits

Trained on images of 128 px. Its vocabulary has some {words} words; any other word
falls into letters.
"""
STARTED = """Autoencoder and UNet, but for what reads text, began with the weights of the
miniature before it (commit bd1151d of this repository), the text encoder with random ones."""


def hours_of(rows: list) -> float:
    "Hours of work: gaps of over twenty minutes between log rows were pauses."
    times = [r['time'] for r in rows]
    return sum(b - a for a, b in zip(times, times[1:]) if b - a < 1200) / 3600


def facts_of(run: Path) -> dict:
    "What a finished run was asked, saw and lost."
    recipe = asdict(recipe_of(run))
    rows = [json.loads(row) for row in (run / 'log.jsonl').read_text().splitlines()]
    steps = [r for r in rows if r['stage'] == 'diffusion']
    terms = ('mse', *WEIGHTS)
    asked = ' '.join(f'{k}={v}' for k, v in recipe.items() if k != 'textures')
    return about(f'hybridad pretrain --set {asked} textures=TEXTURES') | dict(
        recipe=recipe | dict(textures=bool(recipe['textures'])),
        hours=hours_of(rows),
        seen=steps[-1]['seen'],
        final={k: steps[-1][k] for k in terms},
        log=[{k: r[k] for k in ('step', *terms) if k in r} for r in steps],
    )


def sources_of(folder: str) -> str:
    "Lines on the texture photographs, with their licences."
    if not folder:
        return '- none'
    rows = open_textures(folder).sources.items()
    return '\n'.join(f'- {n}: {r["files"]} files, {r["licence"]}' for n, r in rows)


def card(run: Path, facts: dict, backbone) -> str:
    "The model card."
    recipe = asdict(recipe_of(run))
    modules = backbone.unet, backbone.text_encoder, backbone.vae
    taken = f'taken over from {recipe["start"]}' if recipe['start'] else 'L1, gradient L1, KL'
    start = STARTED if recipe['unet'] else ''
    return CARD.format(
        **recipe | dict(start=start),
        millions=sum(p.numel() for m in modules for p in m.parameters()) / 1e6,
        captions='; '.join(c[13:] for c in CAPTIONS),
        command=facts['command'],
        autoencoder=taken,
        vae_amount='none' if recipe['start'] else f'{recipe["vae_steps"]:,} steps',
        shares=', '.join(f'{v:.0%} {k}' for k, v in SHARES.items()),
        whole=recipe['steps'] - recipe['full_from'],
        hours=facts['hours'],
        cpu=facts['cpu'],
        final=', '.join(f'{k} {v:.3f}' for k, v in facts['final'].items()),
        sources=sources_of(recipe['textures']),
        known_kinds=len(KNOWN_KINDS),
        seen=facts['seen'],
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

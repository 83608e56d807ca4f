"""Turn a finished pretraining run into the embedded backbone: python tools/ship_backbone.py RUN

Chooses the timestep and the weight of the last layer on validation images, copies the diffusers
folder to hybridad/backbones/mini, generates samples, writes the model card and
results/pretraining.json. Prompts fit one set of weights only: `experiments/demo.py` puts new ones
there, and `make results` measures again."""

import argparse
import json
import shutil
import sys
from dataclasses import asdict
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'experiments'))
from common import RESULTS, about, layer_weights, validation_sets  # noqa: E402

from hybridad.backbone import MINI, load_backbone
from hybridad.config import get_default_config
from hybridad.corpus import SHARES, ZOOMS
from hybridad.data import read_json
from hybridad.errors import DataError, HybridadError
from hybridad.evaluation import WordsDetector, write_json
from hybridad.grounding import WEIGHTS
from hybridad.plots import map_grid, save_figure
from hybridad.pretraining import JsonLog, Recipe
from hybridad.synthetic import HELD_OUT_CATEGORIES, HELD_OUT_KINDS
from hybridad.training import KeptInputs, validate

TIMESTEPS = (1, 10)
CLEAN = 0.005  # loss of score allowed on clean images; seeds differ by 0.002
LAST = (1 / 6, 0.3, 0.5)  # weights of the last layer; the five others share the rest
TERMS = ('mse', *WEIGHTS)  # losses that the log of a run holds
PROMPTS = [
    f'a photo of a {w}'
    for w in (
        'flawless carpet',
        'flawless grid',
        'perfect wood',
        'intact gear',
        'clean granite',
        'damaged plaster with a hole',
    )
]

CARD = """---
license: cc-by-4.0
library_name: diffusers
tags: [anomaly-detection, latent-diffusion, synthetic-data]
---
# hybridad mini

A latent diffusion model of {millions:.1f} million parameters (UNet {unet:.1f} M, text encoder
{text:.1f} M, autoencoder {vae:.1f} M), made so that hybridad runs and can be measured without a
download. It is not Stable Diffusion and knows nothing of the world.

![samples](samples.png)

*Samples for: {samples}.*

## Data

{pictures:,} images of {size} px from `hybridad.corpus` under seed {seed}: {shares} ({zooms}),
{textures}. Captions and prompts use a fixed vocabulary. Left out altogether: the categories
{held_categories} and the defect kinds {held_kinds}.

## Recipe

`{command}` with the settings of `recipe.json`: {autoencoder}, every image encoded once, then
{steps:,} steps of the UNet and the text encoder together, the first {full_from:,} on crops of
{crop}x{crop} latents. Each batch is denoised (epsilon prediction); {grounded_share:.0%} of it are
also read as hybridad reads them: {prompts} prompts divide an image, and their attention mass over
the up-block layers is taught the regions they name (`hybridad.grounding`). The moving average
({ema}) is kept, in float16.

{hours:.1f} hours on {cpu}. Last losses: {final}. Timestep {timestep} and the weights of the layers
were chosen on validation images (auxiliary categories, clean and rough, and steel strips if
present), see `results/pretraining.json`.

## Limits

Trained on images of {size} px only. On photographs its maps are weak, on whole natural images
meaningless. A word outside its vocabulary falls into pieces it was never shown. Samples are rough
textures.
"""


def candidate(words, timestep, last, kept) -> dict:
    "Scores of hand-written words on every validation set with one weight of the last layer."
    words.layer_logits.data = torch.tensor(layer_weights(last)).log()
    sets = {n: validate(words, k)[0] for n, k in kept.items()}
    score = sum(s['val_score'] for s in sets.values()) / len(sets)
    print(timestep, round(last, 2), round(score, 4), flush=True)
    weights = dict(last_layer=round(last, 3), weights=layer_weights(last))
    return dict(timestep=timestep, **weights, val_score=score, sets=sets)


def choose(backbone, sets) -> tuple[dict, list[dict]]:
    """The best candidate and all of them.

    Best is the highest mean over sets of those that lose at most CLEAN on the clean images;
    held-out categories and the photographs of the tests take no part."""
    rows = []
    for timestep in TIMESTEPS:
        words = WordsDetector(get_default_config(timestep=timestep), backbone)
        kept = {n: KeptInputs(words, samples) for n, samples in sets.items()}
        rows += [candidate(words, timestep, last, kept) for last in LAST]
    enough = max(r['sets']['auxiliary']['val_score'] for r in rows) - CLEAN
    able = [r for r in rows if r['sets']['auxiliary']['val_score'] >= enough]
    return max(able, key=lambda r: r['val_score']), rows


def hours_of(log) -> float:
    "Hours of work: gaps of over twenty minutes between log rows were pauses."
    times = [r['time'] for r in log]
    gaps = [b - a for a, b in zip(times, times[1:], strict=False)]
    return sum(g for g in gaps if g < 1200) / 3600


def account(run: Path) -> dict:
    "Command, recipe, hours and losses of a finished run."
    recipe, log = read_json(run / 'recipe.json'), [*JsonLog(run / 'log.jsonl').rows()]
    usual, rows = asdict(Recipe()), [r for r in log if r['stage'] == 'diffusion']
    if not rows or rows[-1]['step'] < recipe['steps']:
        raise DataError(f'{run} is not finished: continue it with --resume before it is shipped')
    changed = {k: v for k, v in recipe.items() if v != usual.get(k)}
    chosen = [f'{k}={str(v).lower() if isinstance(v, bool) else v}' for k, v in changed.items()]
    command = ' '.join([f'hybridad_backbone --out {run}', *(['--set', *chosen] if chosen else [])])
    return dict(
        about(command),
        recipe=recipe,
        hours=hours_of(log),
        pictures=recipe['pictures'],
        crops_and_pictures_seen=rows[-1]['seen'],
        final={k: rows[-1][k] for k in TERMS},
        autoencoder=[{k: r[k] for k in ('step', 'l1', 'loss')} for r in log if r['stage'] == 'vae'],
        log=[{k: r[k] for k in ('step', *TERMS)} for r in rows],
    )


def shares_of(table: dict) -> str:
    return ', '.join(f'{share:.0%} {name}' for name, share in table.items())


def start_words(recipe: dict) -> str:
    if not recipe['start']:
        return f'an autoencoder trained for {recipe["vae_steps"]:,} steps'
    taken = 'the autoencoder and the UNet' if recipe['unet'] else 'the autoencoder'
    return f'{taken} of {recipe["start"]}'


def card(told: dict, backbone, timestep: int) -> str:
    "Text of the model card."
    recipe = told['recipe']
    parts = dict(unet=backbone.unet, text=backbone.text_encoder, vae=backbone.vae)
    sizes = {k: sum(p.numel() for p in m.parameters()) / 1e6 for k, m in parts.items()}
    return CARD.format(
        **recipe | sizes | dict(textures=CARD_TEXTURES[bool(recipe['textures'])]),
        **{k: told[k] for k in ('command', 'cpu', 'hours')},
        millions=sum(sizes.values()),
        samples='; '.join(p.removeprefix('a photo of a ') for p in PROMPTS),
        shares=shares_of(SHARES),
        zooms=shares_of(ZOOMS),
        autoencoder=start_words(recipe),
        held_categories=', '.join(HELD_OUT_CATEGORIES),
        held_kinds=' and '.join(HELD_OUT_KINDS),
        final=', '.join(f'{k} {v:.3f}' for k, v in told['final'].items()),
        timestep=timestep,
    )


CARD_TEXTURES = (
    'hard images in place of photo-like ones, as no texture photographs were used',
    'photo-like ones with the texture photographs of DATA.md',
)


def save_samples(folder: Path):
    pipe = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    images = pipe(
        PROMPTS,
        num_inference_steps=25,
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(1),
        output_type='np',
    ).images
    titled = zip(images, PROMPTS, strict=True)
    records = [dict(image=x, title=p.removeprefix('a photo of a ')) for x, p in titled]
    save_figure(map_grid(records, ['image'], across=True), folder / 'samples.png', max_kb=100)


def ship(run: Path, target: Path, results: Path):
    source, told = run / 'backbone', account(run)
    backbone = load_backbone(str(source), 'cpu')
    best, found = choose(backbone, validation_sets())
    vocabulary = {n: (run / 'tokenizer' / n).read_bytes() for n in ('vocab.json', 'merges.txt')}
    text = card(told, backbone, best['timestep'])
    if target.exists():
        shutil.rmtree(target)
    shutil.copytree(source, target)
    for file in target.rglob('*'):
        file.chmod(0o755 if file.is_dir() else 0o644)
    for name, content in vocabulary.items():  # transformers 4 reads these
        (target / 'tokenizer' / name).write_bytes(content)
    chosen = {k: best[k] for k in ('timestep', 'weights')}
    settings = json.dumps(read_json(source / 'hybridad.json') | chosen, indent=1)
    (target / 'hybridad.json').write_text(settings + '\n')
    shutil.copy(run / 'recipe.json', target / 'recipe.json')
    save_samples(target)
    (target / 'README.md').write_text(text)
    write_json(results / 'pretraining.json', dict(told, **chosen, choices=found))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('run', type=Path, help='folder of a finished hybridad_backbone run')
    parser.add_argument('--target', type=Path, default=MINI, help='folder of the backbone')
    parser.add_argument('--results', type=Path, default=RESULTS, help='folder of pretraining.json')
    a = parser.parse_args()
    torch.set_num_threads(2)
    try:
        ship(a.run, a.target, a.results)
    except HybridadError as e:
        parser.error(str(e))


if __name__ == '__main__':
    main()

"""Turn a finished pretraining run into the embedded backbone: python tools/ship_backbone.py runs/mini3 [FOLDER]

With an earlier backbone given, such as the one shipped before, its weights are averaged in. Chooses its share, the timestep and what the last layer counts on
a validation part of the auxiliary categories, copies the diffusers folder to hybridad/backbones/mini,
draws samples, writes the model card and results/pretraining.json. Prompts fit one set of weights only: `tools/measure.py demo` puts new ones there."""

import json
import shutil
import sys
from dataclasses import asdict, replace
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file

from hybridad.backbone import load_backbone
from hybridad.config import get_default_config
from hybridad.data import read_dataset, read_mvtec
from hybridad.evaluation import WordsDetector, write_json
from hybridad.plots import map_grid, save_figure
from hybridad.pretraining import GROUND, Recipe
from hybridad.hard import write_hard
from hybridad.synthetic import HELD_OUT_CATEGORIES, HELD_OUT_KINDS, write_dataset
from hybridad.training import KeptInputs, validate

from measure import ROOT, RUNS, SHARED, about

TIMESTEPS = (1, 10)
CLEAN = 0.005  # what may be lost on clean pictures; seeds differ by 0.002
LAST = (1 / 6, 0.3, 0.5)  # what the last layer counts; the five others share the rest
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

TOLD, TERMS = ROOT / 'results' / 'pretraining.json', ('mse', *GROUND)
SHARES = (0.0, 0.2, 0.4, 0.6, 1.0)
VAE, PARTS = (
    'vae/diffusion_pytorch_model.safetensors',
    ('unet/diffusion_pytorch_model.safetensors', 'text_encoder/model.safetensors'),
)


def validation_sets():  # {name: list of Sample}
    "Clean and rough pictures of the auxiliary categories, and every third steel strip where there are any: none of them is a test."
    clean, rough, steel = RUNS / 'ship', RUNS / 'ship_rough', SHARED / 'data' / 'steel_strip'
    if not clean.exists():
        write_dataset(clean, seed=77, split='auxiliary', count=16)
    if not rough.exists():
        write_hard(rough, seed=77, count=6)
    test = lambda folder: [s for s in read_mvtec(folder) if s.split == 'test']
    return dict(
        auxiliary=test(clean), rough=[replace(s, category='rough') for s in test(rough)]
    ) | (
        dict(steel_strip=[s for s in read_dataset(steel) if s.split == 'test'][::3])
        if steel.is_dir()
        else {}
    )


def between(source, earlier, share):  # folder of a backbone
    "Weights between those of a sitting and earlier ones (Wortsman et al. 2022, model soups)."
    folder = RUNS / 'averaged'
    if folder.exists():
        shutil.rmtree(folder)
    shutil.copytree(source, folder)
    for p in PARTS if share else ():
        old, new = (
            {k.removeprefix('text_model.'): v for k, v in load_file(earlier / p).items()},
            load_file(source / p),
        )
        save_file(
            {
                k: (
                    share * old[k.removeprefix('text_model.')].float() + (1 - share) * v.float()
                ).to(v.dtype)
                for k, v in new.items()
            },
            folder / p,
            {'format': 'pt'},
        )
    return folder


def weights(last):
    return [round((1 - last) / 5, 4)] * 5 + [round(last, 4)]


def choose(source, earlier):  # the best choice, all of them
    "What reads best with hand-written words on validation pictures, mean over sets, among those that lose at most CLEAN on the clean one; held-out categories and the photographs of the tests take no part."
    rows, sets, kept = [], validation_sets(), {}
    alike = (
        earlier and (earlier / VAE).read_bytes() == (source / VAE).read_bytes()
    )  # weights for other latents cannot be averaged
    for share in SHARES if alike else (0.0,):
        backbone = load_backbone(str(between(source, earlier, share)), 'cpu')
        for t in TIMESTEPS:
            words = WordsDetector(get_default_config(timestep=t), backbone)
            kept = {
                n: kept[n].asked_again(words) if kept else KeptInputs(words, samples)
                for n, samples in sets.items()
            }
            for last in LAST:
                words.layer_logits.data = torch.tensor(weights(last)).log()
                told = {n: validate(words, k)[0] for n, k in kept.items()}
                rows.append(
                    dict(
                        share=share,
                        timestep=t,
                        last_layer=round(last, 3),
                        weights=weights(last),
                        val_score=sum(f['val_score'] for f in told.values()) / len(told),
                        sets=told,
                    )
                )
                print(
                    share,
                    t,
                    round(last, 2),
                    round(rows[-1]['val_score'], 4),
                    {n: {k: round(v, 3) for k, v in f.items()} for n, f in told.items()},
                    flush=True,
                )
    return max(
        (
            r
            for r in rows
            if r['sets']['auxiliary']['val_score']
            >= max(q['sets']['auxiliary']['val_score'] for q in rows) - CLEAN
        ),
        key=lambda r: r['val_score'],
    ), rows


CARD = """---
license: cc-by-4.0
library_name: diffusers
tags: [anomaly-detection, latent-diffusion, synthetic-data]
---
# hybridad mini

A latent diffusion model of {millions:.1f} million parameters (UNet {unet:.1f} M, text encoder {text:.1f} M, autoencoder {vae:.1f} M), made so that
hybridad runs and can be measured without a download. It is not Stable Diffusion and knows nothing of the world.

![samples](samples.png)

*Samples for: {prompts}.*

## Data

{pictures:,} procedural pictures of 128 px and the clean twins of a fifth of them, drawn from seed {seed}, {rough:.0%} of them by `hybridad.hard` and the others by
`hybridad.synthetic`; {doubled:.0%} are halves seen at twice their size; captions from a fixed vocabulary. Crops of scikit-image's own photographs are among the materials. Left out altogether: the categories {held_categories} and the defect kinds {held_kinds}.

## Recipe

`{command}` with the settings of `recipe.json`: an autoencoder (L1, gradient L1, a trace of KL; {autoencoder}), every picture encoded once, then
{steps:,} steps of the UNet and the text encoder together, the first {full_from:,} on crops of {crop}x{crop} latents. Each batch is denoised (epsilon prediction);
{grounded_share:.0%} of it are also read as hybridad reads them, and the log-ratio of a damaged and a flawless prompt over the up-block layers is taught the
defect mask by balanced cross entropy (defect cells, background, strongest cells of the picture). The moving average ({ema}) is kept, in float16.
{begun}
Hours of all sittings: {hours:.1f}, the last on {cpu}. Last losses: {final}.
Timestep {timestep} and the weights of the layers were chosen on validation pictures (auxiliary categories, clean and rough, and steel strips), see `results/pretraining.json`.

## Limits

Trained on synthetic pictures of 128 px only. On photographs its maps are weak, on whole natural images meaningless. Its vocabulary has some two hundred
words; any other word falls into pieces it was never shown. Samples are rough textures; the classes in the prompts cannot be told apart.
"""

BEGUN = """
It began with the weights of an earlier sitting: `{command}`, {hours:.1f} hours on {cpu}, losses {terms}, another {pictures:,} pictures from seed {seed}.
"""
AVERAGED = """
What is shipped lies between earlier weights, which were shipped before, and those that the last sitting ended with: {share:.0%} of the former, as the validation pictures chose.
"""


def hours_of(log):
    "Hours of work: gaps of over twenty minutes between log rows were pauses."
    times = [r['time'] for r in log]
    return sum(b - a for a, b in zip(times, times[1:]) if b - a < 1200) / 3600


def sitting(run):  # dict, with the sitting it began with under `before`
    "What a finished run saw and lost. One that began with another run is told with it, one that began with shipped weights with what pretraining.json tells of them."
    recipe, log = (
        json.loads((run / 'recipe.json').read_text()),
        [json.loads(row) for row in (run / 'log.jsonl').read_text().splitlines()],
    )
    usual, rows = asdict(Recipe()), [r for r in log if r['stage'] == 'diffusion']
    chosen = ' '.join(
        f'{k}={str(v).lower() if isinstance(v, bool) else v}'
        for k, v in recipe.items()
        if v != usual[k]
    )
    facts, before = (
        about(f'hybridad_backbone --out {run}' + (f' --set {chosen}' if chosen else '')),
        None,
    )
    if recipe['start']:
        before = json.loads(TOLD.read_text()) if TOLD.exists() else None
        if before and before['command'] == facts['command']:
            before = before['before']  # this run was shipped before
        begun_with = Path(recipe['start']).parent
        if (begun_with / 'log.jsonl').exists() and (
            not before or f'--out {begun_with} ' not in before['command']
        ):
            before = sitting(begun_with)
    return dict(
        facts,
        recipe=recipe,
        hours=hours_of(log),
        pictures=recipe['pictures'],
        crops_and_pictures_seen=rows[-1]['seen'],
        final={k: rows[-1][k] for k in TERMS},
        autoencoder=[{k: r[k] for k in ('step', 'l1', 'loss')} for r in log if r['stage'] == 'vae']
        or (before or {}).get('autoencoder', []),
        log=[{k: r[k] for k in ('step', *TERMS)} for r in rows],
        before=before,
    )


def with_earlier(told):  # list, oldest first
    "A sitting and all that came before it."
    found = []
    while told:
        found.insert(0, told)
        told = told.get('before')
    return found


def ship(run, earlier=None):
    run = Path(run)
    source = run / 'backbone'
    target = ROOT / 'hybridad' / 'backbones' / 'mini'
    told, earlier = sitting(run), Path(earlier) if earlier else None
    best, found = choose(source, earlier)
    share, timestep = best['share'], best['timestep']
    source = between(source, earlier, share)
    backbone = load_backbone(str(source), 'cpu')
    vocabulary = {
        n: (
            run / 'tokenizer' / n if (run / 'tokenizer').exists() else target / 'tokenizer' / n
        ).read_bytes()
        for n in ('vocab.json', 'merges.txt')
    }
    if target.exists():
        shutil.rmtree(target)
    shutil.copytree(source, target)
    for file in target.rglob('*'):
        file.chmod(0o755 if file.is_dir() else 0o644)
    for name, content in vocabulary.items():
        (target / 'tokenizer' / name).write_bytes(content)  # what transformers 4 reads
    settings = json.loads((source / 'hybridad.json').read_text()) | dict(
        timestep=timestep, weights=best['weights']
    )
    (target / 'hybridad.json').write_text(json.dumps(settings, indent=1) + '\n')
    shutil.copy(run / 'recipe.json', target / 'recipe.json')
    pipe = StableDiffusionPipeline.from_pretrained(target, safety_checker=None)
    images = pipe(
        PROMPTS,
        num_inference_steps=25,
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(1),
        output_type='np',
    ).images
    save_figure(
        map_grid(
            [dict(image=x, title=p[13:]) for x, p in zip(images, PROMPTS)], ['image'], across=True
        ),
        target / 'samples.png',
        max_kb=100,
    )
    every = with_earlier(told)
    begun = (AVERAGED.format(share=share) if share else '') + ''.join(
        BEGUN.format(**s, seed=s['recipe']['seed'], terms=', '.join(s['final']))
        for s in every[-2::-1]
    )
    autoencoder = ', '.join(
        f'{s["recipe"]["vae_steps"]:,} steps in sitting {i}'
        for i, s in enumerate(every, 1)
        if not s['recipe'].get('start') or s['recipe'].get('retrain')
    )
    size = lambda m: sum(p.numel() for p in m.parameters()) / 1e6
    unet, text, vae = size(backbone.unet), size(backbone.text_encoder), size(backbone.vae)
    (target / 'README.md').write_text(
        CARD.format(
            **told['recipe'],
            **{k: told[k] for k in ('command', 'cpu')},
            begun=begun,
            autoencoder=autoencoder,
            **{'unet': unet, 'text': text, 'vae': vae},
            millions=unet + text + vae,
            hours=sum(s['hours'] for s in every),
            final=', '.join(f'{k} {v:.3f}' for k, v in told['final'].items()),
            timestep=timestep,
            prompts='; '.join(p[13:] for p in PROMPTS),
            held_categories=', '.join(HELD_OUT_CATEGORIES),
            held_kinds=' and '.join(HELD_OUT_KINDS),
        )
    )
    write_json(
        TOLD,
        dict(
            told, timestep=timestep, share_of_earlier=share, weights=best['weights'], choices=found
        ),
    )


if __name__ == '__main__':
    torch.set_num_threads(2)
    ship(*sys.argv[1:3])

"""Turn a finished pretraining run into the embedded backbone: python tools/ship_backbone.py runs/mini

Chooses the timestep on a validation part of the auxiliary categories, copies the diffusers folder to hybridad/backbones/mini,
draws samples, writes the model card and results/pretraining.json. Prompts fit one set of weights only: `tools/measure.py demo` puts new ones there."""
import json
import shutil
import sys
from dataclasses import asdict
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline

from hybridad.backbone import load_backbone
from hybridad.cli import LEARN
from hybridad.config import get_default_config
from hybridad.data import read_mvtec
from hybridad.detector import HybridAnomalyDetector
from hybridad.evaluation import write_json
from hybridad.plots import map_grid, save_figure
from hybridad.pretraining import GROUND, Recipe
from hybridad.synthetic import HELD_OUT_CATEGORIES, HELD_OUT_KINDS, write_dataset
from hybridad.training import fit, keep_parts, read_log, validate

from measure import ROOT, RUNS, about, fresh

TIMESTEPS = (1, 10, 30)
PROMPTS = [f'a photo of a {w}' for w in ('flawless carpet', 'flawless grid', 'perfect wood', 'intact gear', 'clean granite', 'damaged plaster with a hole')]

def choose_timestep(backbone): # timestep, {timestep: validation figures}
    "Prompts learned at each timestep, compared on the validation part; held-out categories take no part."
    folder, cache = RUNS/'ship', RUNS/f'timesteps-{backbone.hash}.json'
    if cache.exists(): found = {int(t): v for t, v in json.loads(cache.read_text()).items()}; return max(found, key=lambda t: found[t]['val_score']), found
    if not folder.exists(): write_dataset(folder, seed=77, split='auxiliary', count=16)
    samples = [s for s in read_mvtec(folder) if s.split == 'test']
    found, parts = {}, None
    for t in TIMESTEPS:
        detector = HybridAnomalyDetector(get_default_config(epochs=8, batch_size=32, timestep=t, **LEARN), backbone)
        parts = keep_parts(detector, samples) if parts is None else tuple(k.asked_again(detector) for k in parts)
        found[t], _ = validate(fit(detector.config, parts, fresh(f'timestep{t}'), detector), parts[1])
        print(t, {k: round(v, 4) for k, v in found[t].items()})
    write_json(cache, found)
    return max(found, key=lambda t: found[t]['val_score']), found

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

{pictures:,} procedural pictures of 128 px and the clean twins of a fifth of them, drawn by `hybridad.synthetic` from seed {seed}; captions from a fixed
vocabulary. Left out altogether: the categories {held_categories} and the defect kinds {held_kinds}.

## Recipe

`{command}` with the settings of `recipe.json`: an autoencoder (L1, gradient L1, a trace of KL; {vae_steps:,} steps), every picture encoded once, then
{steps:,} steps of the UNet and the text encoder together, the first {full_from:,} on crops of 16x16 latents. Each batch is denoised (epsilon prediction);
three quarters of it are also read as hybridad reads them, and the log-ratio of a damaged and a flawless prompt over the up-block layers is taught the
defect mask by balanced cross entropy (defect cells, background, strongest cells of the picture). What is shipped is the moving average ({ema}), in float16.
{begun}
Hours on two CPU cores ({cpu}), all sittings: {hours:.1f}. Last losses: {final}.
Timestep {timestep} was chosen on a validation part of the auxiliary categories, see `results/pretraining.json`.

## Limits

Trained on synthetic pictures of 128 px only. On photographs its maps are weak, on whole natural images meaningless. Its vocabulary has some two hundred
words; any other word falls into pieces it was never shown. Samples are rough textures; the classes in the prompts cannot be told apart.
"""

BEGUN = """
The run began with the weights of an earlier sitting: `{command}`, {hours:.1f} hours, losses {terms}. The autoencoder is that sitting's, and it drew another
{pictures:,} pictures, from seed {seed}; its settings and log are in `results/pretraining.json`.
"""

def hours_of(log):
    "Hours of work: gaps of over ten minutes between log rows were pauses."
    times = [r['time'] for r in log]
    return sum(b - a for a, b in zip(times, times[1:]) if b - a < 600)/3600

def ship(run):
    run = Path(run); recipe, log = json.loads((run/'recipe.json').read_text()), read_log(run/'log.jsonl')
    source, target = run/'backbone', ROOT/'hybridad'/'backbones'/'mini'
    backbone, hours = load_backbone(str(source), 'cpu'), hours_of(log)
    timestep, found = choose_timestep(backbone)
    vocabulary = {n: (run/'tokenizer'/n if (run/'tokenizer').exists() else target/'tokenizer'/n).read_bytes() for n in ('vocab.json', 'merges.txt')}
    if target.exists(): shutil.rmtree(target)
    shutil.copytree(source, target)
    for file in target.rglob('*'): file.chmod(0o755 if file.is_dir() else 0o644)
    for name, content in vocabulary.items(): (target/'tokenizer'/name).write_bytes(content)  # what transformers 4 reads
    settings = json.loads((source/'hybridad.json').read_text()) | dict(timestep=timestep)
    (target/'hybridad.json').write_text(json.dumps(settings, indent=1) + '\n')
    shutil.copy(run/'recipe.json', target/'recipe.json')
    pipe = StableDiffusionPipeline.from_pretrained(target, safety_checker=None)
    images = pipe(PROMPTS, num_inference_steps=25, guidance_scale=3., generator=torch.Generator().manual_seed(1), output_type='np').images
    save_figure(map_grid([dict(image=x, title=p[13:]) for x, p in zip(images, PROMPTS)], ['image'], across=True), target/'samples.png', max_kb=100)
    rows = [r for r in log if r['stage'] == 'diffusion']; last = rows[-1]
    usual = asdict(Recipe())
    chosen = ' '.join(f'{k}={str(v).lower() if isinstance(v, bool) else v}' for k, v in recipe.items() if v != usual[k])
    facts, told = about(f'hybridad_backbone --out {run}' + (f' --set {chosen}' if chosen else '')), ROOT/'results'/'pretraining.json'
    before = json.loads(told.read_text()) if recipe['start'] == 'mini' and told.exists() else None  # the sitting that made the weights this run began with
    begun = BEGUN.format(**before, seed=before['recipe']['seed'], terms=', '.join(before['final'])) if before else ''
    spent, sitting = hours, before
    while sitting: spent, sitting = spent + sitting['hours'], sitting.get('before')
    terms = ('mse', *GROUND); final = {k: last[k] for k in terms}
    size = lambda m: sum(p.numel() for p in m.parameters())/1e6
    unet, text, vae = size(backbone.unet), size(backbone.text_encoder), size(backbone.vae)
    (target/'README.md').write_text(CARD.format(**recipe, **facts, begun=begun, **{'unet': unet, 'text': text, 'vae': vae}, millions=unet + text + vae, hours=spent, final=final, timestep=timestep,
        prompts='; '.join(p[13:] for p in PROMPTS), held_categories=', '.join(HELD_OUT_CATEGORIES), held_kinds=' and '.join(HELD_OUT_KINDS)))
    keep = [{k: r[k] for k in ('step', *terms)} for r in rows]
    write_json(told, dict(facts, recipe=recipe, hours=hours, pictures=recipe['pictures'], crops_and_pictures_seen=last['seen'], final=final,
        timestep=timestep, timesteps={str(t): v for t, v in found.items()}, autoencoder=[{k: r[k] for k in ('step', 'l1', 'loss')} for r in log if r['stage'] == 'vae'] or before['autoencoder'], log=keep, before=before))

if __name__ == '__main__':
    torch.set_num_threads(2)
    ship(sys.argv[1])

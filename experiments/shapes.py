"""Strips in their own shape and squashed, a large scan in tiles, how often tiles alarm falsely, and
what it helps to learn in tiles.

Command:  python experiments/shapes.py [strips] [scan] [alarms] [train_tiles] (writes
          results/shapes.json; a part that is not named keeps its figures)
Duration: `cpu_seconds` inside, about ten minutes of one core in all
Data:     surfaces drawn by hybridad.synthetic.materials: strips of 128 x 512 px with one defect on
          two of three; one scan of 9000 x 12000 px, a TIFF in compressed tiles; good pictures of
          320 px (drawn surfaces, photographs of textures and of ball screws) that give nine tiles
          of 128 px, each of which is also a picture of one tile; for learning, pictures of 512 px
          with defects in 40 px, eleven materials to learn from and eleven others to test on

All but the last are read with the prompts of the package, good pictures in one view. Pixel metrics
of strips are taken at the size of the file, whatever the way it was read. The share of false alarms
asked for is 10 percent: the threshold is found on some good pictures and tried on others, the mean
of many splits. Found in one tile, `one_tile_scores` is the correction by scores of whole pictures
alone. Prompts that are learned make as many steps on whole pictures as on tiles."""

import argparse
import os
import subprocess
import sys
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import tifffile
import torch
import torch.nn.functional as F
from common import RESULTS, SHARED, about, fresh, photographs, priority
from PIL import Image
from watch import one_view

from hybridad.config import get_default_config
from hybridad.data.pairing import Sample
from hybridad.evaluation.contrast import contrast_baseline
from hybridad.evaluation.evaluate import EvalSet
from hybridad.evaluation.tile_scores import score_tiles
from hybridad.inference.scoring import findings, load_scorer
from hybridad.metrics.alarms import alarm_threshold
from hybridad.metrics.checks import METRICS
from hybridad.metrics.exact import image_metrics, pixel_metrics
from hybridad.models.detector import HybridAnomalyDetector
from hybridad.models.tiled import open_tiled, read_tiled
from hybridad.models.tiles import (
    Tiling,
    growth_of_images,
    growth_of_scores,
    growth_of_tiles,
    photo_score,
    quarters,
    tiler_of,
    tiling_of,
)
from hybridad.runs import read_json, write_json
from hybridad.synthetic.canvas import scene_of
from hybridad.synthetic.defects import add_defect
from hybridad.synthetic.materials import MATERIALS
from hybridad.training.loop import fit
from hybridad.training.validation import cache_parts

KINDS = 'scratch', 'hole', 'stain', 'crack'
ASKED = 0.1  # share of good pictures that may alarm
OUT = RESULTS / 'shapes.json'


def surface(seed: int, side: int) -> np.ndarray:  # (side, side, 3) in [0, 1]
    "A drawn surface, one material after the other."
    names = sorted(MATERIALS)
    return scene_of(MATERIALS[names[seed % len(names)]](np.random.default_rng(seed), side)).image


def save(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((image * 255).round().clip(0, 255).astype(np.uint8)).save(path)
    return path


def strip(seed: int) -> tuple[np.ndarray, np.ndarray]:  # (128, 512, 3), (128, 512) bool
    "A strip of a surface; two of three have a defect somewhere along it."
    rng, image, mask = np.random.default_rng(seed), surface(seed, 512), np.zeros((128, 512), bool)
    image = image[192:320].copy()
    if seed % 3:
        at = slice(left := rng.integers(0, 385), left + 128)
        everywhere, kind = np.ones((128, 128), bool), KINDS[seed % len(KINDS)]
        image[:, at], mask[:, at], *_ = add_defect(rng, image[:, at], everywhere, kind=kind)
    return image, mask


def strips(count: int = 120) -> dict:
    "Metrics of strips read in their own shape and squashed to a square."
    folder, masks, paths = fresh('strips'), [], []
    for seed in range(count):
        image, mask = strip(seed)
        paths.append(str(save(folder / f'{seed:03d}.png', image)))
        masks.append(mask)
    labels, found = np.array([m.any() for m in masks]), dict(images=count)
    for name, square in (('kept', False), ('squashed', True)):
        seen = list(findings(load_scorer(device='cpu', square=square, names=[]), paths))
        maps = [torch.from_numpy(f.map)[None, None] for f in seen]
        how = dict(size=(128, 512), mode='bilinear', align_corners=False)
        full = np.stack([F.interpolate(m, **how)[0, 0].numpy() for m in maps])
        pixels = pixel_metrics(full, np.stack(masks))
        images = image_metrics([f.score for f in seen], labels)
        found[name] = {f'pixel_{k}': round(pixels[k], 4) for k in ('auroc', 'ap')}
        found[name] |= dict(aupro=round(pixels['aupro'], 4), map=list(seen[0].map.shape))
        found[name] |= {f'image_{k}': round(images[k], 4) for k in ('auroc', 'ap')}
    return found


def write_scan(path: Path) -> None:
    "A scan of 9000 x 12000 px: one surface and its mirror images, with a few defects."
    part = surface(5, 1500)
    rows = np.concatenate([part if k % 2 else part[:, ::-1] for k in range(8)], 1)
    whole = np.concatenate([rows if k % 2 else rows[::-1] for k in range(6)])
    whole = (whole * 255).round().astype(np.uint8)
    rng = np.random.default_rng(0)
    for k, (y, x) in enumerate(((700, 900), (4400, 6100), (8000, 11000))):
        at = slice(y, y + 128), slice(x, x + 128)
        everywhere = np.ones((128, 128), bool)
        drawn = add_defect(rng, whole[at] / 255, everywhere, kind=KINDS[k])[0]
        whole[at] = (drawn * 255).round()
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, whole, photometric='rgb', tile=(256, 256), compression='zlib')


def scored(path: Path, out: Path, *flags: str) -> dict:
    "Processor time, time and memory of `hybridad score` on one file."
    begun, load = time.perf_counter(), os.getloadavg()[0]
    command = 'import sys; from hybridad.cli import hybridad; sys.exit(hybridad())'
    child = subprocess.Popen(
        [sys.executable, '-c', command, 'score', str(path), '--out', str(out), *flags]
    )
    _, status, used = os.wait4(child.pid, 0)
    if status:
        sys.exit('the scan was not scored, see above')
    return dict(
        child_cpu_seconds=round(used.ru_utime + used.ru_stime, 1),
        wall_seconds=round(time.perf_counter() - begun, 1),
        most_memory_mb=round(used.ru_maxrss / 1024),
        load_average=round(load, 2),
    )


def scan() -> dict:
    "Cost of one large file: whole, in tiles in two sizes as the prompts are read, in one view."
    folder = fresh('scan')
    path = folder / 'photos' / 'scan.tif'
    drawing = get_context('spawn').Process(target=write_scan, args=(path,))
    drawing.start()  # apart: a child is charged with the most memory that its parent ever had
    drawing.join()
    found = dict(pixels=[12000, 9000], megabytes=round(path.stat().st_size / 1e6, 1))
    found |= dict(threads=os.environ.get('OMP_NUM_THREADS'), priority=priority())
    single = '--checkpoint_path', str(one_view(folder / 'one_view.safetensors'))
    more = '--overlap', '32', '--batch_size', '16'
    ways = dict(
        whole=(),
        two_sizes=('--tile_scale', '0.2', *more),
        one_view=('--tile_scale', '0.5', *more, *single),
    )
    for name, flags in ways.items():
        found[name] = dict(command=' '.join(['hybridad score SCAN', *flags[:6]]))
        found[name] |= scored(path, folder / name, *flags)
        print(name, found[name], flush=True)
    return found


def tile_scores(scorer, path: Path) -> tuple[list, list]:
    "Scores of the nine tiles of a picture, and of the four quarters of the first tile."
    detector, text, parts = scorer.detector, scorer.text, []

    def scores(maps):
        out = detector.outputs(torch.stack([torch.zeros_like(maps), maps], 1))
        return out['image_logits'].diff(dim=1)[:, 0].double()

    def read(tiles, shape):
        masses = detector.masses(tiles, text, range(detector.config.model.views))
        maps = detector.outputs(masses)['logits']
        parts.extend(scores(quarters(maps[0])).tolist())
        return maps, scores(maps), None

    with torch.no_grad():
        return read_tiled(read, open_tiled(path, scorer.tiler), 9)[1], parts[:4]


def shares(scores: np.ndarray, area: float, growth: float, threshold: float) -> dict:
    "Shares of good pictures that alarm, of one tile and of nine, with and without the correction."
    whole = np.array([photo_score(s, area, growth) for s in scores])
    found = dict(
        one_tile=(scores >= threshold).mean(),
        nine_tiles=(whole >= threshold).mean(),
        nine_uncorrected=(scores.max(1) >= threshold).mean(),
    )
    return found


def found_in(good: tuple, other: np.ndarray, area: float) -> dict:
    "Shares of false alarms, the threshold found in nine tiles or in one of the good pictures."
    tiles, parts = good
    in_tiles, alone = growth_of_tiles(tiles, [area] * len(tiles)), tiles[:, 0]
    photos = [photo_score(s, area, in_tiles) for s in tiles]
    nine, one = (alarm_threshold(scores, ASKED)['threshold'] for scores in (photos, alone))
    found = dict(nine_tiles=dict(growth=in_tiles) | shares(other, area, in_tiles, nine))
    ways = dict(one_tile=growth_of_images(alone, parts), one_tile_scores=growth_of_scores(alone))
    return found | {k: dict(growth=g) | shares(other, area, g, one) for k, g in ways.items()}


def on_texture(seed: int, side: int) -> np.ndarray:  # (side, side, 3) in [0, 1]
    "A photograph of a surface from the folder of textures."
    files = sorted((SHARED / 'textures').glob('[!g]*/*.*'))  # no groceries: they fill no picture
    path = [f for f in files if f.suffix in ('.jpg', '.png')][seed]
    return np.asarray(Image.open(path).convert('RGB').resize((side, side))) / 255


def on_ballscrew(seed: int, side: int) -> np.ndarray:  # (side, side, 3) in [0, 1]
    "A photograph of a good ball screw."
    path = [s.image for s in photographs('ballscrew') if not s.label][seed]
    return np.asarray(Image.open(path).convert('RGB').resize((side, side))) / 255


GOOD = dict(surface=(surface, 320), texture=(on_texture, 320), ballscrew=(on_ballscrew, 90))


def alarms_of(name: str, splits: int = 200) -> dict:
    "False alarms of good pictures, the threshold found on others; means over splits of them."
    (draw, count), folder = GOOD[name], fresh(f'alarms_{name}')
    prompts = one_view(folder.with_suffix('.safetensors'))
    scorer = load_scorer(prompts, device='cpu', tiles=Tiling(scale=1.0, overlap=32), names=[])
    paths = (save(folder / f'{k:03d}.png', draw(k, 320)) for k in range(count))
    tiles, parts = map(np.array, zip(*[tile_scores(scorer, p) for p in paths]))
    area, rows, known = scorer.tiler((320, 320)).area, [], count // 2
    for seed in range(splits):
        order = np.random.default_rng(seed).permutation(count)
        learn, test = order[:known], order[known:]
        rows.append(found_in((tiles[learn], parts[learn]), tiles[test], area))
    means = {
        f'found_in_{way}': {k: round(float(np.mean([r[way][k] for r in rows])), 4) for k in row}
        for way, row in rows[0].items()
    }
    good_pictures = dict(to_calibrate=known, to_test=count - known, splits=splits)
    return dict(good_pictures=good_pictures, area=round(area, 2)) | means


def alarms() -> dict:
    "False alarms of three kinds of good pictures, drawn and photographed."
    return dict(asked=ASKED) | {name: alarms_of(name) for name in GOOD}


def large(folder: Path, material: str, seed: int, bad: bool) -> Sample:
    "A picture of 512 px; a bad one has a defect within 40 px somewhere."
    rng = np.random.default_rng([seed, *material.encode()])
    image, mask = scene_of(MATERIALS[material](rng, 512)).image.copy(), np.zeros((512, 512), bool)
    if bad:
        top, left = rng.integers(0, 472, 2)
        at, everywhere = np.s_[top : top + 40, left : left + 40], np.ones((40, 40), bool)
        image[at], mask[at], *_ = add_defect(rng, image[at], everywhere, kind=KINDS[seed % 4])
    name = f'{material}{seed}'
    drawn = save(folder / f'{name}_mask.png', np.repeat(mask[..., None], 3, 2)) if bad else None
    path = save(folder / f'{name}.png', image)
    return Sample(path, drawn, int(bad), 'surface', 'defect' if bad else 'good', 'test')


def learned(samples: list[Sample], out: Path, **settings) -> HybridAnomalyDetector:
    "Prompts learned in one view; `steps` of them, whatever the number of images or tiles."
    steps, seed = settings.pop('steps'), settings.pop('seed')
    how = dict(device='cpu', seed=seed, learning_rate=5e-3, validation_fraction=0.0)
    detector = HybridAnomalyDetector(get_default_config(**how, **settings))
    parts = cache_parts(detector, samples, progress=False)
    each = -(-len(parts[0]) // detector.config.training.batch_size)
    detector.config.training.epochs = round(steps / each)
    return fit(detector.config, parts, out, detector=detector, progress=False)


def train_tiles(steps: int = 600, seeds: int = 3) -> dict:
    "Prompts learned on whole pictures and on tiles, both tested in tiles, beside local contrast."
    folder, cut = fresh('train_tiles'), dict(tile_scale=1.0, overlap=32)
    names = sorted(MATERIALS)
    learn, test = (
        [large(folder / part, m, s, s % 2 > 0) for m in names[k::2] for s in range(4)]
        for k, part in enumerate(('learn', 'test'))
    )
    ways = {
        f'{way}{seed}': learned(learn, folder / f'{way}{seed}', seed=seed, steps=steps, **how)
        for seed in range(seeds)
        for way, how in (('whole', {}), ('tiles', cut))
    }
    tiler = tiler_of(ways['tiles0'], tiling_of(ways['tiles0'].config))
    found, truth = score_tiles(ways, test, 256, tiler=tiler), EvalSet(test, 256, progress=False)
    rows = {n: truth.score(found[f'{n}_maps'], found[f'{n}_scores']) for n in ways}
    result = dict(pictures=dict(learn=len(learn), test=len(test)), steps=steps, seeds=seeds, **cut)
    for way in ('whole', 'tiles'):
        mine = [short_of(rows[f'{way}{seed}']) for seed in range(seeds)]
        spread = {k: round(float(np.std([m[k] for m in mine])), 4) for k in mine[0]}
        mean = {k: round(float(np.mean([m[k] for m in mine])), 4) for k in mine[0]}
        result[f'learned_{way}'] = dict(mean=mean, deviation_over_seeds=spread)
    contrast = contrast_baseline(truth, progress=False)['mean']
    return result | dict(local_contrast_best_of_eight=short_of(contrast))


def short_of(metrics: dict) -> dict:
    return {k: round(float(metrics[k]), 4) for k in METRICS}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parts = dict(strips=strips, scan=scan, alarms=alarms, train_tiles=train_tiles)
    parser.add_argument('parts', nargs='*', default=[], metavar='PART', help=', '.join(parts))
    asked = parser.parse_args().parts or list(parts)
    torch.set_num_threads(1)
    found = read_json(OUT) if OUT.exists() else {}
    for name in asked:
        begun = time.process_time()
        result = parts[name]()
        result['cpu_seconds'] = round(time.process_time() - begun, 1)
        notes = about(f'python experiments/shapes.py {name}', None)
        write_json(OUT, found := found | {name: notes | result})
        print(name, result)


if __name__ == '__main__':
    main()

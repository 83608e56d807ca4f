"""The code before the rebuilding of the house against the code now: the same inputs, the same bits?

Command: python experiments/refactor.py --backbone FOLDER, a diffusers folder that both can read,
here the weights of commit bd1151d. Writes results/refactor.json. Duration: see `seconds` inside.
Data: the golden maps of HYBRIDAD_SHARED, random images, and a small generated set that both read.

The code before lies in a temporary git worktree. What issues asked to behave otherwise since then
is set to the former behaviour where a setting can do that, and named in `changed` where none can:
there a difference is meant."""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
import torch

BEFORE = '67eae93'  # the commit that the review of the house measured
SIDES = 'before', 'now'
PLACES = {  # name: module that held it, module that holds it; another name before in brackets
    'anomaly_metrics': ('metrics', 'metrics.exact'),
    'load_backbone': ('backbone', 'models.backbone'),
    'EasonADPipeline': ('pipeline', 'models.pipeline'),
    'HybridAnomalyDetector': ('detector', 'models.detector'),
    'CrossAttentionLoss': ('losses', 'losses'),
    'get_default_config': ('config', 'config'),
    'read_mvtec': ('layouts', 'data.layouts'),
    'fit': ('training', 'training.loop'),
    'FeatureCache (KeptInputs)': ('training', 'models.features'),
    'evaluate': ('evaluation', 'evaluation.evaluate'),
    'EvalSet (Truth)': ('evaluation', 'evaluation.evaluate'),
    'contrast_baseline (contrast_floor)': ('evaluation', 'evaluation.contrast'),
    'LinearProbe': ('evaluation', 'evaluation.baselines'),
    'WordsDetector': ('evaluation', 'evaluation.baselines'),
}
READOUTS = 'replay', 'exact', 'joint'
TEXTS = ['a photo of a flawless object', 'a photo of a damaged object']
SWITCHED = {
    'mass': 'start token and padding count: competing before, competing_all now',
    'masks': 'images, masks and maps of one size, so any touched pixel and the nearest agree',
    'words': 'the texts of the hand-written baseline are given',
    'temperature': 'map and image logits share one division by it, see one_division',
}
CHANGED = {
    'training: as it is': 'smoothing touches maps alone, so map and image divide by the '
    'temperature apart and their gradients meet in another order: rounding, enlarged by Adam',
    'evaluation: local_contrast': 'scores are counted in bins, borders mirrored in one matrix',
}


def one_division(kind: type) -> type:
    "A detector whose map and image logits come from one division, as before."

    class Before(kind):
        def outputs(self, masses, smoothing=0.0):
            out, m = super().outputs(masses, smoothing), self.config.model
            pool = import_module('hybridad.models.detector').pool_logits
            scaled = out['logits'] / self.log_temperature.exp()
            maps = torch.stack([torch.zeros_like(scaled), scaled], 1).softmax(1)
            pooled = pool(scaled, m.score, m.top_fraction) + self.image_offset
            pair = torch.stack([torch.zeros_like(pooled), pooled], 1)
            scores = dict(image_logits=pair, image_scores=pair.softmax(1)[:, 1])
            return out | scores | dict(similarity_maps=maps, anomaly_maps=maps[:, 1])

    return Before


class Code:
    "The names of one side under their present ones."

    def __init__(self, side: str):
        self.side, at = side, SIDES.index(side)
        for names, modules in PLACES.items():
            now, _, before = names.rstrip(')').partition(' (')
            module = import_module(f'hybridad.{modules[at]}')
            setattr(self, now, getattr(module, now if at or not before else before))
        self.mass = ('competing', 'competing_all')[at]
        self.Detector, self.Probe = self.HybridAnomalyDetector, self.LinearProbe
        if at:
            self.Detector, self.Probe = map(one_division, (self.Detector, self.Probe))
        self.cached = ('kept', 'cached')[at]  # an argument of evaluate

    def config(self, backbone: str, **changes):
        usual = dict(backbone=backbone, mass=self.mass, device='cpu', batch_size=4, epochs=2)
        return self.get_default_config(**usual | changes)


def golden(code: Code, a: argparse.Namespace) -> dict:
    "Metrics of the golden maps."
    found = {}
    for name in ('synthetic', 'hazelnut_colour'):
        case = np.load(Path(os.environ['HYBRIDAD_SHARED']) / 'golden' / f'{name}.npz')
        maps, masks = case['maps'], case['gts'] > 0
        labels = masks.any((1, 2)).astype(int)
        values = code.anomaly_metrics(maps, masks, maps.max((1, 2)), labels=labels)
        found |= {f'{name} {k}': v for k, v in values.items() if k != 'reasons'}
    return found


def images_of(count: int = 3) -> torch.Tensor:
    return torch.rand(count, 3, 128, 128, generator=torch.Generator().manual_seed(5)) * 2 - 1


def losses(code: Code, a: argparse.Namespace) -> dict:
    "Each term of the loss on fixed outputs, and its gradient."
    generator = torch.Generator().manual_seed(6)
    logits, paired = torch.randn(2, 4, 64, 64, generator=generator).requires_grad_()
    image = torch.randn(4, 2, generator=generator)
    masks = torch.zeros(4, 1, 64, 64)
    masks[1, 0, 10:20, 30:40], masks[2, 0, :5, :5], masks[2, 0, 40:60, 7] = 1, 1, 1
    maps = torch.stack([torch.zeros_like(logits), logits], 1).softmax(1)
    outputs = dict(similarity_maps=maps, image_logits=image, logits=logits, paired_logits=paired)
    terms = code.CrossAttentionLoss().terms(
        outputs, dict(masks=masks, labels=masks.amax((1, 2, 3)))
    )
    grads = {
        f'{k} gradient': torch.autograd.grad(v, logits, retain_graph=True)[0]
        for k, v in terms.items()
        if k != 'image'  # it reads the image logits alone
    }
    return terms | grads


@torch.no_grad()
def readouts(code: Code, a: argparse.Namespace) -> dict:
    "Masses of two texts in every read-out, averaged over two draws of noise."
    backbone = code.load_backbone(a.backbone, 'cpu')
    prompts = backbone.encode_text(TEXTS)
    how = dict(mass=code.mass, draws=2, seed=3)
    pipelines = {r: code.EasonADPipeline(backbone, r, **how) for r in READOUTS}
    return {name: p(images_of(), prompts) for name, p in pipelines.items()}


def detector(code: Code, a: argparse.Namespace) -> dict:
    "Outputs of untrained prompts in every read-out, and the gradient of the contexts."
    found = {}
    for readout in READOUTS:
        model = code.HybridAnomalyDetector(code.config(a.backbone, readout=readout))
        shown = model(images_of(2))
        found |= {f'{readout} {k}': v for k, v in shown.items()}
        learned = model(images_of(2), mode='train')
        (learned['logits'].square().mean() + learned['paired_logits'].mean()).backward()
        found[f'{readout} gradient'] = torch.cat(
            [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        )
    return found


class Interrupted:
    "The usual loss, and Ctrl-C in one step."

    def __init__(self, loss, step: int):
        self.loss, self.left = loss, step

    def __call__(self, outputs, targets):
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt
        return self.loss(outputs, targets)


def learned(folder: Path, name: str = 'last') -> dict:
    from safetensors.torch import load_file

    return load_file(folder / f'{name}.safetensors')


def samples_of(code: Code, a: argparse.Namespace, split: str) -> list:
    found = [s for s in code.read_mvtec(a.work / split) if s.split == 'test']
    return found[:: len(found) // 10]


def training(code: Code, a: argparse.Namespace) -> dict:
    "Learnables of a run, and how far a run that was interrupted and continued is from it."
    config, learn = code.config(a.backbone), samples_of(code, a, 'auxiliary')
    whole, cut = (a.work / code.side / n for n in ('whole', 'cut'))
    code.fit(config, learn, whole, detector=code.Detector(config), progress=False)
    loss = Interrupted(
        code.CrossAttentionLoss(config.training.loss_weights), step=5
    )  # in the second epoch
    try:
        code.fit(config, learn, cut, detector=code.Detector(config), progress=False, loss_fn=loss)
    except KeyboardInterrupt:
        assert (cut / 'resume.pt').exists(), 'interrupted before anything was saved'
        code.fit(config, learn, cut, detector=code.Detector(config), resume=True, progress=False)
    found = {f'weights {k}': v for k, v in learned(whole).items()}
    rows = [json.loads(r) for r in (whole / 'log.jsonl').read_text().splitlines()]
    for row in rows:
        found |= {f'log {row["epoch"]} {k}': v for k, v in row.items() if k not in ('seconds',)}
    plain = whole
    if code.side == 'now':
        plain = a.work / code.side / 'plain'
        code.fit(config, learn, plain, progress=False)
    found |= {f'as it is, weights {k}': v for k, v in learned(plain).items()}
    again = learned(cut)
    found['resumed, distance from the uninterrupted run'] = max(
        (again[k] - v).abs().max().item() for k, v in learned(whole).items()
    )
    return found


def evaluation(code: Code, a: argparse.Namespace) -> dict:
    "A table as the demo's: learned prompts, hand-written ones, a linear probe, local contrast."
    config, test = code.config(a.backbone), samples_of(code, a, 'held_out')
    whole = a.work / code.side / 'whole' / 'last.safetensors'
    prompts = code.Detector(config)
    prompts.load_checkpoint(whole)
    probe = code.Probe(config, prompts.backbone)
    code.fit(
        config,
        samples_of(code, a, 'auxiliary'),
        a.work / code.side / 'probe',
        detector=probe,
        progress=False,
    )
    ways = dict(learned=prompts, words=code.WordsDetector(config, prompts.backbone), probe=probe)
    truth = code.EvalSet(test, 128, progress=False)
    kept, found = code.FeatureCache(prompts, test, progress=False), {}
    for name, model in ways.items():
        how = {code.cached: kept, 'progress': False}
        results, maps, scores = code.evaluate(model, test, truth, **how)
        found |= {f'{name} {k}': v for k, v in results['mean'].items()}
        found |= {f'{name} maps': maps, f'{name} scores': scores}
    contrast = code.contrast_baseline(truth, progress=False)['mean']
    return found | {f'local_contrast {k}': v for k, v in contrast.items()}


PARTS = dict(
    golden=golden,
    losses=losses,
    readouts=readouts,
    detector=detector,
    training=training,
    evaluation=evaluation,
)


def one_side(a: argparse.Namespace):
    "Compute everything with the code that PYTHONPATH leads to."
    torch.set_num_threads(1)
    code, found = Code(a.side), {}
    for part, compute in PARTS.items():
        for name, value in compute(code, a).items():
            if isinstance(value, torch.Tensor):
                value = value.detach().double().numpy()
            if not isinstance(value, dict | str | None):  # reasons in words
                found[f'{part}: {name}'] = np.asarray(value, float)
    np.savez(a.work / f'{a.side}.npz', **found)


def prepare(work: Path, backbone: str) -> Path:
    "The set that both sides read, and a backbone folder with settings that both know."
    from hybridad.synthetic.plain import write_dataset

    for split, count in (('auxiliary', 1), ('held_out', 2)):
        how = dict(split=split, count=count, workers=1, progress=False)
        write_dataset(work / split, 128, 3, **how)
    folder = Path(shutil.copytree(backbone, work / 'backbone'))
    settings = json.loads((folder / 'hybridad.json').read_text())
    settings = {k: settings[k] for k in ('timestep', 'layers', 'neutral', 'weights')}
    settings |= dict(normal=TEXTS[0], abnormal=TEXTS[1])
    (folder / 'hybridad.json').write_text(json.dumps(settings))
    return folder


def both_sides(trees: list, work: Path, folder: Path) -> list[dict]:
    "The arrays of both sides, each computed in a process of its own."
    running = []
    for side, tree in zip(SIDES, trees):
        command = [sys.executable, __file__, '--side', side, '--work', work, '--backbone', folder]
        environment = os.environ | dict(PYTHONPATH=str(tree), HF_HUB_OFFLINE='1')
        running.append(subprocess.Popen(list(map(str, command)), cwd=work, env=environment))
    if any([process.wait() for process in running]):
        sys.exit('one side failed, see above')
    return [dict(np.load(work / f'{side}.npz')) for side in SIDES]


def difference(before: np.ndarray, now: np.ndarray) -> float:
    "Largest difference: none where both are undefined, infinite where one of them is."
    same = (before == now) | (np.isnan(before) & np.isnan(now))
    gap = np.nan_to_num(np.abs(before - now), nan=np.inf)
    return float(np.max(np.where(same, 0, gap), initial=0))


def compared(before: dict, now: dict) -> dict:
    "Differences of each part: of what must agree, and of what was meant to change."
    both = {k: difference(v, now[k]) for k, v in before.items() if k in now}
    found = {}
    for part in PARTS:
        mine = {k: v for k, v in both.items() if k.startswith(f'{part}: ')}
        meant = {k: v for k, v in mine.items() if k.startswith(tuple(CHANGED))}
        rest = {k: v for k, v in mine.items() if k not in meant}
        worst = max(rest, key=rest.get)
        found[part] = dict(values=len(rest), largest_difference=rest[worst])
        if rest[worst]:
            found[part] |= dict(where=worst, different={k: v for k, v in rest.items() if v})
        if meant:
            found[part]['meant_to_change'] = meant
    return found


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument('--backbone', required=True, help='diffusers folder that both can read')
    parser.add_argument('--commit', default=BEFORE, help='the code before')
    parser.add_argument('--out', type=Path, help='default: results')
    parser.add_argument('--side', choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument('--work', type=Path, help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.side:
        return one_side(a)
    compare(a)


def compare(a: argparse.Namespace):
    from common import RESULTS, ROOT, about

    from hybridad.runs import environment, write_json

    begun, git = time.perf_counter(), partial(subprocess.run, cwd=ROOT, check=True)
    notes = about('python experiments/refactor.py --backbone FOLDER')
    notes |= dict(before=a.commit, now=environment()['git']['commit'])
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        folder, trees = prepare(work, a.backbone), [work / 'tree_before', work / 'tree_now']
        for tree, commit in zip(trees, (a.commit, notes['now'])):
            git(['git', 'worktree', 'add', '--quiet', '--detach', str(tree), commit])
        try:
            sides = both_sides(trees, work, folder)
        finally:
            for tree in trees:
                git(['git', 'worktree', 'remove', '--force', str(tree)])
    found = dict(
        parts=compared(*sides),
        resumed_from_uninterrupted={s: float(x[RESUMED]) for s, x in zip(SIDES, sides)},
        only_before=sorted(set(sides[0]) - set(sides[1])),
        only_now=sorted(set(sides[1]) - set(sides[0])),
        switched=SWITCHED,
        changed=CHANGED,
        seconds=round(time.perf_counter() - begun),
    )
    write_json((a.out or RESULTS) / 'refactor.json', notes | found)
    print(json.dumps(found, indent=1))


RESUMED = 'training: resumed, distance from the uninterrupted run'

if __name__ == '__main__':
    main()

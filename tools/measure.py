"""Measure what the results guide shows, each part into results/: python tools/measure.py demo seeds readouts real normals

Every file carries the command, versions, processor and date. Parts are independent; run them with nothing else on the machine."""
import json
import os
import platform
import shutil
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from hybridad.backbone import MINI
from hybridad.cli import LEARN, demo, examples, learnable
from hybridad.config import get_default_config
from hybridad.data import read_dataset, read_mvtec
from hybridad.detector import HybridAnomalyDetector
from hybridad.evaluation import HEADLINE, Truth, WordsDetector, contrast_floor, evaluate, write_json
from hybridad.normals import load_normals, use_normals
from hybridad.plots import map_grid, save_figure
from hybridad.synthetic import write_dataset
from hybridad.training import KeptInputs, fit, keep_parts, read_log

ROOT = Path(__file__).resolve().parents[1]
RESULTS, RUNS = ROOT/'results', ROOT/'runs'/'measure'
SHARED = Path(os.environ.get('HYBRIDAD_SHARED', ROOT.parent/'shared'))

def about(command): # dict
    "What a figure needs to be repeated."
    cpu = next((l.split(':')[1].strip() for l in open('/proc/cpuinfo') if l.startswith('model name')), platform.processor())
    return dict(command=command, date=time.strftime('%Y-%m-%d'), cpu=f'{cpu}, {torch.get_num_threads()} threads',
                versions={p: version(p) for p in ('torch', 'diffusers', 'transformers', 'numpy', 'scikit-learn')})

def short(results, part='mean'): return {k: results[part][k] for k in HEADLINE}

def fresh(name):
    folder = RUNS/name
    if folder.exists(): shutil.rmtree(folder)
    return folder

def sets(seed=0, auxiliary=20, held_out=60):
    "Auxiliary samples to learn from and held-out samples to score, as the demo draws them."
    folder = RUNS/f'data{seed}'
    for split, count in (('auxiliary', auxiliary), ('held_out', held_out)):
        if not (folder/split).exists(): write_dataset(folder/split, seed=seed + (split == 'held_out'), split=split, count=count)
    return ([s for s in read_mvtec(folder/split) if s.split == 'test'] for split in ('auxiliary', 'held_out'))

def measure_demo():
    out = fresh('demo')
    found = demo(out)
    save_to = RESULTS/'demo'; save_to.mkdir(parents=True, exist_ok=True)
    write_json(save_to/'metrics.json', found | about('python tools/measure.py demo'))
    shutil.copy(out/'examples.png', save_to/'examples.png')
    shutil.copy(out/'learned'/'best.safetensors', MINI/'prompts.safetensors')  # what the package offers to those without a checkpoint

def measure_seeds():
    "Other seeds of the prompts on one set of pictures: the spread that a gain must exceed."
    learn, test = sets(); rows = []
    config = get_default_config(epochs=8, batch_size=32, **LEARN)
    first = HybridAnomalyDetector(config); truth, kept = Truth(test), KeptInputs(first, test)
    words = short(evaluate(WordsDetector(config, first.backbone), test, truth, kept)[0])
    for seed in range(3):
        config = get_default_config(epochs=8, batch_size=32, seed=seed, **LEARN)
        detector = HybridAnomalyDetector(config, first.backbone)
        begun = time.perf_counter(); parts = keep_parts(detector, learn); encoding = time.perf_counter() - begun
        same = kept if seed == 0 else kept.asked_again(detector)
        fit(config, parts, fresh(f'seed{seed}'), detector)
        rows.append(dict(seed=seed, **short(evaluate(detector, test, truth, same)[0]), seconds=read_log(RUNS/f'seed{seed}'/'log.jsonl')[-1]['seconds'], seconds_encoding=round(encoding, 1)))
        print(rows[-1])
    write_json(RESULTS/'seeds.json', dict(words=words, learned=rows, **about('python tools/measure.py seeds')))

def measure_readouts():
    "The same prompts learned in each read-out; exact and joint pay for the UNet in every step, so all three get fewer pictures."
    learn, test = sets(); learn, rows = learnable(learn, 75), {}
    for readout in ('replay', 'exact', 'joint'):
        config = get_default_config(epochs=4, batch_size=16, readout=readout, **LEARN)
        detector = fit(config, learn, fresh(readout))
        seconds = read_log(RUNS/readout/'log.jsonl')[-1]['seconds']
        results, *_ = evaluate(detector, test)
        rows[readout] = short(results) | dict(seconds=seconds)
        print(readout, rows[readout])
    write_json(RESULTS/'readouts.json', dict(pictures=len(learn), epochs=4, readouts=rows, **about('python tools/measure.py readouts')))

def measure_real():
    "Prompts learned on synthetic pictures only, scored on photographs."
    checkpoint = RUNS/'demo'/'learned'/'best.safetensors'; found = {}
    detector, _ = HybridAnomalyDetector.from_checkpoint(checkpoint, device='cpu')
    blank = HybridAnomalyDetector(detector.config, detector.backbone.reinitialised(0)); blank.load_checkpoint(RUNS/'demo'/'random_backbone'/'best.safetensors')
    for name in ('magnetic_tile', 'hazelnut_toy', 'steel_strip'):
        samples = [s for s in read_dataset(SHARED/'data'/name) if s.split == 'test']
        truth, kept = Truth(samples, 128), KeptInputs(detector, samples)
        results, maps, scores = evaluate(detector, samples, truth, kept)
        words, words_maps, _ = evaluate(WordsDetector(detector.config, detector.backbone), samples, truth, kept)
        random, *_ = evaluate(blank, samples, truth, kept.asked_again(blank))
        floor = contrast_floor(truth)
        found[name] = dict(images=len(samples), learned=short(results, 'defect_mean'), words=short(words, 'defect_mean'), local_contrast=short(floor, 'defect_mean'), random_backbone=short(random, 'defect_mean'))
        print(name, json.dumps(found[name], indent=1, default=str))
        if name != 'steel_strip': save_figure(map_grid(examples(truth, {'words': words_maps, 'learned': maps}, scores, 5), across=True, label='log-ratio', cell=1.1), RESULTS/f'real_{name}.png', max_kb=59)
    write_json(RESULTS/'real.json', dict(sets=found, eval_size=128, **about('python tools/measure.py real')))

def measure_normals():
    "Photographs with a few normal pictures beside the prompts: k of them, three draws each; the settings were chosen on synthetic lines."
    checkpoint, found = RUNS/'demo'/'learned'/'best.safetensors', {}
    for name in ('magnetic_tile', 'hazelnut_toy'):
        every = read_dataset(SHARED/'data'/name)
        samples, good = [s for s in every if s.split == 'test'], [s.image for s in every if s.split == 'train' and s.label == 0]
        truth, rows = Truth(samples, 128), {}
        for k in (0, 1, 2, 4, 8, len(good)):
            figures = []
            for draw in range(1 if k in (0, len(good)) else 3):
                detector, _ = HybridAnomalyDetector.from_checkpoint(checkpoint, device='cpu')
                chosen = [good[i] for i in np.random.default_rng([draw, k]).permutation(len(good))[:k]]
                if k: use_normals(detector, load_normals(chosen, detector.image_size))
                results, maps, scores = evaluate(detector, samples, truth)
                figures.append(short(results, 'defect_mean') | (dict(false_alarms=float((scores[truth.labels == 0] >= detector.normals.thresholds['image']).mean()), hits=float((scores[truth.labels == 1] >= detector.normals.thresholds['image']).mean())) if k else {}))
            rows['all' if k == len(good) else str(k)] = {m: [round(f[m], 4) for f in figures] for m in figures[0]} | dict(pictures=k)
            print(name, k, rows['all' if k == len(good) else str(k)])
        found[name] = rows
    write_json(RESULTS/'normals.json', dict(sets=found, eval_size=128, **about('python tools/measure.py normals')))

if __name__ == '__main__':
    torch.set_num_threads(2)
    for part in sys.argv[1:] or ('demo', 'seeds', 'readouts', 'real', 'normals'): globals()[f'measure_{part}']()

"""Measure what the results guide shows, each part into results/: python tools/measure.py demo seeds readouts real normals auxiliary resolution explorers onnx ablation

Every file carries the command, versions, processor, date, and at how many px masks and maps were compared.
With no part named, everything is measured: that is what to do after new weights or new metrics. real and normals
score with what demo learned, real with what seeds learned, too; the others stand alone. Run them alone on a machine."""

import json
import os
import shutil
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from hybridad.backbone import MINI, load_backbone
from hybridad.bench import cpu_name
from hybridad.cli import LEARN, ONE_VIEW, demo, examples, learnable
from hybridad.config import get_default_config
from hybridad.data import read_dataset, read_mvtec
from hybridad.detector import HybridAnomalyDetector
from hybridad.evaluation import HEADLINE, Truth, WordsDetector, contrast_floor, evaluate, write_json
from hybridad.normals import load_normals, use_normals
from hybridad.plots import map_grid, save_figure
from hybridad.synthetic import picture, write_dataset
from hybridad.training import KeptInputs, fit, keep_parts, read_log

ROOT = Path(__file__).resolve().parents[1]
RESULTS, RUNS = ROOT / 'results', ROOT / 'runs' / 'measure'
SHARED = Path(os.environ.get('HYBRIDAD_SHARED', ROOT.parent / 'shared'))
SIZE = 128  # px at which masks and maps are compared, see hybridad.evaluation
SHOWN = 'magnetic_tile', 'hazelnut_toy'  # whose pictures may be shown, see DATA.md


def about(command, size=SIZE):  # dict
    "What a figure needs to be repeated; size None for what compares no pixels."
    compared = {} if size is None else dict(eval_size=size, masks='nearest')
    return compared | dict(
        command=command,
        date=time.strftime('%Y-%m-%d'),
        cpu=f'{cpu_name()}, {torch.get_num_threads()} threads',
        versions={
            p: version(p) for p in ('torch', 'diffusers', 'transformers', 'numpy', 'scikit-learn')
        },
    )


def short(results, part='mean'):
    return {k: results[part][k] for k in HEADLINE}


def fresh(name):
    folder = RUNS / name
    if folder.exists():
        shutil.rmtree(folder)
    return folder


def sets(seed=0, auxiliary=20, held_out=60):
    "Auxiliary samples to learn from and held-out samples to score, as the demo draws them."
    folder = RUNS / f'data{seed}'
    for split, count in (('auxiliary', auxiliary), ('held_out', held_out)):
        if not (folder / split).exists():
            write_dataset(
                folder / split, seed=seed + (split == 'held_out'), split=split, count=count
            )
    return (
        [s for s in read_mvtec(folder / split) if s.split == 'test']
        for split in ('auxiliary', 'held_out')
    )


def measure_demo():
    out = fresh('demo')
    found = demo(out)
    save_to = RESULTS / 'demo'
    save_to.mkdir(parents=True, exist_ok=True)
    write_json(save_to / 'metrics.json', found | about('python tools/measure.py demo'))
    shutil.copy(out / 'examples.png', save_to / 'examples.png')
    shutil.copy(
        out / 'learned' / 'best.safetensors', MINI / 'prompts.safetensors'
    )  # what the package offers to those without a checkpoint


def measure_seeds():
    "Other seeds of the prompts on one set of pictures: the spread that a gain must exceed."
    learn, test = sets()
    rows = []
    config = get_default_config(epochs=8, batch_size=32, **LEARN)
    first = HybridAnomalyDetector(config)
    truth, kept = Truth(test, SIZE), KeptInputs(first, test)
    words = short(evaluate(WordsDetector(config, first.backbone), test, truth, kept)[0])
    for seed in range(3):
        config = get_default_config(epochs=8, batch_size=32, seed=seed, **LEARN)
        detector = HybridAnomalyDetector(config, first.backbone)
        begun = time.perf_counter()
        parts = keep_parts(detector, learn)
        encoding = time.perf_counter() - begun
        same = kept if seed == 0 else kept.asked_again(detector)
        fit(config, parts, fresh(f'seed{seed}'), detector)
        rows.append(
            dict(
                seed=seed,
                **short(evaluate(detector, test, truth, same)[0]),
                seconds=read_log(RUNS / f'seed{seed}' / 'log.jsonl')[-1]['seconds'],
                seconds_encoding=round(encoding, 1),
            )
        )
        print(rows[-1])
    write_json(
        RESULTS / 'seeds.json',
        dict(words=words, learned=rows, **about('python tools/measure.py seeds')),
    )


def measure_readouts():
    "The same prompts learned in each read-out; exact and joint pay for the UNet in every step, so all three get fewer pictures."
    learn, test = sets()
    learn, rows = learnable(learn, 75), {}
    for readout in ('replay', 'exact', 'joint'):
        config = get_default_config(epochs=4, batch_size=16, readout=readout, **LEARN | ONE_VIEW)
        detector = fit(config, learn, fresh(readout))
        seconds = read_log(RUNS / readout / 'log.jsonl')[-1]['seconds']
        results, *_ = evaluate(detector, test)
        rows[readout] = short(results) | dict(seconds=seconds)
        print(readout, rows[readout])
    write_json(
        RESULTS / 'readouts.json',
        dict(
            pictures=len(learn),
            epochs=4,
            readouts=rows,
            **about('python tools/measure.py readouts'),
        ),
    )


def worst(truth, maps, scores, each=3):  # list of records for map_grid
    "The defective pictures with the lowest scores, then the flawless ones with the highest."
    order = np.argsort(scores, kind='stable')
    defective = truth.labels[order] == 1
    return [
        dict(
            image=truth.images[i].permute(1, 2, 0).numpy(),
            mask=truth.masks[i],
            title=f'{what}\n{truth.samples[i].defect}',
            maps={'map': maps[i]},
        )
        for what, chosen in (
            ('missed', order[defective][:each]),
            ('false alarm', order[~defective][::-1][:each]),
        )
        for i in chosen
    ]


def measure_real():
    "Prompts learned on synthetic pictures only, scored on photographs; those of the demo are the first of three seeds."
    detector, *more = (
        HybridAnomalyDetector.from_checkpoint(RUNS / run / 'best.safetensors', device='cpu')[0]
        for run in ('demo/learned', 'seed1', 'seed2')
    )
    found = {}
    blank = HybridAnomalyDetector(detector.config, detector.backbone.reinitialised(0))
    blank.load_checkpoint(RUNS / 'demo' / 'random_backbone' / 'best.safetensors')
    for name in ('magnetic_tile', 'hazelnut_toy', 'steel_strip'):
        samples = [s for s in read_dataset(SHARED / 'data' / name) if s.split == 'test']
        truth, kept = Truth(samples, SIZE), KeptInputs(detector, samples)
        results, maps, scores = evaluate(detector, samples, truth, kept)
        words, words_maps, _ = evaluate(
            WordsDetector(detector.config, detector.backbone), samples, truth, kept
        )
        random, *_ = evaluate(blank, samples, truth, kept.asked_again(blank))
        others = [evaluate(d, samples, truth, kept.asked_again(d))[0] for d in more]
        floor = contrast_floor(truth)
        found[name] = dict(
            images=len(samples),
            learned=[short(r, 'defect_mean') for r in (results, *others)],
            words=short(words, 'defect_mean'),
            local_contrast=short(floor, 'defect_mean'),
            random_backbone=short(random, 'defect_mean'),
        )
        print(name, json.dumps(found[name], indent=1, default=str))
        if name == SHOWN[0]:
            save_figure(
                map_grid(
                    worst(truth, maps, scores),
                    across=True,
                    columns=['image', 'mask', 'map'],
                    label='log-ratio',
                    cell=1.1,
                ),
                RESULTS / 'worst_magnetic_tile.png',
                max_kb=59,
            )
        if name in SHOWN:
            save_figure(
                map_grid(
                    examples(truth, {'words': words_maps, 'learned': maps}, scores, 5),
                    across=True,
                    label='log-ratio',
                    cell=1.1,
                ),
                RESULTS / f'real_{name}.png',
                max_kb=59,
            )
    write_json(
        RESULTS / 'real.json',
        dict(sets=found, **about('python tools/measure.py real')),
    )


def measure_normals():
    "Photographs with a few normal pictures beside the prompts: k of them, eight in three draws."
    checkpoint, found = RUNS / 'demo' / 'learned' / 'best.safetensors', {}
    for name in ('magnetic_tile', 'hazelnut_toy'):
        every = read_dataset(SHARED / 'data' / name)
        samples, good = (
            [s for s in every if s.split == 'test'],
            [s.image for s in every if s.split == 'train' and s.label == 0],
        )
        truth, rows = Truth(samples, SIZE), {}
        for k in (0, 1, 2, 4, 8, len(good)):
            figures = []
            for draw in range(3 if k == 8 else 1):
                detector, _ = HybridAnomalyDetector.from_checkpoint(checkpoint, device='cpu')
                chosen = [
                    good[i] for i in np.random.default_rng([draw, k]).permutation(len(good))[:k]
                ]
                if k:
                    use_normals(detector, load_normals(chosen, detector.load_size))
                results, maps, scores = evaluate(detector, samples, truth)
                figures.append(
                    short(results, 'defect_mean')
                    | (
                        dict(
                            false_alarms=float(
                                (
                                    scores[truth.labels == 0]
                                    >= detector.normals.thresholds['image']
                                ).mean()
                            ),
                            hits=float(
                                (
                                    scores[truth.labels == 1]
                                    >= detector.normals.thresholds['image']
                                ).mean()
                            ),
                        )
                        if k > 1
                        else {}
                    )
                )
            rows['all' if k == len(good) else str(k)] = {
                m: [round(f[m], 4) for f in figures] for m in figures[0]
            } | dict(pictures=k)
            print(name, k, rows['all' if k == len(good) else str(k)])
        found[name] = rows
    write_json(
        RESULTS / 'normals.json',
        dict(sets=found, **about('python tools/measure.py normals')),
    )


def measure_resolution():
    "Photographs at several sizes, read with hand-written words and judged at eval_size 128: what more pixels tell. A size is a multiple of the backbone's."
    backbone, found = load_backbone('mini', 'cpu'), {}
    for name in ('magnetic_tile', 'steel_strip'):
        samples = [s for s in read_dataset(SHARED / 'data' / name) if s.split == 'test']
        truth = Truth(samples, SIZE)
        for scales in ([1.0], [1.5], [2.0], [3.0], [1.0, 2.0]):
            results, *_ = evaluate(
                WordsDetector(get_default_config(views=len(scales), scales=scales), backbone),
                samples,
                truth,
            )
            found.setdefault(name, {})[' + '.join(f'{s:g}' for s in scales)] = short(
                results, 'defect_mean'
            )
            print(name, scales, found[name], flush=True)
    write_json(
        RESULTS / 'resolution.json',
        dict(
            sets=found,
            size=backbone.image_size,
            **about('python tools/measure.py resolution'),
        ),
    )


def measure_auxiliary():
    "Prompts learned on synthetic pictures, on photographs of steel, and on both; scored on other photographs. Backbone and starting words are the same; one view, so that it takes minutes."
    synthetic, _ = sets()
    steel, rows = learnable(read_dataset(SHARED / 'data' / 'steel_strip')), {}
    first = HybridAnomalyDetector(get_default_config(**LEARN | ONE_VIEW))
    tests, learn = {}, {'synthetic': synthetic, 'steel strips': steel, 'both': synthetic + steel}
    for name in ('magnetic_tile', 'hazelnut_toy'):
        samples = [s for s in read_dataset(SHARED / 'data' / name) if s.split == 'test']
        tests[name] = samples, Truth(samples, SIZE), KeptInputs(first, samples)
    for seed in range(3):
        config = get_default_config(epochs=8, batch_size=32, seed=seed, **LEARN | ONE_VIEW)
        kept = {
            name: k.asked_again(HybridAnomalyDetector(config, first.backbone)) if seed else k
            for name, (_, _, k) in tests.items()
        }
        for source, pictures in learn.items():
            detector = HybridAnomalyDetector(config, first.backbone)
            fit(config, pictures, fresh(f'auxiliary_{source.replace(" ", "_")}{seed}'), detector)
            for name, (samples, truth, _) in tests.items():
                rows.setdefault(name, {}).setdefault(source, []).append(
                    short(evaluate(detector, samples, truth, kept[name])[0], 'defect_mean')
                )
                print(seed, source, name, rows[name][source][-1], flush=True)
    write_json(
        RESULTS / 'auxiliary.json',
        dict(
            pictures={k: len(v) for k, v in learn.items()},
            sets=rows,
            **about('python tools/measure.py auxiliary'),
        ),
    )


def measure_ablation():
    "One change at a time, rows shared by two processes of one thread each; the cache in runs/measure/ablation makes a stopped run cheap to repeat."
    from hybridad.ablation import standard_variants
    from hybridad.cli import hybridad_ablation

    out, begun, backbone = RUNS / 'ablation', time.perf_counter(), load_backbone('mini', 'cpu')
    names = [v.name for v in standard_variants(backbone)]
    if hybridad_ablation(['--out', str(out), '--only', names[0]]):
        raise SystemExit('the ablation failed')  # draws the pictures
    command = [
        sys.executable,
        '-c',
        'import sys; from hybridad.cli import hybridad_ablation; sys.exit(hybridad_ablation(sys.argv[1:]))',
        '--out',
        str(out),
        '--only',
    ]
    halves = [
        subprocess.Popen(command + names[i::2], env=os.environ | dict(OMP_NUM_THREADS='1'))
        for i in range(2)
    ]
    if any([h.wait() for h in halves]) or hybridad_ablation(['--out', str(out)]):
        raise SystemExit('the ablation failed')
    shutil.copy(out / 'ablation.png', RESULTS / 'ablation.png')
    (RESULTS / 'ablation.csv').write_text(
        (out / 'ablation.csv').read_text().replace(str(out), 'runs/ablation')
    )
    table = pd.read_csv(out / 'ablation.csv')
    write_json(
        RESULTS / 'ablation.json',
        dict(
            runs=int(table.seeds.sum()),
            seconds_of_runs=round((table.seeds * table.seconds).sum()),
            seconds_now=round(time.perf_counter() - begun),
            processes=2,
            backbone_hash=backbone.hash,
            **about('python tools/measure.py ablation'),
        ),
    )


def measure_explorers():
    "How long each explorer takes to answer a moved control, once its picture is cached."
    from hybridad.explore import (
        AttentionExplorer,
        CompareExplorer,
        DecisionExplorer,
        ResultsBrowser,
    )

    _, test = sets()
    test = test[::10]
    detector, _ = HybridAnomalyDetector.from_checkpoint(MINI / 'prompts.safetensors', 'mini', 'cpu')
    truth = Truth(test, SIZE)
    results, maps, scores = evaluate(detector, test, truth)
    pictures = {
        f'{i}': torch.from_numpy(picture(5, i, split='held_out').image).permute(2, 0, 1) / 127.5 - 1
        for i in range(2)
    }
    attention = AttentionExplorer(detector.backbone, pictures, detector)
    shown = {
        'attention: words': (
            attention,
            'damaged',
            [f'a photo of a {w} object' for w in ('broken', 'faulty', 'defective')],
        ),
        'attention: head': (attention, 'head', [0, 1, -1]),
        'attention: learned or words': (attention, 'prompts', ['learned', 'typed']),
        'decision: threshold': (DecisionExplorer(truth, maps), 'threshold', [0.3, 0.6, 0.5]),
        'decision: smoothing': (DecisionExplorer(truth, maps), 'smoothing', [1.0, 2.0, 0.0]),
        'browser: from': (ResultsBrowser(truth, maps, scores), 'first', [6, 12, 0]),
        'compare: picture': (
            c := CompareExplorer(truth, {'learned': maps, 'half': maps / 2}),
            'index',
            [o[1] for o in c.controls['index'].options[:3]],
        ),
    }

    def answer(explorer, control, value):
        begun = time.perf_counter()
        explorer.controls[control].value = value
        if explorer.error:
            raise explorer.error
        return 1000 * (time.perf_counter() - begun)

    rows = {}
    for name, (explorer, control, values) in shown.items():
        for v in values:
            answer(explorer, control, v)  # once untimed
        times = sorted(answer(explorer, control, v) for _ in range(5) for v in values)
        rows[name] = dict(
            median_ms=round(times[len(times) // 2], 1),
            most_ms=round(times[-1], 1),
            moves=len(times),
        )
        print(name, rows[name])
    times = []
    for at in ((0.2, 0.3), (0.6, 0.6), (0.8, 0.1)):
        begun = time.perf_counter()
        attention.clickable.mark(*at)
        times.append(1000 * (time.perf_counter() - begun))
    rows['attention: click'] = dict(
        median_ms=round(sorted(times)[1], 1), most_ms=round(max(times), 1), moves=3
    )
    print(rows['attention: click'])
    write_json(
        RESULTS / 'explorers.json',
        dict(bar_ms=250, explorers=rows, **about('python tools/measure.py explorers', None)),
    )


def measure_onnx():
    "The exported graph against PyTorch, prompts of the package."
    from hybridad.export import export_onnx

    detector, stored = HybridAnomalyDetector.from_checkpoint(
        MINI / 'prompts.safetensors', 'mini', 'cpu'
    )
    out = fresh('onnx')
    out.mkdir(parents=True)
    found = export_onnx(detector, out / 'detector.onnx', dict(thresholds=stored.get('thresholds')))
    print(found)
    write_json(RESULTS / 'onnx.json', found | about('python tools/measure.py onnx', None))


if __name__ == '__main__':
    torch.set_num_threads(2)
    for part in sys.argv[1:] or (
        'demo',
        'seeds',
        'readouts',
        'real',
        'normals',
        'auxiliary',
        'resolution',
        'explorers',
        'onnx',
        'ablation',
    ):
        globals()[f'measure_{part}']()

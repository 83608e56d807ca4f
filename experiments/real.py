"""Prompts learned on synthetic images only, scored on photographs, beside what is simpler.

Command:  python experiments/real.py zero halves
          [--sets NAME ...] [--against BACKBONE --against_prompts FILE]
          (writes results/real.json, real_halves.json, real_*.png, worst_magnetic_tile.png)
Duration: `seconds` of each set in the result of zero, 16 minutes together with another backbone;
          of halves not recorded
Data:     the sets of DATA.md, from the folder that HYBRIDAD_SHARED names

zero:     every set with the same settings, beside local contrast, hand-written prompts, and
          another backbone with its own prompts
halves:   prompts learned on 20 defects of one half of a set and 20 good images, tested on the
          other half and on good images, without near-duplicates of what was learned on

A set that is in the file already, of the same weights and prompts, is not measured again; nor is
the other backbone on the same images.
DATA.md says which sets may be shown."""

import argparse
import re
import time
from pathlib import Path

import numpy as np
import torch
from common import (
    RESULTS,
    SHARED,
    SIZE,
    about,
    cached,
    fresh,
    learning,
    photographs,
    short,
)

from hybridad.data.layouts import read_dataset
from hybridad.demo.pairs import PAIRS, PairDetector
from hybridad.demo.summaries import examples
from hybridad.evaluation.contrast import contrast_baseline
from hybridad.evaluation.evaluate import EvalSet, evaluate
from hybridad.metrics.checks import METRICS
from hybridad.models.among import spread
from hybridad.models.detector import HybridAnomalyDetector
from hybridad.models.fingerprint import fingerprint
from hybridad.models.parts import MINI
from hybridad.runs import read_json, write_json
from hybridad.training.loop import fit
from hybridad.visual.plots import map_grid, save_figure

SETS = {
    'steel_strip': ('surface', 'validation'),
    'asphalt': ('surface', 'validation'),
    'leather': ('surface', 'validation'),
    'magnetic_tile': ('surface', 'test'),
    'ballscrew': ('object', 'validation'),
    'hazelnut_toy': ('object', 'test'),
    'aliens': ('object', 'validation'),
}  # what it shows, and what it may be used for
SHOWN = 'magnetic_tile', 'hazelnut_toy'  # whose images may be shown, see DATA.md
ORDER = dict(
    ballscrew=(r'_(\d{8})', 0),
    magnetic_tile=(r'num_(\d+)', 1000),
    hazelnut_toy=(r'^(\d+)', -1),  # no two of a group: the defects have numbers of their own
)  # number in a name that tells near-duplicates: they lie no farther apart than the gap


def worst(truth, maps, scores, each=3) -> list[dict]:
    "Records for map_grid: defective images with the lowest scores, normal ones with the highest."
    order = np.argsort(scores, kind='stable')
    defective = truth.labels[order] == 1
    chosen = dict(missed=order[defective][:each])
    chosen['false alarm'] = order[~defective][::-1][:each]
    return [
        dict(
            image=truth.images[i].permute(1, 2, 0).numpy(),
            mask=truth.masks[i],
            title=f'{title}\n{truth.samples[i].defect}',
            maps={'map': maps[i]},
        )
        for title, indices in chosen.items()
        for i in indices
    ]


def save(records, path, **how):
    "A figure of maps below 150 kB."
    figure = map_grid(records, across=True, label='log-ratio', cell=1.1, **how)
    save_figure(figure, path, max_kb=150)


def some(samples, a) -> list:
    "The samples, or for a trial a few of each defect."
    if not a.small:
        return samples
    kinds = {}
    for s in samples:
        kinds.setdefault((s.split, s.defect), []).append(s)
    return [s for many in kinds.values() for s in many[:: max(1, len(many) // 2)]]


def differences(ours: dict, theirs: dict) -> dict:
    "Ours minus theirs for each figure."
    return {k: ours[k] - theirs[k] for k in METRICS}


def alike(one: dict, other: dict) -> bool:
    "True where all figures agree, those that are not defined included."
    return all(np.isclose(one[k], other[k], equal_nan=True) for k in METRICS)


def zero(name, a, detector, before: dict | None = None) -> dict:
    """Metrics of one set of photographs; figures of those that may be shown are saved.

    The other backbone's figures are taken over from the row before, if local contrast, which no
    backbone changes, is as it was."""
    samples = some(photographs(name), a)
    truth, kept = EvalSet(samples, SIZE), cached(detector, samples)
    results, maps, scores = evaluate(detector, samples, truth, cached=kept)
    found = dict(learned=results, local_contrast=contrast_baseline(truth))
    for pair, prompts in PAIRS.items():
        by_hand = PairDetector(detector.config, detector.backbone, prompts)
        found[pair], pair_maps, _ = evaluate(by_hand, samples, truth, cached=kept)
        if pair == 'words':
            both = {'words': pair_maps, 'learned': maps}
            shown = examples(truth, both, scores, columns=5)
    contrast = short(found['local_contrast'], 'defect_mean')
    known = before['against'] if before and alike(before['local_contrast'], contrast) else None
    if a.other and not known:
        found['against'], *_ = evaluate(a.other, samples, truth, cached=cached(a.other, samples))
    if name in SHOWN:
        save(shown, a.out / f'real_{name}.png')
    if name == SHOWN[0]:
        columns = ['image', 'mask', 'map']
        save(worst(truth, maps, scores), a.out / 'worst_magnetic_tile.png', columns=columns)
    rows = {k: short(v, 'defect_mean') for k, v in found.items()}
    if a.other and known:
        rows['against'] = known
    minus = {k: differences(rows['learned'], v) for k, v in rows.items() if k != 'learned'}
    return dict(images=len(samples), **rows, learned_minus=minus)


def numbered(samples, name) -> list:
    "Pairs (group, sample) in the order of the number in the file's name."
    pattern, gap = ORDER.get(name, (r'^(\d+)', 0))
    pairs = sorted(
        ((int(re.search(pattern, s.image.stem)[1]), s) for s in samples),
        key=lambda pair: (pair[0], pair[1].image.name),
    )
    group, before, found = 0, pairs[0][0], []
    for number, sample in pairs:
        group += number - before > gap
        before = number
        found.append((group, sample))
    return found


def in_halves(samples, name, learn: int = 20) -> tuple:
    """Samples to learn on, so many defective and good ones, and those to test on.

    Of each defect one half is tested, and the good test images; none of a group learned on."""
    rows, first = numbered(samples, name), []
    second = [(g, s) for g, s in rows if s.split == 'test' and not s.label]
    for defect in sorted({s.defect for s in samples if s.label}):
        mine = [(g, s) for g, s in rows if s.defect == defect]
        middle = mine[len(mine) // 2][0]
        first += [(g, s) for g, s in mine if g < middle]
        second += [(g, s) for g, s in mine if g >= middle]
    good = [(g, s) for g, s in rows if s.split == 'train']
    chosen = spread(first, learn) + spread(good, learn)
    seen = {g for g, _ in chosen}
    return [s for _, s in chosen], [s for g, s in second if g not in seen]


def taught(detector, samples, start: bool, *, epochs: int) -> HybridAnomalyDetector:
    "Prompts learned on a few photographs, from those at hand or from noise; the last epoch counts."
    a = argparse.Namespace(backbone=detector.backbone.name)
    config = learning(a, batch_size=8, epochs=epochs, validation_fraction=0)
    other = HybridAnomalyDetector(config, detector.backbone)
    if start:
        other.load_state_dict(detector.state_dict())
    part = cached(other, samples, 2, 1.0)
    return fit(config, (part, None), fresh('halves'), detector=other, progress=False)


def halves(name, a, detector, before: None = None) -> dict:
    "What learning on half of the defects gains on the other half."
    learn, second = in_halves(some(read_dataset(SHARED / 'data' / name), a), name)
    kept = cached(detector, second)
    truth, epochs = EvalSet(kept.samples, SIZE), 1 if a.small else 16
    ways = {
        'zero-shot': detector,
        'from the shipped prompts': taught(detector, learn, True, epochs=epochs),
        'from noise': taught(detector, learn, False, epochs=epochs),
    }
    rows = {
        k: short(evaluate(d, kept.samples, truth, cached=kept)[0], 'defect_mean')
        for k, d in ways.items()
    }
    gains = {k: differences(r, rows['zero-shot']) for k, r in rows.items() if k != 'zero-shot'}
    return dict(learned_on=len(learn), tested_on=len(kept.samples), **rows, gain=gains)


def marked(defined) -> list[str]:
    "Sets with masks."
    return [n for n in defined if n != 'aliens']


def summary(rows: dict) -> dict:
    "Means over surfaces and objects, and where the learned prompts are above the others."
    found = {}
    for kind in ('surface', 'object'):
        mine = [r for n, r in rows.items() if SETS[n][0] == kind]
        ways = [
            k for k in ('learned', 'local_contrast', *PAIRS, 'against') if mine and k in mine[0]
        ]
        found[kind] = {w: {k: mean_of(r[w][k] for r in mine) for k in METRICS} for w in ways}
    floor = {n: rows[n]['learned_minus']['local_contrast'] for n in marked(rows)}
    above = [n for n, d in floor.items() if not any(v < 0 for v in d.values())]
    return dict(means=found, above_local_contrast=above, sets_with_masks=len(floor))


def mean_of(values) -> float:
    "Mean of the defined values."
    defined = [v for v in values if v is not None and np.isfinite(v)]
    return float(np.mean(defined)) if defined else float('nan')


def numbers(row):
    "What json has as null is nan again."
    if isinstance(row, dict):
        return {k: numbers(v) for k, v in row.items()}
    return float('nan') if row is None else row


def measure(part: str, a, detector):
    "One part for every set that is not in its file yet."
    path, names = (
        a.out / dict(zero='real.json', halves='real_halves.json')[part],
        a.sets if part == 'zero' else marked(a.sets),
    )
    mark = dict(backbone=detector.backbone.hash, prompts=fingerprint([detector.prompts])[:16])
    other = a.other if part == 'zero' else None
    mark['against'] = other and other.backbone.hash
    mark['against_prompts'] = other and fingerprint([other.prompts])[:16]
    mark['groups'] = 'of all images together' if part == 'halves' else None
    before = read_json(path) if path.exists() else {}
    mark['small'] = a.small
    agree = {k for k, v in mark.items() if before.get(k) == v}
    rows = numbers(before['sets']) if before and agree == set(mark) else {}
    known = (
        numbers(before['sets'])
        if other and {'against', 'against_prompts', 'small'} <= agree
        else {}
    )
    command = f'python experiments/real.py {part}'
    for name in names:
        if name in rows:
            continue
        begun = time.perf_counter()
        kind, use = SETS[name]
        found = dict(zero=zero, halves=halves)[part](name, a, detector, known.get(name))
        rows[name] = dict(kind=kind, use=use, **found)
        rows[name]['seconds'] = round(time.perf_counter() - begun, 1)
        print(part, name, rows[name], flush=True)
        more = summary(rows) if part == 'zero' else {}
        told = dict(sets=rows, **more, **mark)
        write_json(path, told | about(command))


def options() -> argparse.Namespace:
    "What may be said on the command line."
    style = argparse.RawTextHelpFormatter
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    cli.add_argument('parts', nargs='*', help='zero, halves; both where none is named')
    cli.add_argument('--backbone', default='mini')
    cli.add_argument('--prompts', default=MINI / 'prompts.safetensors', help='learned on it')
    cli.add_argument('--sets', nargs='*', default=list(SETS), choices=list(SETS))
    cli.add_argument('--against', help='another backbone, with --against_prompts')
    cli.add_argument('--against_prompts', help='prompts learned on it')
    cli.add_argument('--out', type=Path, default=RESULTS)
    cli.add_argument('--small', action='store_true', help='few images, to see that it runs')
    a = cli.parse_args()
    if bool(a.against) != bool(a.against_prompts):
        cli.error('--against needs --against_prompts, and the other way round')
    if unknown := set(a.parts) - {'zero', 'halves'}:
        cli.error(f'part {unknown.pop()} does not exist: choose zero or halves')
    return a


def main():
    a = options()
    a.out.mkdir(parents=True, exist_ok=True)
    detector, _ = HybridAnomalyDetector.from_checkpoint(a.prompts, a.backbone, 'cpu')
    a.other = None
    if a.against:
        a.other, _ = HybridAnomalyDetector.from_checkpoint(a.against_prompts, a.against, 'cpu')
    for part in a.parts or ('zero', 'halves'):
        measure(part, a, detector)


if __name__ == '__main__':
    torch.set_num_threads(1)
    main()

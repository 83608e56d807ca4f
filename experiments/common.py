"""What the experiments share: folders, the images they read, and the notes beside every figure.

Every result carries its command, date, processor, versions, and the size and way in which masks
and maps were compared. Run the scripts alone on a machine; results/README.md lists them all."""

import argparse
import copy
import os
import shutil
import time
from collections.abc import Iterator
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from hybridad.bench.run import cpu_name
from hybridad.config import LEARN, Config, get_default_config
from hybridad.data.layouts import read_dataset, read_mvtec
from hybridad.data.loading import split_validation
from hybridad.data.pairing import Sample
from hybridad.metrics.checks import METRICS
from hybridad.models.detector import HybridAnomalyDetector
from hybridad.models.features import FeatureCache, MemoryCache
from hybridad.runs import write_json
from hybridad.synthetic.plain import write_dataset

ROOT = Path(__file__).resolve().parents[1]
RESULTS, RUNS = ROOT / 'results', ROOT / 'runs' / 'measure'
SHARED = Path(os.environ.get('HYBRIDAD_SHARED', ROOT.parent / 'shared'))
SIZE = 128  # px at which masks and maps are compared, see hybridad.evaluation.evaluate
PACKAGES = 'torch', 'diffusers', 'transformers', 'numpy', 'scikit-learn'


def about(command: str, size: int | None = SIZE) -> dict:
    "Notes with which a figure can be repeated; size None for a figure that compares no pixels."
    compared = {} if size is None else dict(eval_size=size, masks='nearest')
    return compared | dict(
        command=command,
        date=time.strftime('%Y-%m-%d'),
        cpu=f'{cpu_name()}, {torch.get_num_threads()} threads',
        versions={p: version(p) for p in PACKAGES},
    )


def priority() -> str:
    "How a measurement ranks beside other work, where the system says so: -20 first, 19 last."
    group = Path('/proc/self/autogroup')
    return group.read_text().split()[-1] if group.exists() else str(os.nice(0))


def short(results: dict, part: str = 'mean') -> dict:
    "The headline metrics of one part of an evaluation."
    return {k: results[part][k] for k in METRICS}


def fresh(name: str) -> Path:
    "A run folder of that name which does not exist yet."
    folder = RUNS / name
    if folder.exists():
        shutil.rmtree(folder)
    return folder


def tests_of(folder: Path) -> list[Sample]:
    "The test samples of a dataset in any known layout."
    return [s for s in read_dataset(folder) if s.split == 'test']


def photographs(name: str) -> list[Sample]:
    "The test photographs of a set of DATA.md, from the folder HYBRIDAD_SHARED names."
    return tests_of(SHARED / 'data' / name)


def generator() -> str:
    "Short fingerprint of the code that generates images, for the names of folders that hold some."
    files = sorted((ROOT / 'hybridad' / 'synthetic').glob('*.py'))
    return sha256(b''.join(f.read_bytes() for f in files)).hexdigest()[:8]


def sets(seed: int = 0, auxiliary: int = 20, held_out: int = 60) -> Iterator[list[Sample]]:
    "Auxiliary samples to learn from and held-out samples to score, generated as the demo does."
    usual = (auxiliary, held_out) == (20, 60)
    counts = '' if usual else f'_{auxiliary}_{held_out}'
    folder = RUNS / f'data{seed}{counts}_{generator()}'
    for split, count in (('auxiliary', auxiliary), ('held_out', held_out)):
        if not (folder / split).exists():
            write_dataset(
                folder / split, seed=seed + (split == 'held_out'), split=split, count=count
            )
    return (
        [s for s in read_mvtec(folder / split) if s.split == 'test']
        for split in ('auxiliary', 'held_out')
    )


def arguments(doc: str, parts: dict | None = None) -> argparse.Namespace:
    "What every script takes: backbone, out, small; and parts where it has several."
    style = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=doc, formatter_class=style)
    parser.add_argument('--backbone', default='mini', help="'mini' or a diffusers folder")
    parser.add_argument('--out', type=Path, default=RESULTS, help='folder of the results')
    parser.add_argument(
        '--small', action='store_true', help='few images, one epoch, to see that it runs'
    )
    if parts:
        parser.add_argument('parts', nargs='*', metavar='PART', help=f'of {", ".join(parts)}')
    a = parser.parse_args()
    if parts and (unknown := [p for p in a.parts if p not in parts]):
        parser.error(f'part {unknown[0]} does not exist: choose among {", ".join(parts)}')
    a.out.mkdir(parents=True, exist_ok=True)
    return a


def learning(a: argparse.Namespace, seed: int = 0, **changes) -> Config:
    "The settings that prompts are learned with, on the backbone that was asked for."
    epochs = 1 if getattr(a, 'small', False) else 8
    usual = dict(batch_size=32, epochs=epochs, seed=seed, device='cpu', backbone=a.backbone)
    return get_default_config(**usual | LEARN | changes)


def cached(detector: HybridAnomalyDetector, samples: list, views=None, scale=None) -> FeatureCache:
    "Features whose queries lie on the disk: another script, or another run, finds them."
    how = dict(budget=0, cache=RUNS / 'queries', scale=scale)
    return FeatureCache(detector, samples, views, **how)


def cached_parts(detector: HybridAnomalyDetector, samples: list, seed: int = 0) -> tuple:
    "A part to learn on and one to validate on, as features.cache_parts, on the disk."
    train, valid = split_validation(samples, detector.config.data.validation_fraction, seed)
    return cached(detector, train, 2, 1.0), cached(detector, valid)


def some_of(kept: FeatureCache, index: torch.Tensor) -> FeatureCache:
    "Some of the cached samples, in memory; all of one shape."
    ((_, before),) = kept.parts
    part, some = copy.copy(before), copy.copy(kept)
    part.latents = [z[index] for z in before.latents]
    part.masks, part.labels, part.known = (x[index] for x in (kept.masks, kept.labels, kept.known))
    part.looks = before.looks[index.numpy()]
    part.queries = [MemoryCache(q[index.numpy()], 'cpu') for q in before.queries]
    rows = index.tolist()
    some.samples, some.sizes = [kept.samples[i] for i in rows], [kept.sizes[i] for i in rows]
    some.parts = [(np.arange(len(rows)), part)]
    return some


class Timed:
    "Writes a result with its command and the seconds that it took."

    def __init__(self, a: argparse.Namespace, name: str, command: str):
        self.path, self.command = a.out / f'{name}.json', f'{command} --backbone {a.backbone}'
        self.begun, self.small = (time.perf_counter(), time.process_time()), a.small

    def write(self, found: dict) -> None:
        "Write a result, and print where."
        now = time.perf_counter(), time.process_time()
        took = dict(
            zip(('seconds', 'cpu_seconds'), (round(b - a, 1) for a, b in zip(self.begun, now)))
        )
        small = dict(small=True) if self.small else {}
        write_json(self.path, found | took | small | about(self.command))
        print(self.path, took, flush=True)

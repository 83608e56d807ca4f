"""What the experiments share: folders, the pictures they read, and the notes beside every figure.

Every result carries its command, date, processor, versions, and the size and way in which masks
and maps were compared. Run the scripts alone on a machine; results/README.md lists them all."""

import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import torch

from hybridad.bench.run import cpu_name
from hybridad.data.layouts import read_dataset, read_mvtec
from hybridad.data.pairing import Sample
from hybridad.metrics.exact import METRICS
from hybridad.synthetic.hard import write_hard
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


def sets(seed: int = 0, auxiliary: int = 20, held_out: int = 60) -> Iterator[list[Sample]]:
    "Auxiliary samples to learn from and held-out samples to score, generated as the demo does."
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


def validation_sets() -> dict[str, list[Sample]]:
    """Images that choose between settings; none of them is a test.

    Clean and rough ones of the auxiliary categories, and every third steel strip if present."""
    clean, rough, steel = RUNS / 'ship', RUNS / 'ship_rough', SHARED / 'data' / 'steel_strip'
    if not clean.exists():
        write_dataset(clean, seed=77, split='auxiliary', count=16)
    if not rough.exists():
        write_hard(rough, seed=77, count=6)
    found = dict(
        auxiliary=[s for s in read_mvtec(clean) if s.split == 'test'],
        rough=[replace(s, category='rough') for s in read_mvtec(rough) if s.split == 'test'],
    )
    return found | (dict(steel_strip=tests_of(steel)[::3]) if steel.is_dir() else {})


def layer_weights(last: float) -> list[float]:
    "Weights of six layers of which the last one counts `last`; the five others share the rest."
    return [round((1 - last) / 5, 4)] * 5 + [round(last, 4)]

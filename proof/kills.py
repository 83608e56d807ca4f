"""Kill training, test, ablation, scoring and backbone training 25 times each with SIGKILL at random moments and continue: the end must be that of an undisturbed run.

python proof/kills.py [--kills 25] [--only NAME ...] [--out results/kills.json]
"""

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import load_file

from hybridad.runs import read_json, read_log, write_json
from hybridad.synthetic import write_dataset

TINY = 'pictures=60 vae_pictures=60 vae_steps=300 vae_batch=4 steps=30 full_from=20 batch=8 full_batch=4'.split()


def command(name, *args):
    "A hybridad command in a process of its own, saving after each step, or after five of pretraining."
    often = (
        'import hybridad.pretraining as p; p.SAVE_EVERY = 5'
        if name == 'hybridad_backbone'
        else 'from hybridad.training import Trainer; Trainer.every = 0.'
    )
    code = f'import sys; {often}; from hybridad.cli import {name}; sys.exit({name}(sys.argv[1:]))'
    return [sys.executable, '-c', code, *map(str, args)]


def seconds_of(args):
    begun = time.perf_counter()
    r = subprocess.run(args, capture_output=True, text=True)
    assert r.returncode == 0, r.stderr
    return time.perf_counter() - begun


def kill_until(args, out, marks, kills, seconds, rng, done):
    "Start, kill, continue: until the kills are spent, beginning again with a fresh folder whenever a run is complete."
    landed, finished = 0, 0
    while landed < kills:
        resume = ['--resume'] if any((out / m).exists() for m in marks) else []
        child = subprocess.Popen(
            args + ['--out', str(out), *resume],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            child.wait(rng.uniform(0.05, 1.1) * seconds)
        except subprocess.TimeoutExpired:
            child.kill()
        child.wait()
        if child.returncode == -signal.SIGKILL:
            landed += 1
            continue
        assert child.returncode == 0, child.stderr.read()
        done(out)
        finished += 1
        shutil.rmtree(out)
    resume = ['--resume'] if any((out / m).exists() for m in marks) else []
    seconds_of(args + ['--out', str(out), *resume])
    done(out)
    return dict(kills=landed, complete_runs_compared=finished + 1)


def tensors_differ(a, b):
    a, b = load_file(a), load_file(b)
    return a.keys() != b.keys() or not all(torch.equal(a[k], b[k]) for k in a)


def same_training(wanted, out):
    for name in ('best', 'last'):
        assert not tensors_differ(wanted / f'{name}.safetensors', out / f'{name}.safetensors'), (
            f'{out}: {name} differs'
        )
    rows = [
        [{k: v for k, v in r.items() if k != 'seconds'} for r in read_log(o / 'log.jsonl')]
        for o in (wanted, out)
    ]
    assert rows[0] == rows[1], f'{out}: the log differs'
    assert (wanted / 'metrics.json').read_bytes() == (out / 'metrics.json').read_bytes(), (
        f'{out}: metrics differ'
    )


def same_scores(wanted, out):
    assert (wanted / 'scores.csv').read_bytes() == (out / 'scores.csv').read_bytes(), (
        f'{out}: scores differ'
    )


def without_clock(value):
    "Nested results without what a clock measured."
    if isinstance(value, dict):
        return {k: without_clock(v) for k, v in value.items() if 'seconds' not in k}
    return [without_clock(v) for v in value] if isinstance(value, list) else value


def same_test(wanted, out):
    figures = [without_clock(json.loads((o / 'metrics.json').read_text())) for o in (wanted, out)]
    assert figures[0] == figures[1], f'{out}: metrics differ'
    assert (wanted / 'log.jsonl').read_bytes() == (out / 'log.jsonl').read_bytes(), (
        f'{out}: scores differ'
    )
    assert not (out / 'parts').exists(), f'{out}: parts are left'


def same_ablation(wanted, out):
    tables = [
        pd.read_csv(o / 'selected.csv').drop(columns=['seconds', 'command']) for o in (wanted, out)
    ]
    pd.testing.assert_frame_equal(*tables, check_exact=True)


def same_backbone(wanted, out):
    files = sorted(p.relative_to(wanted) for p in (wanted / 'backbone').rglob('*.safetensors'))
    assert files and not any(tensors_differ(wanted / f, out / f) for f in files), (
        f'{out}: the weights differ'
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--kills', type=int, default=25)
    parser.add_argument('--out', type=Path, default=Path('results/kills.json'))
    parser.add_argument(
        '--only', nargs='+', metavar='NAME', help='train, test, ablation, score, backbone'
    )
    a = parser.parse_args()
    work, rng, found = Path(tempfile.mkdtemp()), random.Random(0), {}
    data = write_dataset(
        work / 'data', seed=9, split='auxiliary', count=2, progress=False
    )  # other pictures than the package's prompts were learned on
    cpu = '--device', 'cpu'
    cases = dict(
        train=(
            command(
                'hybridad_train',
                '--data_path',
                data,
                '--epochs',
                4,
                '--batch_size',
                16,
                '--learning_rate',
                '5e-3',
                *cpu,
            ),
            ['run.json'],
            same_training,
        ),
        test=(
            command('hybridad_test', '--data_path', data, *cpu),
            ['parts/run.json', 'metrics.json'],
            same_test,
        ),
        ablation=(
            command(
                'hybridad_ablation',
                '--data_path',
                data,
                '--test_path',
                data,
                '--seeds',
                2,
                '--epochs',
                2,
                '--only',
                'contexts only',
                'joint',
                'no noise',
                *cpu,
            ),
            ['provenance.json'],
            same_ablation,
        ),
        score=(
            command('hybridad_score', data, '--part', 8, '--quiet', *cpu),
            ['scoring.json'],
            same_scores,
        ),
        backbone=(
            command('hybridad_backbone', '--set', *TINY, *cpu),
            ['recipe.json'],
            same_backbone,
        ),
    )
    for name, (args, marks, same) in cases.items():
        if a.only and name not in a.only:
            continue
        seconds = seconds_of(args + ['--out', str(work / name)])

        def done(out):
            same(work / name, out)
            assert not list(out.rglob('*.partial')), f'{out}: a half-written file is left'

        found[name] = kill_until(
            args, work / f'{name}_killed', marks, a.kills, seconds, rng, done
        ) | dict(undisturbed_seconds=round(seconds, 1), result='bit-identical')
        print(name, found[name], flush=True)
        write_json(a.out, (read_json(a.out) if a.only and a.out.exists() else {}) | found)
    shutil.rmtree(work)


if __name__ == '__main__':
    main()

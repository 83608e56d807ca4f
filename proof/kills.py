"""Kill `hybridad_train` and `hybridad_score` 25 times each with SIGKILL at random moments and continue: the end must be that of an undisturbed run.

    python proof/kills.py [--kills 25] [--out results/kills.json]
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

import torch
from safetensors.torch import load_file

from hybridad.synthetic import write_dataset
from hybridad.training import read_log

def command(name, *args):
    "A hybridad command in a process of its own, saving after each step."
    code = f'import sys; from hybridad.training import Trainer; Trainer.every = 0.; from hybridad.cli import {name}; sys.exit({name}(sys.argv[1:]))'
    return [sys.executable, '-c', code, *map(str, args)]

def seconds_of(args):
    begun = time.perf_counter()
    r = subprocess.run(args, capture_output=True, text=True)
    assert r.returncode == 0, r.stderr
    return time.perf_counter() - begun

def kill_until(args, out, mark, kills, seconds, rng, done):
    "Start, kill, continue: until the kills are spent, beginning again with a fresh folder whenever a run is complete."
    landed, finished = 0, 0
    while landed < kills:
        resume = ['--resume'] if (out/mark).exists() else []
        child = subprocess.Popen(args + ['--out', str(out), *resume], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try: child.wait(rng.uniform(.05, 1.1)*seconds)
        except subprocess.TimeoutExpired: child.kill()
        child.wait()
        if child.returncode == -signal.SIGKILL: landed += 1; continue
        assert child.returncode == 0, child.stderr.read()
        done(out); finished += 1; shutil.rmtree(out)
    resume = ['--resume'] if (out/mark).exists() else []
    seconds_of(args + ['--out', str(out), *resume]); done(out)
    return dict(kills=landed, complete_runs_compared=finished + 1)

def same_training(wanted, out):
    for name in ('best', 'last'):
        a, b = load_file(wanted/f'{name}.safetensors'), load_file(out/f'{name}.safetensors')
        assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a), f'{out}: {name} differs'
    rows = [[{k: v for k, v in r.items() if k != 'seconds'} for r in read_log(o/'log.jsonl')] for o in (wanted, out)]
    assert rows[0] == rows[1], f'{out}: the log differs'
    assert (wanted/'metrics.json').read_bytes() == (out/'metrics.json').read_bytes(), f'{out}: metrics differ'

def same_scores(wanted, out):
    assert (wanted/'scores.csv').read_bytes() == (out/'scores.csv').read_bytes(), f'{out}: scores differ'
    assert not list(out.rglob('*.partial')), f'{out}: a half-written file is left'

def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--kills', type=int, default=25); parser.add_argument('--out', type=Path, default=Path('results/kills.json'))
    a = parser.parse_args(); work, rng, found = Path(tempfile.mkdtemp()), random.Random(0), {}
    data = write_dataset(work/'data', split='auxiliary', count=2, progress=False)
    train = command('hybridad_train', '--data_path', data, '--epochs', 4, '--batch_size', 16, '--learning_rate', '5e-3', '--device', 'cpu')
    score = command('hybridad_score', data, '--checkpoint_path', work/'train'/'best.safetensors', '--part', 8, '--quiet', '--device', 'cpu')
    for name, args, mark, same in (('train', train, 'config.json', same_training), ('score', score, 'scoring.json', same_scores)):
        seconds = seconds_of(args + ['--out', str(work/name)])
        found[name] = kill_until(args, work/f'{name}_killed', mark, a.kills, seconds, rng, lambda out: same(work/name, out)) | dict(undisturbed_seconds=round(seconds, 1), result='bit-identical')
        print(name, found[name], flush=True)
    a.out.write_text(json.dumps(found, indent=1) + '\n')
    shutil.rmtree(work)

if __name__ == '__main__': main()

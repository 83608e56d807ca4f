"""Two processes against one through accelerate: the same prompts to rounding, and what it costs in time.

    python proof/processes.py [--out results/processes.json]
"""
import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from safetensors.torch import load_file

from hybridad.synthetic import write_dataset

def run(processes, readout, data, out):
    "Seconds of a training run with some processes on the CPU, one thread each; `accelerate launch` starts several on devices only, so torchrun does here."
    code = out.with_suffix('.py'); code.write_text('import sys\nfrom hybridad.cli import hybridad_train\nsys.exit(hybridad_train(sys.argv[1:]))\n')
    launch = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', str(processes)]
    begun = time.perf_counter()
    r = subprocess.run([*launch, str(code), '--data_path', str(data), '--epochs', '2', '--batch_size', '16', '--readout', readout, '--validation_fraction', '0', '--device', 'cpu', '--out', str(out)], capture_output=True, text=True, env=os.environ | dict(ACCELERATE_USE_CPU='true', OMP_NUM_THREADS='1'))
    assert r.returncode == 0, r.stderr[-2000:]
    assert json.loads((out/'provenance.json').read_text())['processes'] == processes
    return time.perf_counter() - begun

def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', type=Path, default=Path('results/processes.json'))
    a = parser.parse_args(); work = Path(tempfile.mkdtemp())
    data = write_dataset(work/'data', split='auxiliary', count=4, progress=False)
    told = dict(command='python proof/processes.py', date=time.strftime('%Y-%m-%d'), batch_size=16, epochs=2)
    for readout in ('replay', 'exact'):
        seconds = {n: round(run(n, readout, data, work/f'{readout}{n}'), 1) for n in (1, 2)}
        one, two = (load_file(work/f'{readout}{n}'/'last.safetensors') for n in (1, 2))
        told[readout] = dict(seconds=seconds, time_ratio=round(seconds[1]/seconds[2], 2), largest_difference=max(float((one[k] - two[k]).abs().max()) for k in one))
    a.out.write_text(json.dumps(told, indent=1) + '\n'); print(json.dumps(told, indent=1))
    shutil.rmtree(work)

if __name__ == '__main__': main()

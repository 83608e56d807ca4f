"""Two processes against one through accelerate: the same prompts to rounding, the same figures and scores, and what it costs in time.

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

from hybridad.runs import write_json
from hybridad.synthetic import write_dataset

CODE = 'import sys\nfrom hybridad import cli\nsys.exit(getattr(cli, sys.argv[1])(sys.argv[2:]))\n'


def run(processes, code, command, *args):
    "Seconds of a command with some processes on the CPU, one thread each; `accelerate launch` starts several on devices only, so torchrun does here."
    launch = [
        sys.executable,
        '-m',
        'torch.distributed.run',
        '--standalone',
        '--nproc_per_node',
        str(processes),
    ]
    begun = time.perf_counter()
    r = subprocess.run(
        [*launch, str(code), command, *map(str, args), '--device', 'cpu'],
        capture_output=True,
        text=True,
        env=os.environ | dict(ACCELERATE_USE_CPU='true', OMP_NUM_THREADS='1'),
    )
    assert r.returncode == 0, r.stderr[-2000:]
    return time.perf_counter() - begun


def both(work, name, command, *args):
    "Seconds with one process and with two, and their ratio; the runs are in work/name1 and work/name2."
    seconds = {
        n: round(run(n, work / 'run.py', command, *args, '--out', work / f'{name}{n}'), 1)
        for n in (1, 2)
    }
    return dict(seconds=seconds, time_ratio=round(seconds[1] / seconds[2], 2))


def trained(work, data, readout, precision):
    "Two epochs, two processes against one, and how far their prompts lie apart."
    name = f'{readout}, {precision}'
    told = both(
        work,
        name,
        'hybridad_train',
        '--data_path',
        data,
        '--epochs',
        2,
        '--batch_size',
        16,
        '--readout',
        readout,
        '--precision',
        precision,
        '--validation_fraction',
        0,
    )
    assert [
        json.loads((work / f'{name}{n}' / 'run.json').read_text())['provenance']['processes']
        for n in (1, 2)
    ] == [1, 2]
    one, two = (load_file(work / f'{name}{n}' / 'last.safetensors') for n in (1, 2))
    return told | dict(largest_difference=max(float((one[k] - two[k]).abs().max()) for k in one))


def metrics(folder):
    return {
        k: v for k, v in json.loads((folder / 'metrics.json').read_text()).items() if k != 'seconds'
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', type=Path, default=Path('results/processes.json'))
    a = parser.parse_args()
    work = Path(tempfile.mkdtemp())
    (work / 'run.py').write_text(CODE)
    data = write_dataset(
        work / 'data', seed=9, split='auxiliary', count=4, progress=False
    )  # other pictures than the package's prompts were learned on
    told = dict(
        command='python proof/processes.py', date=time.strftime('%Y-%m-%d'), batch_size=16, epochs=2
    )
    for readout, precision in (('replay', 'float32'), ('exact', 'float32'), ('replay', 'float64')):
        told[f'train, {readout}, {precision}'] = trained(work, data, readout, precision)
    told['test'] = both(work, 'test', 'hybridad_test', '--data_path', data)
    told['test']['figures'] = (
        'equal' if metrics(work / 'test1') == metrics(work / 'test2') else 'different'
    )
    told['score'] = both(work, 'score', 'hybridad_score', data, '--part', 16, '--quiet')
    told['score']['scores'] = (
        'equal'
        if (work / 'score1' / 'scores.csv').read_bytes()
        == (work / 'score2' / 'scores.csv').read_bytes()
        else 'different'
    )
    write_json(a.out, told)
    print(json.dumps(told, indent=1))
    shutil.rmtree(work)
    assert (
        all(
            t['largest_difference'] < (1e-10 if 'float64' in n else 1e-5)
            for n, t in told.items()
            if n.startswith('train')
        )
        and told['test']['figures'] == told['score']['scores'] == 'equal'
    )


if __name__ == '__main__':
    main()

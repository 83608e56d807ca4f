"""Two threads beside another busy process: how long a waiting thread should keep its core.

Command:  python experiments/spin.py (writes results/spin.json; not run yet)
Duration: six cases of 8 s and their starts, on two cores that do nothing else
Data:     noise, since only time is measured

Each case is a process of its own, as libgomp reads GOMP_SPINCOUNT once. It scores images with two
threads, alone or beside a process that does nothing but count."""

import os
import subprocess
import sys
import time

from common import Timed, arguments

SPINS = {'as libgomp has it': None, 'as the commands set it': '30000', 'none': '0'}
CHILD = """
import time, torch
from hybridad.config import ONE_VIEW
from hybridad.models.detector import HybridAnomalyDetector
from hybridad.config import get_default_config
torch.set_num_threads(2)
detector = HybridAnomalyDetector(get_default_config(device='cpu', **ONE_VIEW)).eval()
images = torch.rand(8, 3, 128, 128) * 2 - 1
with torch.no_grad():
    detector(images)
    begun, rounds = time.perf_counter(), 0
    while time.perf_counter() - begun < SECONDS:
        detector(images)
        rounds += 1
print(8 * rounds / (time.perf_counter() - begun))
"""


def rate(spins: str | None, seconds: int) -> float:
    "Images a second of a process with two threads."
    names = 'GOMP_SPINCOUNT', 'OMP_WAIT_POLICY', 'OMP_NUM_THREADS'
    env = {k: v for k, v in os.environ.items() if k not in names}
    env |= {} if spins is None else dict(GOMP_SPINCOUNT=spins)
    code = CHILD.replace('SECONDS', str(seconds))
    found = subprocess.run([sys.executable, '-c', code], env=env, capture_output=True, text=True)
    if found.returncode:
        raise SystemExit(found.stderr)
    return round(float(found.stdout.split()[-1]), 2)


def beside(spins: str | None, seconds: int) -> float:
    "The same beside a process that counts."
    other = subprocess.Popen([sys.executable, '-c', 'while True: pass'])
    try:
        return rate(spins, seconds)
    finally:
        other.kill()
        other.wait()


def main():
    a = arguments(__doc__)
    timed = Timed(a, 'spin', 'python experiments/spin.py')
    seconds, rows = (3 if a.small else 8), {}
    for name, spins in SPINS.items():
        rows[name] = dict(spins=spins, alone=rate(spins, seconds), beside=beside(spins, seconds))
        print(name, rows[name], flush=True)
    timed.write(dict(images_per_second=rows, cores=os.cpu_count(), at=time.strftime('%H:%M')))


if __name__ == '__main__':
    main()

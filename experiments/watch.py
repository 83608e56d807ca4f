"""From a file that is closed to its row on disk: `hybridad watch` beside a slow camera.

python experiments/watch.py            # 90 s, miniature, 120 JPEG files of 512 px, one a half second

Writes results/watch.json with the load of the machine, since other work on it counts, too. The
folder is watched by a process of its own; this one writes files and asks the table for its size."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from statistics import median, quantiles

import psutil
from common import RESULTS, about, fresh
from PIL import Image

from hybridad.inference.rows import read_scores
from hybridad.runs import write_json
from hybridad.synthetic.plain import picture

COUNT, EVERY = 120, 0.5  # files, seconds between two
COMMAND = 'import sys; from hybridad.cli import hybridad; sys.exit(hybridad())'


def photographs(folder, count=12):
    "A few different photographs as bytes of JPEG files."
    folder.mkdir(parents=True)
    for k in range(count):
        Image.fromarray(picture(11, k, 512).image).save(folder / f'{k}.jpg', quality=92)
    return [(folder / f'{k}.jpg').read_bytes() for k in range(count)]


def wait_for(true, seconds=120.0):
    "Wait for something, 2 ms at a time."
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise TimeoutError('the watch did not answer')
        time.sleep(0.002)


def size_of(part):
    return part.stat().st_size if part.exists() else 0


def latencies(line, part, shots):
    "Seconds from closing each file to its row."
    found, rng = [], random.Random(0)
    for k in range(COUNT):
        before = size_of(part)
        with open(line / f'{k:04}.jpg', 'wb') as file:
            file.write(shots[k % len(shots)] + b'\0' * k)  # no two files are the same
        closed = time.monotonic()
        wait_for(lambda: size_of(part) > before)  # noqa: B023
        found.append(time.monotonic() - closed)
        time.sleep(rng.uniform(0.5, 1.5) * EVERY)
    return found


def main():
    root = fresh('watch')
    shots, line, out = photographs(root / 'shots'), root / 'line', root / 'run'
    line.mkdir()
    part = out / 'parts' / 'part-000000.csv'
    call = [sys.executable, '-c', COMMAND, 'watch', line, '--out', out, '--quiet']
    process = subprocess.Popen(list(map(str, call)))
    wait_for((out / 'run.json').exists)
    shutil.copy(root / 'shots' / '0.jpg', line / 'first.jpg')  # what a first image costs once
    wait_for(lambda: size_of(part) > 0)
    own, load = psutil.Process(process.pid), []
    used = own.cpu_times().user
    found = latencies(line, part, shots)
    used = own.cpu_times().user - used
    load.append(os.getloadavg()[0])
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 0 and len(list(read_scores(out))) == COUNT + 1
    result = dict(
        images=COUNT,
        median=round(median(found), 3),
        percent_95=round(quantiles(found, n=20)[-1], 3),
        worst=round(max(found), 3),
        cpu_seconds_per_image=round(used / COUNT, 3),
        load_average=round(load[0], 2),
        cores=os.cpu_count(),
    )
    print(result)
    write_json(RESULTS / 'watch.json', about('python experiments/watch.py', None) | result)


if __name__ == '__main__':
    main()

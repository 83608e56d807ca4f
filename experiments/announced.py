"""How long a scoring run says it will take, and how long it takes.

Command:  python experiments/announced.py
Duration: two minutes
Data:     600 JPEG files of 256 px, drawn by hybridad.synthetic.plain, scored with the prompts of
          the package in one view

`hybridad score` runs on a terminal of its own, whose bar is read as a person reads it: at 10, 30
and 60 percent of the images the rest that it announces is held against the rest that came, until
the command is done with its report. The load of the machine changes while it runs."""

import os
import pty
import re
import subprocess
import sys
import termios
import time

from common import RESULTS, about, fresh
from PIL import Image
from watch import COMMAND, one_view

from hybridad.runs import write_json
from hybridad.synthetic.plain import picture

COUNT, DRAWN, SHARES = 600, 60, (0.1, 0.3, 0.6)
STATE = re.compile(rf'(\d+)/{COUNT} \[[\d:]+<([\d:]+),')


def seconds(text):
    "Seconds of a time as bars write it."
    found = 0
    for part in text.split(':'):
        found = 60 * found + int(part)
    return found


def photographs(folder):
    folder.mkdir(parents=True)
    for k in range(DRAWN):
        Image.fromarray(picture(11, k, 256).image).save(path := folder / f'{k:03}.jpg', quality=92)
        for copy in range(1, COUNT // DRAWN):
            (folder / f'{copy * DRAWN + k:03}.jpg').write_bytes(path.read_bytes() + b'\0' * copy)


def states(call):
    "(images done, seconds announced, when) of each state of the bar, and when the command ended."
    mine, its = pty.openpty()
    termios.tcsetwinsize(its, (24, 100))  # a bar has the width of its terminal
    process = subprocess.Popen(call, stdout=subprocess.DEVNULL, stderr=its)
    os.close(its)
    found, text = [], ''
    while True:
        try:
            text = (text + os.read(mine, 4096).decode(errors='replace'))[-500:]
        except OSError:  # the command has closed its terminal
            break
        if said := STATE.findall(text):
            done, rest = said[-1]
            found.append((int(done), seconds(rest), time.monotonic()))
    if process.wait() not in (0, 3):
        sys.exit('the images were not scored')
    return found, time.monotonic()


def main():
    root = fresh('announced')
    photographs(root / 'photos')
    prompts = one_view(root / 'prompts.safetensors')
    call = [sys.executable, '-c', COMMAND, 'score', root / 'photos', '--out', root / 'run']
    found, end = states([*map(str, call), '--checkpoint_path', str(prompts), '--device', 'cpu'])
    rows = {}
    for share in SHARES:
        _, announced, when = next(s for s in found if s[0] >= share * COUNT)
        rest = end - when
        row = dict(announced_s=announced, taken_s=round(rest, 1), ratio=round(announced / rest, 2))
        rows[f'{share:.0%}'] = row
    result = dict(images=COUNT, rest=rows, load_average=round(os.getloadavg()[0], 2))
    print(result)
    notes = about('python experiments/announced.py', None)
    write_json(RESULTS / 'announced.json', notes | result)


if __name__ == '__main__':
    main()

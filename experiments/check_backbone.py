"""What check-backbone says of the miniature, and of random weights, where nothing may localise.

Command:  python experiments/check_backbone.py (writes results/check_backbone.json)
Duration: `seconds` of each inside; minutes of one core for the random weights
Data:     pictures drawn by hybridad.synthetic.plain: the most that the command reads (48, at six
          timesteps) for the miniature, the least (12, at three) for the random weights

Random weights are in the sizes of Stable Diffusion 2.1, both are read at 128 px. `found` is the
best choice of the search by its score on pictures that did not choose it, `own` the choice that the
backbone brings, `gain` the difference for a picture with two standard errors. `proposed` is what
the command would keep, with its score by each way to take masses in `masses`."""

import json
import time

import torch
from common import RESULTS, about

from hybridad.bench.check_backbone import check_backbone
from hybridad.bench.sizes import sd21_sized
from hybridad.models.backbone import load_backbone
from hybridad.runs import write_json

KEPT = 'size', 'pictures', 'own', 'score', 'nonsense', 'gain', 'uncertainty', 'stays', 'masses'


def checked(backbone: object, room: float) -> dict:  # room: seconds, as --seconds
    "The report on a backbone without the figures of every layer, and the seconds that it took."
    begun = time.perf_counter()
    report = check_backbone(backbone, 128, seconds=room, tell=print, progress=True)
    seconds, (best, *_) = round(time.perf_counter() - begun, 1), report['sweep']
    found = {k: best[k] for k in ('timestep', 'layers', 'score')}
    rest = {k: report[k] for k in ('proposed', 'corners', 'costs', 'verdict')}
    print(report['verdict'], f'{seconds} s', flush=True)
    return {k: report[k] for k in KEPT} | dict(found=found, **rest, seconds=seconds)


def main():
    torch.manual_seed(0)
    found = dict(miniature=checked(load_backbone('mini', 'cpu'), 1000))
    found['random weights, size of SD 2.1'] = checked(sd21_sized(), 1)
    command = 'python experiments/check_backbone.py'
    write_json(RESULTS / 'check_backbone.json', about(command, None) | found)
    print(json.dumps(found, indent=1))


if __name__ == '__main__':
    torch.set_num_threads(1)
    main()

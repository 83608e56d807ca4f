"""What a training of the miniature does to photographs: validation sets at several of its steps.

Command:  python experiments/trainings.py mini RUN/backbone-900 RUN/backbone-1800 ...
          (adds to results/trainings.json)
Duration: 2 to 3 minutes of one core for each backbone
Data:     as prompts.py has it: prompts learned on 300 texture photographs with generated defects,
          read on the validation sets of DATA.md in one view

A folder beside whose run a log lies is told with its recipe and the images seen so far. The best
of several trainings is no fair figure of any: these sets choose, they do not test."""

import argparse
import sys
from pathlib import Path

import torch
from common import RESULTS, ROOT, Timed, fresh
from prompts import Study

from hybridad.config import ONE_VIEW
from hybridad.runs import read_json, read_log

sys.path.insert(0, str(ROOT / 'tools'))
from ship_backbone import command_of  # noqa: E402


def trained(folder: Path) -> dict:
    "Command of the run that a backbone is from, and the images it has seen."
    step = folder.name.partition('-')[2]
    rows = read_log(folder.parent / 'log.jsonl', 'time')
    rows = [r for r in rows if r['stage'] == 'diffusion' and (not step or r['step'] <= int(step))]
    if not rows:
        return {}
    last = {k: v for k, v in rows[-1].items() if k not in ('stage', 'time', 'steps_per_s')}
    return dict(command=command_of(folder.parent), log=last)


def measured(a: argparse.Namespace, backbone: str) -> dict:
    "Figures of learned prompts and of the list of nouns."
    study = Study(argparse.Namespace(backbone=backbone, small=a.small))
    detector = study.learned('photo', 0, fresh('mix'), batch_size=16, **ONE_VIEW)
    return dict(
        learned=study.validation.read(detector),
        nouns=study.by_hand('nouns'),
        **trained(Path(backbone)),
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('backbones', nargs='+', help="'mini' or diffusers folders")
    parser.add_argument('--out', type=Path, default=RESULTS)
    parser.add_argument('--small', action='store_true')
    a = parser.parse_args()
    a.backbone = ' '.join(Path(b).name for b in a.backbones)
    timed, file = Timed(a, 'trainings', 'python experiments/trainings.py'), a.out / 'trainings.json'
    found = read_json(file)['trainings'] if file.is_file() else {}
    for backbone in a.backbones:
        name = backbone if backbone == 'mini' else '/'.join(Path(backbone).parts[-2:])
        found[name] = measured(a, backbone)
        print(name, *(found[name][k]['mean'] for k in ('learned', 'nouns')), flush=True)
        timed.write(dict(trainings=found))


if __name__ == '__main__':
    torch.set_num_threads(1)
    main()

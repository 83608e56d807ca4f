"""Photographs at several sizes, read with a list of nouns: what more pixels tell.

Command:  python experiments/resolution.py (writes results/resolution.json)
Duration: not recorded
Data:     magnetic_tile and steel_strip of DATA.md, from the folder HYBRIDAD_SHARED names

A size is a multiple of the backbone's; every row is evaluated at 128 px."""

import torch
from common import SIZE, Timed, arguments, photographs, short

from hybridad.config import get_default_config
from hybridad.demo.pairs import PAIRS, PairDetector
from hybridad.evaluation.evaluate import EvalSet, evaluate
from hybridad.models.backbone import load_backbone


def main():
    a = arguments(__doc__)
    timed = Timed(a, 'resolution', 'python experiments/resolution.py')
    backbone, found = load_backbone(a.backbone, 'cpu'), {}
    for name in ('magnetic_tile', 'steel_strip'):
        samples = photographs(name)[:: 40 if a.small else 1]
        truth, rows = EvalSet(samples, SIZE), found.setdefault(name, {})
        for scales in ([1.0], [1.5], [2.0], [3.0], [1.0, 2.0]):
            config = get_default_config(views=len(scales), scales=scales, device='cpu')
            detector = PairDetector(config, backbone, PAIRS['nouns'])
            results, *_ = evaluate(detector, samples, truth)
            rows[' + '.join(f'{s:g}' for s in scales)] = short(results, 'defect_mean')
            print(name, scales, rows, flush=True)
    timed.write(dict(sets=found, size=backbone.image_size))


if __name__ == '__main__':
    torch.set_num_threads(1)
    main()

"""Photographs at several sizes, read with hand-written words: what more pixels tell.

Command:  python experiments/resolution.py (writes results/resolution.json)
Duration: not recorded
Data:     magnetic_tile and steel_strip of DATA.md, from the folder HYBRIDAD_SHARED names

A size is a multiple of the backbone's; every row is evaluated at 128 px."""

import torch
from common import RESULTS, SIZE, about, photographs, short

from hybridad.config import get_default_config
from hybridad.evaluation.baselines import WordsDetector
from hybridad.evaluation.evaluate import EvalSet, evaluate
from hybridad.models.backbone import load_backbone
from hybridad.runs import write_json


def main():
    backbone, found = load_backbone('mini', 'cpu'), {}
    for name in ('magnetic_tile', 'steel_strip'):
        samples = photographs(name)
        truth, rows = EvalSet(samples, SIZE), found.setdefault(name, {})
        for scales in ([1.0], [1.5], [2.0], [3.0], [1.0, 2.0]):
            config = get_default_config(views=len(scales), scales=scales)
            results, *_ = evaluate(WordsDetector(config, backbone), samples, truth)
            rows[' + '.join(f'{s:g}' for s in scales)] = short(results, 'defect_mean')
            print(name, scales, rows, flush=True)
    told = dict(sets=found, size=backbone.image_size)
    write_json(RESULTS / 'resolution.json', told | about('python experiments/resolution.py'))


if __name__ == '__main__':
    torch.set_num_threads(2)
    main()

"""Reading each family at its real size: memory and products from shapes, time and bytes of blocks.

Command:  python experiments/families.py (writes results/families.json)
Duration: about 8 minutes of one core
Data:     none; random weights in the sizes of published models, one image of 512 px

`full` is the whole model on the meta device; `extra` are the bytes that reading masses takes there,
which is the way of a GPU. `blocks` is a model of the real width with two blocks (FLUX: one of each
kind), run in float32 on one core: processor time of a pass whose every layer is read against a
plain pass, and the bytes that reading allocates against scores of a layer. `maps` is the time as
commands read: queries are kept and compared with two prompts whose keys are known. `time_ratio`
itself is of masses of token groups within the pass, where joint layers need what their softmax
divides by: on a CPU and without gradients the model's own attention gives it, `again` is the time
where the image's keys are multiplied again, as on a GPU. `exact_step` is the memory of a training
step through a UNet with checkpointing, by images in a batch, two views of each. Bar of the time is
1.05."""

import json
from unittest.mock import patch

import torch
from common import RESULTS, about

from hybridad.bench.families import (
    FULL,
    at_full_size,
    exact_step_bytes,
    full_size,
    reader_on,
)
from hybridad.models import denominators
from hybridad.runs import write_json

BLOCKS = {
    'PixArt-alpha': dict(num_layers=2),
    'PixArt-Sigma': dict(num_layers=2),
    'Sana 1.6B': dict(num_layers=2),
    'SD 3 medium': dict(num_layers=2),
    'SD 3.5 medium': dict(num_layers=2, dual_attention_layers=(0,)),
    'FLUX.1': dict(num_layers=1, num_single_layers=1),
}
JOINT = 'SD 3 medium', 'SD 3.5 medium', 'FLUX.1'  # text and image share a softmax
ROUNDS = {'SD 3 medium': 25, 'SD 3.5 medium': 25, 'FLUX.1': 5}  # near the bar; the last is slow


def measured(name: str) -> dict:
    "Figures of two blocks, and what they are in units of their bars."
    model, x, text = full_size(name, 'cpu', torch.float32, **BLOCKS[name])
    rounds = ROUNDS.get(name, 9)
    found = reader_on(model, (x, text), rounds)
    found |= dict(extra_in_scores=found['extra_bytes'] / found['scores_bytes'])
    if name in JOINT:
        with patch.object(denominators, '_gives', return_value=False):
            again = reader_on(model, (x, text), rounds)
        found['again'] = {k: again[k] for k in ('time_ratio', 'low', 'high')}
    print(name, json.dumps(found), flush=True)
    return found


def main():
    torch.manual_seed(0)
    full = {name: at_full_size(name) for name in FULL}
    blocks = {name: measured(name) for name in BLOCKS}
    notes = about('python experiments/families.py', None)
    step = {u: {str(n): exact_step_bytes(n, name=u) for n in (1, 4, 8)} for u in ('SD 2.1', 'SDXL')}
    found = dict(full=full, exact_step=step, blocks=blocks)
    write_json(RESULTS / 'families.json', notes | found)


if __name__ == '__main__':
    torch.set_num_threads(1)
    main()

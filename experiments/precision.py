"""How far maps in bfloat16 leave those in float32, and which part of the UNet it comes from.

Command:  python experiments/precision.py [--dit runs/dit/backbone] (writes results/precision.json)
Duration: about three minutes of one core, and 8 GB of memory
Data:     16 held-out images drawn by hybridad.synthetic.plain; for the size of Stable Diffusion 2.1
          random weights and random latents of 256 px

Differences are in units of the spread (standard deviation) of the float32 maps: the largest of all
places, and the root of the mean square. Maps of the miniature are those that the detector gives, in
two sizes, of 16 images; `one_view` are those of a single view. `without` rounds weights and outputs
of every part of the miniature's UNet to bfloat16 but of one, in float32 arithmetic, so that parts
can be told apart. The other figures are of real bfloat16: `all` with the whole UNet rounded, `kept`
as it ships, with the first residual block in float32. Autoencoder and CLIP are in float32
throughout. Without --dit the figures of the transformer stay as they were."""

import argparse
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from common import RESULTS, about

from hybridad.bench.sizes import sd21_sized
from hybridad.inference.scoring import SHIPPED
from hybridad.models.attention import log_ratio
from hybridad.models.backbone import Backbone, load_backbone
from hybridad.models.detector import HybridAnomalyDetector
from hybridad.models.pipeline import EasonADPipeline
from hybridad.runs import read_json, write_json
from hybridad.synthetic.plain import picture

FIRST, OUT = Backbone.delicate, RESULTS / 'precision.json'
PARTS = {
    'conv_in': r'conv_in',
    'first residual block': re.escape(FIRST),
    'its group norms': re.escape(FIRST) + r'\.norm',
    'all group norms': r'.*(resnets|attentions)\.\d+\.norm',
    'all convolutions of residual blocks': r'.*resnets\.\d+\.conv',
    'time embedding': r'time_',
    'self-attention': r'.*attn1',
    'cross-attention': r'.*attn2',
    'its queries': r'.*attn2\.to_q',
    'feed-forward layers': r'.*\.ff',
    'sampling up': r'.*upsamplers',
    'all down blocks': r'down_blocks',
    'all up blocks': r'up_blocks',
}
PAIR = 'normal', 'abnormal'


def images() -> torch.Tensor:  # (16, 3, 128, 128)
    seen = np.stack([picture(5, i, split='held_out').image for i in range(16)])
    return torch.from_numpy(seen).permute(0, 3, 1, 2) / 127.5 - 1


def distance(maps: torch.Tensor, truth: torch.Tensor) -> dict:
    "Largest and root mean square difference in units of the spread."
    off, spread = maps.float() - truth, truth.std()
    found = dict(largest=off.abs().max() / spread, rms=off.square().mean().sqrt() / spread)
    return {k: round(float(v), 4) for k, v in found.items()}


def in_half(x: object) -> object:
    "Tensors rounded to bfloat16, held in float32."
    if isinstance(x, tuple):
        return tuple(map(in_half, x))
    return x.bfloat16().float() if isinstance(x, torch.Tensor) else x


@contextmanager
def rounded(unet: torch.nn.Module, kept: str) -> Iterator[None]:
    "Weights and outputs of all parts rounded, but of those whose name begins as `kept` says."
    weights = {n: p.detach().clone() for n, p in unet.named_parameters()}
    parts = [m for n, m in unet.named_modules() if not re.match(kept, n)]
    hooks = [m.register_forward_hook(lambda m, x, out: in_half(out)) for m in parts]
    for m in parts:
        for p in m.parameters(recurse=False):
            p.data.copy_(in_half(p.data))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for n, p in unet.named_parameters():
            p.data.copy_(weights[n])


def in_bfloat16(backbone: Backbone, maps: Callable, truth: torch.Tensor) -> dict:
    "Distances with the whole UNet rounded, then with its first block as it was."
    block = backbone.model.get_submodule(FIRST)
    weights = {n: t.clone() for n, t in block.state_dict().items()}
    backbone.delicate = ''
    backbone.to(torch.bfloat16)
    found = dict(all=distance(maps(), truth))
    backbone.delicate = FIRST
    backbone.to(torch.bfloat16)
    block.load_state_dict(weights)
    return found | dict(kept=distance(maps(), truth))


def load_shipped() -> HybridAnomalyDetector:
    return HybridAnomalyDetector.from_checkpoint(SHIPPED, 'mini', 'cpu')[0]


def of_miniature() -> dict:
    "The miniature under the prompts that ship, each part by itself and in bfloat16."
    detector = load_shipped()
    backbone, x, without = detector.backbone, images(), {}

    def maps():
        return detector(x)['logits']

    def one_view():
        return log_ratio(detector.masses(x, detector.text()))

    truth = maps()
    for name, pattern in dict(nothing='nothing$', **PARTS).items():
        with rounded(backbone.unet, pattern):
            without[name] = distance(maps(), truth)
    alone, once = load_shipped(), one_view()
    found = dict(without=without) | in_bfloat16(backbone, maps, truth)
    detector = alone
    return found | dict(one_view=in_bfloat16(detector.backbone, one_view, once))


def of_full_size(side: int = 32) -> dict:
    "Random weights in the sizes of Stable Diffusion 2.1, two plain prompts."
    backbone = sd21_sized()
    pipeline, latents = EasonADPipeline(backbone), torch.randn(1, 4, side, side)
    words = [backbone.settings[k] for k in PAIR]
    keys, content = pipeline.keys(backbone.encode_text(words)), pipeline.tokens(words)

    def maps():
        queries = pipeline.queries(latents.to(backbone.unet.dtype))
        return log_ratio(pipeline.masses(queries, keys, content=content))

    return in_bfloat16(backbone, maps, maps())


def of_transformer(folder: str) -> dict:
    "A trained transformer under the pair of prompts of its settings; no part of it is kept."
    backbone, x = load_backbone(folder, 'cpu'), images()
    words = [backbone.settings[k] for k in PAIR]
    truth = log_ratio(EasonADPipeline(backbone)(x, words))
    backbone.to(torch.bfloat16)
    return dict(all=distance(log_ratio(EasonADPipeline(backbone)(x, words)), truth))


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--dit', help='folder of a transformer that dit.py describes')
    a = parser.parse_args()
    torch.manual_seed(0)
    found = dict(miniature=of_miniature())
    before = read_json(OUT) if OUT.exists() else {}
    told = of_transformer(a.dit) if a.dit else before.get('trained transformer')
    found |= {'trained transformer': told} if told else {}
    found['random weights, size of SD 2.1'] = of_full_size()
    command = 'python experiments/precision.py' + (' --dit runs/dit/backbone' if a.dit else '')
    write_json(OUT, about(command, None) | found)
    print(json.dumps(found, indent=1))


if __name__ == '__main__':
    torch.set_num_threads(1)
    main()

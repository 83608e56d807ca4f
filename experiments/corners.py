"""False alarms in corners and borders of pictures that show nothing, and if subtracting them helps.

Command:  python experiments/corners.py [--dit runs/dit/backbone] (writes results/corners.json)
Duration: about 20 seconds of one core
Data:     flat grey images; for the subtraction 20 held-out images with a defect, drawn by
          hybridad.synthetic.plain

The miniature reads the prompts of the package at one scale, the transformer that was trained by its
recipe (see dit.py) the pair of prompts of its settings. Of all else only random weights of a few
thousand numbers can be had here, so their figures say how the code behaves and nothing of trained
models; they are in units of the spread over the middle of the map."""

import argparse
import json
from collections.abc import Callable

import numpy as np
import torch
from common import RESULTS, about

from hybridad.bench.check_backbone import levels
from hybridad.bench.localise import areas_under
from hybridad.inference.scoring import SHIPPED
from hybridad.models.attention import log_ratio
from hybridad.models.backbone import load_backbone, random_backbone
from hybridad.models.detector import HybridAnomalyDetector
from hybridad.models.families import TransformerBackbone
from hybridad.models.parts import MINI
from hybridad.models.pipeline import EasonADPipeline
from hybridad.models.tiny import tiny_pipeline
from hybridad.runs import write_atomic
from hybridad.synthetic.plain import picture

GREYS = (-0.8, -0.4, 0.0, 0.4, 0.8)
FAMILIES = 'unet', 'pixart', 'sana', 'sd3', 'flux'
PAIR = 'normal', 'abnormal'
WORDS = ['a photo of a flawless object', 'a photo of a damaged object']


def flat(side: int) -> torch.Tensor:
    "Grey images that show nothing."
    return torch.tensor(GREYS)[:, None, None, None].expand(-1, 3, side, side).contiguous()


def rounded(found: dict) -> dict:
    return {k: round(v, 4) for k, v in found.items()}


def defects(count: int = 20) -> list:
    "Held-out images with a defect."
    found = (picture(5, i, 128, split='held_out') for i in range(4 * count))
    return [p for p in found if p.mask.any()][:count]


def judged(maps_of: Callable) -> dict:
    "Levels on flat images; pixel AUROC of defects, plain and without the mean map of those."
    empty, pictures = maps_of(flat(128)), defects()
    images = torch.stack([torch.from_numpy(p.image) for p in pictures]).permute(0, 3, 1, 2)
    maps = maps_of(images.float() / 127.5 - 1)
    side = 128 // maps.shape[-1]
    masks = np.stack([p.mask.reshape(128 // side, side, -1, side).max((1, 3)) for p in pictures])
    truth = masks.reshape(1, -1)
    both = dict(plain=maps, subtracted=maps - empty.mean(0))
    found = {k: areas_under(m.numpy().reshape(1, -1), truth)[0] for k, m in both.items()}
    return rounded(levels(empty)) | dict(
        pixel_auroc=rounded({k: float(v) for k, v in found.items()})
    )


def of_miniature() -> dict:
    "The miniature under the prompts that ship."
    detector, _ = HybridAnomalyDetector.from_checkpoint(SHIPPED, 'mini', 'cpu')
    detector.config.model.update(dict(views=1, scales=None))
    return judged(lambda images: detector(images)['logits'])


def of_folder(folder: str) -> dict:
    "A trained backbone under the pair of prompts of its settings."
    backbone = load_backbone(folder, 'cpu')
    pipeline, words = EasonADPipeline(backbone), [backbone.settings[k] for k in PAIR]
    return judged(lambda images: log_ratio(pipeline(images, words)))


def of_random(name: str) -> dict:
    "Levels of a random UNet or a tiny random transformer under two plain prompts."
    torch.manual_seed(0)
    if name == 'unet':
        backbone = random_backbone(MINI)
    else:
        backbone = TransformerBackbone(name, tiny_pipeline(name).components, 24)
    maps = log_ratio(EasonADPipeline(backbone, timestep=50)(flat(32), WORDS))
    return rounded(levels(maps / levels(maps)['spread']))


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--dit', help='folder of a transformer that dit.py describes')
    a = parser.parse_args()
    found = dict(miniature=of_miniature())
    if a.dit:
        found['trained transformer'] = of_folder(a.dit)
    found['random weights'] = {f: of_random(f) for f in FAMILIES}
    command = 'python experiments/corners.py' + (' --dit runs/dit/backbone' if a.dit else '')
    write_atomic(
        RESULTS / 'corners.json', json.dumps(found | about(command, 64), indent=1).encode()
    )
    print(json.dumps(found, indent=1))


if __name__ == '__main__':
    main()

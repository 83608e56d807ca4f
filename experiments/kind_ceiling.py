"""How well can the kind of a defect be told from its look alone?

Command:  python experiments/kind_ceiling.py (writes results/kind_ceiling.json)
Duration: about 5 minutes of one core
Data:     drawn by hybridad.synthetic.plain; fitted on auxiliary categories, tested on
          held-out ones, the auxiliary kinds in both

A small convolutional network sees a crop around each region, never the mask: 48 px at full size
and the 96 px around it at half size. Its accuracy is an upper bound for all that names regions."""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from hybridad.runs import write_atomic
from hybridad.synthetic.objects import EDGED
from hybridad.synthetic.plain import HELD_OUT_CATEGORIES, categories_of, picture

SIDE = 48  # pixels of a crop
FIT, TEST = 71, 72  # seeds


def crop_of(p):  # a Picture -> (6, SIDE, SIDE) uint8
    "The image around the middle of the region's box, at full and at half size."
    ys, xs = np.nonzero(p.mask)
    cy, cx = (ys.min() + ys.max() + 1) // 2 + SIDE, (xs.min() + xs.max() + 1) // 2 + SIDE
    wide = np.pad(p.image, ((SIDE, SIDE), (SIDE, SIDE), (0, 0)), 'edge')
    wide = wide[cy - SIDE : cy + SIDE, cx - SIDE : cx + SIDE].astype(np.float32)
    near = wide[SIDE // 2 : -SIDE // 2, SIDE // 2 : -SIDE // 2]
    far = wide.reshape(SIDE, 2, SIDE, 2, 3).mean((1, 3))
    return np.concatenate([near, far], -1).transpose(2, 0, 1).astype(np.uint8)


def drawn(seed, count, split, kinds):  # yields Pictures
    "Damaged images: kinds take turns, chips only where there is an edge, there twice as often."
    categories = categories_of(split)[0]
    for i in range(count):
        turn, column = divmod(i, len(categories))
        edged = categories[column] in EDGED
        mine = [*kinds, 'chip'] if edged else [k for k in kinds if k != 'chip']
        p = picture(seed, i, split=split, kind=mine[(turn + column) % len(mine)])
        if p.kind in kinds:
            yield p


def regions(seed, count, split, kinds):
    "Crops, kind numbers, area shares, contrasts and categories of that many damaged images."
    rows = [
        (crop_of(p), kinds.index(p.kind), p.area, p.contrast, p.category)
        for p in drawn(seed, count, split, kinds)
    ]
    return tuple(map(np.array, zip(*rows)))


def prepared(crops):  # (N, 6, S, S) uint8 tensor -> float
    "Each view without its mean, in units of the crop's own spread."
    x = crops.float() / 255
    x = x - x.mean((2, 3), keepdim=True)
    return (x / (x.std((1, 2, 3), keepdim=True) + 0.02)).to(memory_format=torch.channels_last)


def network(kinds):
    "Seven convolutions, the mean and the maximum over the crop, one linear layer."

    def layer(a, b, stride):
        return nn.Sequential(
            nn.Conv2d(a, b, 3, stride, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU()
        )

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(
                layer(6, 24, 1),
                layer(24, 48, 2),
                layer(48, 48, 1),
                layer(48, 96, 2),
                layer(96, 96, 1),
                layer(96, 128, 2),
                layer(128, 128, 1),
            )
            self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(256, kinds))

        def forward(self, x):
            x = self.body(x)
            return self.head(torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1))

    return Net().to(memory_format=torch.channels_last)


def turned(crops, rng):
    "One of eight turns and mirrors, and another order of colours."
    if rng.random() < 0.5:
        crops = crops.flip(3)
    crops = torch.rot90(crops, int(rng.integers(4)), (2, 3))
    order = rng.permutation(3)
    return crops[:, [*order, *(order + 3)]]


def fit(net, crops, kind, epochs, batch=64):
    "AdamW with one cycle of the learning rate."
    rng = np.random.default_rng(0)
    opt = torch.optim.AdamW(net.parameters(), 3e-3, weight_decay=0.05)
    steps = epochs * (len(crops) // batch)
    plan = torch.optim.lr_scheduler.OneCycleLR(opt, 4e-3, steps)
    for epoch in range(epochs):
        order = rng.permutation(len(crops))
        total = 0.0
        for i in range(len(crops) // batch):
            at = order[i * batch : (i + 1) * batch]
            x = prepared(turned(crops[at], rng))
            with torch.autocast('cpu', torch.bfloat16):
                said = net(x)
            loss = nn.functional.cross_entropy(said.float(), kind[at], label_smoothing=0.05)
            opt.zero_grad()
            loss.backward()
            opt.step()
            plan.step()
            total += loss.item()
        print(f'epoch {epoch + 1}: loss {total / (len(crops) // batch):.3f}', flush=True)


@torch.no_grad()
def named(net, crops):
    "The kind of each crop, over its eight turns and mirrors."
    net.eval()
    total = 0.0
    for flip in (False, True):
        for k in range(4):
            x = torch.rot90(crops.flip(3) if flip else crops, k, (2, 3))
            total = total + torch.cat([net(prepared(b)).softmax(1) for b in x.split(128)])
    return total.argmax(1).numpy()


def shares(right, value, edges):
    "Accuracy between the edges, with the number of regions."
    rows = {}
    for low, high in zip(edges, edges[1:]):
        at = (value >= low) & (value < high)
        if at.any():
            rows[f'{low:g} to {high:g}'] = dict(
                n=int(at.sum()), accuracy=round(right[at].mean(), 3)
            )
    return rows


def mean_of(right, group, names):
    "Accuracy in each group; None where it has no region."
    return {
        name: round(float(right[group == key].mean()), 3) if (group == key).any() else None
        for key, name in names
    }


def confusion(true, said, kinds):
    "For each kind, how often it was given which name."
    return {
        kind: {
            name: int(count)
            for name, count in zip(kinds, np.bincount(said[true == i], minlength=len(kinds)))
            if count
        }
        for i, kind in enumerate(kinds)
    }


def report(kinds, said, tests):
    "All figures of the tested regions."
    _, true, area, contrast, category = tests
    right = said == true
    by_kind = mean_of(right, true, list(enumerate(kinds)))
    return dict(
        accuracy=round(float(right.mean()), 3),
        chance=round(1 / len(kinds), 3),
        mean_over_kinds=round(float(np.mean([v for v in by_kind.values() if v is not None])), 3),
        by_kind=by_kind,
        by_category=mean_of(right, category, [(c, c) for c in HELD_OUT_CATEGORIES]),
        by_area_percent=shares(right, 100 * area, [0, 0.1, 0.25, 0.5, 1, 2, 5, 100]),
        by_contrast=shares(right, contrast, [0, 0.1, 0.15, 0.2, 0.3, 0.45, 1]),
        confusion=confusion(true, said, kinds),
    )


def arguments():
    "What may be chosen on the command line."
    style = argparse.RawTextHelpFormatter
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    cli.add_argument('--pictures', type=int, default=6000, help='drawn to fit on')
    cli.add_argument('--tests', type=int, default=900, help='drawn to test on')
    cli.add_argument('--epochs', type=int, default=12)
    cli.add_argument('--out', default='results/kind_ceiling.json')
    return cli.parse_args()


def main():
    args, start = arguments(), time.process_time()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    kinds = categories_of('auxiliary')[1]
    crops, kind, *_ = regions(FIT, args.pictures, 'auxiliary', kinds)
    tests = regions(TEST, args.tests, 'held_out', kinds)
    print(f'{len(crops)} regions to fit on, {len(tests[0])} to test on', flush=True)
    net = network(len(kinds))
    fit(net, torch.from_numpy(crops), torch.from_numpy(kind), args.epochs)
    result = report(kinds, named(net, torch.from_numpy(tests[0])), tests)
    seen = named(net, torch.from_numpy(crops[:1000])) == kind[:1000]
    result |= dict(
        accuracy_on_fitted=round(float(seen.mean()), 3),
        regions=dict(fitted=len(crops), tested=len(tests[0])),
        cpu_seconds=round(time.process_time() - start),
        command=' '.join(['python', *sys.argv]),
    )
    write_atomic(Path(args.out), (json.dumps(result, indent=1) + '\n').encode())
    for name, value in result.items():
        print(name, value)


if __name__ == '__main__':
    main()

"""What the miniature's UNet reaches when labels teach it directly, without words.

Command:  python experiments/supervised.py [STEPS ...] (adds rows to results/scaling.json)
Duration: `cpu_seconds` inside; half an hour of one core in all
Data:     the corpus of scaling.py; its first 300 images are tested on, the others learned on

Beginning with the miniature, all weights of the UNet and a linear classifier of its queries learn
every label of whole images by cross-entropy. Nothing is denoised, no text has to be grounded: it is
what this UNet can tell about nouns after so many images, and so more than words can reach. `grid`
is the limit of the latent grid: perfect labels at its resolution, compared with those of pixels."""

import argparse
import time
from dataclasses import asdict

import numpy as np
import torch
import torch.nn.functional as F
from miniature import auxiliary
from scaling import PICTURES, auroc_by_name, images, note, recipe
from torch import nn
from tqdm.auto import trange

from hybridad.models.backbone import load_backbone
from hybridad.models.recorder import Recorder
from hybridad.models.transformers import Text, family_of
from hybridad.pretraining.corpus import Corpus
from hybridad.pretraining.grounding import label_cells

TESTED, BATCH, LR, HEAD_LR = 300, 6, 3e-4, 2e-3


class Labelled(nn.Module):
    "A UNet and a linear classifier of the queries that the miniature is read by."

    def __init__(self, names: list):
        super().__init__()
        backbone = load_backbone('mini', 'cpu')
        self.unet, self.layers = backbone.unet.requires_grad_(True), list(backbone.layers)
        self.timestep, self.names = backbone.timestep, {n: i for i, n in enumerate(names)}
        self.text = backbone.encode_text([backbone.settings['neutral']])
        self.mean, self.spread, self.head = None, None, None

    def queries(self, latents):  # (B, C, h, w)
        text = Text(self.text.expand(len(latents), -1, -1))
        with Recorder(self.unet, self.layers) as recorder:
            family_of(self.unet).call(self.unet, latents, self.timestep, text)
            found = [s.queries.movedim(-1, 1) for s in recorder.found.values()]
        return torch.cat([F.interpolate(q, latents.shape[-2:], mode='nearest') for q in found], 1)

    @torch.no_grad()
    def settle(self, latents):  # (B, C, h, w) of some images
        "Take the queries' mean and spread from images, and begin with a random classifier."
        found = self.queries(latents).movedim(1, -1).flatten(0, 2)
        self.mean, self.spread = (x[:, None, None] for x in (found.mean(0), found.std(0) + 1e-5))
        self.head = nn.Conv2d(found.shape[1], len(self.names), 1)

    def forward(self, latents):  # (B, names, h, w) logits
        return self.head((self.queries(latents) - self.mean) / self.spread)


def balanced(logits, labels, shown, names):
    "Mean cross-entropy over the names of an image, each by the cells that show it."
    labels = torch.from_numpy(labels)
    numbers = torch.tensor([names[n] for n in shown.names])
    cells = F.cross_entropy(logits[None], numbers[labels.long()][None], reduction='none')[0]
    here = [labels == i for i in range(len(shown.names))]
    return [cells[h].mean() for h in here if h.sum() >= 2]


def learn(model: Labelled, corpus: Corpus, steps: int):
    model.settle(torch.stack([corpus[i][0] for i in range(TESTED, TESTED + 60)]))
    groups = dict(params=model.unet.parameters(), lr=LR), dict(params=model.head.parameters())
    optimizer = torch.optim.AdamW(groups, HEAD_LR, weight_decay=1e-2)
    rate = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [LR, HEAD_LR], total_steps=steps, pct_start=0.1, cycle_momentum=False
    )
    rng = np.random.default_rng(0)
    for _ in trange(steps, desc='supervised'):
        rows = [corpus[i] for i in rng.integers(TESTED, len(corpus), BATCH)]
        out = model(torch.stack([r[0] for r in rows]))
        parts = [balanced(o, *r[1:], model.names) for o, r in zip(out, rows)]
        loss = torch.stack(sum(parts, [])).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        rate.step()


def tested(model: Labelled, corpus: Corpus) -> dict:
    "Nouns of unseen images, each against the others there."
    rows = []
    with torch.no_grad():
        for at in range(TESTED):
            latent, labels, shown = corpus[at]
            rows.append((model(latent[None])[0].flatten(1).T, labels, shown.names))
    return auroc_by_name(rows, model.names)


def supervised(steps: int) -> dict:
    torch.manual_seed(0)
    corpus = Corpus(images(), asdict(recipe()))
    corpus.wait(PICTURES // 100)
    names = sorted({n for at in range(len(corpus)) for n in corpus[at][2].names})
    model, begun = Labelled(names).train(), time.process_time()
    learn(model, corpus, steps)
    took = round(time.process_time() - begun)
    return dict(steps=steps, seen=steps * BATCH, cpu_seconds=took, **tested(model.eval(), corpus))


def grid(count: int = 300) -> dict:
    "Perfect labels of the latent grid, drawn as maps are, against the labels of pixels."
    rows, names = [], {}
    for _, labels, shown in auxiliary(count):
        numbers = [names.setdefault(n, len(names)) for n in shown.names]
        cells = torch.from_numpy(label_cells(labels, shown).astype(np.int64))
        sure = F.one_hot(cells, len(numbers)).movedim(-1, 0)[None].float()
        maps = F.interpolate(sure, labels.shape, mode='bilinear')[0].flatten(1).T
        logits = torch.full((len(maps), 400), -20.0)
        logits[:, numbers] = (maps + 1e-6).log()
        rows.append((logits, labels, shown.names))
    return auroc_by_name(rows, names)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('steps', nargs='*', type=int, default=[250, 500, 1000])
    note(dict(grid=grid()))
    for steps in parser.parse_args().steps:
        note({f'supervised{steps}': supervised(steps)})


if __name__ == '__main__':
    torch.set_num_threads(1)
    main()

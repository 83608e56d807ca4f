"""Do generated images show what their captions say? The part `samples` of miniature.py.

A small classifier learns from drawn images to name their category; it then names the category of
images that the backbone generated from captions. Its accuracy on drawn images of another seed
is the most that can be reached, one by the number of categories is chance."""

import time

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import nn

from hybridad.models.backbone import Backbone, load_backbone
from hybridad.models.parts import quiet
from hybridad.pretraining.corpus import as_tensor
from hybridad.synthetic.plain import categories_of, picture

CATEGORIES = categories_of('auxiliary')[0]
FIT, TEST = 811, 812  # seeds of drawn images
COUNT = 600  # generated images
STEPS, GUIDANCE, BATCH = 10, 3.0, 28
SIDE = 64  # px that the classifier sees


def drawn(seed: int, each: int) -> tuple:
    "Images of every category, (N, 3, SIDE, SIDE) in [-1, 1], and the number of the category."
    images = np.stack([picture(seed, i).image for i in range(each * len(CATEGORIES))])
    return small(as_tensor(images)), torch.arange(len(images)) % len(CATEGORIES)


def small(images: torch.Tensor) -> torch.Tensor:
    "Images at the side that the classifier sees."
    return F.interpolate(images, (SIDE, SIDE), mode='area')


def network() -> nn.Module:
    "Five convolutions, mean and maximum over the image, one linear layer."
    widths, layers = (3, 32, 64, 96, 128), []
    for a, b in zip(widths, widths[1:]):
        layers += [nn.Conv2d(a, b, 3, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU()]
    layers += [nn.Conv2d(128, 128, 3, 1, 1, bias=False), nn.BatchNorm2d(128), nn.ReLU()]
    return nn.ModuleDict(dict(body=nn.Sequential(*layers), head=nn.Linear(256, len(CATEGORIES))))


def logits(net: nn.Module, x: torch.Tensor) -> torch.Tensor:  # (B, categories)
    "What the network says of images; their mean and spread do not count."
    x = x - x.mean((2, 3), keepdim=True)
    x = net['body'](x / (x.std((1, 2, 3), keepdim=True) + 0.05))
    return net['head'](torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1))


def varied(x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    "Turned, shifted, blurred or noisy, so that sharpness does not tell the category."
    x = torch.rot90(x.flip(3) if rng.random() < 0.5 else x, int(rng.integers(4)), (2, 3))
    x = x.roll(tuple(rng.integers(-4, 5, 2).tolist()), (2, 3))
    if rng.random() < 0.5:
        side = int(rng.integers(SIDE // 3, SIDE))
        x = F.interpolate(
            F.interpolate(x, (side, side), mode='area'), (SIDE, SIDE), mode='bilinear'
        )
    return x + 0.1 * rng.random() * torch.randn(x.shape)


def fitted(images: torch.Tensor, kinds: torch.Tensor, epochs: int) -> nn.Module:
    "A network that has learned to name categories."
    torch.manual_seed(0)
    rng, net = np.random.default_rng(0), network()
    steps = epochs * -(-len(images) // 64)
    optimizer = torch.optim.AdamW(net.parameters(), 3e-3, weight_decay=0.05)
    plan = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, steps)
    for _ in range(epochs):
        for index in torch.from_numpy(rng.permutation(len(images))).split(64):
            said = logits(net, varied(images[index], rng))
            loss = F.cross_entropy(said, kinds[index], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            plan.step()
    return net.eval()


@torch.no_grad()
def said(net: nn.Module, images: torch.Tensor) -> torch.Tensor:  # (N,)
    "The number of the category that the network names."
    return torch.cat([logits(net, x).argmax(1) for x in images.split(64)])


def pipeline(backbone: Backbone):
    "The diffusers pipeline of a backbone's parts."
    with quiet():
        from diffusers import StableDiffusionPipeline

        parts = dict(vae=backbone.vae, unet=backbone.unet, scheduler=backbone.scheduler)
        parts |= dict(text_encoder=backbone.text_encoder, tokenizer=backbone.tokenizer)
        without = dict(safety_checker=None, feature_extractor=None, requires_safety_checker=False)
        pipe = StableDiffusionPipeline(**parts, **without)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def generated(name: str, count: int) -> np.ndarray:  # (count, S, S, 3) in [0, 1]
    "Images from captions; categories take turns."
    pipe, images = pipeline(load_backbone(name, 'cpu')), []
    captions = [f'a photo of a flawless {c.replace("_", " ")}' for c in CATEGORIES]
    for first in range(0, count, BATCH):
        asked = [captions[i % len(captions)] for i in range(first, min(first + BATCH, count))]
        how = dict(num_inference_steps=STEPS, guidance_scale=GUIDANCE, output_type='np')
        images.append(pipe(asked, generator=torch.Generator().manual_seed(first), **how).images)
        print(f'{first + len(asked)} of {count} images', flush=True)
    return np.concatenate(images)


def sheet(images: np.ndarray, right: np.ndarray) -> Figure:
    "One image of each category; the names of those that are recognised are bold."
    figure = Figure(figsize=(9, 5.6), layout='constrained')
    axes = figure.subplots(4, 7).ravel()
    for ax, image, category, known in zip(axes, images, CATEGORIES, right):
        ax.imshow(image[::2, ::2])
        weight = 'bold' if known else 'normal'
        ax.set_title(category.replace('_', ' '), fontsize=8, weight=weight)
        ax.axis('off')
    return figure


def part_samples(name: str, count: int = COUNT, each: int = 60, epochs: int = 20) -> dict:
    "Accuracy of the classifier on generated and on drawn images, and a contact sheet."
    begun = time.perf_counter()
    net = fitted(*drawn(FIT, each), epochs)
    images, kinds = drawn(TEST, 10)
    drawn_right = (said(net, images) == kinds).float().mean()
    fitting, begun = time.perf_counter() - begun, time.perf_counter()
    made = generated(name, count)
    asked = torch.arange(count) % len(CATEGORIES)
    seen = small(torch.from_numpy(made).permute(0, 3, 1, 2).float() * 2 - 1)
    right = (said(net, seen) == asked).numpy()
    shares = [round(float(right[i :: len(CATEGORIES)].mean()), 3) for i in range(len(CATEGORIES))]
    return dict(
        accuracy=round(float(right.mean()), 4),
        chance=round(1 / len(CATEGORIES), 4),
        accuracy_on_drawn_images=round(float(drawn_right), 4),
        images=count,
        steps=STEPS,
        guidance=GUIDANCE,
        seconds_fitting=round(fitting, 1),
        seconds_generating=round(time.perf_counter() - begun, 1),
        by_category=dict(zip(CATEGORIES, shares)),
        sheet=sheet(made, right),
    )

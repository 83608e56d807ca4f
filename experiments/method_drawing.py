"""The drawing of the method in the index: image, noise, UNet, queries, two prompts, map.

Command:  python experiments/method_drawing.py (writes results/method.png)
Duration: half a minute
Data:     one generated image, and the backbone and prompts of the package

Image, noisy latent and map are computed; boxes and arrows are the explanation."""

import numpy as np
import torch
from common import RESULTS
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Polygon

from hybridad.models.detector import HybridAnomalyDetector
from hybridad.models.parts import MINI
from hybridad.synthetic.plain import picture
from hybridad.visual.plots import ABNORMAL, NORMAL, SIGNED, save_figure, to_picture

WIDE, HIGH = 9.7, 4.0  # inches
FROZEN, LEARNED, QUERY = '#dde3ea', '#f6c98f', '#b9d8c2'
SMALL = 9  # points
LABEL = dict(ha='center', va='top', fontsize=SMALL)


def computed():
    "An image, its noisy latent as colours, and the log-ratio of the two prompts."
    detector, _ = HybridAnomalyDetector.from_checkpoint(MINI / 'prompts.safetensors')
    drawn = picture(7, 5, 128, split='held_out', kind='hole')
    image = torch.from_numpy(drawn.image).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        backbone = detector.backbone
        noisy = backbone.add_noise(backbone.encode_image(image), backbone.timestep)
        heat = detector(image, mode='eval')['logits'][0].numpy()
    latent = noisy[0, :3].permute(1, 2, 0).numpy()
    low, high = np.quantile(latent, [0.01, 0.99])
    return to_picture(image[0]), ((latent - low) / (high - low)).clip(0, 1), heat


def box(ax, x, y, *, size, text='', colour=FROZEN, edge='#5b6570'):
    "A rounded box with its lower left corner at a place, in inches."
    look = dict(boxstyle='round,pad=0,rounding_size=0.06', fc=colour, ec=edge, lw=1)
    ax.add_patch(FancyBboxPatch((x, y), *size, **look))
    middle = x + size[0] / 2, y + size[1] / 2
    ax.text(*middle, text, ha='center', va='center', fontsize=SMALL, linespacing=1.25)


def arrow(ax, start, end):
    "An arrow between two places."
    ax.annotate('', end, start, arrowprops=dict(arrowstyle='-|>', color='#333333', lw=1.2))


def show(ax, array, x, y, *, side=1.2, title='', **look):
    "An image with its title above it."
    ax.imshow(array, extent=(x, x + side, y, y + side), zorder=2, **look)
    ax.text(x + side / 2, y + side + 0.08, title, ha='center', va='bottom', fontsize=SMALL)


def draw_unet(ax, x, y):
    "The UNet as the shape it is named after; queries leave on the way up."
    wide, high = 1.5, 1.2
    left = [(x, y), (x, y + high), (x + wide / 2, y + 0.75 * high), (x + wide / 2, y + 0.25 * high)]
    right = [(2 * x + wide - a, b) for a, b in left]
    for corners in (left, right):
        ax.add_patch(Polygon(corners, fc=FROZEN, ec='#5b6570', lw=1))
    ax.text(x + wide / 2, y + high / 2, 'UNet', ha='center', va='center', fontsize=SMALL + 1)
    title = 'read under a neutral prompt'
    ax.text(x + wide / 2, y + high + 0.08, title, ha='center', va='bottom', fontsize=SMALL)


def draw_prompt(ax, y, *, name, colour, last):
    "One prompt as a row of tokens: learned vectors before a fixed word."
    ax.text(1.35, y + 0.15, name, ha='right', va='center', fontsize=SMALL, color=colour)
    cells = [('start', FROZEN, 0.5)]
    cells += [(t, LEARNED, 0.32) for t in ('$v_1$', '$v_2$', '…', '$v_n$')]
    cells += [(last, FROZEN, 1.3), ('end', FROZEN, 0.42)]
    x = 1.45
    for text, fill, width in cells:
        box(ax, x, y, size=(width, 0.3), text=text, colour=fill, edge=colour)
        x += width + 0.05


def draw_queries(ax, x, y, side=1.0):
    "A grid of places, each with a query of its own."
    step = side / 8
    for i in range(8):
        for j in range(8):
            place = x + j * step, y + i * step
            square = [place, (place[0] + step, place[1])]
            square += [(place[0] + step, place[1] + step), (place[0], place[1] + step)]
            ax.add_patch(Polygon(square, fc=QUERY, ec='white', lw=0.8))
    title = 'a query\nfor each place'
    ax.text(x + side / 2, y + side + 0.08, title, ha='center', va='bottom', fontsize=SMALL)


def draw_upper(ax, image, latent):
    "From the image to the queries."
    show(ax, image, 0.1, 2.35, title='image')
    show(ax, latent, 1.95, 2.35, title='latent with noise', interpolation='nearest')
    draw_unet(ax, 3.8, 2.35)
    draw_queries(ax, 5.9, 2.45)
    for x, end in ((1.35, 1.9), (3.2, 3.75), (5.35, 5.85)):
        arrow(ax, (x, 2.95), (end, 2.95))


def draw_lower(ax):
    "From the two prompts to the keys."
    draw_prompt(ax, 1.35, name='normal\nprompt', colour=NORMAL, last='object .')
    draw_prompt(ax, 0.75, name='damaged\nprompt', colour=ABNORMAL, last='damaged object .')
    box(ax, 5.45, 0.72, size=(0.95, 0.96), text='text\nencoder')
    arrow(ax, (5.1, 1.2), (5.42, 1.2))
    arrow(ax, (6.42, 1.2), (7.2, 1.95))
    ax.text(6.95, 1.28, 'keys', fontsize=SMALL)


def draw_answer(ax, heat):
    "From queries and keys to the map."
    text = 'one softmax\nover the tokens\nof both prompts'
    box(ax, 6.9, 2.0, size=(1.25, 0.8), text=text, colour='white')
    arrow(ax, (6.92, 2.95), (7.2, 2.82))
    arrow(ax, (8.17, 2.4), (8.35, 2.4))
    side = np.abs(heat).max()
    look = dict(cmap=SIGNED, vmin=-side, vmax=side)
    show(ax, heat, 8.4, 1.8, title='map:\ndamaged against normal', **look)
    ax.text(9.0, 1.72, 'its highest places\ngive the image score', **LABEL)


def draw_legend(ax):
    "What is learned and what is not."
    for x, colour, text in (
        (1.45, LEARNED, 'learned; so are a weight per layer, a temperature, an offset'),
        (5.75, FROZEN, 'frozen diffusion model'),
    ):
        box(ax, x, 0.18, size=(0.24, 0.2), colour=colour)
        ax.text(x + 0.32, 0.28, text, va='center', fontsize=SMALL)


def drawing(image, latent, heat):
    "The whole figure."
    fig = Figure(figsize=(WIDE, HIGH), dpi=100)
    ax = fig.add_axes((0, 0, 1, 1))
    draw_upper(ax, image, latent)
    draw_lower(ax)
    draw_answer(ax, heat)
    draw_legend(ax)
    ax.set(xlim=(0, WIDE), ylim=(0, HIGH), aspect='equal')
    ax.axis('off')
    return fig


if __name__ == '__main__':
    save_figure(drawing(*computed()), RESULTS / 'method.png', max_kb=150)

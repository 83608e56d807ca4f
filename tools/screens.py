"""Screenshots of the explorers for the visualize guide: python tools/screens.py

Run `pytest tests/test_browser.py` before, which takes them."""

import io
from pathlib import Path

from PIL import Image

from hybridad.runs import write_atomic

ROOT = Path(__file__).resolve().parents[1]
SHOWN = 'attention_click', 'decision', 'browser', 'compare'
TRIES = (
    (256, 1),
    (128, 1),
    (128, 0.8),
    (128, 0.7),
    (64, 0.7),
)  # colours, size: the first that is light enough for a page


def small(image):  # bytes of a PNG
    for colours, size in TRIES:
        file = io.BytesIO()
        image.resize([round(size * s) for s in image.size], Image.Resampling.LANCZOS).quantize(
            colours, dither=Image.Dither.NONE
        ).save(file, 'PNG', optimize=True)
        if file.tell() < 59_000:
            break
    return file.getvalue()


for name in SHOWN:
    (ROOT / 'nbs' / 'guides' / 'images').mkdir(exist_ok=True)
    write_atomic(
        ROOT / 'nbs' / 'guides' / 'images' / f'{name}.png',
        small(Image.open(ROOT / 'build' / 'screenshots' / f'{name}.png').convert('RGB')),
    )

"""Run notebooks and keep what they show: python tools/outputs.py [NOTEBOOK ...], by default all.

Progress bars, warnings and widgets are dropped, which mean nothing without a kernel; of a widget
that has an image of itself the image is kept. Images keep their pixels, or their text would
shrink: they get 256 colours, and those that need too many bytes even so become JPEG."""

import base64
import io
import json
import os
import subprocess
import sys
from pathlib import Path

from PIL import Image

from hybridad.visual.plots import few_colours

NBS = Path(__file__).resolve().parents[1] / 'nbs'
LIMITS = (
    150,
    100,
    75,
    50,
    40,
    30,
    20,
)  # kB of an image, one after the other until the notebook is small
NOTEBOOK = 300_000  # bytes


def small(png, limit):  # bytes, kB -> mime type, bytes
    "An image of as many pixels in at most so many kB: with a palette, else as JPEG."
    packed = few_colours(png)
    if len(packed) > 1000 * limit:
        picture = Image.open(io.BytesIO(png))
        known = dict(dpi=picture.info['dpi']) if 'dpi' in picture.info else {}
        picture.convert('RGB').save(file := io.BytesIO(), 'JPEG', quality=75, **known)
        if file.tell() < len(packed):
            return 'image/jpeg', file.getvalue()
    return 'image/png', packed


def kept(output, limit):  # dict or None
    "An output as it is stored."
    data = output.get('data', {})
    if output.get('name') == 'stderr':
        return None
    if data.pop('application/vnd.jupyter.widget-view+json', None) and 'image/png' not in data:
        return None
    if 'execution_count' in output:
        output['execution_count'] = None
    if png := data.pop('image/png', None):
        mime, smaller = small(base64.b64decode(''.join(png)), limit)
        if len(smaller) > 1000 * LIMITS[0]:
            raise SystemExit(
                f'an image takes {len(smaller) // 1000} kB: draw fewer panels or smaller images'
            )
        data[mime] = base64.b64encode(smaller).decode()
    return output


def store(path):
    "Run one notebook in its folder and write it back."
    subprocess.run(
        [
            sys.executable,
            '-m',
            'jupyter',
            'nbconvert',
            '--to',
            'notebook',
            '--execute',
            '--inplace',
            str(path),
        ],
        check=True,
        env=os.environ | dict(TQDM_DISABLE='1', HF_HUB_OFFLINE='1'),
    )
    run = path.read_text()
    for limit in LIMITS:
        book = json.loads(run)
        book['metadata'].pop('widgets', None)
        for cell in book['cells']:
            if cell['cell_type'] == 'code':
                cell.update(
                    execution_count=None,
                    outputs=[o for o in (kept(o, limit) for o in cell['outputs']) if o],
                )
        text = json.dumps(book, indent=1, ensure_ascii=False) + '\n'
        if len(text.encode()) < NOTEBOOK:
            break
    path.write_text(text)
    print(f'{path.relative_to(NBS)}: {len(text.encode()) / 1000:.0f} kB', flush=True)


if __name__ == '__main__':
    for path in [Path(p).resolve() for p in sys.argv[1:]] or sorted(
        [*NBS.glob('*.ipynb'), *NBS.glob('guides/*.ipynb')]
    ):
        store(path)

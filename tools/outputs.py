"""Run notebooks and keep what they show: python tools/outputs.py [NOTEBOOK ...], by default all.

Progress bars, warnings and widgets are dropped, which mean nothing without a kernel; of a widget
that has an image of itself the image is kept. Images over 59 kB, or less in a notebook that
holds many, become JPEG."""

import base64
import io
import json
import os
import subprocess
import sys
from pathlib import Path

from PIL import Image

NBS = Path(__file__).resolve().parents[1] / 'nbs'


def small(png, limit):  # bytes -> mime type, bytes
    "An image in at most so many bytes: with a palette, else as JPEG, else with fewer pixels."
    picture = Image.open(io.BytesIO(png)).convert('RGB')
    picture.quantize(256, kmeans=1).save(drawn := io.BytesIO(), 'PNG', optimize=True)
    if min(len(png), drawn.tell()) <= limit:
        return 'image/png', min(drawn.getvalue(), png, key=len)
    for scale in (0.9**k for k in range(20)):
        picture.resize([round(s * scale) for s in picture.size], Image.LANCZOS).save(
            file := io.BytesIO(), 'JPEG', quality=85
        )
        if file.tell() <= limit:
            return 'image/jpeg', file.getvalue()


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
    for limit in (
        59_000,
        45_000,
        35_000,
        25_000,
        20_000,
    ):  # bytes of an image, until the notebook stays below 300 kB
        book = json.loads(path.read_text())
        book['metadata'].pop('widgets', None)
        for cell in book['cells']:
            if cell['cell_type'] == 'code':
                cell.update(
                    execution_count=None,
                    outputs=[o for o in (kept(o, limit) for o in cell['outputs']) if o],
                )
        text = json.dumps(book, indent=1, ensure_ascii=False) + '\n'
        if len(text.encode()) < 300_000:
            break
    path.write_text(text)
    print(f'{path.relative_to(NBS)}: {len(text.encode()) / 1000:.0f} kB', flush=True)


if __name__ == '__main__':
    for path in [Path(p).resolve() for p in sys.argv[1:]] or sorted(
        [*NBS.glob('*.ipynb'), *NBS.glob('guides/*.ipynb')]
    ):
        store(path)

"""The text encoder under the last transformers 4: encoding embeddings equals CLIPTextModel there, too, and equals what this environment gives.

pip install --no-deps --target DIR "transformers<5" "huggingface_hub<1" "tokenizers<0.23" diffusers==0.36.0
python proof/transformers4.py DIR [--out results/transformers4.json]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

CODE = """
import sys
from importlib.metadata import version
import numpy as np, torch
from hybridad.backbone import MINI, load_backbone
from hybridad.detector import HybridAnomalyDetector
torch.manual_seed(0); b = load_backbone('mini', 'cpu')
words = ['a photo of a flawless object', 'a photo of a damaged object']
stock, ours = b.encode_text(words), b.encode_embeddings(b.embed(words)).detach()
detector, _ = HybridAnomalyDetector.from_checkpoint(MINI/'prompts.safetensors', 'mini', 'cpu')
learned, image = detector.text().detach(), torch.rand(1, 3, 128, 128)*2 - 1
with torch.no_grad(): heat = detector(image)['logits']
np.savez(sys.argv[1], stock=stock, ours=ours, learned=learned, heat=heat, versions=np.array([version('transformers'), version('diffusers')]))
"""


def run(out, folder=None):
    "Features and a map, computed by a process that finds the packages of a folder first."
    root = str(Path(__file__).resolve().parents[1])
    env = os.environ | dict(
        PYTHONPATH=os.pathsep.join([str(folder), root] if folder else [root]), HF_HUB_OFFLINE='1'
    )
    r = subprocess.run(
        [sys.executable, '-c', CODE, str(out)], env=env, capture_output=True, text=True
    )
    assert r.returncode == 0, r.stderr[-2000:]
    return np.load(out)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('folder', type=Path, help='where transformers 4 was installed')
    parser.add_argument('--out', type=Path, default=Path('results/transformers4.json'))
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        found = {
            k: run(Path(work) / f'{k}.npz', f)
            for k, f in (('older', a.folder.resolve()), ('here', None))
        }
    assert str(found['older']['versions'][0]).startswith('4.'), (
        f'{a.folder} holds transformers {found["older"]["versions"][0]}'
    )
    told = dict(
        command='python proof/transformers4.py DIR',
        date=time.strftime('%Y-%m-%d'),
        versions={
            k: dict(zip(('transformers', 'diffusers'), map(str, f['versions'])))
            for k, f in found.items()
        },
        embeddings_against_CLIPTextModel={
            k: float(np.abs(f['stock'] - f['ours']).max()) for k, f in found.items()
        },
        older_against_here={
            k: float(np.abs(found['older'][k] - found['here'][k]).max())
            for k in ('stock', 'learned', 'heat')
        },
    )
    a.out.write_text(json.dumps(told, indent=1) + '\n')
    print(json.dumps(told, indent=1))
    assert (
        max(
            *told['embeddings_against_CLIPTextModel'].values(), *told['older_against_here'].values()
        )
        <= 1e-5
    )


if __name__ == '__main__':
    main()

"What leaves the package works without it: the ONNX file of the command, checked by a process that never imports torch."

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hybridad.cli import hybridad_export
from hybridad.config import ONE_VIEW, get_default_config
from hybridad.inference.onnx import trial_images
from hybridad.inference.scoring import SHIPPED, load_scorer, score
from hybridad.models.detector import HybridAnomalyDetector
from hybridad.synthetic.plain import picture

pytest.importorskip('onnxruntime', reason="needs pip install 'hybridad[export]'")

ALONE = """
import sys, json, numpy as np, onnxruntime as ort
session = ort.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])
maps, scores = session.run(None, {'images': np.load(sys.argv[2])})
np.savez(sys.argv[3], maps=maps, scores=scores)
assert not {'torch', 'hybridad', 'diffusers'} & set(sys.modules)
print(session.get_modelmeta().custom_metadata_map['hybridad'])
"""


def test_onnx_file_gives_the_same_maps_without_torch(tmp_path, capsys):
    "The whole UNet in one view, with every token counted; notebook 80 exports the other ways."
    config = get_default_config(device='cpu', mass='competing_all', **ONE_VIEW)
    detector = HybridAnomalyDetector(config)
    with torch.no_grad():
        detector.image_offset += 0.25
        detector.layer_logits += torch.randn(
            len(detector.layer_logits), generator=torch.Generator().manual_seed(0)
        )
    detector.save_checkpoint(
        tmp_path / 'prompts.safetensors', thresholds=dict(image=0.5, pixel=1.0)
    )
    assert (
        hybridad_export(
            [
                '--checkpoint_path',
                str(tmp_path / 'prompts.safetensors'),
                '--out',
                str(tmp_path / 'a.onnx'),
            ]
        )
        == 0
    )
    assert 'times as fast' in capsys.readouterr().out
    images = trial_images(5, detector.image_size)
    np.save(tmp_path / 'x.npy', images.numpy())
    r = subprocess.run(
        [sys.executable, '-c', ALONE, tmp_path / 'a.onnx', tmp_path / 'x.npy', tmp_path / 'y.npz'],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert r.returncode == 0, r.stderr
    assert json.loads(r.stdout)['thresholds'] == dict(image=0.5, pixel=1.0)
    got = np.load(tmp_path / 'y.npz')
    with torch.no_grad():
        out = detector(images)
    assert np.abs(got['maps'] - out['logits'].numpy()).max() < 1e-3
    assert np.abs(got['scores'] - out['image_logits'].diff(dim=1)[:, 0].numpy()).max() < 1e-3
    assert not list(tmp_path.glob('tmp*')), 'a working folder was left'


ROOT = Path(__file__).resolve().parents[1]
LEATHER = Path(os.environ.get('HYBRIDAD_SHARED', ROOT.parent / 'shared')) / 'data/leather'


def photographs(folder):
    "Good and other images: real ones where there are some, of odd sizes and modes in any case."
    real = LEATHER / 'leather_tile'
    good = sorted((real / 'train' / 'good').glob('*'))[:6]
    other = (
        [
            *sorted((real / 'test' / 'cut').glob('*'))[:2],
            *sorted((real / 'test/good').iterdir())[:2],
        ]
        if good
        else []
    )
    for kind, paths in (('good', good), ('other', other)):
        (folder / kind).mkdir(parents=True)
        for k, path in enumerate(paths or range(6)):
            im = Image.open(path) if paths else Image.fromarray(picture(3, 7 * k).image)
            im.convert('L' if k == 1 else 'RGB').resize((200, 150) if k == 2 else im.size).save(
                folder / kind / f'{k}.png'
            )
    return folder / 'good', folder / 'other'


@pytest.mark.skipif(
    'HYBRIDAD_SLOW' not in os.environ,
    reason='installs onnxruntime into a new environment for a minute: HYBRIDAD_SLOW=1 runs it',
)
def test_script_beside_the_graph_scores_photographs_where_no_torch_is_installed(tmp_path, capsys):
    good, other = photographs(tmp_path / 'photos')
    graph = tmp_path / 'line.onnx'
    asked = [str(SHIPPED), '--out', str(graph), '--normals', str(good), '--images', str(other)]
    assert hybridad_export(asked) == 0
    said = capsys.readouterr().out
    assert float(re.search(r'photographs: map ([\d.e-]+)', said)[1]) < 1e-3, said

    subprocess.run([sys.executable, '-m', 'venv', tmp_path / 'env'], check=True)
    python = tmp_path / 'env' / 'bin' / 'python'
    wanted = ['-c', ROOT / 'constraints.txt', 'numpy', 'pillow', 'onnxruntime']
    subprocess.run([python, '-m', 'pip', 'install', '-q', *wanted], check=True)
    paths = sorted(map(str, other.iterdir()))
    ran = [python, graph.with_name('line_score.py'), *paths]
    environment = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
    out = subprocess.run(ran, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert out.returncode == 0, out.stderr
    assert subprocess.run([python, '-c', 'import torch'], capture_output=True).returncode

    scorer = load_scorer(SHIPPED, references=good, device='cpu', square=True)
    for line, f in zip(out.stdout.splitlines(), score(paths, scorer), strict=True):
        assert line.startswith(f'{f.image}: {f.decision}, score '), line
        assert abs(float(re.search(r'score (-?[\d.]+)', line)[1]) - f.score) < 2e-3, (line, f.score)


def test_what_export_refuses_leaves_nothing(tmp_path, capsys):
    good, _ = photographs(tmp_path / 'photos')
    before = sorted(tmp_path.rglob('*'))
    graph = ['--out', str(tmp_path / 'a.onnx')]
    for more, said in (
        ([*graph, '--normals', str(tmp_path / 'none')], 'there is no file or folder'),
        (['--normals', str(good), '--hub_folder', str(tmp_path / 'hub')], 'give --out FILE.onnx'),
        (['--out', str(tmp_path / 'so "called".onnx')], 'cannot stand in a script'),
    ):
        assert hybridad_export([str(SHIPPED), *more]) == 2
        assert said in capsys.readouterr().err
    assert sorted(tmp_path.rglob('*')) == before
    (tmp_path / 'a_score.py').write_text('mine')
    assert hybridad_export([str(SHIPPED), *graph]) == 2
    assert (tmp_path / 'a_score.py').read_text() == 'mine'

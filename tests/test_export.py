"What leaves the package works without it: the ONNX file of the command, checked by a process that never imports torch."

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from hybridad.cli import hybridad_export
from hybridad.config import get_default_config
from hybridad.inference.onnx import trial_images
from hybridad.models.detector import HybridAnomalyDetector

pytest.importorskip('onnxruntime', reason="needs pip install 'hybridad[export]'")

ALONE = """
import sys, json, numpy as np, onnxruntime as ort
session = ort.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])
maps, scores = session.run(None, {'images': np.load(sys.argv[2])})
np.savez(sys.argv[3], maps=maps, scores=scores)
assert not {'torch', 'hybridad', 'diffusers'} & set(sys.modules)
print(session.get_modelmeta().custom_metadata_map['hybridad'])
"""


@pytest.mark.parametrize('mass', ('competing', 'competing_all'))
def test_onnx_file_gives_the_same_maps_without_torch(tmp_path, capsys, mass):
    detector = HybridAnomalyDetector(get_default_config(device='cpu', mass=mass))
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

"""The suite on a GPU against the same on the CPU: reading, scoring in three precisions, normal pictures, learning with the losses and with one's own;
and what scoring and exact training cost there at full size.

    python proof/gpu.py [--out results/gpu.json]
"""

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from hybridad.attention import AttentionReader, QueryRecorder
from hybridad.backbone import MINI, load_backbone
from hybridad.bench import gpu_figures, sd21_sized
from hybridad.config import LEARN, ONE_VIEW, get_default_config
from hybridad.data import read_mvtec
from hybridad.detector import HybridAnomalyDetector
from hybridad.evaluation import write_json
from hybridad.normals import use_normals
from hybridad.synthetic import picture, write_dataset
from hybridad.training import fit

IMAGES = (
    torch.from_numpy(np.stack([picture(5, i, split='held_out').image for i in range(24)])).permute(
        0, 3, 1, 2
    )
    / 127.5
    - 1
)


def squared_error(outputs, targets):
    "A loss of one's own: squared error of the maps' probability."
    wanted = torch.nn.functional.adaptive_max_pool2d(
        targets['masks'].float(), outputs['logits'].shape[-2:]
    )[:, 0]
    value = (outputs['logits'].sigmoid() - wanted).square().mean()
    return value, dict(squared=value.item())


def scores(device, precision=None, normals=False):  # (24, h, w)
    detector, _ = HybridAnomalyDetector.from_checkpoint(
        MINI / 'prompts.safetensors', 'mini', device, precision=precision
    )
    x = IMAGES.to(device, detector.backbone.unet.dtype)
    with torch.no_grad():
        return (
            (use_normals(detector, x[:8]) if normals else detector)(x[8:])['logits'].float().cpu()
        )


def reading():
    "The UNet's output under the reader, masses of single tokens, and queries of a pass that stops early."
    b = load_backbone('mini', 'cuda')
    z = torch.randn(
        4, b.unet.config.in_channels, 32, 32, generator=torch.Generator().manual_seed(0)
    ).cuda()
    context = b.encode_text(['a photo of an object']).expand(4, -1, -1)
    with torch.no_grad():
        stock = b.unet(z, 1, context).sample
        with AttentionReader(b.unet, torch.eye(b.length, device='cuda')) as reader:
            under = b.unet(z, 1, context).sample
        with QueryRecorder(b.unet) as recorder:
            whole = {n: q.clone() for n, q in recorder.run(z, 1, context).items()}
        with QueryRecorder(b.unet, list(whole)[:4], stop=True) as recorder:
            early = recorder.run(z, 1, context)
    return dict(
        stock_output_difference=(stock - under).abs().max().item(),
        masses_sum_to_one=max((m.sum(1) - 1).abs().max().item() for m in reader.maps.values()),
        early_exit_difference=max((whole[n] - q).abs().max().item() for n, q in early.items()),
    )


def learning(work, loss):  # largest differences of learned prompts and of their maps
    "Two epochs of the same steps on both devices."
    samples = [s for s in read_mvtec(work / 'data') if s.split == 'test']
    found = {}
    for device in ('cpu', 'cuda'):
        config = get_default_config(
            epochs=2, batch_size=16, validation_fraction=0, device=device, **LEARN | ONE_VIEW
        )
        fit(
            config,
            samples,
            work / f'{loss}_{device}',
            progress=False,
            loss_fn=squared_error if loss == 'own' else None,
        )
        found[device] = HybridAnomalyDetector.from_checkpoint(
            work / f'{loss}_{device}' / 'last.safetensors', device='cpu'
        )[0]
    one, two = (load_file(work / f'{loss}_{device}' / 'last.safetensors') for device in found)
    with torch.no_grad():
        maps = [d(IMAGES[:8])['logits'] for d in found.values()]
    return dict(
        prompts=max((one[n] - two[n]).abs().max().item() for n in one),
        maps=(maps[0] - maps[1]).abs().max().item(),
        spread_of_maps=maps[0].std().item(),
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', type=Path, default=Path('results/gpu.json'))
    parser.add_argument('--beside', help='what else the machine was doing; kept with the figures')
    a = parser.parse_args()
    work = Path(tempfile.mkdtemp())
    if not torch.cuda.is_available():
        raise SystemExit('this proof needs a CUDA device')
    torch.backends.cudnn.allow_tf32 = False  # float32 means float32 here
    write_dataset(work / 'data', seed=9, split='auxiliary', count=4, progress=False)
    told = dict(
        command='python proof/gpu.py',
        date=time.strftime('%Y-%m-%d'),
        device=torch.cuda.get_device_name(),
        torch=torch.__version__,
        reading=reading(),
    )
    cpu = scores('cpu')
    told['maps_difference'] = {
        p: (scores('cuda', p) - cpu).abs().max().item() for p in ('float32', 'bfloat16', 'float16')
    } | dict(spread=cpu.std().item())
    told['maps_difference']['with_normals'] = (
        (scores('cuda', normals=True) - scores('cpu', normals=True)).abs().max().item()
    )
    told['learning_difference'] = {loss: learning(work, loss) for loss in ('six terms', 'own')}
    with torch.device('cuda'):
        full = sd21_sized('cuda')
    told['scoring'] = gpu_figures(full, tell=print) | (dict(beside=a.beside) if a.beside else {})
    write_json(a.out, told)
    print(json.dumps(told, indent=1))
    shutil.rmtree(work)
    differences, learned = told['maps_difference'], told['learning_difference'].values()
    assert (
        told['reading']['stock_output_difference'] <= 1e-6
        and told['reading']['masses_sum_to_one'] < 1e-5
        and told['reading']['early_exit_difference'] < 1e-4
    )
    assert (
        max(differences['float32'], differences['with_normals']) < 1e-3
        and differences['float16'] < 0.05
        and differences['bfloat16'] < 0.5
    )
    assert all(l['prompts'] < 1e-3 and l['maps'] < 1e-3 * l['spread_of_maps'] for l in learned)


if __name__ == '__main__':
    main()

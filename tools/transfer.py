"""How detection grew with the training of the miniature: python tools/transfer.py COMMIT_OR_FOLDER...

Each argument is a commit that shipped weights or a folder of a backbone, one for each sitting, oldest first. All are read with hand-written words in
one view, so that nothing but the weights differs; writes results/transfer.json. What a sitting saw is in results/pretraining.json. From the fourth
sitting on, what was shipped is an average with the weights before."""

import io
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

from safetensors.torch import load_file, save_file

from hybridad.backbone import MINI, load_backbone
from hybridad.config import get_default_config
from hybridad.data import read_dataset
from hybridad.evaluation import Truth, WordsDetector, evaluate
from hybridad.features import FeatureCache
from hybridad.runs import read_json, write_json

from measure import RESULTS, ROOT, RUNS, SHARED, about, sets, short
from ship_backbone import PARTS, TOLD, VAE, validation_sets, with_earlier


def weights_of(source):  # folder with the weights
    "A folder as it is, a commit unpacked."
    if Path(source).is_dir():
        return Path(source)
    folder = RUNS / 'transfer' / source
    if not folder.exists():
        packed = subprocess.run(
            ['git', 'archive', source, str(MINI.relative_to(ROOT))],
            cwd=ROOT,
            check=True,
            capture_output=True,
        ).stdout
        with tarfile.open(fileobj=io.BytesIO(packed)) as t:
            t.extractall(part := folder.with_name(source + '.partial'), filter='data')
        part.rename(folder)
    return folder / MINI.relative_to(ROOT)


def backbone_of(source):  # Backbone
    "The embedded backbone with the weights of `source`, whose names may be spelled as transformers 4 did."
    folder = RUNS / 'transfer' / 'now'
    if folder.exists():
        shutil.rmtree(folder)
    shutil.copytree(MINI, folder)
    for p in PARTS:
        found = {
            k.removeprefix('text_model.'): v for k, v in load_file(weights_of(source) / p).items()
        }
        save_file(
            {k: found[k.removeprefix('text_model.')] for k in load_file(MINI / p)},
            folder / p,
            {'format': 'pt'},
        )
    shutil.copytree(
        weights_of(source) / 'vae', folder / 'vae', dirs_exist_ok=True
    )  # latents have their own scale
    return load_backbone(str(folder), 'cpu')


def transfer(*sources):
    every = (
        validation_sets()
        | {'held out': [*sets()][1]}
        | {
            n: [s for s in read_dataset(SHARED / 'data' / n) if s.split == 'test']
            for n in ('magnetic_tile', 'hazelnut_toy')
        }
    )
    known = [
        dict(command=s['command'], seen=s['crops_and_pictures_seen'], hours=s['hours'])
        for s in with_earlier(read_json(TOLD))
    ]
    rows, kept, vae = [], {}, b''
    if len(known) != len(sources):
        raise SystemExit(
            f'results/pretraining.json tells of {len(known)} sittings: give as many sources'
        )
    truths = {n: Truth(s, 128) for n, s in every.items()}
    for i, source in enumerate(sources):
        words = WordsDetector(get_default_config(), backbone_of(source))
        same, vae = (
            vae == (now := (weights_of(source) / VAE).read_bytes()),
            now,
        )  # most sittings share their autoencoder, and so the latents
        kept = {
            n: kept[n].with_backbone(words, False)
            if same
            else FeatureCache(words, s, progress=False)
            for n, s in every.items()
        }
        found = {
            n: short(evaluate(words, s, truths[n], kept[n], progress=False)[0], 'defect_mean')
            for n, s in every.items()
        }
        rows.append(
            known[i]
            | dict(
                source=source,
                seen_so_far=sum(k['seen'] for k in known[: i + 1]),
                hours_so_far=sum(k['hours'] for k in known[: i + 1]),
                sets=found,
            )
        )
        print(
            source,
            rows[-1]['seen_so_far'],
            {n: {k: v and round(v, 3) for k, v in f.items()} for n, f in found.items()},
            flush=True,
        )
    write_json(
        RESULTS / 'transfer.json',
        dict(sittings=rows, **about('python tools/transfer.py ' + ' '.join(sources))),
    )


if __name__ == '__main__':
    transfer(*sys.argv[1:])

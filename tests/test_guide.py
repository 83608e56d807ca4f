"The commands of the guide to Stable Diffusion, on a tiny folder with random weights."

import json
import re
import shutil
from pathlib import Path

import pytest
from test_families import dataset
from test_reader import complete, save

from hybridad.cli import hybridad
from hybridad.models.backbone import random_backbone

ROOT = Path(__file__).resolve().parents[1]
GUIDE = ROOT / 'nbs' / 'guides' / 'stable_diffusion.ipynb'
SHORT = {'check-backbone': ['--seconds', '0.1'], 'train': ['--epochs', '1']}
SMALL = {'--size': '64', '--image_size': '64', '--device': 'cpu', '--precision': 'float32'}


def commands():
    "Every command that stands in the guide, as a list of words."
    cells = json.loads(GUIDE.read_text(encoding='utf-8'))['cells']
    text = '\n'.join(''.join(c['source']) for c in cells if c['cell_type'] == 'markdown')
    blocks = re.findall(r'```bash\n(.*?)```', text, re.S)
    return [line.split() for block in blocks for line in block.splitlines()]


def made_small(words, places):
    "A command with its places filled in, at the size of the tiny folder."
    found = []
    for before, word in zip(['', *words], words):
        for name, place in places.items():
            word = re.sub(rf'^{name}(?=/|$)', str(place), word)
        found.append(SMALL.get(before, word))
    return found + SHORT.get(words[0], [])


@pytest.fixture(scope='module')
def places(tmp_path_factory):
    "The folders that the guide speaks of."
    tmp = tmp_path_factory.mktemp('guide')
    backbone = random_backbone(complete('sd2', tmp / 'configs'))
    learned, judged = dataset(tmp / 'learn'), dataset(tmp / 'judge', seed=1)
    (tmp / 'run').mkdir()
    photos = judged / 'thing' / 'test' / 'hole'
    folders = dict(SD=save(backbone, tmp / 'sd'), VISA=learned, MVTEC=judged, PHOTOS=photos)
    return folders | dict(CACHE=tmp / 'cache', RUN=tmp / 'run')


def test_every_command_of_the_guide_runs(places, capsys):
    for words in commands():
        assert words[0] == 'hybridad'
        asked = made_small(words[1:], places)
        code = hybridad(asked)
        said = capsys.readouterr()
        if '--write' in words:  # these weights are random
            assert code == 2 and 'no layer localises' in said.err
        else:
            assert code == 0, (words, said.err)
        if words[1] == 'check-backbone':
            assert 'nothing localises' in said.out
    assert (places['RUN'] / 'mvtec' / 'metrics.json').is_file()
    assert (places['RUN'] / 'exact' / 'best.safetensors').is_file()


def test_what_is_kept_is_used(places, tmp_path):
    folder = shutil.copytree(places['SD'], tmp_path / 'sd')
    from hybridad.bench.check_backbone import keep_choice
    from hybridad.models.backbone import load_backbone

    names = list(load_backbone(folder, 'cpu').select(['up']))
    choice = dict(timestep=7, layers=names[:1], mass='content')
    keep_choice(str(folder), dict(verdict='nouns are localised well', proposed=choice))
    again = load_backbone(folder, 'cpu')
    assert (again.timestep, list(again.layers), again.mass) == (7, names[:1], 'content')

"Guides on data of the reader, and the commands of that to Stable Diffusion on a tiny folder."

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_families import dataset
from test_reader import complete, save

from hybridad.cli import hybridad
from hybridad.evaluation.evaluate import EvalSet
from hybridad.inference.scoring import SHIPPED
from hybridad.models.backbone import random_backbone
from hybridad.models.detector import HybridAnomalyDetector

ROOT = Path(__file__).resolve().parents[1]
GUIDES = ROOT / 'nbs' / 'guides'
GUIDE = GUIDES / 'stable_diffusion.ipynb'
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
    verdict = 'nouns are localised well'
    keep_choice(str(folder), dict(verdict=verdict, proposed=choice, stays=False))
    again = load_backbone(folder, 'cpu')
    assert (again.timestep, list(again.layers), again.mass) == (7, names[:1], 'content')


def cells_of(guide):
    "The code of each cell but the one that installs, without what IPython alone understands."
    cells = json.loads((GUIDES / f'{guide}.ipynb').read_text(encoding='utf-8'))['cells']
    code = [''.join(c['source']) for c in cells if c['cell_type'] == 'code'][1:]
    return [re.sub(r'^%.*$', '', text, flags=re.M) for text in code]


def run(cells, **own):
    "The names that cells leave behind; `own` settings take the place of those in the first cell."
    exec(cells[0], scope := {})
    scope |= {k: v for k, v in own.items() if k in scope}
    for text in cells[1:]:
        exec(text, scope)
    return scope


@pytest.fixture
def photos(tmp_path, monkeypatch):
    "Three small photographs in a folder; temporary folders lie beside it."
    monkeypatch.setattr('tempfile.tempdir', str(tmp_path))
    rng = np.random.default_rng(0)
    for folder, name in (('good', 'a'), ('good', 'b'), ('bad', 'c')):
        (tmp_path / 'own' / folder).mkdir(parents=True, exist_ok=True)
        noise = rng.integers(0, 255, (64, 64, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / 'own' / folder / f'{name}.png')
    return tmp_path / 'own'


@pytest.mark.parametrize('out', (None, 'mine'))
@pytest.mark.parametrize('guide', ('train', 'your_own_images', 'review'))
def test_a_guide_keeps_what_it_made_of_own_images(guide, out, photos, capsys):
    out = out and photos.parent / 'new' / out
    own = dict(photos=photos, learn_from=photos, score_on=photos, out=out)
    *cells, last = cells_of(guide)
    begins = next(i for i, text in enumerate(cells) if 'generated =' in text)
    scope = run(cells[: begins + 1], **own)
    work = scope['work']
    assert work == (out or work) and not scope['generated']
    work.mkdir(parents=True, exist_ok=True)
    (work / 'result').touch()
    exec(last, scope)
    assert (work / 'result').is_file() and str(work) in capsys.readouterr().out


def test_the_review_guide_leaves_the_word_on_own_photographs_to_the_reader(photos, capsys):
    scope = run(cells_of('review'), photos=photos / 'bad')
    said = capsys.readouterr().out
    assert '0 of 1 images reviewed' in said and 'review 5 images or more' in said
    assert not list(scope['work'].rglob('corrections.json'))


def test_the_visualize_guide_takes_prompts_without_a_threshold(photos, capsys):
    detector, _ = HybridAnomalyDetector.from_checkpoint(SHIPPED)
    bare = photos.parent / 'bare.safetensors'
    detector.save_checkpoint(bare, thresholds=dict(image=1.0, pixel=None))
    cells = cells_of('visualize')
    scope = run(cells[:3], folder=photos, checkpoint=bare)
    assert 'no threshold for the pixel score' in capsys.readouterr().out
    scope |= dict(truth=EvalSet(scope['samples'], 64, progress=False))
    scope |= dict(maps=np.zeros((3, 4, 4)), scores=np.zeros(3))
    for text in cells[3:]:
        if text.startswith(('decision =', 'browser =')):
            exec(text, scope)
    ends = [scope['decision'].value[f'{k}threshold'] for k in ('', 'pixel_')]
    assert ends == [1.0, 0.5] and scope['decision'].error is scope['browser'].error is None

"A folder of photographs compared with each other: hybridad score --among."

import csv

import numpy as np
import pytest
from PIL import Image

from hybridad import cli
from hybridad.config import get_default_config
from hybridad.inference import beside
from hybridad.inference.scoring import findings, load_scorer
from hybridad.models.among import spread
from hybridad.models.detector import HybridAnomalyDetector
from hybridad.models.evidence import OWN
from hybridad.synthetic.canvas import scene_of
from hybridad.synthetic.materials import MATERIALS

SIDE, HURT = 64, 4  # px of a photograph; the number of the damaged one


def surface(folder, material, seed, count):
    "Photographs of places of one surface, the one of number HURT with a red mark."
    folder.mkdir(exist_ok=True)
    wide = scene_of(MATERIALS[material](np.random.default_rng(seed), 3 * SIDE)).image
    for i in range(count):
        y, x = i // 3 * SIDE, i % 3 * SIDE
        image = wide[y : y + SIDE, x : x + SIDE]
        if i == HURT:
            image = image.copy()
            image[20:40, 20:40] = (1, 0.1, 0.1)
        pixels = (np.clip(image, 0, 1) * 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f'{material}{i}.png')
    return folder


@pytest.fixture(scope='module')
def prompts(tmp_path_factory):
    "Prompts around two words, read in one view of 64 px."
    words = ['object surface', 'hole stain spots']
    config = get_default_config(device='cpu', image_size=SIDE, ctx_init=words)
    path = tmp_path_factory.mktemp('prompts') / 'p.safetensors'
    HybridAnomalyDetector(config).save_checkpoint(path)
    return path


def scored(folder, out, prompts, *more):
    args = [folder, '--among', '--checkpoint_path', prompts, '--out', out, '--device', 'cpu']
    return cli.hybridad_score([str(a) for a in [*args, '--quiet', '--part', 4, *more]])


def rows(out):
    with open(out / 'scores.csv', encoding='utf-8') as f:
        return list(csv.DictReader(f))


def test_the_damaged_one_stands_out_and_a_stopped_run_continues(tmp_path, prompts, capsys):
    folder, out = surface(tmp_path / 'photos', 'twill', 1, 9), tmp_path / 'out'
    (folder / 'broken.png').write_bytes(b'no image at all')
    assert scored(folder, out, prompts) == 3
    assert '9 of the photographs, compared with each other' in capsys.readouterr().out
    first = rows(out)
    scores = {r['image'][-5]: float(r['score']) for r in first if r['score']}
    assert len(scores) == 9 and max(scores, key=scores.get) == str(HURT)
    (out / 'scores.csv').unlink()
    sorted((out / 'parts').glob('part-*'))[1].unlink()
    assert scored(folder, out, prompts, '--resume') == 3
    assert rows(out) == first


def test_too_few_or_several_kinds_are_refused(tmp_path, prompts, capsys):
    few = surface(tmp_path / 'few', 'paving', 1, 4)
    assert scored(few, tmp_path / 'out', prompts) == 2
    assert 'give at least 5' in capsys.readouterr().err
    mixed, rng = tmp_path / 'mixed', np.random.default_rng(0)
    mixed.mkdir()
    for i in range(8):
        grey = rng.normal(50 if i < 4 else 200, 5, (SIDE, SIDE, 3)).astype(np.uint8)
        Image.fromarray(grey).save(mixed / f'{i}.png')
    assert scored(mixed, tmp_path / 'out', prompts) == 2
    assert 'several kinds' in capsys.readouterr().err
    assert not (tmp_path / 'out' / 'scores.csv').exists()


def test_one_way_of_comparing_at_a_time(tmp_path, prompts, capsys):
    few = surface(tmp_path / 'few', 'paving', 1, 1)
    assert scored(few, tmp_path / 'out', prompts, '--normals', few) == 2
    assert 'leave one of the two out' in capsys.readouterr().err


@pytest.mark.parametrize('tiles', [1, 2])
def test_scored_photographs_are_known_among_the_compared(tmp_path, prompts, monkeypatch, tiles):
    folder = surface(tmp_path / 'photos', 'twill', 1, 9)
    monkeypatch.setattr(beside, 'MOST', 6)
    monkeypatch.setattr(beside, 'spread', lambda names, most=6: spread(names, most))
    scorer = load_scorer(prompts, device='cpu', among=folder, tiles=tiles)
    detector, seen = scorer.detector, []
    queries = detector.queries

    def noted(*args):
        found = queries(*args)
        seen.append(set(found[0][OWN].tolist()))
        return found

    detector.queries = noted
    paths = sorted(folder.iterdir())
    assert len(list(findings(scorer, paths, batch_size=1, num_workers=0))) == 9
    kept = spread(paths, 6)
    owners = [{kept.index(p) if p in kept else -1} for p in paths]
    assert seen == [own for own in owners for _ in range(len(seen) // len(paths))]

"Figures against those of other people's code, and an evaluation run as a user runs it: interrupted, continued, calibrated, compared."

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score

from hybridad import cli
from hybridad.config import get_default_config
from hybridad.data import read_dataset
from hybridad.detector import HybridAnomalyDetector
from hybridad.errors import HybridadError
from hybridad.layouts import dummy_tree
from hybridad.metrics import image_metrics, pixel_metrics
from hybridad.streaming import PixelStream

SHARED = (
    Path(__file__).resolve().parents[1] / os.environ.get('HYBRIDAD_SHARED', '../shared')
).resolve()

# ---------------------------------------------------------------- figures


@pytest.fixture(scope='module', params=['synthetic', 'hazelnut_colour'])
def golden(request):
    "Maps, masks, and what the official MVTec code, scikit-learn and the AnomalyCLIP function say of them."
    folder = SHARED / 'golden'
    if not (folder / 'expected.json').is_file():
        pytest.skip(
            'no golden/expected.json in the shared folder; set HYBRIDAD_SHARED to its place'
        )
    case = np.load(folder / f'{request.param}.npz')
    return (
        case['maps'],
        case['gts'],
        json.loads((folder / 'expected.json').read_text())[request.param],
    )


def test_golden_pixels(golden):
    maps, masks, want = golden
    found = pixel_metrics(maps, masks)
    for ours, theirs in dict(auroc='pixel_auroc', ap='pixel_ap', f1max='pixel_f1max').items():
        assert abs(found[ours] - want[theirs]) <= 1e-6
    assert abs(found['aupro_anomalyclip'] - want['aupro_cflow200']) <= 1e-4


@pytest.mark.parametrize('limit', [0.05, 0.3, 1.0])
def test_golden_aupro(golden, limit):
    maps, masks, want = golden
    assert abs(pixel_metrics(maps, masks, limit)['aupro'] - want[f'aupro_{limit}']) <= 1e-6


def test_golden_images(golden):
    maps, masks, want = golden
    found = image_metrics(maps.max((1, 2)), masks.any((1, 2)))
    for ours, theirs in dict(
        auroc='image_auroc_max', ap='image_ap_max', f1max='image_f1max'
    ).items():
        assert abs(found[ours] - want[theirs]) <= 1e-6


def test_golden_stream(golden):
    maps, masks, want = golden
    halves = [PixelStream(), PixelStream()]
    for i, (m, k) in enumerate(zip(maps, masks)):
        halves[i % 2].add(m, k, f'image {i}')
    halves[0].merge(halves[1].counts())
    found = halves[0].result()
    for ours, theirs in dict(
        auroc='pixel_auroc', ap='pixel_ap', f1max='pixel_f1max', aupro='aupro_0.3'
    ).items():
        assert abs(found[ours] - want[theirs]) <= min(2e-4, found['error'][ours] + 1e-6)


@pytest.mark.parametrize('kind', ['random', 'tied', 'quantised', 'constant', 'float64', 'half'])
def test_sklearn_agrees(kind):
    rng = np.random.default_rng(3)
    maps = rng.normal(size=(6, 40, 50)).astype(np.float32)
    masks = rng.random(maps.shape) < 0.03
    maps = dict(
        random=maps + masks,
        tied=np.sign(maps + masks),
        quantised=np.round(maps * 4 + masks) / 4,
        constant=maps * 0,
        float64=maps.astype(np.float64) + masks * 1e-9,
        half=(maps + masks).astype(np.float16),
    )[kind]
    found = pixel_metrics(maps, masks)
    assert abs(found['auroc'] - roc_auc_score(masks.ravel(), maps.ravel())) <= 1e-9
    assert abs(found['ap'] - average_precision_score(masks.ravel(), maps.ravel())) <= 1e-9


@pytest.mark.parametrize('bad', [np.nan, np.inf, -np.inf])
def test_one_bad_pixel_names_its_image(bad):
    maps = np.zeros((3, 8, 8), np.float32)
    maps[1, 2, 3] = bad
    with pytest.raises(HybridadError, match='cable/test/bent/007.png'):
        pixel_metrics(maps, maps > 1, names=['a', 'cable/test/bent/007.png', 'c'])
    with pytest.raises(HybridadError, match='cable/test/bent/007.png'):
        image_metrics([0, bad, 1], [0, 1, 1], ['a', 'cable/test/bent/007.png', 'c'])


def test_one_class_is_undefined_and_says_why():
    for mask, reason in (
        (np.zeros((2, 8, 8)), 'no anomalous pixel'),
        (np.ones((2, 8, 8)), 'no normal pixel'),
    ):
        found = pixel_metrics(np.random.default_rng(0).random((2, 8, 8)), mask)
        assert (
            all(np.isnan(found[k]) for k in ('auroc', 'ap', 'f1max', 'aupro'))
            and reason in found['reasons']['aupro']
        )


# ---------------------------------------------------------------- an evaluation


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    "A dummy set of two categories and a checkpoint that has learned nothing."
    torch.set_num_threads(1)
    tmp = tmp_path_factory.mktemp('evaluation')
    dummy_tree(tmp / 'set', n=3)
    HybridAnomalyDetector(get_default_config(eval_size=32)).save_checkpoint(
        tmp / 'new.safetensors', thresholds={}, trained_on=[]
    )
    return tmp


def scored(place, out, *more, checkpoint='new.safetensors', data='set'):
    return cli.hybridad_test(
        [
            '--data_path',
            str(place / data),
            '--checkpoint_path',
            str(place / checkpoint),
            '--out',
            str(place / out),
            *map(str, more),
        ]
    )


def table_of(place, out):
    with open(place / out / 'images.csv', encoding='utf-8') as f:
        return list(csv.DictReader(f))


def test_run_leaves_everything_and_is_the_same_after_an_interruption(place, monkeypatch, capsys):
    assert scored(place, 'whole', '--maps') == 0
    assert {p.name for p in (place / 'whole').iterdir()} == {
        'config.json',
        'images.csv',
        'log.jsonl',
        'provenance.json',
        'examples.png',
        'metrics.json',
        'metrics.csv',
        'table.md',
        'table.tex',
        'MAPS',
    }
    tested = [s for s in read_dataset(place / 'set') if s.split == 'test']
    rows = table_of(place, 'whole')
    assert [r['path'] for r in rows] == [str(s.image) for s in tested] and all(
        r['decision'] == '' for r in rows
    )
    assert sorted(
        p.relative_to(place / 'whole' / 'MAPS').with_suffix('.png')
        for p in (place / 'whole' / 'MAPS').rglob('*.tiff')
    ) == sorted(s.image.relative_to(place / 'set') for s in tested)
    with Image.open(next((place / 'whole' / 'MAPS').rglob('*.tiff'))) as im:
        assert (im.mode, im.size) == ('F', (40, 30))

    import hybridad.reports as reports

    real, calls = reports.score_in_parts, []
    monkeypatch.setattr(
        reports, 'score_in_parts', lambda *args, **kwargs: real(*args, **kwargs, part=4)
    )
    one = reports._score_part

    def stopped(*args):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(1)
        return one(*args)

    monkeypatch.setattr(reports, '_score_part', stopped)
    assert (
        scored(place, 'again') == 130 and len(list((place / 'again' / 'parts').glob('*.npz'))) == 2
    )
    assert scored(place, 'again') == 2  # in use, and not asked to continue
    calls.clear()
    monkeypatch.setattr(reports, '_score_part', lambda *args: calls.append(1) or one(*args))
    capsys.readouterr()
    assert (
        scored(place, 'again', '--resume', '--compare', place / 'whole') == 0
        and len(calls) == len(tested) // 4 + bool(len(tested) % 4) - 2
    )
    said = capsys.readouterr().out.splitlines()
    assert not (place / 'again' / 'parts').exists() and any(
        str(place / 'whole') in line and '(+0.000)' in line.replace('-0.000', '+0.000')
        for line in said
    )
    assert np.allclose(
        [float(r['score']) for r in table_of(place, 'again')],
        [float(r['score']) for r in rows],
        atol=1e-4,
    )


def test_thresholds_are_stored_and_turned_into_decisions(place, capsys):
    shutil.copy(place / 'new.safetensors', place / 'cut.safetensors')
    assert scored(place, 'validation', '--calibrate', 'f1max', checkpoint='cut.safetensors') == 0
    dummy_tree(place / 'other', categories=('plate',), n=2, seed=9)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)).save(
        place / 'other/plate/test/good/000.png'
    )
    capsys.readouterr()
    assert (
        scored(
            place,
            'decided',
            '--intervals',
            20,
            '--compare',
            place / 'decided_not',
            checkpoint='cut.safetensors',
            data='other',
        )
        == 2
    )
    assert (
        scored(place, 'decided', '--intervals', 20, checkpoint='cut.safetensors', data='other') == 0
    )
    said, rows = capsys.readouterr().out, table_of(place, 'decided')
    cut = json.loads((place / 'decided' / 'config.json').read_text())['thresholds']
    assert all(
        r['decision'] == ('anomalous' if float(r['score']) >= cut['image'] else 'normal')
        for r in rows
    )
    assert [r['path'].endswith('good/000.png') for r in rows if r['unlike']] == [
        True
    ] and 'unlike those the threshold' in said
    boxes = [b for r in rows for b in json.loads(r['regions'])]
    assert all(
        0 <= b['box'][0] < b['box'][2] <= 40
        and 0 <= b['box'][1] < b['box'][3] <= 30
        and b['peak'] >= cut['pixel'] - 1e-4
        and b['area'] <= 1200
        for b in boxes
    )
    figures = json.loads((place / 'decided' / 'metrics.json').read_text())
    low, high = figures['intervals']['image_auroc']
    assert 0 <= low <= high <= 1
    assert (
        scored(place, 'smoother', '--smoothing', 3, checkpoint='cut.safetensors', data='other') == 0
    )  # thresholds of other maps decide nothing
    assert 'no decisions: the thresholds of' in capsys.readouterr().out and all(
        r['decision'] == '' for r in table_of(place, 'smoother')
    )
    assert (
        scored(
            place, 'never', '--calibrate', 'f1max', '--smoothing', 3, checkpoint='cut.safetensors'
        )
        == 2
        and not (place / 'never').exists()
    )


def test_a_finished_run_answers_what_it_was_asked(place, capsys):
    assert (
        scored(place, 'done') == 0 == scored(place, 'done', '--resume')
        and 'nothing is left to do' in capsys.readouterr().out
    )
    for asked in (
        ('--normals', place / 'set'),
        ('--eval_size', 48),
        ('--smoothing', 3),
        ('--categories', 'plate'),
    ):
        assert (
            scored(place, 'done', '--resume', *asked) == 2
            and f'another {asked[0]}' in capsys.readouterr().err
        )
    narrow = '--categories', 'plate', '--maps'
    assert (
        scored(place, 'narrow', *narrow) == 0 == scored(place, 'narrow', *narrow, '--resume')
        and 'nothing is left to do' in capsys.readouterr().out
    )
    assert (
        scored(place, 'narrow', '--resume') == 2
        and '--categories, --maps' in capsys.readouterr().err
    )
    assert (
        scored(place, 'never', '--eval_size', 48, '--compare', place / 'done') == 2
        and not (place / 'never').exists()
    )  # before anything is scored


def test_images_without_a_decision_are_not_counted_as_wrong():
    rows = [
        dict(path=p, decision=d, label=1, unlike=False) for p, d in (('a', 'anomalous'), ('b', ''))
    ]
    assert (
        '1 of 1 images called anomalous, 0 wrongly' in (said := cli._decided(rows, {}))
        and 'no decision on 1' in said
    )

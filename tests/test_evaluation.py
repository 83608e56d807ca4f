"Figures against those of other people's code, and an evaluation run as a user runs it: interrupted, continued, calibrated, compared."

import csv
import inspect
import json
import os
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score

from hybridad import cli
from hybridad._dummies import dummy_tree
from hybridad.config import get_default_config
from hybridad.data.layouts import read_dataset
from hybridad.errors import HybridadError
from hybridad.evaluation.evaluate import EvalSet, summarise
from hybridad.evaluation.maps import write_maps
from hybridad.evaluation.reports import found_regions, image_rows
from hybridad.evaluation.testrun import decided
from hybridad.evaluation.thresholds import calibration, store_thresholds
from hybridad.inference.review import Review
from hybridad.inference.scoring_runs import weights_hash
from hybridad.metrics import exact, streaming
from hybridad.metrics.checks import METRICS
from hybridad.metrics.exact import (
    anomaly_metrics,
    f1_threshold,
    image_metrics,
    pixel_metrics,
    pro_curve,
    rate_threshold,
)
from hybridad.metrics.streaming import PixelStream, aupimo, bootstrap_intervals
from hybridad.models.checkpoint import read_checkpoint
from hybridad.models.detector import HybridAnomalyDetector
from hybridad.visual.curves import pixel_curves, score_histogram
from hybridad.visual.plots import shared_range

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
    assert abs(found['aupro_anomalyclip'] - want['aupro_cflow200']) <= 1e-12


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


def streamed(maps, masks):
    stream = PixelStream()
    for m, k in zip(maps, masks):
        stream.add(m, k)


MAPS = dict(
    pixel_metrics=pixel_metrics,
    pro_curve=pro_curve,
    stream=streamed,
    aupimo=lambda m, k: aupimo(m, k, low=1e-2, high=1e-1),
    intervals=lambda m, k: bootstrap_intervals([0, 0, 1, 1], [0, 0, 1, 1], m, masks=k, n=2),
    both=lambda m, k: anomaly_metrics(m, k, [0, 0, 1, 1], labels=[0, 0, 1, 1]),
    pixel_threshold=lambda m, k: f1_threshold(m, k),
    curves=pixel_curves,
    regions=lambda m, k: found_regions(m[3], 0.5),
    colours=lambda m, k: shared_range(list(m)),
)
SCORES = dict(
    image_metrics=image_metrics,
    f1_threshold=f1_threshold,
    rate_threshold=lambda s, l: rate_threshold(s, l, 0.1),
    intervals=lambda s, l: bootstrap_intervals(s, l, n=2),
    histogram=score_histogram,
)


@pytest.mark.parametrize('bad', [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize('door', MAPS)
def test_every_door_refuses_a_map_that_is_no_number(door, bad):
    maps = np.random.default_rng(0).random((4, 16, 16)).astype(np.float32)
    masks = np.zeros(maps.shape, bool)
    masks[2:, 4:8, 4:8] = True
    MAPS[door](maps, masks)
    maps[3, 5, 5] = bad
    with pytest.raises(HybridadError, match='holds 1 NaN or infinite value'):
        MAPS[door](maps, masks)


@pytest.mark.parametrize(
    'scores, labels, said',
    [
        ([0.1, np.nan, 0.3, 0.4], [0, 0, 1, 1], 'scores holds 1 NaN or infinite value'),
        ([0.1, 0.2, np.inf, 0.4], [0, 0, 1, 1], 'first at image 2'),
        ([0.1, 0.2, 0.3, 0.4], [0, 0, 255, 255], 'labels must be 0 .normal. or 1'),
        ([0.1, 0.2, 0.3, 0.4], [0, 0, 1], '4 scores and 3 labels'),
        ([], [], 'at least one'),
    ],
)
@pytest.mark.parametrize('door', SCORES)
def test_every_door_refuses_scores_and_labels_that_mean_nothing(door, scores, labels, said):
    SCORES[door]([0.1, 0.2, 0.3, 0.4], [0, 0, 1, 1])
    with pytest.raises(HybridadError, match=said):
        SCORES[door](scores, labels)


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


def test_a_metric_of_counts_is_in_the_figures_and_in_their_intervals(monkeypatch):
    source = Path(exact.__file__).read_text(encoding='utf-8')
    for old, new in (  # what CONTRIBUTING says to change for a new metric of pixels
        ("OF_COUNTS = 'auroc'", "OF_COUNTS = 'recall', 'auroc'"),
        ('    return dict(\n        auroc=_area(', '    return dict(recall=0.25, auroc=_area('),
    ):
        assert source.count(old) == 1
        source = source.replace(old, new)
    changed = {}
    for module, text in ((exact, source), (streaming, inspect.getsource(streaming))):
        fresh = types.ModuleType(module.__name__)
        fresh.__package__ = module.__package__
        monkeypatch.setitem(sys.modules, module.__name__, fresh)
        exec(text, vars(fresh))
        changed |= vars(fresh)
    maps = np.random.default_rng(0).random((4, 8, 8))
    masks = np.zeros((4, 8, 8), bool)
    masks[2:, :2] = True
    scores, labels = maps.max((1, 2)), [0, 0, 1, 1]
    assert changed['anomaly_metrics'](maps, masks, scores, labels)['pixel_recall'] == 0.25
    found = changed['bootstrap_intervals'](scores, labels, maps, masks=masks, n=3)
    assert found['pixel_recall'] == (0.25, 0.25) and 'image_recall' not in found
    assert found.keys() >= {*METRICS}


# ---------------------------------------------------------------- an evaluation

ALONE = '--no_baseline'  # baselines cost as much as what is tested, and have tests of their own


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    "A dummy set of two categories and a checkpoint that has learned nothing."
    torch.set_num_threads(1)
    tmp = tmp_path_factory.mktemp('evaluation')
    dummy_tree(tmp / 'set', n=3)
    HybridAnomalyDetector(get_default_config(image_size=64, eval_size=32)).save_checkpoint(
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
        'run.json',
        'examples.png',
        'metrics.json',
        'metrics.csv',
        'table.md',
        'table.tex',
        'MAPS',
        'report.html',
        'thumbnails.json',
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

    import hybridad.evaluation.scores as scores
    import hybridad.evaluation.testrun as testrun

    real, calls = scores.score_in_parts, []
    monkeypatch.setattr(
        testrun, 'score_in_parts', lambda *args, **kwargs: real(*args, **kwargs, part=4)
    )
    one = scores._score_part

    def stopped(*args, **how):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(1)
        return one(*args, **how)

    monkeypatch.setattr(scores, '_score_part', stopped)
    assert (
        scored(place, 'again', ALONE) == 130
        and len(list((place / 'again' / 'parts').glob('*.npz'))) == 2
    )
    assert scored(place, 'again', ALONE) == 2  # in use, and not asked to continue
    calls.clear()
    monkeypatch.setattr(
        scores, '_score_part', lambda *args, **how: calls.append(1) or one(*args, **how)
    )
    capsys.readouterr()
    assert (
        scored(place, 'again', ALONE, '--resume', '--compare', place / 'whole') == 0
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


def marked(folder, size=512, count=10, radius=(6, 30)):
    "A set of one category with discs on a soft ground, and their masks."
    rng, at = np.random.default_rng(4), np.mgrid[:size, :size]
    for i in range(count):
        mask = np.zeros((size, size), bool)
        for y, x in rng.integers(40, size - 40, (6, 2)) if i else ():
            mask |= (at[0] - y) ** 2 + (at[1] - x) ** 2 < rng.uniform(*radius) ** 2
        picture = rng.normal(150, 6, (size, size, 3)) - 70 * mask[..., None]
        for kind, x in (('test', picture), ('ground_truth', mask * 255)):
            if i or kind == 'test':
                file = folder / 'part' / kind / ('dot' if i else 'good') / f'{i}.png'
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(x.astype(np.uint8)).save(file)
    return folder


def test_pixel_figures_do_not_depend_on_the_size_they_are_compared_at(place):
    if not (place / 'large').exists():
        marked(place / 'large')
    figures = {}
    for size in (128, 512):
        asked = '--eval_size', size, '--no_baseline'
        assert scored(place, f'at{size}', *asked, data='large') == 0
        figures[size] = json.loads((place / f'at{size}' / 'metrics.json').read_text())
        assert f'at {size} px' in (place / f'at{size}' / 'table.md').read_text()
        assert figures[size]['eval_size'] == size and figures[size]['masks'] == 'nearest'
    ap = {size: f['mean']['pixel_ap'] for size, f in figures.items()}
    assert ap[512] > 0.005 and abs(ap[128] / ap[512] - 1) <= 0.05


def test_masks_that_vanish_are_named_and_their_images_stay_defective(place):
    samples = read_dataset(marked(place / 'specks', count=3, radius=(1.1, 1.2)))
    with pytest.warns(UserWarning, match='2 of 2 masks mark nothing at 8 px, such as .*png'):
        truth = EvalSet(samples, 8, progress=False)
    assert truth.vanished == [str(s.mask) for s in samples if s.label]
    found = summarise(truth, np.zeros((3, 8, 8)), truth.labels)
    assert found['mean']['image_auroc'] == 1 and found['vanished'] == truth.vanished


def test_the_baseline_stands_beside_the_figures(place, capsys):
    assert scored(place, 'beside') == 0
    said, figures = capsys.readouterr().out, json.loads((place / 'beside/metrics.json').read_text())
    mean, floor = figures['mean'], figures['floors']['local_contrast']['mean']
    assert f'{floor["aupro"]:.3f}' in next(x for x in said.splitlines() if 'baseline: local' in x)
    below = any(mean[k] is not None and mean[k] < floor[k] for k in ('image_auroc', 'aupro'))
    assert ('below the local-contrast baseline in' in said) == below
    assert scored(place, 'alone', '--no_baseline') == 0
    figures = json.loads((place / 'alone/metrics.json').read_text())
    assert figures['floors']['local_contrast'] is None and 'local' not in capsys.readouterr().out
    assert '--no_baseline' in figures['reasons']['local_contrast']


def test_maps_of_another_method_are_scored_beside_ours(place, capsys):
    if not (place / 'large').exists():
        marked(place / 'large')
    asked = '--eval_size', 128, '--no_baseline'
    assert scored(place, 'ours', '--maps', *asked, data='large') == 0
    theirs = place / 'theirs'
    shutil.copytree(place / 'ours' / 'MAPS', theirs)
    asked = *asked, '--against', f'theirs={theirs}'
    assert scored(place, 'beside_theirs', *asked, data='large') == 0
    figures = json.loads((place / 'beside_theirs' / 'metrics.json').read_text())
    for k in ('pixel_auroc', 'pixel_ap', 'aupro'):
        assert abs(figures['against']['theirs']['mean'][k] - figures['mean'][k]) < 0.003
    assert 'against: theirs' in capsys.readouterr().out
    assert 'against: theirs' in (place / 'beside_theirs' / 'table.md').read_text()
    one = next(theirs.rglob('*.tiff'))
    nan = np.full((512, 512), np.nan, np.float32)
    for x, said in (
        (nan, 'NaN'),
        (nan[:7], '512x7 px'),
        (np.zeros((512, 512), np.uint8), 'float'),
        (None, 'not exist'),
    ):
        one.unlink() if x is None else Image.fromarray(x).save(one)
        assert scored(place, 'refused', *asked, data='large') == 2
        told = capsys.readouterr().err.splitlines()[-1]
        assert told.startswith('hybridad_test: ') and str(one) in told and said in told
        assert not (place / 'refused').exists()
    for pair in ('theirs', f'={theirs}', f'theirs={place}/nowhere'):
        assert scored(place, 'refused', '--against', pair, data='large') == 2
        assert f'--against {pair}' in capsys.readouterr().err


def test_older_figures_are_not_compared_with_those_of_other_masks(place, capsys):
    assert scored(place, 'recent', ALONE) == 0
    (place / 'older').mkdir()
    figures = json.loads((place / 'recent' / 'metrics.json').read_text())
    del figures['masks']
    (place / 'older' / 'metrics.json').write_text(json.dumps(figures))
    assert scored(place, 'never', '--compare', place / 'older') == 2
    assert 'every touched cell' in capsys.readouterr().err and not (place / 'never').exists()


def test_what_cannot_be_found_replaces_no_threshold(place, capsys):
    shutil.copy(place / 'new.safetensors', place / 'kept.safetensors')
    ours = dict(image=1.5, pixel=2.5, rule='by hand')
    store_thresholds(place / 'kept.safetensors', ours)
    for part in ('good', 'crack'):
        shutil.copytree(place / 'set', place / part)
        for folder in (place / part).glob('*/test/*'):
            if (folder.name == 'good') != (part == 'good'):
                shutil.rmtree(folder)
    for folder in (place / 'good').glob('*/ground_truth'):
        shutil.rmtree(folder)
    asked = '--calibrate', 'f1max', ALONE
    assert scored(place, 'c1', *asked, checkpoint='kept.safetensors', data='good') == 2
    assert 'only normal images' in capsys.readouterr().err and not (place / 'c1').exists()
    held = read_checkpoint(place / 'kept.safetensors')[1]['thresholds']
    assert held == ours
    assert scored(place, 'c2', *asked, checkpoint='kept.safetensors', data='crack') == 0
    held = read_checkpoint(place / 'kept.safetensors')[1]['thresholds']
    assert held['image'] == 1.5 and held['pixel'] not in (None, 2.5) and 'by hand' in held['rule']
    assert 'the stored one, 1.5, stays' in capsys.readouterr().out
    samples = [s for s in read_dataset(place / 'set') if s.split == 'test' and not s.label]
    truth = EvalSet(samples, 16, square=True, progress=False)
    maps, scores = np.random.default_rng(0).random((len(samples), 16, 16)), np.arange(len(samples))
    with pytest.raises(HybridadError, match='stays'):
        store_thresholds(place / 'kept.safetensors', calibration(truth, maps, scores))
    maps[1, 2, 3] = np.nan
    for refuse in (
        lambda: calibration(truth, maps, scores, rate=0.1),
        lambda: summarise(truth, maps, scores),
        lambda: write_maps(place / 'nan', samples, maps),
        lambda: image_rows(truth, maps, scores, thresholds=dict(pixel=0.5)),
    ):
        with pytest.raises(HybridadError, match='NaN'):
            refuse()
    assert read_checkpoint(place / 'kept.safetensors')[1]['thresholds'] == held


def test_a_set_without_a_normal_image_is_scored_with_a_warning(place):
    crack = shutil.copytree(place / 'set/plate', place / 'alone/plate')
    for part in ('train', 'test/good'):
        shutil.rmtree(crack / part)
    with pytest.warns(UserWarning, match='no image of plate is normal'):
        assert scored(place, 'c3', ALONE, data='alone') == 0


def reviewed(run, checkpoint, rows):
    "The mistakes of a test come first, with the maps that the detector saw and its prompts."
    review = Review(run)
    wrong = [r['outcome'] in ('missed', 'false alarm') for r in review.rows]
    mistakes = sum((r['decision'] == 'anomalous') != (r['label'] == '1') for r in rows)
    assert wrong == [True] * mistakes + [False] * (len(rows) - mistakes)
    width, height = review.seen(0).size
    assert review.size(0) == (40, 30) and abs(width / height - 40 / 30) < 0.05
    about = review.corrections.about
    detector, _ = HybridAnomalyDetector.from_checkpoint(checkpoint)
    assert about['prompts'] == weights_hash(detector)
    assert about['checkpoint'] == str(checkpoint) and about['plain']


def test_thresholds_are_stored_and_turned_into_decisions(place, capsys):
    shutil.copy(place / 'new.safetensors', place / 'cut.safetensors')
    asked = '--calibrate', 'f1max', ALONE
    assert scored(place, 'validation', *asked, checkpoint='cut.safetensors') == 0
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
    reviewed(place / 'decided', place / 'cut.safetensors', rows)
    assert (
        scored(
            place, 'smoother', ALONE, '--smoothing', 3, checkpoint='cut.safetensors', data='other'
        )
        == 0
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


def test_a_reference_unlike_the_others_is_named(place, capsys):
    like = np.asarray(Image.open(next((place / 'set' / 'plate' / 'train' / 'good').iterdir())))
    rng, beside = np.random.default_rng(0), place / 'beside' / 'plate'
    beside.mkdir(parents=True)
    for k in range(6):
        Image.fromarray(np.clip(like + rng.normal(0, 4, like.shape), 0, 255).astype('uint8')).save(
            beside / f'{k}.png'
        )
    noise = rng.integers(0, 256, like.shape, dtype='uint8')
    Image.fromarray(noise).save(beside / 'odd.png')
    asked = '--normals', beside.parent, '--categories', 'plate'
    assert scored(place, 'one_odd', *asked) == 0 == scored(place, 'one_odd', *asked, '--resume')
    said = 'reference images of plate unlike the others, to be looked at: odd.png'
    assert capsys.readouterr().out.count(said) == 2  # a finished run says it again
    stored = json.loads((place / 'one_odd' / 'metrics.json').read_text())
    assert stored['normals']['odd'] == {'plate': ['odd.png']}
    report = (place / 'one_odd' / 'report.html').read_text()
    assert 'unlike the others, to be looked at: odd.png' in report


def test_references_are_read_at_the_depth_of_the_images(place, capsys):
    grey, good = np.full((64, 64), 900, np.uint16), place / 'deep' / 'plate' / 'test' / 'good'
    for folder, brightest in ((good, 901), (good.parent / 'bent', 900), (place / 'bright', 3900)):
        folder.mkdir(parents=True)
        grey[0] = brightest
        Image.fromarray(grey).save(folder / '0.png')
    assert scored(place, 'never', '--normals', place / 'bright', data='deep') == 2
    assert 'above the 10 bits of its set: say --bits 12' in capsys.readouterr().err


def test_images_without_a_decision_are_not_counted_as_wrong():
    rows = [
        dict(path=p, decision=d, label=1, unlike=False) for p, d in (('a', 'anomalous'), ('b', ''))
    ]
    assert (
        '1 of 1 images called anomalous, 0 wrongly' in (said := decided(rows, {}))
        and 'no decision on 1' in said
    )

"""Images of several shapes and sizes through the commands: learned, tested in tiles, scored in both ways.

Notebooks show each step alone; here one data set goes through all of them, as a user's would."""

import json
import shutil
from functools import partial

import numpy as np
import pytest
import tifffile
from PIL import Image

from hybridad import cli
from hybridad.inference.rows import read_scores
from hybridad.models import compiled
from hybridad.models.checkpoint import read_checkpoint
from hybridad.synthetic.plain import picture

SIDE = 64  # px of a square, and of a tile
SHAPES = (SIDE, SIDE), (SIDE // 2, 2 * SIDE), (2 * SIDE, SIDE // 2)  # (height, width), in turn
SMALL = ['--debug', '--device', 'cpu', '--image_size', str(SIDE)]
ALONE = '--no_baseline'  # once with baselines is enough


def saved(path, pixels, shape):
    "A square of pixels in another shape, cut and set side by side, never squashed."
    height, width = shape
    if height != width:
        half = len(pixels) // 2
        pixels = np.concatenate([pixels[:half], pixels[half:]], 1)
        pixels = pixels if height < width else np.moveaxis(pixels, 0, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "A set of twelve images in three shapes with masks, and prompts learned on it."
    root = tmp_path_factory.mktemp('shapes')
    for i in range(12):
        kind = 'scratch' if i % 2 else 'good'
        p, shape = picture(5, i, SIDE, kind=kind), SHAPES[i % 3]
        saved(root / f'set/thing/test/{kind}/{i}.png', p.image, shape)
        if kind == 'scratch':
            name = root / f'set/thing/ground_truth/{kind}/{i}_mask.png'
            saved(name, p.mask.astype(np.uint8) * 255, shape)
    assert cli.hybridad(['train', str(root / 'set'), *SMALL, '--out', str(root / 'run')]) == 0
    return root


def test_learned_on_several_shapes(folder):
    "All images are learned from or validated on, in their own shapes."
    results = json.loads((folder / 'run/metrics.json').read_text())
    assert 0 < results['mean']['pixel_auroc'] <= 1
    _, about = read_checkpoint(folder / 'run/best.safetensors')
    assert len(about['trained_on']) == 12 and about['config']['data']['square'] is False


def results_of(folder, name, *flags, data='set'):
    "Results of a test of the images that were learned on."
    out = folder / name
    command = [
        'test',
        str(folder / data),
        '--checkpoint_path',
        str(folder / 'run/best.safetensors'),
    ]
    command += ['--allow_seen', '--device', 'cpu', '--out', str(out), *flags]
    assert cli.hybridad(command) == 0
    return json.loads((out / 'metrics.json').read_text())


def test_square_is_another_reading(folder):
    "Squashed images give other maps than images that keep their shape, and their own thresholds."
    kept, squashed = (
        results_of(folder, 'kept', '--maps'),
        results_of(folder, 'square', '--square', ALONE),
    )
    assert kept['mean']['pixel_ap'] != squashed['mean']['pixel_ap']
    config = json.loads((folder / 'square/config.json').read_text())
    assert 'another square' in config['thresholds']['reason']
    maps = (folder / 'kept/MAPS').rglob('*.tiff')
    assert {Image.open(p).size[::-1] for p in maps} == set(SHAPES)


def test_thresholds_of_tiles(folder, capsys):
    "Thresholds found in tiles are stored with their tiling and decide there alone."
    tiles = ['--tile_scale', '1.5', '--overlap', '32']
    results_of(folder, 'tiles', *tiles, '--calibrate', 'f1max')
    _, about = read_checkpoint(folder / 'run/best.safetensors')
    found = about['thresholds']
    assert found['tiling'] == [1, 32, 1.5] and found['growth'] > 0
    again = results_of(folder, 'again', *tiles, ALONE)
    assert (folder / 'again/images.csv').read_text().count('anomalous') and again['mean']
    results_of(folder, 'whole', ALONE)
    config = json.loads((folder / 'whole/config.json').read_text())
    assert 'other tiles' in config['thresholds']['reason']
    assert 'tiles at 1.5 of the own pixels' in (folder / 'tiles/report.html').read_text()


def test_thresholds_of_two_tilings_do_not_mix(folder, capsys):
    "A half that cannot be found stays with its growth in the same tiles, and goes in others."
    checkpoint, tiles = folder / 'run/best.safetensors', ['--tiles', '2']
    results_of(folder, 'both', *tiles, '--calibrate', 'f1max', ALONE)
    found = read_checkpoint(checkpoint)[1]['thresholds']
    shutil.copytree(folder / 'set', folder / 'bad')
    shutil.rmtree(folder / 'bad/thing/test/good')
    results_of(folder, 'bad_alone', *tiles, '--calibrate', 'f1max', ALONE, data='bad')
    kept = read_checkpoint(checkpoint)[1]['thresholds']
    assert found['growth'] > 0 and 'for images as before' in kept['rule']
    assert all(kept[k] == found[k] for k in ('image', 'growth', 'good', 'tiling'))
    shutil.copytree(folder / 'set', folder / 'unmarked')
    shutil.rmtree(folder / 'unmarked/thing/ground_truth')
    results_of(folder, 'in_one', '--tiles', '1', '--calibrate', 'f1max', ALONE, data='unmarked')
    whole = read_checkpoint(checkpoint)[1]['thresholds']
    assert whole['image'] and whole['pixel'] is None and 'tiling' not in whole
    assert whole['growth'] == kept['growth']  # of the same prompts
    assert 'goes, as it held for other tiles' in capsys.readouterr().out


@pytest.fixture(scope='module')
def in_tiles(tmp_path_factory):
    "Eight images of four tiles each, every other one defective, and prompts learned on the tiles."
    root = tmp_path_factory.mktemp('tiles')
    for i in range(8):
        kind = 'hole' if i % 2 else 'good'
        p, shape = picture(5, i, 2 * SIDE, kind=kind), (2 * SIDE, 2 * SIDE)
        saved(root / f'set/thing/test/{kind}/{i}.png', p.image, shape)
        if kind == 'hole':
            name = root / f'set/thing/ground_truth/{kind}/{i}_mask.png'
            saved(name, p.mask.astype(np.uint8) * 255, shape)
    learn = ['train', str(root / 'set'), *SMALL, '--out', str(root / 'run')]
    assert cli.hybridad([*learn, '--tile_scale', '1', '--overlap', '32']) == 0
    return root


def test_learned_in_tiles(in_tiles, capsys):
    "Prompts of tiles remember their cut: images are tested and scored in it unless told otherwise."
    _, about = read_checkpoint(in_tiles / 'run/best.safetensors')
    assert len(about['trained_on']) == 8 and about['config']['data']['tile_scale'] == 1
    assert about['thresholds']['tiling'] == [1, 32, 1.0]
    results_of(in_tiles, 'as_learned')
    assert 'in tiles as the prompts were learned (--tile_scale 1 --o' in capsys.readouterr().out
    config = json.loads((in_tiles / 'as_learned/config.json').read_text())
    assert config['thresholds']['image'] == about['thresholds']['image']
    results_of(in_tiles, 'whole', '--tiles', '1')
    config = json.loads((in_tiles / 'whole/config.json').read_text())
    assert 'other tiles' in config['thresholds']['reason']
    command = ['score', str(in_tiles / 'set/thing/test'), '--device', 'cpu', '--checkpoint_path']
    command += [str(in_tiles / 'run/best.safetensors'), '--out', str(in_tiles / 'scored')]
    assert cli.hybridad(command) == 0 and 'in tiles as learned' in capsys.readouterr().out
    assert len(list(read_scores(in_tiles / 'scored'))) == 8


def test_nothing_is_learned_from_an_unmarked_defect_in_tiles(in_tiles, capsys):
    "Without its mask nobody knows which tiles of an image are defective; nothing is left behind."
    shutil.copytree(in_tiles / 'set', in_tiles / 'unmarked')
    (in_tiles / 'unmarked/thing/ground_truth/hole/1_mask.png').unlink()
    command = ['train', str(in_tiles / 'unmarked'), *SMALL, '--tiles', '2']
    assert cli.hybridad([*command, '--out', str(in_tiles / 'refused')]) == 2
    assert 'learn without tiles' in capsys.readouterr().err
    assert not (in_tiles / 'refused').exists()


def scores_of(folder, name, *flags):
    "Rows of a scoring of the photographs."
    out = folder / name
    prompts = ['--checkpoint_path', str(folder / 'run/best.safetensors'), '--device', 'cpu']
    command = ['score', str(folder / 'photos'), *prompts, '--quiet', '--out', str(out)]
    assert cli.hybridad([*command, *flags]) == 0
    return {r['image'].rpartition('/')[2]: r for r in read_scores(out)}


def test_scored_beside_others_as_alone(folder):
    "A strip among squares has the score that it has alone, in the order of the names."
    for i, shape in enumerate((*SHAPES, *SHAPES)):
        saved(folder / f'photos/{i}.png', picture(7, i, SIDE).image, shape)
    rows = scores_of(folder, 'mixed', '--batch_size', '4')
    assert list(rows) == [f'{i}.png' for i in range(6)]
    single = scores_of(folder, 'single', '--batch_size', '1')
    for name, r in rows.items():
        assert abs(r['score'] - single[name]['score']) < 1e-4
        assert (r['width'], r['height']) == (single[name]['width'], single[name]['height'])


def test_large_files_in_bands(folder, capsys):
    "Beyond the limit a TIFF and a PNG are scored as below it; a BMP is a row with what helps."
    pytest.importorskip('pyvips', reason="needs pip install 'hybridad[large]'")
    pixels = np.kron(picture(7, 1, SIDE).image, np.ones((3, 3, 1), np.uint8))
    (folder / 'large').mkdir()
    tifffile.imwrite(folder / 'large/scan.tif', pixels, photometric='rgb', rowsperstrip=40)
    Image.fromarray(pixels).save(folder / 'large/scan.png')
    Image.fromarray(pixels).save(folder / 'large/scan.bmp')
    prompts = ['--checkpoint_path', str(folder / 'run/best.safetensors'), '--device', 'cpu']
    base = ['score', str(folder / 'large'), *prompts, '--quiet', '--tile_scale', '1']
    assert cli.hybridad([*base, '--out', str(folder / 'fits')]) == 0
    code = cli.hybridad([*base, '--out', str(folder / 'beyond'), '--max_pixels', '25000'])
    whole, bands = (list(read_scores(folder / n)) for n in ('fits', 'beyond'))
    assert code == 3 and len({r['score'] for r in whole}) == 1
    bmp, png, tiff = sorted(bands, key=lambda r: r['image'])
    assert tiff['score'] == png['score'] == whole[0]['score'] and '--max_pixels' in bmp['reason']


@pytest.mark.parametrize(
    'flags, said',
    [
        (['--overlap', '9'], 'give --tiles or --tile_scale'),
        (['--tiles', '2', '--tile_scale', '1'], 'both say how large'),
        (['--tiles', '0'], '--tiles: it must lie in [1, 32]'),
        (['--tile_scale', '0'], '--tile_scale: it must lie in [0.01, 4]'),
        (['--tiles', '3', '--overlap', '400'], 'choose 0 to 192'),
    ],
)
def test_bad_tiles(folder, capsys, flags, said):
    "One sentence, exit code 2, and nothing written."
    out = folder / 'refused'
    assert cli.hybridad(['score', str(folder / 'set'), '--out', str(out), *flags]) == 2
    assert said in capsys.readouterr().err and not out.exists()


def test_compiled_blocks_score_alike_and_are_a_setting_of_the_run(folder, monkeypatch, capsys):
    "A few blocks, traced without a code generator: what it makes faster is for a GPU."
    blocks, traced = compiled._blocks, partial(compiled.compile_parts, backend='eager')
    monkeypatch.setattr(compiled, '_blocks', lambda model: blocks(model)[:2])
    monkeypatch.setattr(compiled, 'compile_parts', traced)
    command = ['score', str(folder / 'set/thing/test/good'), '--device', 'cpu', '--quiet']
    command += ['--checkpoint_path', str(folder / 'run/best.safetensors')]
    plain, quick = folder / 'plain', folder / 'quick'
    assert cli.hybridad([*command, '--out', str(plain)]) == 0
    assert cli.hybridad([*command, '--out', str(quick), '--compile']) == 0
    scores = [[r['score'] for r in read_scores(out)] for out in (plain, quick)]
    assert np.allclose(*scores, atol=1e-4) and len(scores[0]) == 6
    assert json.loads((quick / 'run.json').read_text())['asked']['compiled'] is True
    capsys.readouterr()
    assert cli.hybridad([*command, '--out', str(quick), '--resume']) == 2
    assert 'another compiled' in capsys.readouterr().err
    assert cli.hybridad([*command, '--compile', '--engine', 'ray']) == 2
    assert '--compile is for one process' in capsys.readouterr().err

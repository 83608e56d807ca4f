"""Hostile files end in the documented errors and nothing else. HYBRIDAD_FUZZ sets the number of cases per kind of file (`make proof`: 4000)."""

import contextlib
import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save

from hybridad._dummies import dummy_tree
from hybridad.config import Config, get_default_config
from hybridad.data.formats import reading_as
from hybridad.data.images import full_size, open_image
from hybridad.data.layouts import read_dataset
from hybridad.data.loading import read_mask
from hybridad.data.masks import marked_pixels
from hybridad.data.pairing import pair_masks
from hybridad.errors import BackboneError, HybridadError
from hybridad.evaluation.evaluate import refuse_seen
from hybridad.inference.export import LearnedPrompts
from hybridad.inference.image_files import Photos
from hybridad.inference.rows import COLUMNS, FILE, encode, read_scores
from hybridad.models.backbone import load_backbone
from hybridad.models.checkpoint import ABOUT, read_checkpoint
from hybridad.models.parts import MINI, read_settings
from hybridad.models.pipeline import EasonADPipeline
from hybridad.models.prompt_learner import MinimalPromptLearner, load_anomalyclip
from hybridad.runs import read_log
from hybridad.training.loop import training_run

CASES = int(os.environ.get('HYBRIDAD_FUZZ', 300))
fuzz = settings(
    max_examples=CASES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


def encoded(form, mode='RGB', **options):
    "A small valid image file."
    pixels = np.arange(16 * 12 * 4, dtype=np.uint8).reshape(12, 16, 4)
    im, out = Image.fromarray(pixels), io.BytesIO()
    im = im if mode == 'RGBA' else im.convert('L' if mode in ('F', 'I;16') else 'RGB').convert(mode)
    im.save(out, form, **options)
    return out.getvalue()


exif = Image.Exif()
exif[274] = 6
exif[270] = 'text'
SEEDS = [
    encoded('PNG'),
    encoded('PNG', 'P'),
    encoded('PNG', 'RGBA'),
    encoded('JPEG'),
    encoded('JPEG', exif=exif),
    encoded('JPEG', 'CMYK'),
    encoded('BMP'),
    encoded('BMP', '1'),
    encoded('TIFF'),
    encoded('TIFF', compression='tiff_lzw'),
    encoded('TIFF', 'F'),
    encoded('WEBP'),
    encoded('PNG', exif=exif),
    encoded('GIF', 'P'),
    encoded('PPM'),
    encoded('PCX'),
    encoded('SGI'),
    encoded('JPEG2000'),
    encoded('AVIF'),
    encoded('PNG', 'I;16'),
    encoded('TIFF', 'I;16'),
    encoded('PNG', 'LA'),
    encoded('TIFF', exif=exif),
]


@st.composite
def broken(draw, seeds):
    "A valid file with some bytes changed, cut out, doubled or put in; or noise after a valid beginning."
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 6))):
        at, how = (
            draw(st.integers(0, max(0, len(data) - 1))),
            draw(st.sampled_from('change cut double insert end noise'.split())),
        )
        if how == 'change' and data:
            data[at] = draw(st.integers(0, 255))
        elif how == 'cut':
            del data[at : at + draw(st.integers(1, 40))]
        elif how == 'double':
            data[at:at] = data[at : at + draw(st.integers(1, 40))]
        elif how == 'insert':
            data[at:at] = draw(
                st.sampled_from(
                    [b'\0' * 4, b'\xff' * 4, b'\x7f\xff\xff\xff', b'NaN', b'[[[[', b'\xc3(']
                )
            )
        elif how == 'end':
            del data[at:]
        else:
            data[at:] = draw(st.binary(max_size=60))
    return bytes(data)


@fuzz
@given(data=broken(SEEDS), name=st.sampled_from(['a.png', 'b.jpg', 'c.tif', 'd.tga', 'e.dib']))
def test_images(tmp_path_factory, data, name):
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(data)
    item = Photos([str(path)], 16, sight=32)[0]
    if 'reason' in item:
        assert str(path) in item['reason'] and '\n' not in item['reason']
    else:
        assert (
            item['image'].shape == (3, 16, 16)
            and torch.isfinite(item['image']).all()
            and item['width'] > 0
        )


@fuzz
@given(data=broken(SEEDS), limit=st.sampled_from([1, 20, 150]), name=st.sampled_from('ab'))
def test_images_above_the_limit(tmp_path_factory, data, limit, name):
    "Read at a fraction or refused, never in full."
    path = tmp_path_factory.getbasetemp() / f'{name}.tif'
    path.write_bytes(data)
    with reading_as(max_pixels=limit):
        try:
            im = open_image(path)
        except HybridadError as error:
            assert str(path) in str(error) and '\n' not in str(error)
        else:
            assert im.width * im.height <= limit and full_size(im)[0] >= im.width


MASKS = [
    encoded('PNG', '1'),
    encoded('PNG', 'L'),
    encoded('PNG', 'P'),
    encoded('PNG', 'I;16'),
    encoded('PNG', 'RGBA'),
    encoded('JPEG', 'L'),
    encoded('GIF', 'P'),
    encoded('TIFF', 'F'),
]


@fuzz
@given(data=broken(MASKS))
def test_masks(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / 'm.png'
    path.write_bytes(data)
    try:
        marked = read_mask(path)
    except HybridadError as error:
        assert str(path) in str(error) and '\n' not in str(error)
    else:
        assert marked.dtype == bool and marked.ndim == 2


FEW = st.lists(st.integers(0, 255), min_size=1, max_size=5)


@fuzz
@given(
    values=FEW,
    seed=st.integers(0, 99),
    mode=st.sampled_from(['L', 'P', 'RGB', 'RGBA', 'LA', 'I;16']),
)
def test_values_of_masks(values, seed, mode):
    "Any few values in blocks, in any mode, are told or refused; a mask of 0 and one value always marks that value."
    rng = np.random.default_rng(seed)
    blocks = rng.choice(values, (4, 5)).repeat(3, 0).repeat(4, 1).astype(np.uint8)
    channels = dict(RGB=3, RGBA=4, LA=2).get(mode)
    if channels:
        im = Image.fromarray(np.stack([np.roll(blocks, i) for i in range(channels)], -1))
    else:
        im = Image.fromarray(blocks.astype(np.uint16) if mode == 'I;16' else blocks)
        im = im.convert('P') if mode == 'P' else im
    try:
        marked = marked_pixels(im, 'm.png')
    except HybridadError as error:
        assert 'm.png' in str(error)
    else:
        assert marked.shape == (12, 20) and marked.dtype == bool
        grey = mode in ('L', 'P', 'I;16')
        if grey and len(set(values) - {0}) <= 1 and (blocks > 0).mean() <= 0.5:
            assert np.array_equal(marked, blocks > 0)


@fuzz
@given(names=st.lists(st.text('aé\u0301ü_mask.0', min_size=1, max_size=6), max_size=6))
def test_pairs_of_masks(names):
    "Each mask is given to one image or named in the sentence, whatever the names."
    images, masks = [Path(f'{n}.png') for n in names[::2]], [Path(f'{n}.png') for n in names[1::2]]
    try:
        paired = pair_masks(images, masks)
    except HybridadError as error:
        assert any(str(p) in str(error) for p in images + masks)
    else:
        assert sorted(p for p in paired if p) == sorted(masks) and len(paired) == len(images)


ABOUT_GOOD = {k: kind() for k, kind in ABOUT.items()} | dict(
    config=get_default_config().to_dict(), thresholds=dict(image=1.0, pixel=None)
)
CHECKPOINT = save(
    {'prompts.ctx_normal': torch.ones(2, 3), 'layer_logits': torch.zeros(4)},
    {'hybridad': json.dumps(ABOUT_GOOD)},
)


@fuzz
@given(data=broken([CHECKPOINT, CHECKPOINT[:400], (2**40).to_bytes(8, 'little') + CHECKPOINT[8:]]))
def test_checkpoints(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / 'c.safetensors'
    path.write_bytes(data)
    try:
        tensors, about = read_checkpoint(path)
        Config.from_dict(about['config'])
    except HybridadError as error:
        assert '\n' not in str(error)
    else:
        assert all(torch.isfinite(t).all() for t in tensors.values())


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)


@fuzz
@given(
    changes=st.dictionaries(
        st.sampled_from([*ABOUT, 'trained_on', 'thresholds']), anything, max_size=3
    )
)
def test_checkpoint_metadata(tmp_path_factory, changes):
    path = tmp_path_factory.getbasetemp() / 'd.safetensors'
    path.write_bytes(
        save({'layer_logits': torch.zeros(4)}, {'hybridad': json.dumps(ABOUT_GOOD | changes)})
    )
    with contextlib.suppress(HybridadError):
        assert (
            LearnedPrompts.from_checkpoint(path).about['layers'] is not None
            and refuse_seen(path, []) == 0
        )


keys = st.sampled_from(
    [*Config().keys(), 'loss_weights', 'epoch', 'pretrained_model_name_or_path']
) | st.text(max_size=6)


@fuzz
@given(
    settings=st.dictionaries(
        keys, anything | st.dictionaries(keys, anything, max_size=3), max_size=4
    )
    | anything
)
def test_configs(settings):
    try:
        cfg = Config.from_dict(settings)
    except HybridadError as error:
        assert str(error)
    else:
        assert Config.from_dict(cfg.to_dict()) == cfg


BEGUN = dict(command='train', asked=get_default_config().to_dict(), provenance={}, state='begun')
PLAIN = json.dumps(BEGUN, indent=1).encode()


@fuzz
@given(
    config=broken([PLAIN, PLAIN[:60]]),
    log=broken([b'{"epoch": 1, "total": 2.0}\n{"epoch": 2, "total": NaN}\n']),
)
def test_run_folders(tmp_path_factory, config, log):
    run = tmp_path_factory.getbasetemp() / 'run'
    run.mkdir(exist_ok=True)
    (run / 'run.json').write_bytes(config)
    (run / 'log.jsonl').write_bytes(log)
    try:
        assert training_run(run, get_default_config()).check(True)
    except HybridadError as error:
        assert str(run) in str(error)
    assert all(isinstance(r['epoch'], int) for r in read_log(run / 'log.jsonl'))


ROWS = [
    dict(
        zip(
            COLUMNS,
            (
                'a.png',
                'anomalous',
                1.5,
                '[{"box": [0, 1, 2, 3], "area": 4, "peak": 5.0}]',
                10,
                20,
                '',
            ),
        )
    ),
    dict(zip(COLUMNS, ('b,"\r.png', 'unreadable', None, '[]', 0, 0, 'cut short'))),
]
ROWS = [r | dict(zip(FILE, (9, 1, 1, 'ab'))) for r in ROWS]


@fuzz
@given(data=broken([encode(ROWS, 'csv')]))
def test_tables(tmp_path_factory, data):
    out = tmp_path_factory.getbasetemp() / 'scored'
    (out / 'parts').mkdir(parents=True, exist_ok=True)
    (out / 'parts' / 'part-000000.csv').write_bytes(data)
    try:
        rows = list(read_scores(out))
    except HybridadError as error:
        assert 'is damaged' in str(error)
    else:
        names = {*COLUMNS, 'digest'}
        assert all(r.keys() == names and isinstance(r['width'], int) for r in rows)


def listed(tmp_path_factory, layout, name, data):
    "What is read of a small data set whose list is replaced; names that lead out of it never are."
    root = tmp_path_factory.getbasetemp() / f'listed_{layout}'
    if not root.exists():
        dummy_tree(root, layout, n=1)
    kept = root / f'{name}.good'
    if not kept.exists():
        (root / name).rename(kept)
    (root / name).write_bytes(data(kept.read_bytes()))
    try:
        samples = read_dataset(root, layout)
    except HybridadError as error:
        assert str(root) in str(error)
    else:
        assert samples and all(
            s.image.resolve().is_relative_to(root.resolve()) and s.label in (0, 1) for s in samples
        )


@fuzz
@given(data=st.data())
def test_table_of_samples(tmp_path_factory, data):
    listed(
        tmp_path_factory,
        'table',
        'samples.csv',
        lambda good: data.draw(broken([good, good.replace(b'.png', b'/../../../x.png')])),
    )


@fuzz
@given(data=st.data())
def test_meta_json(tmp_path_factory, data):
    listed(
        tmp_path_factory,
        'meta',
        'meta.json',
        lambda good: data.draw(broken([good, good.replace(b'"test"', b'"../.."')])),
    )


@fuzz
@given(
    data=broken(
        [
            b'{"timestep": 10, "layers": ["up_blocks.0"], "neutral": "a photo"}',
            json.dumps(dict(layers=[1], normal=None)).encode(),
        ]
    )
)
def test_backbone_settings(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / 'hybridad.json'
    path.write_bytes(data)
    try:
        told = read_settings(path)
    except HybridadError as error:
        assert str(path) in str(error)
    else:
        assert isinstance(told.get('timestep', 0), int) and isinstance(told.get('neutral', ''), str)


CONFIGS = {
    f'{p.parent.name}/{p.name}': json.loads(p.read_text())
    for p in sorted(MINI.glob('*/*config.json'))
}
WRONG = [None, True, -1, 0, 3, 1.5, 'x', [], [0], {}]


@settings(fuzz, max_examples=max(20, CASES // 10))
@given(data=st.data())
def test_backbone_configs(tmp_path_factory, data):
    "A wrong value in any config of a backbone: refused when loaded, by one sentence, or it works."
    name = data.draw(st.sampled_from(sorted(CONFIGS)))
    key = data.draw(st.sampled_from(sorted(CONFIGS[name])))
    folder = tmp_path_factory.getbasetemp() / 'configs'
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(MINI, folder, copy_function=os.symlink)
    (folder / name).unlink()
    (folder / name).write_text(json.dumps(CONFIGS[name] | {key: data.draw(st.sampled_from(WRONG))}))
    images = torch.linspace(-1, 1, 3 * 64 * 64).view(1, 3, 64, 64)
    try:
        loaded = load_backbone(folder, 'cpu')
    except BackboneError as error:
        assert str(folder) in str(error)
        return
    try:
        MinimalPromptLearner(loaded, 1, 2, t_n_ctx=1)
        maps = EasonADPipeline(loaded, map_size=4)(images, ['good', 'bad'])
    except HybridadError:
        return
    assert maps.isfinite().all()


LEARNER = MinimalPromptLearner(load_backbone('mini', 'cpu'), 2, 2, t_n_ctx=1)
torch.save(
    dict(
        prompt_learner={
            'ctx_pos': torch.ones(1, 1, 2, LEARNER.template.shape[-1]),
            'ctx_neg': torch.ones(1, 1, 2, LEARNER.template.shape[-1]),
            'compound_prompts_text.0': torch.zeros(1, LEARNER.template.shape[-1]),
            'token_prefix_pos': torch.ones(3),
        }
    ),
    PUBLISHED := io.BytesIO(),
)


@fuzz
@given(data=broken([PUBLISHED.getvalue()]))
def test_anomalyclip_checkpoints(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / 'epoch_15.pth'
    path.write_bytes(data)
    try:
        left_out = load_anomalyclip(LEARNER, path)
    except HybridadError as error:
        assert str(path) in str(error)
    else:
        assert len(left_out) == 1 and all(torch.isfinite(p).all() for p in LEARNER.parameters())

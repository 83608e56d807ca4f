"What a data set can have wrong with it: each kind is made here, and answered by one sentence that names the file and the remedy."

import hashlib
import io
import json
import os
import shutil
import struct
import subprocess
import sys
import tarfile
import threading
import tracemalloc
import unicodedata
import warnings
import zipfile
import zlib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageOps

from hybridad._dummies import dummy_tree, dummy_visa
from hybridad.data.datasets import check_dataset, inspect_sample
from hybridad.data.decoding import has_vips
from hybridad.data.downloads import download, extract
from hybridad.data.formats import reading_as
from hybridad.data.images import image_size, open_image
from hybridad.data.layouts import published_set, read_dataset, reading_summary
from hybridad.data.loading import (
    AnomalyDataset,
    fingerprint,
    load_image,
    make_loader,
    read_mask,
    sample_digest,
)
from hybridad.data.pairing import Sample
from hybridad.data.samples import learnable
from hybridad.data.tables import read_meta, read_table, table_rows, write_meta
from hybridad.data.trees import TREES
from hybridad.errors import CheckpointError, DataError
from hybridad.inference.image_files import Photos, grey_line, upright
from hybridad.models.reference import load_references
from hybridad.runs import read_arrays, read_json

SHARED = (
    Path(__file__).resolve().parents[1] / os.environ.get('HYBRIDAD_SHARED', '../shared')
).resolve()
PLATE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8))


def refused(f, *args, names=None, says='', **more):
    "The sentence with which a call is refused: one line, with the name of the file and a remedy after the cause."
    with pytest.raises(DataError) as error:
        f(*args, **more)
    text = str(error.value)
    assert '\n' not in text and says in text and (names is None or str(names) in text), text
    assert any(mark in text for mark in (',', ':')) and len(text.split()) > 5, f'no remedy: {text}'
    return text


# ---------------------------------------------------------------- images


def bomb(path, width=60000, height=60000):
    chunk = lambda kind, data: (
        struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
    )
    path.write_bytes(
        b'\x89PNG\r\n\x1a\n'
        + chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 8, 0, 0, 0, 0))
        + chunk(b'IDAT', zlib.compress(b''))
        + chunk(b'IEND', b'')
    )


def cut(path):
    PLATE.save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def garbled(path):
    PLATE.save(path)
    data = bytearray(path.read_bytes())
    data[60:90] = bytes(30)
    path.write_bytes(data)


def pointer(path):
    path.write_text('version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n')


def deep_colour(path):
    colours = np.random.default_rng(0).integers(0, 4096, (8, 8, 3), dtype=np.uint16)
    tifffile.imwrite(path, colours, photometric='rgb')


BAD_IMAGES = {
    'zero bytes': ('x.png', lambda p: p.touch(), 'convert or remove'),
    'text in place of an image': (
        'x.png',
        lambda p: p.write_text('<html>404</html>'),
        'convert or remove',
    ),
    'truncated png': ('x.png', cut, 'cut short'),
    'truncated jpeg': ('x.jpg', cut, 'cut short'),
    'truncated bmp': ('x.bmp', cut, 'cut short'),
    'corrupt png': ('x.png', garbled, 'damaged'),
    'decompression bomb': ('x.png', bomb, 'is damaged' if has_vips() else '60000 x 60000 px are'),
    'animated png': (
        'x.png',
        lambda p: PLATE.save(p, save_all=True, append_images=[PLATE.rotate(9)]),
        '2 images',
    ),
    'animated webp': (
        'x.webp',
        lambda p: PLATE.save(p, save_all=True, append_images=[PLATE.rotate(9)]),
        '2 images',
    ),
    'tiff of many pages': (
        'x.tif',
        lambda p: PLATE.save(p, save_all=True, append_images=[PLATE]),
        '2 images',
    ),
    'no image under another name': (
        'x.gif',
        lambda p: p.write_bytes(b'%PDF-1.7'),
        'convert or remove',
    ),
    'git lfs pointer': ('x.png', pointer, 'git lfs pull'),
    'named pipe': ('x.png', os.mkfifo, 'no regular file'),
    'one pixel wide and very long': ('x.png', lambda p: bomb(p, 1, 80_000_000), 'no side may have'),
    'twelve bits of colour': ('x.tif', deep_colour, 'save it with 8 bits'),
    'animated avif': (
        'x.avif',
        lambda p: PLATE.save(p, save_all=True, append_images=[PLATE.rotate(9)]),
        '2 images',
    ),
    'floats without a range': (
        'x.tif',
        lambda p: Image.fromarray(np.zeros((8, 8), np.float32)).save(p),
        '8 or 16 bits',
    ),
    '32-bit integers': (
        'x.tif',
        lambda p: Image.fromarray(np.zeros((8, 8), np.int32)).save(p),
        '8 or 16 bits',
    ),
    'a folder named like an image': ('x.png', lambda p: p.mkdir(), 'folder'),
    'no file': ('x.png', lambda p: None, 'does not exist'),
}


@pytest.mark.parametrize('kind', BAD_IMAGES)
def test_bad_image(kind, tmp_path):
    name, make, says = BAD_IMAGES[kind]
    make(tmp_path / name)
    refused(load_image, tmp_path / name, 8, names=tmp_path / name, says=says)


def test_unreadable_permissions(tmp_path):
    path = tmp_path / 'x.png'
    PLATE.save(path)
    path.chmod(0)
    for p in (tmp_path, *tmp_path.parents[:2]):
        p.chmod(0o755)
    root = os.geteuid() == 0
    try:
        if root:
            os.seteuid(65534)  # root may read everything, nobody may not
        refused(open_image, path, names=path, says='permissions')
    finally:
        if root:
            os.seteuid(0)


def picture(tmp_path, name, im, **kwargs):
    im.save(tmp_path / name, **kwargs)
    return load_image(tmp_path / name, 4)


def twelve_bits(path):
    "A white grey-scale TIFF of 8x8 px, as cameras with 12 bits write it."
    tags = (
        (256, 8),
        (257, 8),
        (258, 12),
        (259, 1),
        (262, 1),
        (273, 122),
        (277, 1),
        (278, 8),
        (279, 96),
    )
    path.write_bytes(
        b'II*\0'
        + struct.pack('<IH', 8, len(tags))
        + b''.join(struct.pack('<HHII', tag, 4, 1, v) for tag, v in tags)
        + bytes(4)
        + b'\xff' * 96
    )


def test_unusual_but_sound_images_keep_their_meaning(tmp_path):
    "12 and 16 bits are not clipped, a palette is not read as numbers, transparency lies on white, CMYK and grey become RGB."
    sixteen = picture(tmp_path, '16.png', Image.fromarray(np.full((8, 8), 20000, np.uint16)))
    assert torch.allclose(sixteen, torch.full((3, 4, 4), round(20000 / 257) / 127.5 - 1))
    red = Image.new('P', (8, 8), 1)
    red.putpalette([0, 0, 0, 255, 0, 0])
    assert picture(tmp_path, 'palette.png', red)[:, 0, 0].tolist() == [1.0, -1.0, -1.0]
    assert picture(tmp_path, 'clear.png', Image.new('RGBA', (8, 8), (255, 0, 0, 0))).min() == 1
    cmyk = picture(tmp_path, 'cmyk.jpg', Image.new('CMYK', (8, 8), (0, 255, 255, 0)))[:, 0, 0]
    assert cmyk[0] > 0.9 and cmyk[1] < -0.9 and cmyk[2] < -0.9
    grey = picture(tmp_path, 'grey.jpg', Image.new('L', (8, 8), 50))
    assert torch.equal(grey[0], grey[2])
    assert picture(tmp_path, 'bit.png', Image.new('1', (8, 8), 1)).min() == 1
    twelve_bits(tmp_path / '12.tif')
    assert torch.allclose(load_image(tmp_path / '12.tif', 4), torch.ones(3, 4, 4), atol=1e-5)


def turned_by(tag):
    note = Image.Exif()
    note[0x0112] = tag
    return note


@pytest.mark.parametrize('name', ['x.jpg', 'x.png', 'x.tif', 'x.webp'])
def test_a_turned_picture_is_turned_everywhere_and_its_mask_with_it(tmp_path, name):
    "One reader: learning, testing and scoring see what a viewer shows; a mask fits in either frame."
    PLATE.save(tmp_path / name, exif=turned_by(6))
    mask = np.zeros((30, 40), np.uint8)
    mask[2:6, 3:20] = 255
    cells = []
    for i, frame in enumerate((mask, np.rot90(mask, -1))):
        Image.fromarray(frame).save(tmp_path / f'{i}.png')
        s = Sample(tmp_path / name, tmp_path / f'{i}.png', 1, 'c', 'hole', 'test')
        item = AnomalyDataset([s], 16)[0]
        cells.append(item['mask'])
        found = inspect_sample(s)
        assert not found['problems'] and 'orientation tag 6' in found['notes']['turned']
        assert found['size'] == (30, 40) == image_size(s.image)
    assert torch.equal(*cells) and 0 < cells[0].sum() < 100
    photo = Photos([str(tmp_path / name)], 16)[0]
    assert torch.equal(photo['image'], item['image'])
    assert torch.equal(load_references([tmp_path / name], 16)[0], item['image'])
    assert (photo['width'], photo['height']) == (30, 40)


@pytest.mark.parametrize('name', ['x.jpg', 'x.tif'])
def test_a_mask_whose_frame_cannot_be_told_is_refused(tmp_path, name):
    PLATE.save(tmp_path / name, exif=turned_by(3))
    Image.new('L', (40, 30), 1).save(tmp_path / 'm.png')
    s = Sample(tmp_path / name, tmp_path / 'm.png', 1, 'c', 'hole', 'test')
    refused(AnomalyDataset([s], 8).__getitem__, 0, names=name, says='save both upright')
    Image.new('L', (40, 30), 1).save(tmp_path / 'm.png', exif=turned_by(3))  # turned like the image
    assert AnomalyDataset([s], 8)[0]['mask'].all()
    Image.new('L', (41, 30), 1).save(tmp_path / 'm.png')
    refused(AnomalyDataset([s], 8).__getitem__, 0, names=name, says='at the size of the image')


def test_a_damaged_camera_note_is_a_problem_and_no_crash(tmp_path):
    PLATE.save(tmp_path / 'x.jpg', dpi=(72, 72), exif=b'Exif\0\0no camera wrote this')
    PLATE.save(tmp_path / 'x.png', exif=b'II*\0')  # struct.error, which is no ValueError
    for name in ('x.jpg', 'x.png'):
        assert (
            'EXIF note is damaged'
            in inspect_sample(Sample(tmp_path / name, None, 0, 'c', 'good', 'test'))['problems'][0]
        )
        assert 'EXIF note is damaged' in Photos([str(tmp_path / name)], 16)[0]['reason']


def test_a_camera_note_that_cannot_be_written_anew_still_turns_the_picture(tmp_path):
    entry = lambda tag, kind, value: struct.pack('<HHII', tag, kind, 1, value)
    note = (
        b'Exif\0\0II*\0'
        + struct.pack('<IH', 8, 2)
        + entry(0x0100, 5, 38)
        + entry(0x0112, 3, 6)
        + struct.pack('<III', 0, 1, 3)
    )  # a width of 1/3 px
    PLATE.save(tmp_path / 'x.jpg', exif=note)
    item = Photos([str(tmp_path / 'x.jpg')], 16)[0]
    assert (item['width'], item['height']) == (PLATE.height, PLATE.width)


@pytest.mark.parametrize('orientation', range(1, 9))
def test_photographs_are_turned_as_pillow_turns_them(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = Image.fromarray(np.random.default_rng(0).integers(0, 255, (5, 9, 3), dtype=np.uint8))
    pixels.save(tmp_path / 'x.png', exif=exif)
    with Image.open(tmp_path / 'x.png') as im:
        assert np.array_equal(upright(tmp_path / 'x.png'), ImageOps.exif_transpose(im))


# ---------------------------------------------------------------- masks and trees


@pytest.fixture
def tree(tmp_path):
    return dummy_tree(tmp_path / 'set', categories=('plate',))


def first_hole(tree):
    return next(s for s in read_dataset(tree) if s.defect == 'hole')


def load(tree):
    return [b for b in make_loader(read_dataset(tree), 8, 4)]


HOLE, HOLE_MASK = 'plate/test/hole/000.png', 'plate/ground_truth/hole/000_mask.png'
BAD_TREES = {
    'mask of another size': (
        lambda t: Image.new('L', (41, 30), 1).save(t / HOLE_MASK),
        HOLE_MASK,
        'at the size of the image',
    ),
    'mask that marks nothing': (
        lambda t: Image.new('L', (40, 30)).save(t / HOLE_MASK),
        HOLE_MASK,
        'marks nothing',
    ),
    'photograph as a mask': (
        lambda t: PLATE.convert('L').save(t / HOLE_MASK, 'JPEG'),
        HOLE_MASK,
        'cannot tell what the mask',
    ),
    'mask that is a git lfs pointer': (lambda t: pointer(t / HOLE_MASK), HOLE_MASK, 'git lfs pull'),
    'pipe called like an image': (
        lambda t: os.mkfifo(t / 'plate/test/good/zz.png'),
        'zz.png',
        'no regular file',
    ),
    'two folders of masks': (
        lambda t: (
            [shutil.copytree(t / 'plate/ground_truth', t / 'plate' / n) for n in ('gt', 'Masks')]
            and shutil.rmtree(t / 'plate/ground_truth')
        ),
        'Masks',
        'keep one',
    ),
    'masks beside the classes and beside test': (
        lambda t: shutil.copytree(t / 'plate/ground_truth/hole', t / 'plate/test/masks'),
        'test/masks',
        'cannot be read',
    ),
    'truncated mask': (lambda t: cut(t / HOLE_MASK), HOLE_MASK, 'cut short'),
    'mask on a normal image': (
        lambda t: (
            (t / 'plate/ground_truth/good').mkdir(),
            shutil.copy(t / HOLE_MASK, t / 'plate/ground_truth/good/000_mask.png'),
        ),
        'plate/test/good/000.png',
        'counts as normal',
    ),
    'mask without image': (lambda t: (t / HOLE).unlink(), HOLE_MASK, 'has no image'),
    'duplicate stems': (
        lambda t: PLATE.save(t / 'plate/test/hole/000.jpg'),
        'plate/test/hole/000',
        'share a name',
    ),
    'two masks for one image': (
        lambda t: shutil.copy(t / HOLE_MASK, t / 'plate/ground_truth/hole/000.png'),
        'ground_truth/hole/000.png',
        'are both masks of',
    ),
    'link that loops': (
        lambda t: (t / 'plate/test/hole/loop').symlink_to('loop'),
        'loop',
        'remove the link',
    ),
    'link to a folder above': (
        lambda t: (t / 'plate/test/hole/up').symlink_to(t),
        'up',
        'folder where an image',
    ),
    'link out of the data set': (
        lambda t: (t / 'plate/test/hole/out.png').symlink_to('/etc/hostname'),
        'out.png',
        'leads out of',
    ),
    'normal images under another name': (
        lambda t: (t / 'plate/test/good').rename(t / 'plate/test/ok'),
        'plate/test/ok',
        'normal images go into',
    ),
    'image beside the folders': (
        lambda t: PLATE.save(t / 'plate/test/x.png'),
        'x.png',
        'lies loose',
    ),
    'empty category': (lambda t: (t / 'new').mkdir(), 'new', 'no category'),
    'name that is no text': (
        lambda t: Path(os.fsdecode(bytes(t / 'plate/test/hole') + b'/\xff.png')).touch(),
        "b'\\xff.png'",
        'rename it',
    ),
}


@pytest.mark.parametrize('kind', BAD_TREES)
def test_bad_tree(kind, tree):
    change, names, says = BAD_TREES[kind]
    try:
        change(tree)
    except OSError as err:
        pytest.skip(f'this file system cannot hold it: {err}')
    refused(load, tree, names=names, says=says)


def test_missing_mask_counts_for_the_image_alone(tree):
    (tree / HOLE_MASK).unlink()
    assert [b['has_mask'].tolist() for b in load(tree)] == [[True] * 4, [False, True, True, True]]
    assert any('has no mask' in note for note in check_dataset(tree, progress=False)['notes'])


def test_masks_with_many_values_mark_all_of_them(tree):
    mask = np.zeros((30, 40), np.uint8)
    mask[:, :5], mask[:, 24:39] = 1, 255
    Image.fromarray(mask).save(tree / HOLE_MASK)
    assert np.array_equal(read_mask(tree / HOLE_MASK), mask > 0)


def test_check_finds_what_reading_cannot(tree):
    "A truncated JPEG passes Pillow's verify, a copied image passes everything."
    PLATE.save(tree / 'plate/train/good/photo.jpg')
    cut(tree / 'plate/train/good/photo.jpg')
    shutil.copy(tree / 'plate/train/good/000.png', tree / 'plate/test/good/copy.png')
    problems = check_dataset(tree, progress=False)['problems']
    assert (
        len(problems) == 2
        and any('photo.jpg' in p and 'cut short' in p for p in problems)
        and any('same image' in p for p in problems)
    )


# ---------------------------------------------------------------- lists


@pytest.fixture
def table(tmp_path):
    return dummy_tree(tmp_path / 'set', 'table')


def replaced(old, new):
    return lambda t: (t / 'samples.csv').write_text(
        (t / 'samples.csv').read_text().replace(old, new, 1)
    )


BAD_TABLES = {
    'missing column': (replaced('label', 'lable'), 'samples.csv', "no column 'label'"),
    'path with ..': (replaced('images/000.png', '../set/images/000.png'), 'row 2', 'leads out of'),
    'path out of the root': (
        replaced('images/000.png', '../../secret.png'),
        'row 2',
        'leads out of',
    ),
    'absolute path': (
        lambda t: replaced('images/000.png', str(t / 'images/000.png'))(t),
        'row 2',
        'leads out of',
    ),
    'mask out of the root': (replaced('masks/002.png', '../x.png'), 'row 4', 'leads out of'),
    'image that is not there': (
        replaced('images/001.png', 'images/901.png'),
        'row 3',
        'restore the file',
    ),
    'row twice': (replaced('images/001.png', 'images/000.png'), 'row 3', 'like row 2'),
    'unknown label': (replaced('bad', 'maybe'), 'row 4', "label 'maybe'"),
    'too many fields': (replaced('good,disc', 'good,disc,round'), 'row 2', 'number of fields'),
    'too few fields': (replaced('good,disc', 'good'), 'row 2', 'number of fields'),
    'open quote': (replaced('images/000.png', '"images/000.png'), 'samples.csv', 'save it again'),
    'no rows': (
        lambda t: (t / 'samples.csv').write_text('image,label\n'),
        'samples.csv',
        'lists no image',
    ),
    'empty file': (lambda t: (t / 'samples.csv').write_text(''), 'samples.csv', 'no column'),
    'not in UTF-8': (
        lambda t: (t / 'samples.csv').write_bytes('image,label\nGrün.png,0\n'.encode('latin-1')),
        'samples.csv',
        'in UTF-8',
    ),
    'two tables': (
        lambda t: (t / 'samples.parquet').touch(),
        'samples.parquet',
        'lie in one folder',
    ),
    'good by a link': (
        lambda t: (
            (t / 'images/000.png').unlink(),
            (t / 'images/000.png').symlink_to('002.png'),
        ),
        'images/002.png',
        'one file by a link',
    ),
    'not a parquet file': (
        lambda t: (t / 'samples.csv').rename(t / 'samples.parquet'),
        'samples.parquet',
        'save it again',
    ),
}


@pytest.mark.parametrize('kind', BAD_TABLES)
def test_bad_table(kind, table):
    change, names, says = BAD_TABLES[kind]
    change(table)
    refused(read_dataset, table, names=names, says=says)


@pytest.mark.parametrize(
    'text, says',
    [
        ('', 'cannot read'),
        ('[]', 'no meta.json'),
        ('{"test": {"a": [{}]}}', 'no meta.json'),
        (
            '{"test": {"a": [{"img_path": "../../x.png", "mask_path": "", "cls_name": "a", "specie_name": "", "anomaly": 0}]}}',
            'leads out of',
        ),
        (
            '{"test": {"a": [{"img_path": "x.png", "mask_path": "", "cls_name": "a", "specie_name": "good", "anomaly": 1}]}}',
            "label '1' and the defect 'good'",
        ),
    ],
)
def test_bad_meta(tmp_path, text, says):
    (tmp_path / 'meta.json').write_text(text)
    refused(read_dataset, tmp_path, names='meta.json', says=says)


def test_visa_without_its_split(tmp_path):
    root = dummy_tree(tmp_path / 'visa', 'visa')
    shutil.rmtree(root / 'split_csv')
    refused(read_dataset, root, names=root, says='unpack the whole archive')


# ---------------------------------------------------------------- layouts, sound


@pytest.mark.parametrize('layout', [*TREES, 'folder', 'visa', 'table', 'meta'])
def test_layout_is_found_and_loads(layout, tmp_path):
    samples = read_dataset(dummy_tree(tmp_path / layout, layout))
    assert {s.category for s in samples} == {'disc', 'plate'} and {s.label for s in samples} == {
        0,
        1,
    }
    assert all(AnomalyDataset([s], 8)[0]['mask'].any() == (s.mask is not None) for s in samples)
    assert all(
        s.image.stem in (s.mask.stem, s.mask.stem.removesuffix('_mask')) for s in samples if s.mask
    )


def test_parquet_reads_like_csv(table):
    pq = pytest.importorskip('pyarrow.parquet')
    import pyarrow as pa

    rows = [
        r | dict(label=int(r['label'] == 'bad'), mask=r['mask'] or None)
        for r in table_rows(table / 'samples.csv')
    ]
    pq.write_table(pa.Table.from_pylist(rows), table / 'samples.parquet')
    assert read_dataset(table / 'samples.parquet') == read_dataset(table / 'samples.csv')
    twice = pa.Table.from_arrays([pa.array(['images/000.png'])] * 2, ['image', 'Image'])
    pq.write_table(twice, table / 'samples.parquet')
    refused(read_table, table / 'samples.parquet', says="two columns 'image'")


def test_names_of_columns_in_capitals(table):
    read = read_dataset(table)
    text = (table / 'samples.csv').read_text().replace('image,mask,', 'Image, Mask ,', 1)
    (table / 'samples.csv').write_text(text)
    assert read_dataset(table) == read and 'column' not in reading_summary(read, table)
    (table / 'samples.csv').write_text(text.replace('\n', ',4\n').replace(',4', ',Camera', 1))
    assert read_dataset(table) == read
    assert 'left alone: 1 column (camera)' in reading_summary(read, table)


@pytest.mark.parametrize('linked', ['bad/9.png', 'more/0.png'])
def test_one_file_with_two_labels(tmp_path, linked):
    some(tmp_path / 'good/0.png')
    some(tmp_path / 'bad/1.png')
    if linked == 'bad/9.png':
        (tmp_path / linked).symlink_to('../good/0.png')
    else:
        (tmp_path / 'more').symlink_to('good')
    refused(read_dataset, tmp_path, names=linked, says='one file by a link')


def test_meta_json_round_trip(tmp_path):
    samples = read_dataset(dummy_tree(tmp_path / 'btad', 'btad'))
    write_meta(samples, tmp_path / 'btad')
    assert set(read_meta(tmp_path / 'btad')) == set(samples)


def test_official_visa_list(tmp_path):
    official = SHARED / 'data' / 'visa_csv' / '1cls.csv'
    if not official.is_file():
        pytest.skip('no visa_csv in the shared folder; set HYBRIDAD_SHARED to its place')
    rows = [r for r in table_rows(official) if r['split'] == 'test']
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        samples = read_dataset(dummy_visa(tmp_path / 'visa', rows))
    assert published_set(samples) == ('visa', '') and [
        sum(s.label == l for s in samples) for l in (0, 1)
    ] == [962, 1200]


@pytest.mark.parametrize(
    'categories, name',
    [
        (('01', '02', '03'), 'btad'),
        (
            (
                'bracket_black',
                'bracket_brown',
                'bracket_white',
                'connector',
                'metal_plate',
                'tubes',
            ),
            'mpdd',
        ),
    ],
)
def test_incomplete_published_set_is_warned_about(tmp_path, categories, name):
    root = dummy_tree(tmp_path / name, 'btad' if name == 'btad' else 'mvtec', categories, n=1)
    with pytest.warns(UserWarning, match=f'{name} was published with'):
        read_dataset(root)


def test_order_and_content_do_not_depend_on_workers(tree):
    samples = read_dataset(tree)
    alone, *others = ([*make_loader(samples, 16, 3, seed=1, num_workers=n)] for n in (0, 1, 2, 4))
    for other in others:
        assert len(other) == len(alone) and all(
            torch.equal(a['images'], b['images']) and torch.equal(a['indices'], b['indices'])
            for a, b in zip(alone, other)
        )


# ---------------------------------------------------------------- masks of all kinds

DRAWN = np.zeros((64, 64), bool)
DRAWN[20:32, 20:34] = True
LARGE = np.zeros((64, 64), bool)
LARGE[4:60, 8:52] = True  # 60 percent of the image


def grey(on=255, off=0, kind=np.uint8):
    return lambda m: Image.fromarray(np.where(m, on, off).astype(kind))


def colour(on, off):
    return lambda m: Image.fromarray(np.where(m[..., None], on, off).astype(np.uint8))


def as_jpeg(make, quality=75):
    "Through a JPEG and back to a PNG, as a converter does it."

    def changed(m):
        make(m).save(file := io.BytesIO(), 'JPEG', quality=quality)
        return Image.fromarray(np.asarray(Image.open(file)))

    return changed


def indexed(*colours):
    def image(m):
        im = Image.fromarray(m.astype(np.uint8)).convert('P')
        im.putpalette([v for c in colours for v in c])
        im.putdata(m.astype(int).ravel().tolist())
        return im

    return image


BLACK, WHITE, RED, BLUE = (0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 0, 255)
SOUND_MASKS = {
    '0 and 255': grey(),
    '0 and 1': grey(1),
    '0 and 236 of LOCO': grey(236),
    '0 and 3 of VisA': grey(3),
    '0 and 128': grey(128),
    'limited range': grey(235, 16),
    'one bit': lambda m: Image.fromarray(m),
    '16 bits, 0 and 1': grey(1, 0, np.uint16),
    '16 bits, 0 and 65535': grey(65535, 0, np.uint16),
    'float': grey(1, 0, np.float32),
    'jpeg before': as_jpeg(grey()),
    'poor jpeg before': as_jpeg(grey(), 30),
    'red jpeg before': as_jpeg(colour(RED, BLACK), 90),
    'red on black': colour(RED, BLACK),
    'red on white': colour(RED, WHITE),
    'blue on grey': colour(BLUE, (128, 128, 128)),
    'palette, ground first': indexed(BLACK, WHITE),
    'palette, white ground first': indexed(WHITE, BLACK),
    'palette, equal colours': indexed(BLACK, BLACK),
    'palette, red on white': indexed(WHITE, RED),
    'quantized': lambda m: colour(WHITE, BLACK)(m).quantize(2),
    'white with alpha': colour((*WHITE, 255), (*WHITE, 0)),
    'black with alpha': colour((*BLACK, 255), (*BLACK, 0)),
    'opaque with alpha': colour((*WHITE, 255), (*BLACK, 255)),
    'veil': colour((255, 0, 0, 120), (0, 0, 0, 0)),
    'grey with alpha': lambda m: colour((*WHITE, 255), (*WHITE, 0))(m).convert('LA'),
}
INVERTED = {
    'black on white': grey(0, 255),
    'black on white in colours': colour(BLACK, WHITE),
    'black on white, palette': lambda m: colour(BLACK, WHITE)(m).quantize(2),
    'black on white, jpeg before': as_jpeg(grey(0, 255)),
    '0 on 1': grey(0, 1),
}


@pytest.mark.parametrize('suffix', ['.png', '.tif', '.bmp', '.gif'])
@pytest.mark.parametrize('kind', [*SOUND_MASKS, *INVERTED])
def test_a_mask_means_the_same_however_it_is_stored(tmp_path, kind, suffix):
    im = (SOUND_MASKS | INVERTED)[kind](DRAWN)
    fits = {
        '.png': ('1', 'L', 'I;16', 'P', 'RGB', 'RGBA', 'LA'),
        '.bmp': ('1', 'L', 'RGB'),
    }  # Pillow reads two palette entries of a BMP as one bit
    if im.mode not in fits.get(
        suffix, ('1', 'L', 'I;16', 'F') if suffix == '.tif' else ('1', 'L', 'P')
    ):
        pytest.skip(f'{suffix} does not hold mode {im.mode}')
    im.save(tmp_path / f'm{suffix}')
    marked = read_mask(tmp_path / f'm{suffix}')
    assert (marked != DRAWN).sum() <= (8 if 'jpeg' in kind else 0)


@pytest.mark.parametrize(
    'form', [('JPEG', 75), ('JPEG', 95), ('WEBP', 80), ('AVIF', 60), ('JPEG2000', None)]
)
def test_masks_in_formats_that_change_values_are_read_at_half(tmp_path, form):
    path = (
        tmp_path
        / {'JPEG': 'm.jpg', 'WEBP': 'm.webp', 'AVIF': 'm.avif', 'JPEG2000': 'm.jp2'}[form[0]]
    )
    grey()(DRAWN).convert('RGB').save(path, **(dict(quality=form[1]) if form[1] else {}))
    assert abs(read_mask(path).mean() - DRAWN.mean()) < 0.002


@pytest.mark.parametrize(
    'kind',
    [k for k in SOUND_MASKS if k != 'palette, white ground first' and k != 'palette, red on white'],
)
def test_a_defect_may_cover_most_of_the_picture(tmp_path, kind):
    assert 0.59 < LARGE.mean() < 0.61
    SOUND_MASKS[kind](LARGE).save(tmp_path / ('m.tif' if kind == 'float' else 'm.png'))
    marked = read_mask(next(tmp_path.iterdir()))
    assert abs(marked.mean() - LARGE.mean()) < 0.01, kind


UNCLEAR = {
    'photograph': lambda: PLATE,
    'marks on a photograph': lambda: Image.fromarray(
        np.where(DRAWN[:30, :40, None], RED, np.asarray(PLATE)).astype(np.uint8)
    ),
    'heat map': lambda: Image.fromarray(
        (255 * np.exp(-(np.hypot(*np.mgrid[-32:32, -32:32]) ** 2) / 200)).astype(np.uint8)
    ),
    'two greys': lambda: grey(200, 100)(DRAWN),
    'types 1 and 2': lambda: grey(2, 1)(DRAWN),
    'two colours side by side': lambda: colour(RED, BLUE)(np.mgrid[:64, :64][1] > 30),
    'black on white at the edge': lambda: grey(0, 255)(np.hypot(*np.mgrid[:64, :64]) < 20),
    'floats that are not finite': lambda: Image.fromarray(np.full((8, 8), np.inf, np.float32)),
}


@pytest.mark.parametrize('kind', UNCLEAR)
def test_a_mask_that_cannot_be_told_is_refused(tmp_path, kind):
    path = tmp_path / ('m.tif' if 'float' in kind else 'm.png')
    UNCLEAR[kind]().save(path)
    refused(read_mask, path, names=path, says='save it with 0')


def mask_set(root, make, shapes):
    "A small set in MVTec layout whose masks are made by a function of what they mark."
    rng = np.random.default_rng(0)
    for i, marked in enumerate(shapes):
        for part in ('test/good', 'test/hole', 'ground_truth/hole'):
            (root / 'part' / part).mkdir(parents=True, exist_ok=True)
            im = Image.fromarray(rng.integers(90, 160, (64, 64, 3), dtype=np.uint8))
            name = f'{i}.png' if part != 'ground_truth/hole' else f'{i}_mask.png'
            (im if 'test' in part else make(marked)).save(root / 'part' / part / name)
    return root


def spots(count=6):
    "Marks at random places, the first at the edge."
    rng, shapes = np.random.default_rng(1), []
    for i in range(count):
        m = np.zeros((64, 64), bool)
        y, x = (0, 5) if i == 0 else rng.integers(5, 40, 2)
        m[y : y + 12, x : x + 14] = True
        shapes.append(m)
    return shapes


@pytest.mark.parametrize('kind', INVERTED)
def test_a_set_tells_that_black_marks(tmp_path, kind):
    "Also for the mask that touches the edge, which alone cannot be told."
    told = 'palette' not in kind  # its entry 0 tells each file by itself
    with warnings.catch_warnings(record=True) as said:
        samples = read_dataset(mask_set(tmp_path, INVERTED[kind], spots()))
    assert [str(w.message) for w in said] == [
        'the masks of part are black on white: black is read as the defect'
    ] * told
    data = AnomalyDataset(samples, 64)
    masks = [data[i]['mask'][0].numpy() > 0 for i, s in enumerate(samples) if s.label]
    assert all((m != w).sum() <= (8 if 'jpeg' in kind else 0) for m, w in zip(masks, spots()))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        notes = check_dataset(tmp_path, progress=False)['notes']
    assert any('black is read' in n for n in notes) == told


def test_a_set_that_mostly_marks_more_than_half_is_refused(tmp_path):
    half = np.zeros((64, 64), bool)
    half[:, :40] = True
    root = mask_set(tmp_path, grey(), [half] * 4 + spots(1))
    for read in (read_dataset, check_dataset):
        refused(read, root, names='part', says='4 of 5 masks')
    refused(read_dataset, root, names='part', says='--masks bright')
    with reading_as(masks='bright'):
        assert load(root)[-1]['targets']['masks'].any()
    mixed = mask_set(tmp_path / 'mixed', grey(), [~spots(1)[0], *spots(5)])  # one of six inverted
    refused(load, mixed, names='0_mask.png', says='unlike in the rest of the set')


@pytest.mark.parametrize('odd', [1, 2])
def test_a_white_mask_among_black_ones_is_refused(tmp_path, odd):
    "Read as the rest of its set, it would mark all that is sound."
    shapes = [~m for m in spots(5)]
    root = mask_set(tmp_path, grey(), [*shapes[odd:], *spots(odd)])
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        samples = read_dataset(root)
    bad = [s for s in samples if s.label]
    data = AnomalyDataset(bad, 64)
    assert all(data[i]['mask'].mean() < 0.1 for i in range(5 - odd))
    refused(data.__getitem__, 5 - odd, names=bad[5 - odd].mask.name, says='black on white as the')


# ---------------------------------------------------------------- what is read, and what is said


def some(path, form=None, size=(40, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(len(path.name)).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, form)


def hole(path, marks=DRAWN[:30, :40]):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(marks.astype(np.uint8) * 255).save(path)


@pytest.mark.parametrize(
    'name',
    'x.png x.jpg x.JPEG x.jfif x.bmp x.tif x.webp x.gif x.avif x.ppm x.pgm x.jp2 x.tga x.pcx x.dib'.split(),
)
def test_every_common_format_is_read_and_paired(tmp_path, name):
    some(tmp_path / 'nut/good/0.png')
    picture = Image.fromarray(np.full((30, 40, 3), 120, np.uint8))
    path = tmp_path / 'nut/crack' / name
    path.parent.mkdir()
    (picture.convert('L') if name == 'x.pgm' else picture).save(path)
    hole(tmp_path / 'nut/masks/crack/x.png')
    samples = read_dataset(tmp_path)
    assert [(s.label, s.mask is not None) for s in samples] == [(0, False), (1, True)]
    assert AnomalyDataset(samples, 8)[1]['image'].sub(120 / 127.5 - 1).abs().max() < 0.05


def test_an_animated_gif_is_read_by_its_first_picture_and_noted(tmp_path):
    some(tmp_path / 'nut/good/0.png')
    dark, bright = Image.new('L', (40, 30), 10), Image.new('L', (40, 30), 240)
    (tmp_path / 'nut/crack').mkdir()
    dark.save(tmp_path / 'nut/crack/0.gif', save_all=True, append_images=[bright])
    assert load_image(tmp_path / 'nut/crack/0.gif', 4).max() < -0.9
    assert any('only the first' in n for n in check_dataset(tmp_path, progress=False)['notes'])


@pytest.mark.parametrize('good', ['good', 'OK', 'Normal', 'defect-free'])
@pytest.mark.parametrize(
    'truth', ['mask', 'Masks', 'gt', 'GT', 'Ground_Truth', 'ground truth', 'labels']
)
@pytest.mark.parametrize('deep', [True, False])
def test_folders_beside_the_good_ones_are_types_of_defects(tmp_path, good, truth, deep):
    for i in range(2):
        some(tmp_path / 'nut' / good / f'{i}.png')
        some(tmp_path / 'nut/crack' / f'c{i}.png')
        some(tmp_path / 'nut/NG' / f'n{i}.png')
        hole(tmp_path / 'nut' / truth / ('crack' if deep else '') / f'c{i}_mask.png')
    for root in (tmp_path, tmp_path / 'nut'):
        samples = read_dataset(root)
        kinds = {(s.defect, s.label, s.mask is not None) for s in samples}
        assert kinds == {('good', 0, False), ('crack', 1, True), ('NG', 1, False)}
        assert len(samples) == 6
        assert '2 of 4 defective images have a mask' in reading_summary(samples, root)


@pytest.mark.parametrize('name', ['crack_mask', 'seg', 'masks_png', 'SegmentationClass'])
@pytest.mark.parametrize('place', ['', 'test/'])
def test_masks_are_not_read_as_photographs(tmp_path, name, place):
    "Whatever their folder is called, beside photographs that are not black and white."
    for i in range(2):
        for kind in ('good', 'crack'):
            some(tmp_path / place / kind / f'{i}.png')
        hole(tmp_path / place / name / f'{i}.png')
    refused(read_dataset, tmp_path, names=name, says='holds masks')
    for i in range(2):  # as the images of a scanner, all of which are so
        for kind in ('good', 'crack'):
            hole(tmp_path / place / kind / f'{i}.png')
    assert len(read_dataset(tmp_path)) == 6


def test_train_and_test_may_have_capitals(tmp_path):
    for part in ('Train/good', 'Test/good', 'Test/crack'):
        some(tmp_path / 'nut' / part / '0.png')
    hole(tmp_path / 'nut/ground_truth/crack/0_mask.png')
    for root in (tmp_path, tmp_path / 'nut'):
        found = [(s.split, s.defect, s.mask is not None) for s in read_dataset(root)]
        assert found == [
            ('train', 'good', False),
            ('test', 'crack', True),
            ('test', 'good', False),
        ]


@pytest.mark.parametrize(
    'truth', ['masks', 'gt', 'Ground_Truth', 'test/masks', 'test/Ground Truth', 'labels']
)
@pytest.mark.parametrize('flat', [True, False])
def test_masks_are_found_beside_the_parts_and_beside_the_classes(tree, truth, flat):
    plate = tree / 'plate'
    shutil.rmtree(plate / 'test/scratch')
    shutil.rmtree(plate / 'ground_truth/scratch')
    kept = (plate / 'ground_truth').rename(tree / 'kept')
    (plate / truth).parent.mkdir(exist_ok=True)
    shutil.copytree(kept / 'hole' if flat else kept, plate / truth)
    shutil.rmtree(kept)
    assert [s.mask is not None for s in read_dataset(tree) if s.label] == [True, True]


def drawn_in(path, colour, ground=0):
    "A mask in colours or numbers of types, which is not black and white."
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = np.full((30, 40, *np.shape(colour)), ground, np.uint8)
    picture[5:15, 5:20] = colour
    Image.fromarray(picture).save(path)


@pytest.mark.parametrize('colour', [255, 3, (128, 0, 0)])
def test_one_mask_among_photographs_is_refused(tmp_path, colour):
    "Drawn in any colour or in numbers of types; a dark photograph of few levels is none."
    for i in range(5):
        some(tmp_path / f'nut/good/{i}.png')
        some(tmp_path / f'nut/crack/{i}.png')
    noise = np.random.default_rng(0).integers(0, 4, (30, 40), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / 'nut/crack/dark.png')
    assert len(read_dataset(tmp_path)) == 11
    drawn_in(tmp_path / 'nut/crack/1x.png', colour)
    refused(read_dataset, tmp_path, names='crack/1x.png', says='looks like a mask')
    drawn_in(tmp_path / 'nut/shapes/0.png', colour)
    (tmp_path / 'nut/crack/1x.png').unlink()
    refused(read_dataset, tmp_path, names='nut/shapes', says='holds masks')


@pytest.mark.parametrize('colour', [255, 3, (128, 0, 0)])
def test_of_two_files_of_one_name_the_drawn_one_is_the_mask(tmp_path, colour):
    "As in the Magnetic Tile set, whose sound images have black masks."
    for kind in ('good', 'crack'):
        some(tmp_path / 'nut' / kind / 'a.jpg')
        drawn_in(tmp_path / 'nut' / kind / 'a.png', colour if kind == 'crack' else 0)
    some(tmp_path / 'nut/crack/b.png')
    some(tmp_path / 'nut/crack/c.png')
    samples = read_dataset(tmp_path)
    read = {s.image.name + f' {s.label}': s.mask and s.mask.name for s in samples}
    assert read == {'a.jpg 0': 'a.png', 'a.jpg 1': 'a.png', 'b.png 1': None, 'c.png 1': None}


def test_folders_of_other_programs_are_left_alone_and_said(tmp_path):
    aside = 'overlays thumbnails __MACOSX @eaDir good/@eaDir'
    for place in ('good', 'bad', *aside.split()):
        some(tmp_path / place / '0.png')
    some(tmp_path / '__MACOSX/bad/._0.png')
    samples = read_dataset(tmp_path)
    assert [s.image.parent.name for s in samples] == ['good', 'bad']
    said = reading_summary(samples, tmp_path)
    assert 'left alone: 5 image files are in no place that is read, such as' in said


@pytest.mark.parametrize('mark', ['_mask', '_gt', '_label', '_seg', '_Mask', '-GT', '.mask_1'])
def test_masks_beside_their_images_are_masks(tmp_path, mark):
    some(tmp_path / 'nut/good/0.png')
    some(tmp_path / 'nut/crack/0.jpg')
    hole(tmp_path / f'nut/crack/0{mark}.png')
    some(tmp_path / f'nut/crack/gas{mark}.png')  # an image of its own
    assert [(s.image.name, s.mask and s.mask.name) for s in read_dataset(tmp_path)] == [
        ('0.png', None),
        ('0.jpg', f'0{mark}.png'),
        (f'gas{mark}.png', None),
    ]


def test_what_is_left_alone_is_said(tree):
    (tree / 'plate/ground_truth/hole/000.npy').touch()
    (tree / 'plate/test/hole/a.heic').touch()
    (tree / 'plate/test/hole/a\x1b[31m.raw').touch()
    some(tree / 'plate/extra/deep/1.png')
    said = reading_summary(read_dataset(tree), tree)
    assert (
        'left alone: 1 image file is in no place that is read, such as plate/extra/deep/1.png'
        in said
    )
    assert '1 .heic' in said and '1 .npy' in said and '1 .raw' in said
    assert '\n' not in said and said.isprintable()
    assert said == check_dataset(tree, progress=False)['summary']


def test_learning_without_a_defect_is_refused(tmp_path):
    some(tmp_path / 'nut/good/0.png')
    refused(learnable, read_dataset(tmp_path), names='good/0.png', says='none of the 1 images')
    refused(learnable, [], says='no image to learn from')


def test_learning_without_a_normal_image_is_refused(tmp_path):
    "A folder of normal images whose name is unknown is a type of defect, and a problem."
    for kind in ('nut/good', 'nut/bad', 'lid/bad', 'lid/spotless'):
        some(tmp_path / kind / '0.png')
    samples = read_dataset(tmp_path)
    refused(learnable, samples, names='no image of lid', says='(bad, spotless)')
    assert len(learnable([s for s in samples if s.category == 'nut'])) == 2
    problems = check_dataset(tmp_path, progress=False)['problems']
    assert [p for p in problems if 'lid is normal' in p and 'undamaged' in p] == problems[:1]
    (tmp_path / 'lid/spotless').rename(tmp_path / 'lid/Undamaged')
    assert len(learnable(read_dataset(tmp_path))) == 4


def test_names_are_compared_in_one_unicode_form(tmp_path):
    nfc, nfd = (lambda t, f=f: unicodedata.normalize(f, t) for f in ('NFC', 'NFD'))
    for root, (here, there) in ((tmp_path / 'a', (nfc, nfd)), (tmp_path / 'b', (nfd, nfc))):
        part = root / here('Röhre')
        some(part / 'test/good/0.png')
        some(part / 'test' / here('größer') / here('ä.png'))
        hole(part / 'ground_truth' / there('größer') / there('ä_mask.png'))
        samples = read_dataset(root, categories=[there('Röhre')])
        assert [s.mask is not None for s in samples] == [False, True]
        assert {s.category for s in samples} == {nfc('Röhre')}
        rows = f'image,label\n{there("Röhre")}/test/good/0.png,0\n'
        (root / 'list.csv').write_text(rows, encoding='utf-8')
        assert len(read_table(root / 'list.csv')) == 1
        twice = rows + f'{here("Röhre")}/test/good/0.png,0\n'
        (root / 'list.csv').write_text(twice, encoding='utf-8')
        refused(read_table, root / 'list.csv', says='like row 2')


@pytest.mark.parametrize('name', ['samples.csv', 'meta.json'])
def test_lists_that_are_no_files_are_refused_at_once(tmp_path, name):
    some(tmp_path / 'x.png')
    os.mkfifo(tmp_path / name)
    refused(read_dataset, tmp_path / name, names=name, says='no regular file')
    (tmp_path / name).unlink()
    pointer(tmp_path / name)
    refused(read_dataset, tmp_path / name, names=name, says='git lfs pull')


@pytest.mark.parametrize('name', ['notes.json', 'run/run.json', 'annotations/all.json'])
def test_no_json_in_a_data_set_is_waited_for(tmp_path, name):
    "A pipe and a pointer are named; what is large is searched and not read into memory."
    for part in ('train/good', 'test/good', 'test/hole'):
        some(tmp_path / 'nut' / part / '0.png')
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    os.mkfifo(file)
    refused(read_dataset, tmp_path, names=name, says='no regular file')
    file.unlink()
    pointer(file)
    refused(read_dataset, tmp_path, names=name, says='git lfs pull')
    with open(file, 'wb') as f:
        f.truncate(1 << 27)
    tracemalloc.start()
    assert len(read_dataset(tmp_path)) == 3
    assert tracemalloc.get_traced_memory()[1] < 1 << 24
    tracemalloc.stop()


def test_a_row_that_names_a_pipe_is_refused(table):
    (table / 'masks/002.png').unlink()
    os.mkfifo(table / 'masks/002.png')
    refused(read_dataset, table, names='masks/002.png', says='no regular file')


def test_what_a_run_wrote_is_read_from_regular_files_only(tmp_path):
    os.mkfifo(tmp_path / 'a.json')
    pointer(tmp_path / 'b.npz')
    for read, name, says in ((read_json, 'a.json', 'no regular'), (read_arrays, 'b.npz', 'lfs')):
        with pytest.raises(CheckpointError, match=says):
            read(tmp_path / name)


# ---------------------------------------------------------------- bits and size


@pytest.mark.parametrize('bits', [8, 10, 12, 14, 16])
def test_the_range_is_that_of_the_values(tmp_path, bits):
    "The same image in 8 bits and in more, stored in a file for 16, is the same to the last bit."
    eight = np.random.default_rng(0).integers(0, 256, (50, 70), dtype=np.uint8)
    eight[0, :2] = 0, 255
    more = np.round(eight * ((2**bits - 1) / 255)).astype(np.uint16)
    for folder, pixels in (('eight', eight), ('more', more)):
        for kind in ('good', 'hole'):
            (tmp_path / folder / kind).mkdir(parents=True)
            Image.fromarray(pixels).save(tmp_path / folder / kind / 'x.png')
    a, b = (
        [AnomalyDataset(read_dataset(tmp_path / f), 32)[i]['image'] for i in (0, 1)]
        for f in ('eight', 'more')
    )
    assert all(torch.equal(x, y) for x, y in zip(a, b))
    photos = Photos([str(tmp_path / f / 'good/x.png') for f in ('eight', 'more')], 32)
    assert torch.equal(photos[0]['image'], photos[1]['image'])
    said = ' '.join(check_dataset(tmp_path / 'more', progress=False)['notes'])
    assert (f'{bits} bits' in said) == (bits < 16)


def test_a_photograph_of_a_test_is_scored_as_bright(tmp_path):
    "Also where its own folder holds darker ones only, and in an archive."
    for kind, top in (('train/good', 300), ('test/good', 700), ('test/hole', 3900)):
        (tmp_path / 'part' / kind).mkdir(parents=True)
        Image.fromarray(np.full((8, 8), top, np.uint16)).save(tmp_path / 'part' / kind / '0.png')
    with tarfile.open(tmp_path / 'part.tar', 'w') as packed:
        packed.add(tmp_path / 'part', 'part')
    samples = read_dataset(tmp_path / 'part')
    tested = [AnomalyDataset(samples, 4)[i]['image'] for i in range(3)]
    files = [str(s.image) for s in samples]
    inside = [f'tar://{s.image.relative_to(tmp_path)}::{tmp_path}/part.tar' for s in samples]
    for names in (files, inside):
        photos = Photos(names, 4)
        assert [torch.equal(photos[i]['image'], tested[i]) for i in range(3)] == [True] * 3
    assert grey_line([files[0], inside[0]]).count('12 bits in ') == 2


def test_a_table_over_folders_of_two_depths_asks_for_the_bits(tmp_path):
    "`score` reads each folder by itself, so `test` must not read both at one depth."
    for folder, top in (('dark', 900), ('bright', 3900)):
        (tmp_path / folder).mkdir()
        Image.fromarray(np.full((8, 8), top, np.uint16)).save(tmp_path / folder / '0.png')
    rows = 'image,label,category\ndark/0.png,0,part\nbright/0.png,1,part\n'
    (tmp_path / 'list.csv').write_text(rows)
    refused(read_dataset, tmp_path / 'list.csv', names='part', says='--bits 12')
    with reading_as(bits=12):
        assert {s.bits for s in read_dataset(tmp_path / 'list.csv')} == {12}


def test_brightness_does_not_depend_on_the_neighbours_in_a_batch(tmp_path):
    "A dark image stays dark beside a bright one of its set, in all commands."
    for kind, top in (('good', 900), ('hole', 3900)):
        (tmp_path / 'part' / kind).mkdir(parents=True)
        for i in range(2):
            pixels = np.full((8, 8), top // (1 + i), np.uint16)
            Image.fromarray(pixels).save(tmp_path / 'part' / kind / f'{i}.png')
    samples = read_dataset(tmp_path)
    assert {s.bits for s in samples} == {12}
    levels = [
        AnomalyDataset(samples, 4)[i]['image'].mean().item() * 127.5 + 127.5 for i in range(4)
    ]
    assert levels == pytest.approx([v / 4095 * 255 for v in (900, 450, 3900, 1950)], abs=0.6)
    with reading_as(bits=14):
        assert load_image(samples[2].image, 4).mean() < -0.5
    with reading_as(bits=10):
        refused(load_image, samples[2].image, 4, names='hole/0.png', says='--bits')


@pytest.mark.parametrize('name', ['x.jpg', 'x.tif', 'one_strip.tif', 'tiles.tif'])
def test_a_large_picture_is_read_at_a_fraction_with_its_mask(tmp_path, name):
    y, x = np.mgrid[:300, :400]
    scene = np.stack([x / 2, y / 2, x * 0 + 90], -1).astype(np.uint8)
    scene[100:160, 200:280] = 10
    path = tmp_path / name
    if name in ('x.jpg', 'x.tif'):
        Image.fromarray(scene).save(path, quality=95)
    else:
        how = dict(tile=(64, 64), compression='zlib') if name == 'tiles.tif' else {}
        tifffile.imwrite(path, scene, photometric='rgb', **how)
    hole(tmp_path / 'm.png', scene[..., 2] == 10)
    s = Sample(path, tmp_path / 'm.png', 1, 'c', 'hole', 'test')
    whole = AnomalyDataset([s], 32)[0]
    with reading_as(max_pixels=50_000):
        assert open_image(path).size in ((200, 150), (134, 100), (100, 75), (80, 60))
        part, photo = AnomalyDataset([s], 32)[0], Photos([str(path)], 32)[0]
        assert 'so large' in inspect_sample(s)['notes']['large']
    assert torch.equal(part['mask'], whole['mask']) and (photo['width'], photo['height']) == (
        400,
        300,
    )
    assert (part['image'] - whole['image']).abs().mean() < 0.02


@pytest.mark.parametrize('name', ['x.tif', 'x.png'])
def test_a_picture_of_200_megapixels_needs_less_than_a_gigabyte(tmp_path, name):
    "In a process of its own, whose largest memory is measured."
    path = tmp_path / name
    if name == 'x.tif':
        size = dict(shape=(20000, 10000), dtype=np.uint8)
        tifffile.memmap(path, **size, photometric='minisblack').flush()
    else:
        pyvips = pytest.importorskip('pyvips', reason="needs pip install 'hybridad[large]'")
        pyvips.Image.black(10000, 20000).write_to_file(str(path))
    code = (
        'import resource, sys; from hybridad.data.loading import load_image; '
        'before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; '
        'load_image(sys.argv[1], 64); '
        'print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e6)'
    )
    done = subprocess.run([sys.executable, '-c', code, path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1, f'{done.stdout} GB'


def test_a_limit_has_a_way_round(tmp_path):
    some(tmp_path / 'x.bmp', size=(400, 300))
    with reading_as(max_pixels=50_000):
        refused(load_image, tmp_path / 'x.bmp', 8, says='--max_pixels 120000')
        with reading_as(max_pixels=120_000):
            load_image(tmp_path / 'x.bmp', 8)
        hole(tmp_path / 'm.png', np.eye(300, 400) > 0)  # a mask takes a third of the memory
        assert read_mask(tmp_path / 'm.png').sum() == 300


# ---------------------------------------------------------------- archives and downloads


def tar(path, *members):
    with tarfile.open(path, 'w') as t:
        for name, content, kind in members:
            m = tarfile.TarInfo(name)
            m.type, m.linkname = kind, 'target'
            m.size = len(content) if kind == tarfile.REGTYPE else 0
            t.addfile(m, io.BytesIO(content))
    return path


def zipped(path, **members):
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as z:
        for name, content in members.items():
            z.writestr(name, content)
    return path


def damaged_zip(path):
    zipped(path, a=bytes(range(256)) * 9)
    data = bytearray(path.read_bytes())
    data[40] ^= 255
    path.write_bytes(data)
    return path


BAD_ARCHIVES = {
    'tar with ..': (lambda p: tar(p, ('a/../../x', b'1', tarfile.REGTYPE)), 'a/../../x'),
    'tar with an absolute path': (lambda p: tar(p, ('/tmp/x', b'1', tarfile.REGTYPE)), '/tmp/x'),
    'zip with ..': (lambda p: zipped(p, **{'../x': b'1'}), '../x'),
    'zip with a drive': (lambda p: zipped(p, **{'C:/x': b'1'}), 'C:/x'),
    'symbolic link': (lambda p: tar(p, ('x', b'', tarfile.SYMTYPE)), 'link'),
    'hard link': (lambda p: tar(p, ('x', b'', tarfile.LNKTYPE)), 'link'),
    'device': (lambda p: tar(p, ('x', b'', tarfile.CHRTYPE)), 'device'),
    'size bomb': (lambda p: zipped(p, x=bytes(3 * 10**6)), 'unpacks to more'),
    'name twice': (
        lambda p: tar(p, ('x', b'1', tarfile.REGTYPE), ('x', b'2', tarfile.REGTYPE)),
        'exists',
    ),
    'tar with a damaged header': (
        lambda p: (
            (
                tar(p, ('x', b'1', tarfile.REGTYPE), ('y', b'2', tarfile.REGTYPE)),
                p.write_bytes((b := p.read_bytes())[:1030] + b'?' + b[1031:]),
            )
            and p
        ),
        'cannot unpack',
    ),
    'cut tar': (
        lambda p: (
            (tar(p, ('x', bytes(9000), tarfile.REGTYPE)), p.write_bytes(p.read_bytes()[:5000]))
            and p
        ),
        'cannot unpack',
    ),
    'damaged zip': (damaged_zip, 'cannot unpack'),
    'no archive': (lambda p: p.write_text('sorry') and p, 'cannot unpack'),
}


@pytest.mark.parametrize('kind', BAD_ARCHIVES)
def test_bad_archive(kind, tmp_path):
    make, says = BAD_ARCHIVES[kind]
    archive = make(tmp_path / 'set.archive')
    refused(
        lambda: extract(archive, tmp_path / 'in' / 'out', most=10**6),
        names='set.archive',
        says=says,
    )
    assert (
        not (tmp_path / 'in' / 'out').exists()
        and not (tmp_path / 'x').exists()
        and not (tmp_path / 'in' / 'x').exists()
    )


@pytest.fixture
def server(tmp_path):
    "Serves bytes under /good, half of them under /cut, nothing under /none, and an error under /gone."
    dummy_tree(tmp_path / 'pack' / 'top')
    body = Path(shutil.make_archive(tmp_path / 'archive', 'gztar', tmp_path / 'pack')).read_bytes()

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path == '/gone':
                return self.send_error(410)
            if self.path == '/none':
                return self.connection.close()
            self.send_response(200)
            self.send_header('Content-Length', str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if self.path == '/cut' else body)

        def log_message(self, *_):
            pass

    http = HTTPServer(('127.0.0.1', 0), Answers)
    threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
    yield f'http://127.0.0.1:{http.server_port}', hashlib.sha256(body).hexdigest()
    http.shutdown()
    http.server_close()


def test_download_appears_whole(server, tmp_path):
    url, sha256 = server
    found = download('plates', tmp_path / 'sets', f'{url}/good', sha256=sha256, progress=False)
    assert found == tmp_path / 'sets' / 'plates' and len(read_dataset(found)) == 16
    assert [p.name for p in (tmp_path / 'sets').iterdir()] == ['plates']
    refused(
        download,
        'plates',
        tmp_path / 'sets',
        f'{url}/good',
        sha256=sha256,
        names=found,
        says='exists already',
    )


@pytest.mark.parametrize(
    'path, says', [('cut', 'ended after'), ('none', 'cannot fetch'), ('gone', '410')]
)
def test_broken_download_leaves_nothing(server, tmp_path, path, says):
    url, sha256 = server
    refused(
        lambda: download(
            'plates', tmp_path / 'sets', f'{url}/{path}', sha256=sha256, progress=False
        ),
        names=f'{url}/{path}',
        says=says,
    )
    assert not any((tmp_path / 'sets').iterdir())


def test_wrong_hash_leaves_nothing(server, tmp_path):
    refused(
        lambda: download(
            'plates', tmp_path / 'sets', f'{server[0]}/good', sha256='0' * 64, progress=False
        ),
        names=server[0],
        says='instead of',
    )
    assert not any((tmp_path / 'sets').iterdir())


@pytest.mark.parametrize(
    'name, url, sha256, says',
    [
        ('mpdd', None, None, '--url'),
        ('mine', 'http://x/y', None, '--sha256'),
        ('../up', 'http://x/y', '0' * 64, 'no name'),
        ('mine', 'file:///etc/passwd', '0' * 64, 'http'),
        ('mine', 'http://x/y', 'abc', '64 hex'),
    ],
)
def test_download_asks_for_what_it_needs(tmp_path, name, url, sha256, says):
    refused(
        lambda: download(name, tmp_path / 'sets', url, sha256=sha256, progress=False), says=says
    )
    assert not (tmp_path / 'sets').exists() or not any((tmp_path / 'sets').iterdir())


def test_same_file_same_digest(tree):
    assert (
        sample_digest(first_hole(tree).image)
        == hashlib.sha256((tree / HOLE).read_bytes()).hexdigest()
    )


def as_coco(samples, root):
    "A COCO file with the masks of samples, as run lengths; the masks themselves are removed."
    told = dict(images=[], annotations=[], categories=[dict(id=1, name='hole')])
    for i, s in enumerate(samples):
        width, height = Image.open(s.image).size
        name = s.image.relative_to(root).as_posix()
        told['images'].append(dict(id=i, file_name=name, width=width, height=height))
        if s.mask is None:
            continue
        flat = np.concatenate([[False], (np.asarray(Image.open(s.mask)) > 0).T.ravel()])
        runs = np.diff(np.flatnonzero(np.diff(flat, prepend=not flat[0], append=not flat[-1])))
        runs[0] -= 1  # the pixel put in front
        drawn = dict(size=[height, width], counts=runs.tolist())
        note = dict(id=i, image_id=i, category_id=1, segmentation=drawn, bbox=[0, 0, 1, 1])
        told['annotations'].append(note)
        s.mask.unlink()
    (root / 'annotations.json').write_text(json.dumps(told))


def test_an_export_of_a_tool_is_a_data_set_like_any_other(tmp_path):
    root = dummy_tree(tmp_path / 'set', 'table', n=3)
    as_files = read_dataset(root)
    before = next(iter(make_loader(as_files, 32, 12)))
    (root / 'samples.csv').unlink()
    as_coco(as_files, root)
    drawn = read_dataset(root)
    after = next(iter(make_loader(drawn, 32, 12, num_workers=1)))
    assert (before['targets']['masks'] == after['targets']['masks']).all()
    assert before['targets']['masks'].any() and [s.defect for s in drawn[3:6]] == ['hole'] * 3
    found = check_dataset(root, progress=False)
    assert not found['problems'] and 'json' not in found['summary'], found
    assert fingerprint(drawn) == fingerprint(read_dataset(root / 'annotations.json'))
    text = (root / 'annotations.json').read_text()
    (root / 'annotations.json').write_text(text.replace('"width": 40', '"width": 41'))
    assert any('another size' in p for p in check_dataset(root, progress=False)['problems'])
    told = json.loads(text)
    told['annotations'][0]['segmentation']['counts'][0] += 1
    (root / 'annotations.json').write_text(json.dumps(told))
    assert any('do not fill' in p for p in check_dataset(root, progress=False)['problems'])


def test_parts_of_an_export_are_chosen_by_name(tmp_path):
    for part in ('train', 'valid'):
        root = dummy_tree(tmp_path / part, 'table', n=1)
        samples = read_dataset(root)
        (root / 'samples.csv').unlink()
        as_coco(samples, root)
    refused(read_dataset, tmp_path, says='data sets of their own')
    assert len(read_dataset(tmp_path / 'valid')) == 4

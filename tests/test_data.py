"What a data set can have wrong with it: each kind is made here, and answered by one sentence that names the file and the remedy."

import hashlib
import io
import os
import shutil
import struct
import tarfile
import threading
import warnings
import zipfile
import zlib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from hybridad.data import (
    AnomalyDataset,
    Sample,
    load_image,
    load_mask,
    make_loader,
    open_image,
    sample_digest,
)
from hybridad.datasets import check_dataset, download, extract, inspect_sample
from hybridad.errors import DataError
from hybridad.layouts import (
    TREES,
    dummy_tree,
    dummy_visa,
    published_set,
    read_dataset,
    read_meta,
    table_rows,
    write_meta,
)
from hybridad.scoring import Photos, upright

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


def bomb(path):
    chunk = lambda kind, data: (
        struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
    )
    path.write_bytes(
        b'\x89PNG\r\n\x1a\n'
        + chunk(b'IHDR', struct.pack('>IIBBBBB', 60000, 60000, 8, 0, 0, 0, 0))
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


BAD_IMAGES = {
    'zero bytes': ('x.png', lambda p: p.touch(), 'convert or remove'),
    'text in place of a picture': (
        'x.png',
        lambda p: p.write_text('<html>404</html>'),
        'convert or remove',
    ),
    'truncated png': ('x.png', cut, 'cut short'),
    'truncated jpeg': ('x.jpg', cut, 'cut short'),
    'truncated bmp': ('x.bmp', cut, 'cut short'),
    'corrupt png': ('x.png', garbled, 'damaged'),
    'decompression bomb': ('x.png', bomb, 'million pixels'),
    'animated png': (
        'x.png',
        lambda p: PLATE.save(p, save_all=True, append_images=[PLATE.rotate(9)]),
        '2 pictures',
    ),
    'animated webp': (
        'x.webp',
        lambda p: PLATE.save(p, save_all=True, append_images=[PLATE.rotate(9)]),
        '2 pictures',
    ),
    'tiff of many pages': (
        'x.tif',
        lambda p: PLATE.save(p, save_all=True, append_images=[PLATE]),
        '2 pictures',
    ),
    'gif under another name': ('x.png', lambda p: PLATE.save(p, 'GIF'), 'convert or remove'),
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
    'a folder named like a picture': ('x.png', lambda p: p.mkdir(), 'folder'),
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
    assert torch.allclose(sixteen, torch.full((3, 4, 4), 20000 / 65535 * 2 - 1), atol=1e-5)
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


def test_camera_orientation_is_noted_and_explains_a_turned_mask(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    PLATE.save(tmp_path / 'x.jpg', exif=exif)
    Image.new('L', (30, 40), 1).save(tmp_path / 'x.png')
    noted = inspect_sample(Sample(tmp_path / 'x.jpg', None, 0, 'c', 'good', 'test'))
    assert not noted['problems'] and 'orientation tag 6' in noted['notes'][0]
    refused(
        load_mask,
        tmp_path / 'x.png',
        8,
        (30, 40),
        image=tmp_path / 'x.jpg',
        names='x.png',
        says='orientation tag: save it upright',
    )


def test_a_tiff_that_pillow_turns_is_refused_with_a_mask(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 3
    PLATE.save(tmp_path / 'x.tif', exif=exif)
    Image.new('L', (40, 30), 1).save(tmp_path / 'x.png')
    refused(
        load_mask,
        tmp_path / 'x.png',
        8,
        (30, 40),
        image=tmp_path / 'x.tif',
        names='x.tif',
        says='save both upright',
    )
    assert not inspect_sample(Sample(tmp_path / 'x.tif', None, 0, 'c', 'good', 'test'))['notes']


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
    'mask as jpeg': (
        lambda t: PLATE.convert('L').save(t / HOLE_MASK, 'JPEG'),
        HOLE_MASK,
        'convert',
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
        'has no image',
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
    mask[:, :20], mask[:, 20:] = 1, 255
    Image.fromarray(mask).save(tree / HOLE_MASK)
    assert load_mask(tree / HOLE_MASK, 8).min() == 1


def test_check_finds_what_reading_cannot(tree):
    "A truncated JPEG passes Pillow's verify, a copied picture passes everything."
    PLATE.save(tree / 'plate/train/good/photo.jpg')
    cut(tree / 'plate/train/good/photo.jpg')
    shutil.copy(tree / 'plate/train/good/000.png', tree / 'plate/test/good/copy.png')
    problems = check_dataset(tree, progress=False)['problems']
    assert (
        len(problems) == 2
        and any('photo.jpg' in p and 'cut short' in p for p in problems)
        and any('same picture' in p for p in problems)
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
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{http.server_port}', hashlib.sha256(body).hexdigest()
    http.shutdown()
    http.server_close()


def test_download_appears_whole(server, tmp_path):
    url, sha256 = server
    found = download('plates', tmp_path / 'sets', f'{url}/good', sha256, progress=False)
    assert found == tmp_path / 'sets' / 'plates' and len(read_dataset(found)) == 16
    assert [p.name for p in (tmp_path / 'sets').iterdir()] == ['plates']
    refused(
        download,
        'plates',
        tmp_path / 'sets',
        f'{url}/good',
        sha256,
        names=found,
        says='exists already',
    )


@pytest.mark.parametrize(
    'path, says', [('cut', 'ended after'), ('none', 'cannot fetch'), ('gone', '410')]
)
def test_broken_download_leaves_nothing(server, tmp_path, path, says):
    url, sha256 = server
    refused(
        lambda: download('plates', tmp_path / 'sets', f'{url}/{path}', sha256, progress=False),
        names=f'{url}/{path}',
        says=says,
    )
    assert not any((tmp_path / 'sets').iterdir())


def test_wrong_hash_leaves_nothing(server, tmp_path):
    refused(
        lambda: download(
            'plates', tmp_path / 'sets', f'{server[0]}/good', '0' * 64, progress=False
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
    refused(lambda: download(name, tmp_path / 'sets', url, sha256, progress=False), says=says)
    assert not (tmp_path / 'sets').exists() or not any((tmp_path / 'sets').iterdir())


def test_same_file_same_digest(tree):
    assert (
        sample_digest(first_hole(tree).image)
        == hashlib.sha256((tree / HOLE).read_bytes()).hexdigest()
    )

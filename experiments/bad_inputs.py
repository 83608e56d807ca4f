"""Give every command what it cannot use: it must print one sentence and a code, never a traceback.

Command:  python experiments/bad_inputs.py [--out results/bad_inputs.md] [--only NAME]
Duration: about 5 minutes of one core
Data:     small files that are broken on purpose, made in a temporary folder

Nothing may be left half-written or changed in the output folder. What happens to a watch while it
runs is no reason to end it: there the sentence is told, and every image has exactly one row. With
--only the rows of other commands stay as they are in the result."""

import argparse
import contextlib
import csv
import functools
import hashlib
import io
import json
import multiprocessing as mp
import os
import shutil
import signal
import struct
import tempfile
import threading
import time
import zlib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from hybridad import cli
from hybridad.config import get_default_config
from hybridad.errors import table_cell
from hybridad.inference import watching
from hybridad.locks import run_lock
from hybridad.models.checkpoint import read_checkpoint
from hybridad.models.detector import HybridAnomalyDetector
from hybridad.models.parts import MINI
from hybridad.synthetic.plain import categories_of, picture


def png(width, height, data=b''):
    "A PNG that claims a size."

    def chunk(kind, body):
        check = struct.pack('>I', zlib.crc32(kind + body))
        return struct.pack('>I', len(body)) + kind + body + check

    return (
        b'\x89PNG\r\n\x1a\n'
        + chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0))
        + chunk(b'IDAT', zlib.compress(data))
        + chunk(b'IEND', b'')
    )


def folder(root, count=6, size=64):
    "A small data set in MVTec layout."
    for i in range(count):
        kind = 'good' if i % 2 else 'crack'
        p = picture(3, i * 5, size, kind='good' if i % 2 else categories_of('auxiliary')[1][0])
        for part, pixels in (
            (f'test/{kind}', p.image),
            (f'ground_truth/{kind}', (p.mask * 255).astype(np.uint8)),
        ):
            if part == 'ground_truth/good':
                continue
            (root / part).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(root / part / f'{i}.png')
    return root


def data_sets(work):
    "{what is wrong: folder}: data sets that cannot be read."
    bad = {}

    def case(name, change):
        assert name not in bad, name
        root = folder(work / f'data{len(bad)}' / 'thing')
        change(root)
        bad[name] = root

    def first(root, part):
        return sorted((root / part).rglob('*.png'))[0]

    case('an image that is text', lambda r: first(r, 'test').write_text('hello'))
    case('an empty image file', lambda r: first(r, 'test').write_bytes(b''))
    case(
        'an image cut in half',
        lambda r: first(r, 'test').write_bytes(first(r, 'test').read_bytes()[:300]),
    )
    case(
        'an image of 60000 x 60000 px', lambda r: first(r, 'test').write_bytes(png(60_000, 60_000))
    )
    case('an image without pixels', lambda r: first(r, 'test').write_bytes(png(0, 0)))
    case(
        'a 32-bit image',
        lambda r: (
            Image.fromarray(np.ones((64, 64), np.float32)).save(
                first(r, 'test').with_suffix('.tif')
            ),
            first(r, 'test').unlink(),
        ),
    )
    case(
        'a folder named like an image',
        lambda r: (r / 'test' / 'good' / 'x.png').mkdir(parents=True),
    )
    case(
        'a link out of the data set',
        lambda r: (r / 'test' / 'good' / 'x.png').symlink_to('/etc/hostname'),
    )
    case('a link to nothing', lambda r: (r / 'test' / 'good' / 'x.png').symlink_to('gone.png'))
    case('a mask of another size', lambda r: Image.new('L', (9, 9)).save(first(r, 'ground_truth')))
    case('a mask that is text', lambda r: first(r, 'ground_truth').write_text('hello'))
    case(
        'a mask without an image',
        lambda r: Image.new('L', (64, 64)).save(r / 'ground_truth' / 'crack' / 'zz.png'),
    )
    case(
        'two images of one name',
        lambda r: [shutil.copy(p, p.with_suffix('.bmp')) for p in [first(r, 'test/crack')]],
    )
    case('a loose image', lambda r: Image.new('RGB', (9, 9)).save(r / 'test' / 'loose.png'))
    case('defects below train', lambda r: (r / 'train' / 'crack').mkdir(parents=True))
    case('a named pipe called like an image', lambda r: os.mkfifo(r / 'test' / 'good' / 'x.png'))
    case(
        'a Git LFS pointer',
        lambda r: first(r, 'test').write_text('version https://git-lfs.github.com/spec/v1\n'),
    )
    case('an image of 1 x 80000000 px', lambda r: first(r, 'test').write_bytes(png(1, 80_000_000)))
    case(
        'a mask that is a photograph',
        lambda r: shutil.copy(first(r, 'test/good'), first(r, 'ground_truth')),
    )
    case(
        'masks that mark most of the image up to its edges',
        lambda r: [
            Image.fromarray(
                np.pad(np.zeros((24, 24), np.uint8), (0, 40), constant_values=255)
            ).save(p)
            for p in (r / 'ground_truth').rglob('*.png')
        ],
    )
    case(
        'masks that mark half of each image and more',
        lambda r: [
            Image.fromarray(np.repeat(np.uint8([255] * 40 + [0] * 24)[None], 64, 0)).save(p)
            for p in (r / 'ground_truth').rglob('*.png')
        ],
    )
    case(
        'two folders of masks',
        lambda r: [
            shutil.copytree(r / 'ground_truth', r / 'masks'),
            (r / 'ground_truth').rename(r / 'gt'),
        ],
    )
    case(
        'no defective image',
        lambda r: [shutil.rmtree(p) for p in (r / 'test' / 'crack', r / 'ground_truth')],
    )
    case('no image at all', lambda r: [p.unlink() for p in r.rglob('*.png')])
    case('masks alone', lambda r: [p.unlink() for p in r.rglob('test/crack/*.png')])
    for what, name in {
        'a broken image whose name holds an escape sequence': '\x1b]0;TITLE\x07\x1b[31mred.png',
        'a broken image whose name breaks lines and tables': 'a|b\nc.png',
        'a broken image whose name reads backwards': 'gnp.\u202eexe.png',
        'a broken image whose name is a formula': '=1+1.png',
    }.items():
        case(what, lambda r, name=name: (r / 'test' / 'good' / name).write_bytes(b'x'))
    return bad


APPEARANCE = dict(mean=[0.0] * 12, white=np.eye(12).tolist(), centres=[[0.0] * 12], limit=1.0)


def checkpoints(work, good):
    "{what is wrong: file}: checkpoints that cannot be used."
    tensors, about = read_checkpoint(good)
    bad = {}

    def case(name, content=None, tensors=tensors, **changes):
        path = work / f'c{len(bad)}.safetensors'
        bad[name] = path
        if content is not None:
            path.write_bytes(content)
        else:
            save_file(tensors, path, {'hybridad': json.dumps(about | changes)})

    case('an empty file', b'')
    case('text', b'hello')
    case('a pickle', torch.save(tensors, work / 'x.pt') or (work / 'x.pt').read_bytes())
    case('cut in half', good.read_bytes()[: len(good.read_bytes()) // 2])
    case('a header of a terabyte', (2**40).to_bytes(8, 'little') + good.read_bytes()[8:])
    case('metadata that is a list')
    save_file(tensors, bad['metadata that is a list'], {'hybridad': '[]'})
    case('metadata nested 100,000 deep')
    save_file(tensors, bad['metadata nested 100,000 deep'], {'hybridad': '[' * 100_000})
    case('no metadata')
    save_file(tensors, bad['no metadata'])
    case('an unknown setting', config=dict(model=dict(n_contexts=3)))
    case('a setting out of range', config=dict(model=dict(n_ctx=-1)))
    case('another backbone', backbone_hash='0' * 16)
    case('another width', width=768)
    case('a backbone that is not there', backbone='/no/such/backbone')
    case('a path as a layer', layers=['../../etc'])
    case('thresholds that are text', thresholds='high')
    case('a threshold that is text', thresholds=dict(image='high', pixel=0.0))
    case(
        'values that are not finite', tensors=tensors | {'image_offset': torch.tensor(float('nan'))}
    )
    case('damaged numbers on how images look', appearance=dict(limit='x'))
    case('numbers of another shape on how images look', appearance=dict(APPEARANCE, mean=[0]))
    case('a backbone whose name steers the terminal', backbone='\x1b[2Jgone\n')
    case('tensors of another shape', tensors=tensors | {'layer_logits': torch.zeros(99)})
    case('a tensor missing', tensors={k: v for k, v in tensors.items() if k != 'image_offset'})
    return bad


def cases(work):
    "(command, what is wrong, arguments): everything that is tried."
    good, photos = work / 'good.safetensors', work / 'photos'
    detector = HybridAnomalyDetector(get_default_config(device='cpu'))
    detector.save_checkpoint(good, trained_on=[], thresholds=dict(image=0.0, pixel=0.0))
    data = folder(work / 'data' / 'thing')
    photos.mkdir()
    Image.new('RGB', (9, 9)).save(photos / 'a.png')
    full, empty = work / 'full', work / 'empty'
    full.mkdir()
    (full / 'x').write_text('')
    empty.mkdir()
    train, score = (
        ('hybridad_train', ['--data_path', data, '--epochs', 1]),
        ('hybridad_score', [photos]),
    )
    for what, root in data_sets(work).items():
        yield 'hybridad_train', what, ['--data_path', root, '--epochs', 1]
    for what, path in checkpoints(work, good).items():
        yield 'hybridad_score', f'a checkpoint: {what}', [photos, '--checkpoint_path', path]
    for what, more in {
        'a folder that is not there': ['--data_path', work / 'gone'],
        'a file as folder': ['--data_path', good],
        'an empty folder': ['--data_path', empty],
        'an unknown layout': ['--dataset', 'imagenet'],
        'a category that is not there': ['--categories', 'spoon'],
        'a negative number of epochs': ['--epochs', -1],
        'a batch of none': ['--batch_size', 0],
        'a learning rate of nan': ['--learning_rate', 'nan'],
        'an infinite learning rate': ['--learning_rate', 'inf'],
        'an unknown read-out': ['--readout', 'guess'],
        'a timestep of 5000': ['--timestep', 5000],
        'a layer that is not there': ['--layers', 'side'],
        'an image size of 30': ['--image_size', 30],
        'an unknown mass': ['--mass', 'none'],
        'a validation part of all': ['--validation_fraction', 1],
        'minus one worker': ['--num_workers', -1],
        'a camera of 3 bits': ['--bits', 3],
        'green masks': ['--masks', 'green'],
        'an image of no pixels at most': ['--max_pixels', 0],
        'a backbone that is not there': ['--backbone', work / 'gone'],
        'a backbone without parts': ['--backbone', empty],
        'a device that is not there': ['--device', 'tpu'],
        'no piece': ['--accumulate', 0],
        'an unknown tracker': ['--log_with', 'paper'],
        'a number that is text': ['--epochs', 'many'],
        'an unknown flag': ['--epoch_count', 3],
        'an unknown precision': ['--precision', 'double'],
        'float16 to learn in': ['--precision', 'float16'],
    }.items():
        usual = train[1][2:] if more[0] == '--data_path' else train[1]
        yield train[0], what, [*usual, *more]
    yield train[0], 'an output folder in use', [*train[1], '--out', full]
    yield train[0], 'an output below a file', [*train[1], '--out', good / 'x']
    yield train[0], 'nothing to continue', [*train[1], '--resume', '--out', empty]
    yield train[0], '--resume without a folder', [*train[1], '--resume']
    for what, more in {
        'a threshold of nan': ['--threshold', 'nan'],
        'an unknown format': ['--format', 'xlsx'],
        'parts of none': ['--part', 0],
        'a batch of none': ['--batch_size', 0],
        'unknown images': ['--pictures', 'some'],
        'nothing to continue': ['--resume', '--out', empty],
        'an output folder in use': ['--out', full],
    }.items():
        yield score[0], what, [*score[1], *more]
    yield 'hybridad_score', 'a photograph that is not there', [work / 'gone.png']
    yield 'hybridad_score', 'a folder without photographs', [full]
    for what, more in {
        'nothing to write': [],
        'another ending': ['--out', work / 'a.bin'],
        'a file that exists': ['--out', good],
        'a folder in use': ['--hub_folder', full],
        'no such repository name': ['--push_to_hub', 'a/b/c'],
    }.items():
        yield 'hybridad_export', what, ['--checkpoint_path', good, *more]
    yield (
        'hybridad_export',
        'a checkpoint that is not there',
        ['--checkpoint_path', work / 'gone', '--out', work / 'a.onnx'],
    )
    yield (
        'hybridad_test',
        'a checkpoint that is not there',
        ['--data_path', data, '--checkpoint_path', work / 'gone'],
    )
    yield (
        'hybridad_test',
        'a folder without a test part',
        ['--data_path', photos, '--checkpoint_path', good],
    )
    test = ['--data_path', data]
    for what, more in {
        'reference images that are not there': ['--normals', work / 'gone'],
        'a folder of reference images without one': ['--normals', empty],
        'more reference images than there are': ['--normals', photos, '--shots', 9],
        'shots of nothing': ['--shots', 2],
        'reference images that are scored, too': ['--normals', data / 'test' / 'good'],
        'thresholds asked for twice': ['--normals', photos, '--calibrate', '0.1'],
        'a share of two': ['--checkpoint_path', good, '--calibrate', 2],
        'thresholds for the prompts of the package': ['--calibrate', 'f1max'],
        'another backbone for the prompts of the package': ['--backbone', 'sd21'],
        'nothing to continue': ['--resume', '--out', empty],
        'a run to compare with that is not there': ['--compare', work / 'gone'],
        'an unknown precision': ['--precision', 'half'],
        'an evaluation at 3 px': ['--eval_size', 3],
    }.items():
        yield 'hybridad_test', what, [*test, *more]
    for what, more in {
        'reference images that are not there': ['--normals', work / 'gone'],
        'a folder of reference images without one': ['--normals', empty],
        'reference images that are scored, too': ['--normals', photos],
        'an unknown precision': ['--precision', 'half'],
    }.items():
        yield score[0], what, [*score[1], *more]
    for what, more in {
        'an unknown variant': ['--only', 'magic'],
        'a folder that is not there': ['--data_path', work / 'gone'],
        'a backbone that is not there': ['--backbone', work / 'gone'],
        'no seed': ['--seeds', 0],
        'nothing to continue': ['--resume', '--out', empty],
    }.items():
        yield 'hybridad_ablation', what, more
    both = ['--train', 'thing', '--roots', work / 'data']
    for what, more in {
        'a set learned on and scored': [*both, '--test', 'thing'],
        'a set that lies nowhere': [*both, '--test', 'other'],
        'a place for a set nobody named': [*both, '--test', 'other', '--roots', f'third={data}'],
        'a place that is not there': [
            *both,
            '--test',
            'other',
            '--roots',
            f'thing={data}',
            f'other={work}/gone',
        ],
    }.items():
        yield 'hybridad_protocol', what, more
    for what, more in {
        'no round': ['--rounds', 0],
        'a folder without configurations': ['--configs', empty],
        'an output folder in use': ['--out', full],
    }.items():
        yield 'hybridad_bench', what, more
    yield from downloads(work)
    yield from runs(work, good, photos, data)
    yield from watches(work, good)
    yield 'hybridad_data', 'an unknown split', ['synth', '--split', 'secret']
    yield 'hybridad_data', 'a size of 4', ['synth', '--size', 4]
    yield 'hybridad_backbone', 'an unknown setting', ['--set', 'depth=3']
    yield 'hybridad_backbone', 'a number that is text', ['--set', 'steps=many']


class Answers(BaseHTTPRequestHandler):
    "An archive that is none, half of it under /cut, and nothing under another address."

    body = b'no archive' * 1000

    def do_GET(self):
        if self.path not in ('/whole', '/cut'):
            return self.send_error(404)
        self.send_response(200)
        self.send_header('Content-Length', str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body[: len(self.body) // (2 if self.path == '/cut' else 1)])

    def log_message(self, *_):
        pass


def downloads(work):
    "Addresses, hashes and archives that are no good."
    server = HTTPServer(('127.0.0.1', 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    here, sets = f'http://127.0.0.1:{server.server_port}', work / 'sets'
    (sets / 'there').mkdir(parents=True)
    right, wrong = hashlib.sha256(Answers.body).hexdigest(), '0' * 64
    for what, name, url, sha256 in (
        ('an address without a file', 'mine', f'{here}/gone', right),
        ('a connection that ends early', 'mine', f'{here}/cut', right),
        ('a file with another hash', 'mine', f'{here}/whole', wrong),
        ('a file that is no archive', 'mine', f'{here}/whole', right),
        ('a server that is not there', 'mine', 'http://127.0.0.1:1/x', right),
        ('an address of a local file', 'mine', 'file:///etc/hostname', right),
        ('a hash that is none', 'mine', f'{here}/whole', 'abc'),
        ('a name that leads out', '../mine', f'{here}/whole', right),
        ('a set that is there already', 'there', f'{here}/whole', right),
    ):
        told = ['download', name, sets, '--url', url, '--sha256', sha256]
        yield 'hybridad_data', f'download: {what}', told
    yield 'hybridad_data', 'download: a set without a lasting address', ['download', 'mpdd', sets]
    server.shutdown()


def hold(folder, ready):
    with run_lock(folder):
        ready.set()
        time.sleep(3600)


def runs(work, good, photos, data):
    "Runs that another process is in, or that cannot be continued with what is asked."
    busy, ready = work / 'busy', mp.get_context('fork').Event()
    child = mp.get_context('fork').Process(target=hold, args=(busy, ready), daemon=True)
    child.start()
    ready.wait(60)
    for name, args in dict(
        train=['--data_path', data],
        test=['--data_path', data],
        score=[photos],
        ablation=[],
        protocol=['--train', 'thing', '--test', 'other', '--roots', work / 'data', f'other={data}'],
        backbone=[],
        bench=['--quick'],
        demo=['--small'],
    ).items():
        yield (
            f'hybridad_{name}',
            'an output folder another process writes to',
            [*args, '--out', busy],
        )
    child.kill()
    child.join()
    begun, score = work / 'begun', [photos, '--checkpoint_path', good, '--quiet']
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        assert cli.hybridad_score(list(map(str, [*score, '--out', begun]))) == 0
    again = [*score, '--resume', '--out', begun]
    yield 'hybridad_score', 'another batch size to continue with', [*again, '--batch_size', 3]
    yield 'hybridad_score', 'other prompts to continue with', [photos, '--resume', '--out', begun]
    part = begun / 'parts' / 'part-000000.csv'
    header = part.read_bytes().splitlines()[0]
    for what, content in {
        'a part without its rows': header,
        'a part that is text': b'hello',
        'a part of another encoding': b'\xff\xfe',
    }.items():
        part.write_bytes(content + b'\n')
        yield 'hybridad_score', f'{what}, to continue with', again


def video(path, count=30):
    "A video file of drawn frames."
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('libx264', rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, 'yuv420p'
        for k in range(count):
            frame = np.ascontiguousarray(picture(7, k, 64).image)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, 'rgb24')))
        container.mux(stream.encode())
    return path


def watches(work, good):
    "Sources that cannot be watched, and watches that cannot be continued with what is asked."
    line, other, begun = work / 'line', work / 'line2', work / 'watched'
    line.mkdir()
    other.mkdir()
    text = work / 'text.mp4'
    text.write_text('no video')
    for what, source in {
        'a camera that is not there': 'camera:77',
        'a stream that nobody sends': 'rtsp://127.0.0.1:1/line',
        'a folder that is not there': work / 'gone',
        'a video that is text': text,
        'a single image': work / 'photos' / 'a.png',
    }.items():
        yield 'hybridad watch', what, [source, good, '--out', work / 'new' / 'watch']
    watched(line, good, begun, lambda: None, rows=0)
    again = [good, '--out', begun, '--resume', '--quiet']
    yield 'hybridad watch', 'another folder to continue with', [other, *again]
    yield 'hybridad watch', 'another threshold to continue with', [line, *again, '--threshold', 9]
    yield 'hybridad watch', 'frames of a folder', [line, good, '--fps', 2, '--out', work / 'fps']


def watched(source, good, out, happens, *, rows):
    "Exit code and words of a watch while something happens; it is stopped once it has its rows."

    def stop():
        end = time.monotonic() + 60
        while not (out / 'run.json').exists() and time.monotonic() < end:
            time.sleep(0.05)
        happens()
        while len(rows_so_far(out)) < rows and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGINT)

    said, other = io.StringIO(), threading.Thread(target=stop)
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        other.start()
        code = cli.hybridad(['watch', str(source), str(good), '--out', str(out), '--quiet'])
        other.join()
    return code, [s for s in said.getvalue().splitlines() if s.startswith('hybridad watch: ')]


def rows_so_far(out):
    parts = sorted((out / 'parts').glob('part-*.csv'))
    return [r['image'] for p in parts for r in csv.DictReader(p.read_text().splitlines())]


def events(work, good):
    "(what happens to a watch, exit code, words, rows as expected or why not)"
    line, away, hours = work / 'shots', work / 'away', [0.0]
    line.mkdir()

    def shoot(*numbers):
        for k in numbers:
            Image.fromarray(picture(7, k, 64).image).save(work / 'half.png')
            os.replace(work / 'half.png', line / f'{k}.png')

    def vanish():
        shoot(0)
        while not rows_so_far(work / 'vanished'):
            time.sleep(0.05)
        line.rename(away)
        time.sleep(1.5)
        away.rename(line)
        shoot(1)

    def back():
        while not rows_so_far(work / 'clock'):
            time.sleep(0.05)
        hours[0] = -3600.0
        shoot(2)

    def tried(what, source, happens, name, count):
        out = work / name
        code, said = watched(source, good, out, happens, rows=count)
        found = rows_so_far(out)
        fine = len(found) == len(set(found)) == count
        return what, code, ' / '.join(s.split(': ', 1)[1] for s in said), fine, len(found)

    yield tried('its folder vanishes for a while', line, vanish, 'vanished', 2)
    clock, watching.WallClock = (
        watching.WallClock,
        functools.partial(watching.WallClock, lambda: time.time() + hours[0]),
    )
    yield tried('the clock goes back by an hour', line, back, 'clock', 3)
    watching.WallClock = clock
    whole, cut = video(work / 'whole.mkv').read_bytes(), work / 'cut.mkv'
    cut.write_bytes(whole[: len(whole) * 2 // 3])
    yield ended_early(cut, good, work / 'early')


def ended_early(cut, good, out):
    "A video that breaks off ends its watch by itself."
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = cli.hybridad(['watch', str(cut), str(good), '--out', str(out), '--quiet'])
    found = rows_so_far(out)
    words = [s for s in said.getvalue().splitlines() if s.startswith('hybridad watch: ')]
    fine = 5 < len(found) == len(set(found)) < 30
    return 'a video ends early', code, words[-1].split(': ', 1)[1], fine, len(found)


NEEDS_OUT = tuple(
    f'hybridad_{n}' for n in 'train score test data backbone ablation protocol bench'.split()
)


def attempt(name, args, out):
    "Exit code and what is printed, of one command."
    args = [str(a) for a in args] + (
        ['--out', str(out)]
        if name in NEEDS_OUT
        and '--out' not in args
        and args[-1] != '--resume'
        and args[:1] != ['download']
        else []
    )
    said = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        try:
            if ' ' in name:
                code = cli.hybridad([name.split()[1], *args])
            else:
                code = getattr(cli, name)(args)
        except SystemExit as stop:
            code = stop.code  # argparse
        except Exception as error:
            code = f'traceback: {type(error).__name__}: {error}'
    lines = [
        line
        for line in said.getvalue().replace('\r', '\n').splitlines()
        if line.startswith(name) and not line.startswith('usage')
    ]
    return code, lines[-1].split(': ', 1)[-1] if lines else ''


def listing(work):  # set of (path, bytes, time of the last change) of everything below
    return {
        (str(p), st.st_size, st.st_mtime_ns)
        for p in work.rglob('*')
        if not p.is_dir() and (st := p.lstat())
    } | {(str(p), 0, 0) for p in work.rglob('*') if p.is_dir()}


def kept(out, only):
    "Rows of the commands that were not tried, and of events, as they were written before."
    lines = out.read_text().splitlines() if only and out.exists() else []
    rows = [line for line in lines if line.startswith('| `')]
    return [line for line in rows if only not in line.split('|')[1]]


def refused(work, only):
    "Rows of all that must be refused, and those that were not as they should."
    rows, wrong = [], []
    for i, (name, what, args) in enumerate(cases(work)):
        if only and only not in name:
            continue
        before = listing(work)
        code, said = attempt(name, args, work / 'new' / str(i))
        left = listing(work) ^ before
        rows.append(f'| `{name}` | {what} | {code} | {cell(said, work)} |')
        if code != 2 or not said or left:
            wrong.append(rows[-1] + (f' left or changed {sorted(left)[0][0]}' if left else ''))
    return rows, wrong


def cell(said, work):
    return table_cell(said.replace(str(work), 'DIR').replace(str(MINI), 'MINI'), 'github')


def survived(work):
    "Rows of all that happens to a watch, and those that were not as they should."
    rows, wrong = [], []
    for what, code, said, fine, count in events(work, work / 'good.safetensors'):
        rows.append(f'| {what} | {code} | {count} | {cell(said, work)} |')
        if not fine or not said or code not in (0, 3):
            wrong.append(rows[-1])
    return rows, wrong


def written(out, rows, happened):
    out.write_text(
        f'# {len(rows)} bad inputs and what is printed\n\n'
        'Written by `python experiments/bad_inputs.py`. Code 2: nothing was done and nothing '
        'was left in the output folder.\n\n'
        '| command | what is wrong | code | what is printed |\n|---|---|---|---|\n'
        + '\n'.join(rows)
        + '\n\n## What happens to a watch while it runs\n\n'
        'Every image that could be read has exactly one row. Code 0: it was stopped by hand; 3: the'
        ' video is damaged.\n\n'
        '| what happens | code | rows | what is told |\n|---|---|---|---|\n'
        + '\n'.join(happened)
        + '\n'
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', type=Path, default=Path('results/bad_inputs.md'))
    parser.add_argument('--only', help='commands whose name holds this, such as watch')
    a = parser.parse_args()
    work = Path(tempfile.mkdtemp())
    os.environ.update(TQDM_DISABLE='1', HF_HUB_OFFLINE='1')
    rows, wrong = refused(work, a.only)
    rows = kept(a.out, a.only) + rows
    happened, odd = survived(work)
    shutil.rmtree(work)
    written(a.out, rows, happened)
    print(f'{len(rows)} bad inputs, {len(wrong + odd)} not ended as they should')
    print('\n'.join(wrong + odd))
    return 1 if wrong + odd else 0


if __name__ == '__main__':
    raise SystemExit(main())

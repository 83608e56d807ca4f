"""Nothing is lost and nothing comes twice where a watch is killed, stopped, or its folder goes away.

Each watch is a process of its own. Most are forked from one that has imported everything and
computed nothing: a child forked from these tests would have the threads of PyTorch, but nobody in
them. One is begun from nothing, as a user begins it."""

import csv
import io
import multiprocessing as mp
import os
import random
import signal
import subprocess
import sys
import time

import av
import numpy as np
import pytest
from PIL import Image

from hybridad.cli import hybridad
from hybridad.config import get_default_config
from hybridad.inference.rows import read_scores
from hybridad.models.detector import HybridAnomalyDetector
from hybridad.synthetic.plain import picture

COMMAND = 'import sys; from hybridad.cli import hybridad; sys.exit(hybridad())'
READY = mp.get_context('forkserver')
READY.set_forkserver_preload(
    ['hybridad.inference.watching', 'hybridad.models.detector', 'matplotlib.figure']
)


@pytest.fixture(scope='module')
def prompts(tmp_path_factory):
    "Prompts that are read in one view of 64 px, with thresholds and scores of good images."
    path = tmp_path_factory.mktemp('prompts') / 'prompts.safetensors'
    config = get_default_config(device='cpu', image_size=64)
    good = [0.1 * k for k in range(-10, 10)]
    about = dict(thresholds=dict(image=0.0, pixel=0.0, good=good), trained_on=[])
    HybridAnomalyDetector(config).save_checkpoint(path, **about)
    return path


@pytest.fixture(scope='module')
def shots():
    "Forty photographs as bytes of png files."
    found = []
    for k in range(40):
        Image.fromarray(picture(7, k, 64).image).save(content := io.BytesIO(), 'PNG')
        found.append(content.getvalue())
    return found


def command(call, log):
    "Run the command in this process, which ends with it; what it says goes to a file."
    with open(log, 'ab') as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.exit(hybridad(call))


def asked(source, out, prompts, *more):
    "The words of a watch, which continues what there is."
    resume = ['--resume'] if (out / 'run.json').exists() else []
    return [*map(str, ['watch', source, prompts, '--out', out, '--device', 'cpu', *resume, *more])]


class Watch:
    "A watch in a process of its own; `with` makes sure that it ends."

    def __init__(self, source, out, prompts, *more):
        self.out, self.log = out, out.with_suffix('.log')
        self.log.touch()
        call = asked(source, out, prompts, *more)
        self.process = READY.Process(target=command, args=(call, self.log))

    def __enter__(self):
        self.process.start()
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.join()

    def said(self):
        return self.log.read_text()

    def until(self, true, seconds=90):
        "Wait for something to happen."
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end and self.process.is_alive(), self.said()
            time.sleep(0.02)

    def stop(self, number=signal.SIGTERM):
        os.kill(self.process.pid, number)
        assert self.code() == 0, self.said()

    def code(self):
        "The exit code, once it has ended."
        self.process.join(300)
        return self.process.exitcode


def rows(out):
    "Rows so far; a line that is just being written does not count."
    found = []
    for part in sorted((out / 'parts').glob('part-*.csv')):
        whole = part.read_text().rpartition('\n')[0]
        found += [r['image'] for r in csv.DictReader(whole.splitlines())]
    return found


def put(folder, name, content):
    "A file that appears in two steps, as a slow camera writes it."
    with open(folder / name, 'wb') as f:
        f.write(content[:600])
        f.flush()
        time.sleep(0.01)
        f.write(content[600:])


def test_folder_written_to_while_watches_are_killed(prompts, shots, tmp_path):
    line, out, rng = tmp_path / 'line', tmp_path / 'run', random.Random(0)
    line.mkdir()
    for attempt in range(3):
        with Watch(line, out, prompts, '--pictures', 'anomalous') as watch:
            before = len(rows(out))
            for k in range(10 * attempt, 10 * attempt + 10):
                put(line, f'{k:02}.png', shots[k])
            watch.until(lambda before=before: len(rows(out)) > before)
            time.sleep(rng.uniform(0, 0.2))
    assert 3 <= len(rows(out)) <= 30, 'the kills came too late to show anything'
    with Watch(line, out, prompts, '--pictures', 'anomalous') as watch:
        for k in range(30, 40):
            put(line, f'{k:02}.png', shots[k])
        watch.until(lambda: len(rows(out)) >= 40)
        time.sleep(0.5)
        watch.stop()
    found = list(read_scores(out))
    assert sorted(r['image'] for r in found) == [str(line / f'{k:02}.png') for k in range(40)]
    assert all(r['decision'] in ('normal', 'anomalous') for r in found)
    assert all(bool(r['overlay']) == (r['decision'] == 'anomalous') for r in found)
    assert all((out / r['overlay']).is_file() for r in found if r['overlay'])
    assert (out / 'report.html').is_file() and (out / 'drift.png').is_file()
    assert 'latency: median' in watch.said() and 'drift' in watch.said()


def test_share_that_vanishes_is_told_and_costs_nothing(prompts, shots, tmp_path):
    line, out = tmp_path / 'line', tmp_path / 'run'
    line.mkdir()
    for k in range(3):
        put(line, f'{k}.png', shots[k])
    with Watch(line, out, prompts, '--pictures', 'none') as watch:
        watch.until(lambda: len(rows(out)) == 3)
        line.rename(tmp_path / 'away')
        watch.until(lambda: 'cannot be reached' in watch.said())
        put(tmp_path / 'away', '3.png', shots[3])
        (tmp_path / 'away').rename(line)
        watch.until(lambda: len(rows(out)) == 4)
        time.sleep(0.5)
        watch.stop(signal.SIGINT)
    assert sorted(rows(out)) == [str(line / f'{k}.png') for k in range(4)]
    assert watch.said().count('cannot be reached') == 1 and 'is back' in watch.said()


@pytest.fixture(scope='module')
def video(shots, tmp_path_factory):
    "A video of forty frames."
    path = tmp_path_factory.mktemp('video') / 'line.mp4'
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('libx264', rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, 'yuv420p'
        for k in range(40):
            frame = np.ascontiguousarray(picture(7, k, 64).image)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, 'rgb24')))
        container.mux(stream.encode())
    return path


def test_video_killed_in_the_middle_has_each_frame_once(prompts, video, tmp_path):
    out, more = tmp_path / 'run', ('--batch_size', '2', '--pictures', 'none')
    with Watch(video, out, prompts, *more) as watch:
        watch.until(lambda: len(rows(out)) >= 5)
    assert len(rows(out)) < 40, 'the kill came too late to show anything'
    part = next((out / 'parts').iterdir())
    os.truncate(part, part.stat().st_size - 9)  # as a power cut leaves the last line
    with Watch(video, out, prompts, *more) as watch:
        assert watch.code() == 0, watch.said()
    assert [r['image'] for r in read_scores(out)] == [f'{video}#{k:07}' for k in range(40)]


def test_video_that_ends_early_is_told_and_scored_so_far(prompts, video, tmp_path):
    with av.open(str(tmp_path / 'whole.mkv'), 'w') as target, av.open(str(video)) as source:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    content = (tmp_path / 'whole.mkv').read_bytes()
    cut = tmp_path / 'cut.mkv'
    cut.write_bytes(content[: len(content) * 2 // 3])
    call = asked(cut, tmp_path / 'run', prompts, '--pictures', 'none')
    alone = [sys.executable, '-c', COMMAND, *call]  # as a user begins it
    ended = subprocess.run(alone, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 3, ended.stderr
    found = rows(tmp_path / 'run')
    assert 5 < len(found) < 40 and len(set(found)) == len(found)
    assert f'{len(found)} of about 40 frames could be decoded' in ended.stdout + ended.stderr


def test_without_pyav_one_sentence(prompts, video, tmp_path, monkeypatch, capsys):
    from hybridad.inference import frames

    monkeypatch.setattr(frames, 'find_spec', lambda name: None)
    out = tmp_path / 'never'
    assert hybridad(['watch', str(video), str(prompts), '--out', str(out), '--device', 'cpu']) == 2
    assert 'pip install hybridad[video]' in capsys.readouterr().err and not out.exists()

"""The same rows on Ray as without it, an actor killed in the middle.

Starting Ray and three processes with PyTorch takes over a minute of processor time, so this runs with
HYBRIDAD_SLOW=1; what actors do is tested without Ray in the notebook *engine*."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from PIL import Image

from hybridad.cli import hybridad
from hybridad.config import get_default_config
from hybridad.errors import CheckpointError
from hybridad.inference import engine
from hybridad.inference.parts import Parts
from hybridad.inference.rows import read_scores
from hybridad.inference.scoring import load_scorer
from hybridad.models.detector import HybridAnomalyDetector
from hybridad.synthetic.plain import picture

slow = pytest.mark.skipif(not os.environ.get('HYBRIDAD_SLOW'), reason='HYBRIDAD_SLOW=1 runs it')
COMMAND = 'import sys; from hybridad.cli import hybridad; sys.exit(hybridad())'


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    "Forty photographs, one of them broken, and prompts."
    root = tmp_path_factory.mktemp('ray')
    (root / 'photos').mkdir()
    for k in range(40):
        Image.fromarray(picture(7, k, 128).image).save(root / 'photos' / f'{k:02}.png')
    (root / 'photos' / '17.png').write_bytes(b'no image')
    about = dict(thresholds=dict(image=0.0, pixel=0.0), trained_on=[])
    detector = HybridAnomalyDetector(get_default_config(device='cpu'))
    detector.save_checkpoint(root / 'prompts.safetensors', **about)
    return root


def call(root, out, *more):
    "The arguments of a run in parts of four."
    fixed = '--device cpu --part 4 --batch_size 2 --quiet'.split()
    images = [root / 'photos', '--checkpoint_path', root / 'prompts.safetensors']
    return ['score', *map(str, images), '--out', str(out), *fixed, *more]


def actors_of(process):
    "Processes of Ray below a process that score."
    below = psutil.Process(process.pid).children(recursive=True)
    return [p for p in below if 'MapWorker' in ' '.join(p.cmdline())]


def kill_one(process, out):
    "Kill an actor once the first part is there, before the last is."
    end = time.monotonic() + 240
    while not list(out.glob('parts/part-*.csv')):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.02)
    victim = actors_of(process)[0]
    there = len(list(out.glob('parts/part-*.csv')))
    os.kill(victim.pid, signal.SIGKILL)
    return there


@slow
def test_same_rows_on_ray_with_an_actor_killed(place, tmp_path):
    assert hybridad(call(place, tmp_path / 'plain')) == 3  # 3: one could not be read
    out, log = tmp_path / 'ray', tmp_path / 'log'
    command = [sys.executable, '-c', COMMAND, *call(place, out, '--engine', 'ray', '--actors', '2')]
    with open(log, 'wb') as file:
        process = subprocess.Popen(command, stdout=file, stderr=file)
        there = kill_one(process, out)
        assert process.wait(400) == 3, log.read_text()
    assert 'starting Ray' in log.read_text() and '.cc:' not in log.read_text()  # of its own log
    assert 0 < there < 9, 'the kill came too late to show anything'
    for name in ['scores.csv', *(f'parts/part-{k:06}.csv' for k in range(10))]:
        assert (out / name).read_bytes() == (tmp_path / 'plain' / name).read_bytes(), name
    rows = list(read_scores(out))
    assert len(rows) == 40 == len({r['image'] for r in rows})
    assert all((out / r['overlay']).is_file() for r in rows if r['decision'] != 'unreadable')
    assert (out / 'report.html').is_file()


def check_failure_is_one_sentence(place, tmp_path):
    "An error of ours comes out of Ray's wrappings: here the prompts are gone."
    work = engine.RayEngine(1, checkpoint=tmp_path / 'gone.safetensors', device='cpu')
    parts = Parts(tmp_path / 'gone', [str(place / 'photos' / '00.png')])
    how = dict(pictures='none', batch_size=1, num_workers=0, progress=False, tell=None)
    with pytest.raises(CheckpointError, match='gone.safetensors') as failed:
        work(parts, None, load_scorer(place / 'prompts.safetensors', device='cpu'), **how)
    assert '\n' not in str(failed.value) and 'Traceback' not in str(failed.value)


@slow
def test_part_scorer_in_a_pipeline_of_ray_data(place, tmp_path):
    ray = engine.ray_library()
    engine.start_ray(ray)
    try:
        names = sorted(map(str, (place / 'photos').iterdir()))
        how = dict(checkpoint=place / 'prompts.safetensors', device='cpu')
        rows = ray.data.from_items([dict(path=n) for n in names]).map_batches(
            engine.PartScorer,
            fn_constructor_kwargs=how,
            batch_size=10,
            compute=ray.data.ActorPoolStrategy(size=1),
        )
        rows.write_parquet(str(tmp_path / 'rows'))
        check_failure_is_one_sentence(place, tmp_path)
    finally:
        ray.shutdown()
    import pandas as pd

    found = pd.read_parquet(tmp_path / 'rows').sort_values('image')
    assert hybridad(call(place, tmp_path / 'plain')) == 3
    plain = pd.DataFrame(read_scores(tmp_path / 'plain'))
    assert found['image'].tolist() == plain['image'].tolist()
    assert found['decision'].tolist() == plain['decision'].tolist()
    assert (
        found['score'].fillna(0).reset_index(drop=True) - plain['score'].fillna(0)
    ).abs().max() < 1e-4


def test_without_ray_one_sentence(place, tmp_path, monkeypatch, capsys):
    import hybridad.commands.score as command

    monkeypatch.setattr(command, 'find_spec', lambda name: None)
    out = tmp_path / 'never'
    assert hybridad(call(place, out, '--engine', 'ray')) == 2
    assert 'pip install hybridad[ray]' in capsys.readouterr().err and not out.exists()


@pytest.mark.parametrize(
    ('more', 'said'),
    [
        (('--actors', '2'), 'leave out --actors'),
        (('--engine', 'ray', '--join'), 'no other process joins'),
        (('--engine', 'ray', '--actors', '0'), '--actors: it must lie in [1, inf)'),
    ],
)
def test_flags_that_do_not_fit(place, tmp_path, capsys, more, said):
    assert hybridad(call(place, tmp_path / 'never', *more)) == 2
    assert said in capsys.readouterr().err and not (tmp_path / 'never').exists()

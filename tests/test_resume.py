"""Nothing is lost: runs that are killed, run out of disk or are shared by processes end in what an undisturbed run gives.

A child is forked with everything in memory, so each attempt costs seconds and the kill is a real one. `make proof` kills the commands
themselves, 25 times each."""

import contextlib
import copy
import json
import multiprocessing as mp
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from diffusers import DDIMScheduler
from PIL import Image
from safetensors.torch import load_file

from hybridad import cli
from hybridad.claims import claims_in
from hybridad.config import get_default_config
from hybridad.data.formats import reading_as
from hybridad.data.layouts import read_mvtec
from hybridad.errors import CheckpointError, ConfigError, DataError, HybridadError
from hybridad.evaluation.baselines import LinearProbe, WordsDetector
from hybridad.inference import loader, parts, scoring_runs
from hybridad.inference.image_files import Photos
from hybridad.inference.rows import read_scores, row_of
from hybridad.inference.scoring import Scorer, findings
from hybridad.inference.scoring_runs import score_folder
from hybridad.inference.watching import watch
from hybridad.models import query_cache
from hybridad.models.detector import HybridAnomalyDetector
from hybridad.models.features import read_cached
from hybridad.models.pipeline import EasonADPipeline
from hybridad.runs import read_log
from hybridad.synthetic.plain import picture
from hybridad.training import loop
from hybridad.training.loop import Trainer, fit, training_run
from hybridad.training.step import Step
from hybridad.training.validation import cache_parts

FORK = mp.get_context('fork')
SMALL = dict(image_size=64, device='cpu')
CONFIG = get_default_config(epochs=6, batch_size=8, learning_rate=5e-3, **SMALL)
Trainer.every = 0.0  # save after each step, so that a kill meets a half-done epoch


@pytest.fixture(scope='module')
def samples(tmp_path_factory):
    "Sixteen images with masks, in MVTec layout."
    root = tmp_path_factory.mktemp('data') / 'thing'
    for i in range(16):
        kind = 'scratch' if i % 3 == 1 else 'good'
        p = picture(5, i, 64, kind=kind)
        assert p.mask.any() == (kind == 'scratch')
        for part, pixels in ((f'test/{kind}', p.image), (f'ground_truth/{kind}', p.mask * 255)):
            if part == 'ground_truth/good':
                continue
            (root / part).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype('uint8')).save(root / part / f'{i:02d}.png')
    return read_mvtec(root)


@pytest.fixture(scope='module')
def loaded(samples):
    "One thread, the backbone, and what it said of the images: shared by all children."
    torch.set_num_threads(1)
    detector = HybridAnomalyDetector(CONFIG)
    return detector.backbone, cache_parts(detector, samples, progress=False)


@pytest.fixture(scope='module')
def prompts(loaded, tmp_path_factory):
    "Prompts that are read in one view of 64 px, with thresholds."
    path = tmp_path_factory.mktemp('prompts') / 'prompts.safetensors'
    config = get_default_config(**SMALL)
    about = dict(thresholds=dict(image=0.0, pixel=0.0), trained_on=[])
    HybridAnomalyDetector(config, loaded[0]).save_checkpoint(path, **about)
    return path


def train(loaded, out, limit=None):
    "Begin or continue a run; with `limit`, on a disk that takes files of so many bytes only."
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    backbone, parts = loaded
    fit(
        CONFIG,
        parts,
        out,
        detector=HybridAnomalyDetector(CONFIG, backbone),
        resume=(out / 'run.json').exists(),
        progress=False,
    )


def killed(target, args, seen, rng):
    "Run in a child and kill it a moment after `seen()` changes; whether the kill came before the end."
    child, before = FORK.Process(target=target, args=args), seen()
    child.start()
    while child.is_alive() and seen() == before:
        time.sleep(0.002)
    time.sleep(rng.uniform(0, 0.05))
    child.kill()
    child.join()
    return child.exitcode == -signal.SIGKILL


def state_of(out):
    return lambda: (out / 'resume.pt').stat().st_mtime_ns if (out / 'resume.pt').exists() else 0


def outcome(out):
    "Prompts and figures of a run, without the clock."
    rows = [{k: v for k, v in r.items() if k != 'seconds'} for r in read_log(out / 'log.jsonl')]
    return [load_file(out / f'{n}.safetensors') for n in ('best', 'last')], rows


@pytest.fixture(scope='module')
def straight(loaded, tmp_path_factory):
    train(loaded, out := tmp_path_factory.mktemp('straight') / 'run')
    return outcome(out)


def same(found, wanted):
    assert found[1] == wanted[1]
    for ours, theirs in zip(found[0], wanted[0]):
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def test_training_survives_kills_to_the_same_bits(loaded, straight, tmp_path):
    out, rng = tmp_path / 'run', random.Random(0)
    kills = sum(killed(train, (loaded, out), state_of(out), rng) for _ in range(4))
    train(loaded, out)
    assert kills >= 3, 'the kills came too late to show anything'
    same(outcome(out), straight)


def test_a_run_without_its_best_prompts_is_no_finished_run(loaded, straight, tmp_path):
    train(loaded, out := tmp_path / 'bare')
    (out / 'best.safetensors').unlink()
    with pytest.raises(CheckpointError, match='best.safetensors is gone, the best of 6 epochs'):
        train(loaded, out)
    (out / 'resume.pt').unlink()
    train(loaded, out)
    same(outcome(out), straight)


def test_full_disk_keeps_the_last_good_state(loaded, straight, tmp_path):
    out = tmp_path / 'run'
    killed(train, (loaded, out), state_of(out), random.Random(0))
    files = lambda: {
        p.name: p.read_bytes()
        for p in out.iterdir()
        if p.suffix in ('.pt', '.safetensors', '.json')
    }
    before, pipe = files(), FORK.Pipe()

    def attempt(end):
        try:
            train(loaded, out, 2000)
        except HybridadError as error:
            end.send(str(error))

    child = FORK.Process(target=attempt, args=(pipe[1],))
    child.start()
    child.join()
    assert pipe[0].poll(5), 'the run ended without an error'
    told = pipe[0].recv()
    assert 'free some space' in told and f'--resume --out {out}' in told
    assert files() == before
    train(loaded, out)
    same(outcome(out), straight)


@pytest.mark.parametrize(
    'failure, raised, told',
    [
        (torch.AcceleratorError('CUDA error: device lost'), HybridadError, 'device lost'),
        (torch.OutOfMemoryError('too much'), HybridadError, 'no memory left'),
        (KeyboardInterrupt(), KeyboardInterrupt, 'stopped'),
    ],
)
def test_a_lost_device_and_ctrl_c_end_with_the_last_good_state(
    loaded, straight, tmp_path, monkeypatch, failure, raised, told
):
    steps, out = iter(range(100)), tmp_path / 'run'

    class Failing(Step):
        def __call__(self, *args):
            if next(steps) == 5:
                raise failure
            return super().__call__(*args)

    monkeypatch.setattr(loop, 'Step', Failing)
    with pytest.raises(raised, match=told) as stopped:
        train(loaded, out)
    assert f'--resume --out {out}' in str(stopped.value)
    monkeypatch.undo()
    train(loaded, out)
    same(outcome(out), straight)


def as_one_of(rank, world, port, target, args):
    "Call as one of several processes, as `accelerate launch` would start it."
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(world),
        LOCAL_WORLD_SIZE=str(world),
        MASTER_ADDR='127.0.0.1',
        MASTER_PORT=str(port),
        ACCELERATE_USE_CPU='true',
    )
    target(*args)


def in_two_processes(target, *args):
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    jobs = [FORK.Process(target=as_one_of, args=(r, 2, port, target, args)) for r in range(2)]
    for j in jobs:
        j.start()
    for j in jobs:
        j.join(120)
    assert [j.exitcode for j in jobs] == [0, 0]


def farthest(one, two):
    return max(float((one[n] - two[n]).abs().max()) for n in one)


def learn(loaded, out, kind):
    "Twenty steps, which the processes share."
    config = get_default_config(epochs=20, batch_size=16, **SMALL)
    detector = kind(config, loaded[0])
    train = loaded[1][0]
    step = Step(detector, train, 20)
    for i in range(20):
        step(torch.arange(len(train)).roll(i)[:7])  # an odd number: the halves are not equal
    if step.rank == 0:
        torch.save({n: p.detach() for n, p in detector.named_parameters()}, out)


def test_a_pipe_that_nobody_reads_is_told_as_such():
    flood = "import sys; from hybridad.commands.shared import run_command\ndef flood(a): print('x'*10**6)\nsys.exit(run_command(flood, 'flood', []))"
    child = subprocess.Popen(
        [sys.executable, '-c', flood], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    child.stdout.close()
    assert 'nobody reads the output' in child.stderr.read() and child.wait(60) == 141


def test_who_gives_up_waiting_for_a_query_cache_leaves_it_to_the_other_run(
    loaded, tmp_path, monkeypatch
):
    class Waiting:
        def __init__(self, path):
            self.path = path

        def __enter__(self):
            raise KeyboardInterrupt

        def __exit__(self, *error):
            pass

    pipe = EasonADPipeline(loaded[0])
    (tmp_path / 'kept.part').mkdir()
    (tmp_path / 'kept.lock').touch()  # of the run that fills it
    monkeypatch.setattr(query_cache, 'FileLock', Waiting)
    with pytest.raises(KeyboardInterrupt):
        query_cache.QueryCache(tmp_path / 'kept', pipe).write(
            [loaded[1][0].parts[0][1].latents[0][:2]], 2, tell=lambda text: None
        )
    assert (tmp_path / 'kept.part').is_dir() and (tmp_path / 'kept.lock').is_file()


def test_another_noise_schedule_is_another_query_cache(loaded):
    before = query_cache.cache_settings(EasonADPipeline(loaded[0]))
    other = copy.copy(loaded[0])
    other.scheduler = DDIMScheduler.from_config(loaded[0].scheduler.config, beta_end=0.02)
    after = query_cache.cache_settings(EasonADPipeline(other))
    assert [k for k in before if before[k] != after[k]] == ['backbone', 'configs']


@pytest.mark.parametrize('kind', (HybridAnomalyDetector, LinearProbe, WordsDetector))
def test_two_processes_learn_what_one_learns(loaded, tmp_path, kind):
    learn(loaded, tmp_path / 'one.pt', kind)  # first: what it imports is there for both
    in_two_processes(learn, loaded, tmp_path / 'two.pt', kind)
    assert (
        farthest(*(torch.load(tmp_path / f'{n}.pt', weights_only=True) for n in ('one', 'two')))
        < 1e-5
    )  # float32


def test_whole_run_in_double_precision(samples, tmp_path):
    how = dict(batch_size=8, learning_rate=5e-3, precision='float64')
    config = get_default_config(epochs=2, **how, **SMALL)
    run = lambda out: fit(config, samples[::2], out, progress=False)
    run(tmp_path / 'one')
    in_two_processes(run, tmp_path / 'two')
    one, two = (load_file(tmp_path / n / 'last.safetensors') for n in ('one', 'two'))
    assert one['layer_logits'].dtype == torch.float64 and farthest(one, two) < 1e-10


def quietly(command, *args):
    with contextlib.redirect_stdout(None):
        assert command([str(a) for a in args]) == 0


def figures(out):
    return {
        k: v for k, v in json.loads((out / 'metrics.json').read_text()).items() if k != 'seconds'
    }


def test_two_processes_score_what_one_scores(samples, prompts, tmp_path):
    root, how = samples[0].image.parents[2], ('--checkpoint_path', prompts, '--device', 'cpu')
    check = 'hybridad_test', cli.hybridad_test, ('--data_path', root, '--no_baseline', *how)
    score = 'hybridad_score', cli.hybridad_score, (root, '--part', 3, '--quiet', *how)
    for name, command, args in (check, score):
        quietly(command, *args, '--out', tmp_path / name / 'one')
        in_two_processes(quietly, command, *args, '--out', tmp_path / name / 'two')
    one, two = (figures(tmp_path / 'hybridad_test' / n) for n in ('one', 'two'))
    assert one == two
    assert (tmp_path / 'hybridad_score' / 'one' / 'scores.csv').read_bytes() == (
        tmp_path / 'hybridad_score' / 'two' / 'scores.csv'
    ).read_bytes()


def test_loader_processes_and_batches_change_nothing(loaded, samples, straight, tmp_path):
    how = {k: CONFIG[k] for k in ('epochs', 'batch_size', 'learning_rate', *SMALL)}
    config = get_default_config(**how, num_workers=3)  # `straight` had none
    detector = HybridAnomalyDetector(config, loaded[0])
    fit(config, samples, tmp_path / 'three', detector=detector, progress=False)
    same(outcome(tmp_path / 'three'), straight)
    kept, words = loaded[1][0], WordsDetector(CONFIG, loaded[0])
    whole, single = read_cached(words, kept), read_cached(words, kept, batch_size=1)
    assert max(float(abs(a - b).max()) for a, b in zip(whole, single)) < 1e-5


def test_scoring_survives_kills_without_gaps_or_repeats(loaded, samples, tmp_path):
    scorer, folder = Scorer(WordsDetector(CONFIG, loaded[0]), 0.0, 0.0), samples[0].image.parents[1]

    def run(out):
        score_folder(
            folder, out, scorer, resume=(out / 'run.json').exists(), part=1, progress=False
        )

    run(tmp_path / 'straight')
    cut, rng = tmp_path / 'cut', random.Random(1)
    kills = sum(
        killed(run, (cut,), lambda: len(list(cut.glob('parts/*.csv'))), rng) for _ in range(3)
    )
    run(cut)
    names = [r['image'] for r in read_scores(cut)]
    assert kills >= 2 and len(names) == len(set(names)) == 16
    assert (cut / 'scores.csv').read_bytes() == (tmp_path / 'straight' / 'scores.csv').read_bytes()
    assert not list(tmp_path.rglob('*.partial')), 'a half-written file was left'


def test_processes_join_and_are_killed_and_leave_what_one_leaves(
    loaded, samples, tmp_path, monkeypatch
):
    "Four at a time until ten were killed, each followed by a new one; the last stands still."
    scorer, folder = Scorer(WordsDetector(CONFIG, loaded[0]), 0.0, 0.0), samples[0].image.parents[1]
    rng, out, how = random.Random(2), tmp_path / 'many', dict(part=1, batch_size=1, progress=False)
    score_folder(folder, tmp_path / 'one', scorer, **how)
    monkeypatch.setattr(scoring_runs, 'claims_in', partial(claims_in, stale=3.0))

    def begun():
        slow = dict(join=True, tell=lambda f: time.sleep(0.6))
        child = FORK.Process(target=score_folder, args=(folder, out, scorer), kwargs=how | slow)
        child.start()
        return child

    crew = [begun() for _ in range(4)]
    for _ in range(10):
        time.sleep(rng.uniform(0.05, 0.3))
        killed = crew.pop(0)
        killed.kill()
        killed.join()
        assert killed.exitcode == -signal.SIGKILL, 'the kills came too late to show anything'
        crew.append(begun())
    while not list(out.glob('parts/*.claim')):
        time.sleep(0.01)
    os.kill(crew[-1].pid, signal.SIGSTOP)
    for child in crew[:-1]:
        child.join(120)
    os.kill(crew[-1].pid, signal.SIGCONT)
    crew[-1].join(120)
    assert [c.exitcode for c in crew] == [0] * 4
    one, many = (
        {p.relative_to(d): p.read_bytes() for p in d.rglob('*') if p.is_file()}
        for d in (tmp_path / 'one', out)
    )
    assert one.keys() == many.keys()
    differ = {p.name for p in one if one[p] != many[p]}
    assert differ <= {'run.json', 'report.html'}, 'the folder is named in the report'


@pytest.fixture
def photos(tmp_path):
    "Ten small photographs, and what replaces some of them."
    for i in range(10):
        image = Image.fromarray(picture(7, i, 64).image)
        (tmp_path / 'photos').mkdir(exist_ok=True)
        image.save(tmp_path / 'photos' / f'{i}.bmp')  # all of one size
    return tmp_path / 'photos'


def scored(loaded, photos, out, **how):
    "Score with hand-written words in parts of two; the names of what was looked at, and notes."
    looked, notes = [], []
    scorer = Scorer(WordsDetector(CONFIG, loaded[0]), 0.0, 0.0)
    how = dict(part=2, progress=False, pictures='anomalous', batch_size=2) | how
    tell = lambda f: looked.append(os.path.basename(f.image))
    score_folder(
        photos,
        out,
        scorer,
        resume=(out / 'run.json').exists(),
        tell=tell,
        note=notes.append,
        **how,
    )
    return looked, notes


def overlays(out):
    return {p.relative_to(out): p.read_bytes() for p in (out / 'pictures').rglob('*.jpg')}


def test_photographs_replaced_under_their_names_are_scored_again(loaded, photos, tmp_path):
    out = tmp_path / 'out'
    scored(loaded, photos, out)
    assert scored(loaded, photos, out) == ([], [])
    before = (photos / '0.bmp').stat()
    Image.fromarray(picture(8, 50, 64).image).save(photos / '0.bmp')
    os.utime(photos / '0.bmp', ns=(before.st_atime_ns, before.st_mtime_ns))  # same size, same time
    Image.fromarray(picture(8, 51, 64).image).save(photos / '7.bmp')
    for i in (2, 3, 4):
        os.utime(photos / f'{i}.bmp', (1, 1))  # copied over a network: the same contents
    looked, notes = scored(loaded, photos, out)
    assert looked == ['0.bmp', '1.bmp', '6.bmp', '7.bmp']
    assert len(notes) == 1 and '2 photographs were replaced' in notes[0] and '0.bmp' in notes[0]
    scored(loaded, photos, tmp_path / 'fresh')
    for name in ('scores.csv', 'run.json'):
        kept, fresh = ((d / name).read_text() for d in (out, tmp_path / 'fresh'))
        assert name == 'run.json' or kept == fresh
    assert overlays(out) == overlays(tmp_path / 'fresh')


@pytest.mark.parametrize('form', ['csv', 'parquet'])
def test_overlays_that_are_gone_are_drawn_again(loaded, photos, tmp_path, form):
    if form == 'parquet':
        pytest.importorskip('pyarrow')
    out, how = tmp_path / 'out', dict(pictures='all', form=form)
    scored(loaded, photos, out, **how)
    before = overlays(out)
    (out / 'pictures' / '000001' / '0000002.jpg').unlink()
    (out / 'pictures' / '000003' / '0000007.jpg').write_bytes(b'')
    shutil.rmtree(out / 'pictures' / '000004')
    (out / 'scores.csv').unlink(missing_ok=True)
    words = Scorer(WordsDetector(CONFIG, loaded[0]), 0.0, 0.0)
    joined = dict(how, join=True, part=2, batch_size=2, progress=False)
    score_folder(photos, out, words, note=(told := []).append, **joined)
    assert '4 overlays are gone' in told[0] and '0000002.jpg: say --resume in place' in told[0]
    assert (out / 'scores.csv').exists() == (form == 'csv')
    looked, notes = scored(loaded, photos, out, **how)
    assert looked == [f'{i}.bmp' for i in (2, 3, 6, 7, 8, 9)]
    assert len(notes) == 1 and '3 finished parts scored again' in notes[0]
    assert overlays(out) == before and scored(loaded, photos, out, **how) == ([], [])


@pytest.fixture
def web(photos):
    "An address with a user and a password, whose server is too busy for one of its photographs."
    pytest.importorskip('aiohttp')

    class Server(BaseHTTPRequestHandler):
        def do_GET(self):
            name, _, query = self.path.partition('?')
            known = 'SECRETSIG' in query and 'Authorization' in self.headers
            self.send_response(503 if 'busy' in name else 200 if known else 403)
            self.end_headers()
            if known and 'busy' not in name:
                self.wfile.write((photos / name[1:]).read_bytes())

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(('127.0.0.1', 0), Server)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f'http://me:SECRETPW@127.0.0.1:{server.server_port}'
    server.shutdown()
    server.server_close()


def test_dead_addresses_are_rows_and_no_secret_is_written(
    loaded, photos, web, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(loader, 'PATIENCE', 0.5)
    signed = lambda sig: [f'{web}/{n}.bmp?sig={sig}' for n in ('0', 'busy', '1', '2')]
    (tmp_path / 'day.txt').write_text('\n'.join(['http://127.0.0.1:9/x.png', *signed('SECRETSIG')]))
    out = tmp_path / 'out'
    looked, notes = scored(loaded, tmp_path / 'day.txt', out, part=1, batch_size=1)
    assert len(looked) == 5 and notes == ['2 photographs could not be opened: --resume tries again']
    rows = list(read_scores(out))
    assert [r['decision'] == 'unreadable' for r in rows] == [True, False, True, False, False]
    assert [r['image'].partition('.bmp')[2] for r in rows] == ['', *['?sig=...'] * 4]
    assert all('does not answer' in rows[i]['reason'] for i in (0, 2))
    assert capsys.readouterr().err.count('it is waited for, 0 s at most') == 2
    files = [p for p in out.rglob('*') if p.is_file()]
    assert not [p for p in files if b'SECRET' in p.read_bytes()]
    (out / 'parts' / 'part-000004.csv').unlink()  # of a run that was killed, and signed anew
    new = ['http://127.0.0.1:9/x.png', *signed('SECRETSIG2')]
    (tmp_path / 'day.txt').write_text('\n'.join(new))
    assert scored(loaded, tmp_path / 'day.txt', out, part=1, batch_size=1)[0] == [
        '2.bmp?sig=SECRETSIG2'
    ]


def test_an_inbox_that_is_emptied_leaves_rows(loaded, photos, tmp_path):
    out, names = tmp_path / 'out', []

    def emptied(finding):
        names.append(finding.image)
        for p in photos.iterdir():
            p.rename(tmp_path / p.name)

    words = Scorer(WordsDetector(CONFIG, loaded[0]), 0.0, 0.0)
    how = dict(part=1, batch_size=1, progress=False, note=str, tell=emptied)
    begun = time.monotonic()
    counts, _ = score_folder(photos, out, words, **how)
    assert time.monotonic() < begun + 60 and len(names) == 10
    assert counts['unreadable'] >= 8 and (out / 'scores.csv').exists()


def test_a_refused_continuation_changes_nothing(loaded, photos, tmp_path):
    "Neither the plan, which still says finished, nor parts that are outdated."
    out = tmp_path / 'out'
    scored(loaded, photos, out)
    Image.fromarray(picture(8, 50, 64).image).save(photos / '0.bmp')
    (out / 'parts' / 'part-000001.csv').write_text('image,decision\n')
    before = {p: p.read_bytes() for p in out.rglob('*') if p.is_file()}
    with pytest.raises(CheckpointError, match='part-000001.csv is damaged'):
        scored(loaded, photos, out)
    assert {p: p.read_bytes() for p in out.rglob('*') if p.is_file()} == before
    (out / 'parts' / 'part-000001.csv').unlink()
    assert scored(loaded, photos, out)[0] == ['0.bmp', '1.bmp', '2.bmp', '3.bmp']


def test_parts_without_a_digest_are_not_trusted(loaded, photos, tmp_path):
    out = tmp_path / 'out'
    scored(loaded, photos, out)
    part = out / 'parts' / 'part-000001.csv'
    rows = [line.rsplit(',', 1)[0] for line in part.read_text().splitlines()]
    part.write_text('\n'.join(rows) + '\n')
    assert scored(loaded, photos, out)[0] == ['2.bmp', '3.bmp']


@pytest.mark.parametrize('what', ['a part', 'the folder', 'the plan'])
def test_what_vanishes_during_a_scoring_is_an_error(loaded, photos, tmp_path, monkeypatch, what):
    out, write = tmp_path / 'out', parts.write_atomic

    def vanishing(path, content, by):
        write(path, content, by)
        if path.name == 'part-000003.csv':
            if what == 'a part':
                (out / 'parts' / 'part-000000.csv').unlink()
            elif what == 'the folder':
                shutil.rmtree(out)
            else:
                (out / 'run.json').unlink()

    monkeypatch.setattr(parts, 'write_atomic', vanishing)
    monkeypatch.setattr(parts, 'PATIENCE', 0.0)
    told = 'part-000000.csv vanished' if what == 'a part' else 'with --join or --resume once'
    with pytest.raises(DataError, match=told):
        scored(loaded, photos, out)
    assert not (out / 'scores.csv').exists()
    assert out.exists() == (what != 'the folder'), 'a folder that is gone is not made again'
    monkeypatch.undo()
    if what == 'a part':
        assert scored(loaded, photos, out)[0] == ['0.bmp', '1.bmp']


@pytest.mark.parametrize(
    'when', ['a part begins', 'photographs are scored', 'the table is written']
)
@pytest.mark.parametrize('join', [False, True])
def test_a_run_folder_out_of_reach_is_waited_for(
    loaded, photos, tmp_path, monkeypatch, capsys, when, join
):
    "A share that is away for a moment: nothing is lost, done twice, or made anew beside it."
    out, away, looked = tmp_path / 'out', tmp_path / 'away', []
    scored(loaded, photos, tmp_path / 'undisturbed', pictures='all')
    monkeypatch.setattr(parts, 'PATIENCE', 6.0)  # looks are a sixtieth of it apart

    def vanish(instead=None, *args):
        if not looked:
            looked.append(1)
            out.rename(away)
            threading.Timer(0.3, away.rename, [out]).start()
        return instead and instead(*args)

    if when == 'a part begins':
        monkeypatch.setattr(parts, 'half_written', partial(vanish, parts.half_written))
    elif when == 'the table is written':
        monkeypatch.setattr(scoring_runs, 'tidy', partial(vanish, scoring_runs.tidy))
    else:
        monkeypatch.setattr(parts, 'captioned', partial(vanish, parts.captioned))
    names, _ = scored(loaded, photos, out, pictures='all', join=join)
    assert looked and len(names) == len(set(names)) == len(os.listdir(photos))
    assert capsys.readouterr().err.count('is out of reach') == 1
    whole = [
        {p.relative_to(d): p.read_bytes() for p in d.rglob('*') if p.suffix in ('.csv', '.jpg')}
        for d in (out, tmp_path / 'undisturbed')
    ]
    assert whole[0] == whole[1] and (out / 'report.html').is_file() and not away.exists()


def test_a_lone_process_whose_parts_vanish_does_not_end_with_code_0(
    photos, prompts, tmp_path, monkeypatch, capsys
):
    write = parts.write_atomic

    def vanishing(path, content, by):
        write(path, content, by)
        if path.suffix == '.csv':
            path.unlink()

    monkeypatch.setattr(parts, 'write_atomic', vanishing)
    args = [photos, '--checkpoint_path', prompts, '--out', tmp_path / 'out', '--device', 'cpu']
    args += ['--quiet', '--pictures', 'none']
    assert cli.hybridad_score(list(map(str, args))) == 2
    assert 'vanished' in capsys.readouterr().err


def test_resume_compares_what_the_bits_depend_on(loaded, photos, tmp_path, monkeypatch):
    out = tmp_path / 'out'
    scored(loaded, photos, out)
    (out / 'parts' / 'part-000001.csv').unlink()
    with pytest.raises(ConfigError, match='another batch_size'):
        scored(loaded, photos, out, batch_size=1)
    threads = torch.get_num_threads()
    with (
        monkeypatch.context() as other,
        pytest.raises(ConfigError, match=f'OMP_NUM_THREADS={threads}'),
    ):
        other.setattr(torch, 'get_num_threads', lambda: threads + 1)  # a real pool survives no fork
        scored(loaded, photos, out)
    assert scored(loaded, photos, out, num_workers=1)[0] == ['2.bmp', '3.bmp']


def test_a_machine_with_other_cores_joins(loaded, photos, prompts, tmp_path):
    "It takes over the threads of the run, so the table is that of one process."
    out, one = tmp_path / 'out', tmp_path / 'one'
    args = [photos, '--checkpoint_path', prompts, '--device', 'cpu', '--quiet']
    args = list(map(str, [*args, '--pictures', 'none', '--part', 2, '--batch_size', 2]))
    assert cli.hybridad_score([*args, '--out', str(one)]) == 0
    shutil.copytree(one, out)
    for gone in ('scores.csv', 'report.html', 'parts/part-000001.csv', 'parts/part-000003.csv'):
        (out / gone).unlink()
    begin = 'import sys; from hybridad import cli; sys.exit(cli.hybridad_score())'
    threads = torch.get_num_threads()
    how = dict(env=os.environ | dict(OMP_NUM_THREADS=str(threads + 1)), timeout=300)
    joined = subprocess.run(
        [sys.executable, '-c', begin, *args, '--out', str(out), '--join'],
        capture_output=True,
        text=True,
        **how,
    )
    assert joined.returncode == 0, joined.stderr
    assert joined.stdout.count(f'computing with {threads} thread') == 1
    for name in ('scores.csv', *(f'parts/part-{k:06d}.csv' for k in range(5))):
        assert (out / name).read_bytes() == (one / name).read_bytes()


def test_threads_are_those_of_whoever_began_the_run_just_before(
    loaded, photos, tmp_path, monkeypatch
):
    threads, told = [7], []
    scorer = Scorer(WordsDetector(CONFIG, loaded[0]), 0.0, 0.0)
    how = dict(join=True, part=2, progress=False, note=told.append)
    monkeypatch.setattr(torch, 'get_num_threads', lambda: threads[-1])
    monkeypatch.setattr(torch, 'set_num_threads', threads.append)

    def late(folder):
        monkeypatch.setattr(scoring_runs, 'claims_in', claims_in)
        threads.append(2)
        score_folder(photos, folder, scorer, **how)
        threads.append(7)
        return claims_in(folder)

    monkeypatch.setattr(scoring_runs, 'claims_in', late)
    score_folder(photos, tmp_path / 'out', scorer, **how)
    assert threads == [7, 2, 2, 7, 2, 7]  # both put back what they found
    assert len(told) == 1 and 'computing with 2 threads' in told[0]
    with pytest.raises(ConfigError, match='begun with another part, see'):
        score_folder(photos, tmp_path / 'out', scorer, **how | dict(part=3))


def test_photographs_cut_into_tiles_are_in_memory_one_by_one(loaded, photos, tmp_path):
    "Rows are those of photographs that were in memory together."

    class Seen(Scorer):
        def __call__(self, batch, size=8):
            looked.append(len(batch))
            return super().__call__(batch, size)

    looked, scorer = [], Seen(WordsDetector(CONFIG, loaded[0]), 0.0, 0.0, tiles=2)
    names, stop = sorted(map(str, photos.iterdir())), threading.Event()
    together = scorer(list(Photos(names, scorer.fit)), 4)
    looked.clear()
    how = dict(batch_size=4, pictures='none')
    score_folder(photos, tmp_path / 'run', scorer, part=5, progress=False, **how)
    found = list(findings(scorer, names, batch_size=4, num_workers=1))
    assert looked == [1] * 20
    assert list(map(row_of, found)) == list(map(row_of, together))
    scores = [row_of(f)['score'] for f in together]
    assert [r['score'] for r in read_scores(tmp_path / 'run')] == scores
    tell = lambda f, _: f.image.endswith('9.bmp') and stop.set()
    watch(str(photos), tmp_path / 'line', scorer, stop=stop, tell=tell, note=str, **how)
    assert looked == [1] * 30


def test_a_run_is_continued_with_the_flags_that_say_how_files_are_read(
    photos, prompts, tmp_path, capsys
):
    args = [photos, '--checkpoint_path', prompts, '--out', tmp_path / 'out', '--device', 'cpu']
    args += ['--quiet', '--pictures', 'none']
    call = lambda *more: cli.hybridad_score(list(map(str, [*args, *more])))
    assert call('--bits', '16') == 0
    for more in (['--resume'], ['--join'], ['--resume', '--bits', '12']):
        assert call(*more) == 2
        assert 'was begun with --bits 16, see' in capsys.readouterr().err
    assert call('--resume', '--bits', '16', '--masks', 'dark') == 0  # of which there are none
    run = training_run(tmp_path / 'learned', CONFIG)
    run.open(False)
    with reading_as(masks='dark'), pytest.raises(ConfigError, match='begun with no --masks'):
        training_run(run.folder, CONFIG).check(True)


def test_two_runs_never_write_into_one_folder(loaded, straight, tmp_path):
    out, (ours, theirs) = tmp_path / 'run', FORK.Pipe()
    killed(train, (loaded, out), state_of(out), random.Random(0))  # leaves a lock, and a run

    def attempt(end):
        try:
            train(loaded, out)
            end.send('')
        except ConfigError as error:
            end.send(str(error))

    jobs = [FORK.Process(target=attempt, args=(theirs,)) for _ in range(3)]
    for j in jobs:
        j.start()
    told = [ours.recv() for _ in jobs]
    for j in jobs:
        j.join()
    refused = [t for t in told if t]
    assert refused and all('in use by process' in t for t in refused)
    assert any(str(j.pid) in t for j in jobs for t in refused)
    same(outcome(out), straight)
    epochs = [r['epoch'] for r in read_log(out / 'log.jsonl')]
    assert epochs == sorted(set(epochs))
    assert not list(tmp_path.glob('.*.lock'))

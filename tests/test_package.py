"""The wheel holds everything and its commands answer, from an environment and a folder that know
nothing of the checkout; the package offers its main names without loading torch."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from importlib import import_module
from importlib.metadata import packages_distributions
from pathlib import Path
from shlex import split
from sysconfig import get_path

import pytest
import yaml

import hybridad

ROOT = Path(__file__).resolve().parents[1]
settings = ConfigParser(delimiters=['='])
settings.read(ROOT / 'settings.ini', encoding='utf-8')
HEAVY = {'torch', 'numpy', 'diffusers', 'transformers', 'matplotlib'}
COMMANDS = [s.split('=')[0] for s in split(settings['DEFAULT']['console_scripts'])]


def run(*args, cwd, **kwargs):
    "The output of a command that must succeed, run in `cwd` with no path to this checkout."
    env = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
    command = [str(a) for a in args]
    r = subprocess.run(
        command, cwd=cwd, env=env, capture_output=True, text=True, timeout=300, **kwargs
    )
    assert r.returncode == 0, f'{args[0]} exits {r.returncode}:\n{r.stdout}{r.stderr}'
    return r.stdout


@pytest.fixture(scope='module')
def wheel(copy_checkout, tmp_path_factory):
    tmp = tmp_path_factory.mktemp('wheel')
    checkout = copy_checkout(tmp / 'checkout')
    run(sys.executable, '-m', 'build', '--wheel', '--no-isolation', '--outdir', tmp, cwd=checkout)
    return next(tmp.glob('*.whl'))


@pytest.fixture(scope='module')
def env(wheel, tmp_path_factory):
    "A new environment with only the wheel; dependencies come from this one, without a download."
    tmp = tmp_path_factory.mktemp('env')
    run(sys.executable, '-m', 'venv', '--without-pip', tmp / 'venv', cwd=tmp)
    python = tmp / 'venv' / 'bin' / 'python'
    run(
        sys.executable,
        '-m',
        'pip',
        '--python',
        python,
        'install',
        '--no-index',
        '--no-deps',
        wheel,
        cwd=tmp,
    )
    own = Path(
        run(python, '-c', 'import sysconfig; print(sysconfig.get_path("purelib"))', cwd=tmp).strip()
    )
    (own / 'dependencies.pth').write_text(get_path('purelib') + '\n')
    return tmp


def test_wheel_holds_modules_weights_and_licences(wheel):
    held = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        p.relative_to(ROOT).as_posix()
        for p in (ROOT / 'hybridad').rglob('*')
        if p.is_file() and '__pycache__' not in p.parts
    }
    assert not wanted - held, f'not in the wheel: {sorted(wanted - held)}'
    assert any(n.endswith('.dist-info/licenses/LICENSE') for n in held)


def test_wheel_is_what_gets_imported(env):
    where = run(
        env / 'venv' / 'bin' / 'python', '-c', 'import hybridad; print(hybridad.__file__)', cwd=env
    ).strip()
    assert Path(where).is_relative_to(env), f'{where} is imported instead of the installed wheel'


@pytest.mark.parametrize('command', COMMANDS)
def test_command_answers_help(env, command):
    assert 'usage' in run(env / 'venv' / 'bin' / command, '--help', cwd=env).lower()


def test_selftest_passes_from_the_wheel(env):
    said = run(env / 'venv' / 'bin' / 'hybridad', 'selftest', '--device', 'cpu', cwd=env)
    # its seconds are printed, not judged: this machine may have other work to do
    assert re.search(r'5/5 passed, \d+ s$', said, re.M) and list(env.iterdir()) == [env / 'venv'], (
        said
    )


def test_stored_figures_are_in_the_wheel(wheel):
    held = set(zipfile.ZipFile(wheel).namelist())
    for file in [*(ROOT / 'results').rglob('*.json'), ROOT / 'results' / 'ablation.csv']:
        wanted = f'share/hybridad/{file.relative_to(ROOT).as_posix()}'
        assert any(n.endswith(f'.data/data/{wanted}') for n in held), wanted


def guides():
    "Every guide; all but the cheapest only with HYBRIDAD_SLOW=1."
    slow = pytest.mark.skipif(
        'HYBRIDAD_SLOW' not in os.environ, reason='takes minutes: HYBRIDAD_SLOW=1 runs every guide'
    )
    names = sorted(p.stem for p in (ROOT / 'nbs' / 'guides').glob('*.ipynb'))
    return [pytest.param(n, marks=() if n == 'results' else slow) for n in names]


@pytest.mark.parametrize('guide', guides())
def test_guide_runs_from_the_wheel_in_an_empty_folder(env, tmp_path, guide):
    shutil.copy(ROOT / 'nbs' / 'guides' / f'{guide}.ipynb', tmp_path)
    environment = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
    command = [env / 'venv' / 'bin' / 'python', '-m', 'nbconvert', '--execute']
    command += ['--to', 'notebook', '--output', 'ran', f'{guide}.ipynb']
    r = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=3000
    )
    assert r.returncode == 0, r.stderr[-3000:]
    assert (tmp_path / 'ran.ipynb').is_file()


@pytest.mark.parametrize('guide', sorted((ROOT / 'nbs' / 'guides').glob('*.ipynb'), key=str))
def test_guide_begins_with_a_badge_and_an_installing_cell(guide):
    first, second = json.loads(guide.read_text(encoding='utf-8'))['cells'][:2]
    assert f'hybridad/blob/main/nbs/guides/{guide.name})' in ''.join(first['source'])
    told = ''.join(second['source'])
    assert "if not find_spec('hybridad'):" in told and '%pip install' in told


def imported_by(guide):
    "The packages that the code of a guide imports, wherever in a cell."
    for cell in json.loads(guide.read_text(encoding='utf-8'))['cells']:
        if cell['cell_type'] == 'code':
            plain = re.sub(r'^(\s*)[!%].*$', r'\1pass', ''.join(cell['source']), flags=re.M)
            for node in ast.walk(ast.parse(plain)):
                if isinstance(node, ast.Import):
                    yield from (a.name.split('.')[0] for a in node.names)
                elif isinstance(node, ast.ImportFrom):
                    yield node.module.split('.')[0]


def test_guides_import_what_a_plain_install_brings():
    wanted = {re.split('[<>=]', r)[0] for r in settings['DEFAULT']['requirements'].split()}
    known = packages_distributions()
    # whoever runs a notebook has IPython, and ipywidgets brings it
    brought = {n for n, of in known.items() if wanted & {d.lower() for d in of}} | {'IPython'}
    allowed = brought | {'hybridad', *sys.stdlib_module_names}
    for guide in sorted((ROOT / 'nbs' / 'guides').glob('*.ipynb')):
        extra = set(imported_by(guide)) - allowed
        assert not extra, f'{guide.name} imports what is no requirement of settings.ini: {extra}'


def test_import_is_light_and_quick():
    code = (
        'import sys, time; begun = time.perf_counter(); import hybridad; dir(hybridad); '
        'took = time.perf_counter() - begun; '
        f'print(took, *({HEAVY} & {{m.split(".")[0] for m in sys.modules}}))'
    )
    answers = [run(sys.executable, '-c', code, cwd=ROOT).split() for _ in range(3)]
    assert all(len(a) == 1 for a in answers), f'import hybridad loads {answers[0][1:]}'
    assert min(float(a[0]) for a in answers) < 0.1, answers  # seconds; the fastest of three


@pytest.mark.parametrize('name', hybridad.__all__)
def test_front_door_opens_the_module(name):
    home = import_module(f'hybridad.{hybridad._HOME[name]}')
    assert getattr(hybridad, name) is getattr(home, name)
    assert getattr(hybridad, name).__module__ == home.__name__, 'not the module that defines it'


PACKAGES = 'data', 'evaluation', 'inference', 'metrics', 'models', 'studies', 'synthetic'
PACKAGES = *PACKAGES, 'training', 'visual'


@pytest.mark.parametrize('package', PACKAGES)
def test_packages_offer_names_of_their_modules_and_load_none(package):
    door = import_module(f'hybridad.{package}')
    for name, module in door._HOME.items():
        home = import_module(f'hybridad.{package}.{module}')
        assert getattr(door, name) is getattr(home, name) and name in dir(door)
        assert getattr(door, name).__module__ == home.__name__, 'not the module that defines it'
    with pytest.raises(AttributeError, match=f"module 'hybridad.{package}' has no attribute"):
        door.nothing  # noqa: B018
    code = f'import sys, hybridad.{package}; print(*(m for m in sys.modules if "hybridad." in m))'
    loaded = set(run(sys.executable, '-c', code, cwd=ROOT).split())
    assert loaded == {'hybridad.former', f'hybridad.{package}'}


def test_front_door_tells_type_checkers_the_same():
    tree = ast.parse((ROOT / 'hybridad' / '__init__.py').read_text(encoding='utf-8'))
    told = {
        a.name: n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for a in n.names
    }
    for name in ('TYPE_CHECKING', 'import_module', 'FormerModules'):
        told.pop(name)
    assert told == hybridad._HOME and set(hybridad.__all__) == set(told) <= set(dir(hybridad))


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'hybridad' has no attribute 'nothing'"):
        hybridad.nothing  # noqa: B018


def test_requirements_pin_the_same_torch():
    pinned = [
        line.split()[0]
        for name in ('requirements.txt', 'constraints.txt')
        for line in (ROOT / name).read_text(encoding='utf-8').splitlines()
        if line.startswith('torch==')
    ]
    assert len(pinned) == 2 and pinned[0] == pinned[1], pinned


WORKFLOWS = sorted((ROOT / '.github' / 'workflows').glob('*.yml'))


def steps():
    "(workflow, job, command) of every step that runs something."
    for path in WORKFLOWS:
        jobs = yaml.safe_load(path.read_text(encoding='utf-8'))['jobs']
        for job, about in jobs.items():
            yield from ((path.stem, job, s['run']) for s in about['steps'] if 'run' in s)


def test_workflows_run_the_scripts_that_are_run_here():
    "What a job does can be tried without GitHub: by .ci/run, by targets of make, by commands."
    targets = re.findall(r'^(\w+):', (ROOT / 'Makefile').read_text(encoding='utf-8'), re.M)
    ran = list(steps())
    assert ('test', 'linux', '.ci/run') in ran and ('docs', 'site', 'make docs') in ran
    for workflow, job, command in ran:
        assert set(re.findall(r'\bmake (\w+)', command)) <= {*targets}, (workflow, job)
        for script in re.findall(r'(?<!\S)\.ci/\S+', command):
            assert os.access(ROOT / script, os.X_OK), f'{workflow}, {job}: {script} cannot be run'


@pytest.mark.skipif(not shutil.which('zizmor'), reason='zizmor, a requirement of dev, is missing')
def test_a_linter_finds_nothing_in_the_workflows():
    command = ['zizmor', '--offline', '--no-progress', *map(str, WORKFLOWS)]
    r = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert r.returncode == 0, r.stdout + r.stderr

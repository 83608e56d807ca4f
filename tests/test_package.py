"The wheel holds everything and its commands answer, from an environment and a folder that know nothing of the checkout."

import subprocess
import sys
import zipfile
from configparser import ConfigParser
from pathlib import Path
from shlex import split
from sysconfig import get_path

import pytest

ROOT = Path(__file__).resolve().parents[1]
settings = ConfigParser(delimiters=['='])
settings.read(ROOT / 'settings.ini', encoding='utf-8')
COMMANDS = [s.split('=')[0] for s in split(settings['DEFAULT']['console_scripts'])]


def run(*args, cwd, **kwargs):
    "The output of a command that must succeed, run in `cwd`."
    r = subprocess.run(
        [str(a) for a in args], cwd=cwd, capture_output=True, text=True, timeout=300, **kwargs
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
    "A new environment with only the wheel in it; its dependencies are read from this environment, so nothing is downloaded."
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

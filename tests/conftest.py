"What the tests share: a copy of the checkout that they may change."

import shutil
from pathlib import Path

import pytest

NOT_SOURCE = (
    '.git',
    '.venv',
    'runs',
    'build',
    'dist',
    '*.egg-info',
    '__pycache__',
    '.pytest_cache',
    '.ipynb_checkpoints',
    '.last_checked',
    '.gitconfig',
    '_proc',
    '_docs',
)


@pytest.fixture(scope='session')
def copy_checkout():
    "A function that copies the working tree, untracked files included, without what git ignores."
    root = Path(__file__).resolve().parents[1]
    return lambda to: Path(shutil.copytree(root, to, ignore=shutil.ignore_patterns(*NOT_SOURCE)))

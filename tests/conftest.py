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

# The longest first, so that no process waits for the other at the end.
LONG = (
    *('browser', 'resume', 'watch', 'reader', 'shapes', 'evaluation'),
    *('package', 'export', 'fuzz', 'guide', 'families', 'data'),
)


def pytest_collection_modifyitems(items):
    "Long modules come first, for `--dist loadscope --no-loadscope-reorder`."
    places = {f'test_{name}.py': i for i, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path.name, len(LONG)))


@pytest.fixture(scope='session')
def copy_checkout():
    "A function that copies the working tree, untracked files included, without what git ignores."
    root = Path(__file__).resolve().parents[1]
    return lambda to: Path(shutil.copytree(root, to, ignore=shutil.ignore_patterns(*NOT_SOURCE)))

"Package hybridad from the settings that nbdev reads"

from configparser import ConfigParser
from pathlib import Path
from shlex import split

from setuptools import find_packages, setup

parser = ConfigParser(delimiters=['='])
parser.read('settings.ini', encoding='utf-8')
cfg = parser['DEFAULT']


def stored_figures():
    "Figures that guides show, for hybridad.studies.measured: (folder in the environment, files)."
    files = [*Path('results').rglob('*.json'), Path('results/ablation.csv')]
    folders = sorted({f.parent for f in files})
    return [
        (f'share/hybridad/{d.as_posix()}', sorted(str(f) for f in files if f.parent == d))
        for d in folders
    ]


setup(
    name=cfg['lib_name'],
    version=cfg['version'],
    description=cfg['description'],
    long_description=Path('README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    author=cfg['author'],
    author_email=cfg['author_email'],
    url=cfg['git_url'],
    license=cfg['license'],
    keywords=cfg['keywords'],
    python_requires='>=' + cfg['min_python'],
    packages=find_packages(include=[cfg['lib_path'], cfg['lib_path'] + '.*']),
    package_data={cfg['lib_path']: ['py.typed', 'backbones/mini/**/*', 'backbones/LICENSE']},
    data_files=stored_figures(),
    install_requires=split(cfg['requirements']),
    extras_require={
        extra: split(cfg[f'{extra}_requirements'])
        for extra in (
            'dev',
            'docs',
            'export',
            'labels',
            'large',
            'ray',
            'remote',
            't5',
            'tracking',
            'video',
        )
    },
    entry_points={
        'console_scripts': split(cfg['console_scripts']),
        'nbdev': [f'{cfg["lib_path"]}={cfg["lib_path"]}._modidx:d'],
    },
)

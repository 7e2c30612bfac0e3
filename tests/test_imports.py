"""The direction in which packages import each other."""
import ast
import os
import subprocess
import sys
from pathlib import Path
from typing import Iterator, Set, Tuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / 'mmblockdrop'
#: What each room may import of the others; all may import ``SHARED``, nobody
#: ``rounds`` or ``apis``.
ARROWS = dict(
    compat=set(),
    utils=set(),
    structures=set(),
    data=set(),
    compression=set(),
    backbones={'compression'},
    localizers={'backbones', 'compression'},
    evaluation=set(),
    inference={'backbones', 'evaluation'},
    distillation={'compression'},
    scorers={'compression'},
    parity={'data', 'distillation', 'evaluation', 'localizers'},
    report={'compression'},
    export={'compression'},
    convert={'compression'},
    rounds={'compression', 'distillation', 'report', 'scorers'},
    apis={'compression', 'evaluation', 'inference'},
    quickstart={'apis', 'backbones', 'compression', 'data', 'report'})
SHARED = {'compat', 'registry', 'structures', 'utils', 'version'}
#: Where mmaction2 and mmcv may be imported.
OPENMMLAB = ('backbones/vit.py', 'compat/', 'data/', 'localizers/')
FILES = sorted(PACKAGE.rglob('*.py'))


def imported_modules(path: Path) -> Iterator[str]:
    """Full names of all modules that a file imports, wherever in it."""
    parents = path.relative_to(ROOT).with_suffix('').parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ''
            if node.level:
                start = parents[:len(parents) - node.level + 1]
                base = '.'.join([*start, *filter(None, [node.module])])
            for alias in node.names:
                yield f'{base}.{alias.name}'


def siblings(path: Path) -> Set[str]:
    """Parts of mmblockdrop, other than its own, that a file imports."""
    own = path.relative_to(PACKAGE).with_suffix('').parts[0]
    found = {
        name.split('.')[1]
        for name in imported_modules(path) if name.startswith('mmblockdrop.')
    }
    return found - {own, '__version__'}


def owner(path: Path) -> Tuple[str, str]:
    """Part that a file belongs to, and its path below mmblockdrop."""
    inside = path.relative_to(PACKAGE)
    return inside.with_suffix('').parts[0], inside.as_posix()


def test_the_figure_shows_the_rules():
    page = ROOT / 'docs' / 'en' / 'advanced_guides' / 'architecture.md'
    figure = page.read_text().split('```mermaid')[1].split('```')[0]
    drawn = {}
    for line in figure.splitlines():
        if '-->' in line:
            room, others = line.split('-->')
            drawn[room.strip()] = {x.strip() for x in others.split('&')}
    assert drawn == {room: to for room, to in ARROWS.items() if to}


def test_every_package_has_a_rule():
    folders = {path.parent.name for path in PACKAGE.glob('*/__init__.py')}
    assert folders <= set(ARROWS)


@pytest.mark.parametrize(
    'path', FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_follow_the_arrows(path):
    package, inside = owner(path)
    if package in ARROWS:  # a folder, or a file beside the folders
        assert siblings(path) <= ARROWS[package] | SHARED
    elif package == '__init__':
        assert siblings(path) <= {'compat', 'version'}
    else:
        assert siblings(path) <= SHARED
    if package == 'localizers':  # to declare their blocks, no more
        assert all(
            name.startswith('mmblockdrop.compression.spec')
            for name in imported_modules(path)
            if name.startswith('mmblockdrop.compression'))
    if not inside.startswith(OPENMMLAB):
        names = {name.split('.')[0] for name in imported_modules(path)}
        assert not names & {'mmaction', 'mmcv', 'mmpretrain'}


def test_relative_imports_are_resolved(tmp_path, monkeypatch):
    folder = tmp_path / 'mmblockdrop' / 'data'
    folder.mkdir(parents=True)
    file = folder / 'a.py'
    file.write_text('from ..rounds import loop\nfrom . import b\n'
                    'def f():\n    import mmblockdrop.distillation.losses\n')
    monkeypatch.setattr(sys.modules[__name__], 'ROOT', tmp_path)
    monkeypatch.setattr(sys.modules[__name__], 'PACKAGE', folder.parent)
    assert siblings(file) == {'rounds', 'distillation'}


def test_importing_mmblockdrop_is_cheap():
    code = ('import mmblockdrop, sys; '
            "print([name for name in ('torch', 'numpy', 'mmengine', 'mmcv', "
            "'mmaction') if name in sys.modules])")
    out = subprocess.run([sys.executable, '-c', code],
                         env=dict(os.environ, PYTHONPATH=str(ROOT)),
                         capture_output=True,
                         text=True,
                         check=True)
    assert out.stdout.strip() == '[]'

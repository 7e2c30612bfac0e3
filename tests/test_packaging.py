"""What is installed, and that mim finds it."""
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ('mmblockdrop', 'configs', 'tools', 'requirements', 'setup.cfg',
           'pyproject.toml', 'MANIFEST.in', 'LICENSE', 'model-index.yml')

CONFIG = '''
# Builds nothing: mim only has to find this file and the training script.
raise SystemExit('reached the config')
'''


def call(*command, **kwargs) -> subprocess.CompletedProcess:
    return subprocess.run([str(part) for part in command],
                          stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT,
                          text=True,
                          timeout=300,
                          **kwargs)


@pytest.fixture(scope='module')
def installed(tmp_path_factory) -> Path:
    """Folder into which a copy of the repository is installed."""
    copy = tmp_path_factory.mktemp('repository')
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name,
                copy / name,
                symlinks=True,
                ignore=shutil.ignore_patterns('__pycache__'))
        else:
            shutil.copy(ROOT / name, copy / name)
    (copy / 'configs' / 'only_for_mim.py').write_text(CONFIG)
    target = tmp_path_factory.mktemp('site')
    done = call(sys.executable, '-m', 'pip', 'install', '--no-deps',
                '--no-build-isolation', '--no-compile', '--quiet', '--target',
                target, copy)
    assert done.returncode == 0, done.stdout
    return target


def test_installation_holds_real_files(installed):
    mim = installed / 'mmblockdrop' / '.mim'
    assert not any(path.is_symlink() for path in mim.rglob('*'))
    for name in ('train.py', 'test.py', 'command_line.py', 'dist_train.sh',
                 'dist_test.sh', 'slurm_train.sh'):
        assert (mim / 'tools' / name).read_text() == (ROOT / 'tools' /
                                                      name).read_text()
    assert (mim / 'model-index.yml').read_text()
    configs = {
        path.relative_to(ROOT / 'configs')
        for path in (ROOT / 'configs').rglob('*.py')
    }
    found = {
        path.relative_to(mim / 'configs')
        for path in (mim / 'configs').rglob('*.py')
    }
    assert configs <= found
    for path in (ROOT / 'mmblockdrop').rglob('*.py'):
        if '.mim' not in path.parts:
            assert (installed / path.relative_to(ROOT)).exists()
    assert not (installed / 'tests').exists()


def test_mim_runs_our_train_script(installed):
    """``mim train mmblockdrop NAME`` needs neither folder nor path."""
    done = call(
        sys.executable,
        '-W',
        'ignore',
        '-m',
        'mim',
        'train',
        'mmblockdrop',
        'only_for_mim.py',
        cwd=installed,
        env=dict(os.environ, PYTHONPATH=str(installed)))
    assert '.mim/tools/train.py' in done.stdout
    assert 'reached the config' in done.stdout


def test_mim_folder_is_made_of_relative_links():
    for link in (ROOT / 'mmblockdrop' / '.mim').iterdir():
        assert not os.path.isabs(os.readlink(link))
        assert link.resolve().parent == ROOT


def test_metadata_lists_every_metafile():
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    metafiles = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / 'configs').rglob('metafile.yml')
    }
    assert set(index['Import']) == metafiles
    for metafile in metafiles:
        for model in yaml.safe_load((ROOT / metafile).read_text())['Models']:
            assert (ROOT / model['Config']).is_file()


def test_config_names_are_unique():
    """Mim searches configs by their file name alone."""
    names = [
        path.name for path in (ROOT / 'configs').rglob('*.py')
        if '_base_' not in path.parts
    ]
    assert len(names) == len(set(names))


def requirements(name: str):
    lines = (ROOT / 'requirements' / name).read_text().splitlines()
    return [
        Requirement(line) for line in lines
        if line and not line.startswith('#')
    ]


@pytest.mark.parametrize('name', ['runtime.txt', 'mminstall.txt', 'tests.txt'])
def test_pins_satisfy_the_ranges(name):
    pins = {
        pin.name.lower(): str(pin.specifier).lstrip('=')
        for pin in requirements('pinned.txt')
    }
    for wanted in requirements(name):
        assert wanted.name.lower() in pins, f'{wanted} is not pinned'
        assert pins[wanted.name.lower()] in wanted.specifier

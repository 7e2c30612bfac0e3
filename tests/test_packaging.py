"""What is installed, and that mim finds it."""
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import mmblockdrop
from mmblockdrop.quickstart import DEMO

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


def call(*command, timeout=300, **kwargs) -> subprocess.CompletedProcess:
    return subprocess.run([str(part) for part in command],
                          stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT,
                          text=True,
                          timeout=timeout,
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


def outside(installed, *command) -> subprocess.CompletedProcess:
    """Run Python beside the installed wheel, not in the repository."""
    return call(sys.executable, '-W', 'ignore', *command, cwd=installed,
                env=dict(os.environ, PYTHONPATH=str(installed)))


@pytest.mark.slow
def test_quickstart_is_in_the_wheel(installed):
    """Its configs lie there, and it needs no file of the repository."""
    package = Path(mmblockdrop.__file__).parent
    wheel = installed / 'mmblockdrop'
    for path in DEMO:
        assert (wheel / path.relative_to(package)).is_file()
    done = outside(installed, '-m', 'mmblockdrop.quickstart', '--data',
                   'absent')
    assert done.returncode == 1
    assert 'absent' in done.stdout and 'Traceback' not in done.stdout


@pytest.mark.slow
def test_mim_runs_localize(installed):
    done = outside(installed, '-m', 'mim', 'run', 'mmblockdrop', 'localize',
                   'video.mp4', '--config', 'absent.py', '--checkpoint', 'c')
    assert '.mim/tools/localize.py' in done.stdout
    assert 'absent.py' in done.stdout.split('localize.py: ')[-1]


def test_mim_runs_our_train_script(installed):
    """``mim train mmblockdrop NAME`` needs neither folder nor path."""
    done = outside(installed, '-m', 'mim', 'train', 'mmblockdrop',
                   'only_for_mim.py')
    assert '.mim/tools/train.py' in done.stdout
    assert 'reached the config' in done.stdout


@pytest.fixture(scope='module')
def mim(installed, tmp_path_factory):
    """Run ``mim`` with the installed wheel beside demonstration videos."""
    from mmblockdrop.data.prepare.synthetic import DemoSpec, make_dataset
    folder = tmp_path_factory.mktemp('someone')
    make_dataset(
        str(folder / 'data' / 'demo_actions'),
        DemoSpec(
            videos=dict(training=2, validation=1, test=1), longest=21.), 1)

    def run(*arguments) -> str:
        done = call(
            sys.executable,
            '-W',
            'ignore',
            '-m',
            'mim',
            *arguments,
            timeout=1800,
            cwd=folder,
            env=dict(
                os.environ,
                PYTHONPATH=str(installed),
                PYTHONWARNINGS='ignore',
                OMP_NUM_THREADS='1'))
        assert done.returncode == 0, done.stdout[-3000:]
        assert str(ROOT / 'mmblockdrop') not in done.stdout
        return done.stdout

    run.folder = folder
    return run


FULL = 'actionformer_vit-w64-d8_8e_demo-actions.py'
SHORT = 'blockdrop_vit-w64-d8_2x1e_demo-actions.py'
IN_PLACE = [
    f'{stage}_dataloader.{key}' for stage in ('train', 'val', 'test')
    for key in ('num_workers=0', 'persistent_workers=False')
]


@pytest.mark.slow
def test_mim_trains_compresses_and_tests(mim):
    """One process and two, by our configs as the wheel holds them."""
    work = mim.folder / 'work'
    mim('train', 'mmblockdrop', FULL, '--launcher', 'none', '--gpus', '0',
        '--work-dir', work / 'full', '--seed', '1', '--cfg-options',
        'train_cfg.max_epochs=2', 'model.backbone.depth=3', *IN_PLACE)
    assert (work / 'full' / 'epoch_2.pth').exists()
    small = ['model.localizer.backbone.depth=3', *IN_PLACE]
    score = [f'train_cfg.score_dataloader.{k}'
             for k in ('num_workers=0', 'persistent_workers=False')]
    mim('train', 'mmblockdrop', SHORT, '--launcher', 'pytorch', '--gpus', '2',
        '--work-dir', work / 'short', '--seed', '1', '--cfg-options',
        f'model.checkpoint={work}/full/epoch_2.pth', 'train_cfg.drops=1',
        'train_cfg.epochs_per_round=1', *small, *score)
    record = json.loads((work / 'short' / 'blockdrop.json').read_text())
    assert record['finished'] and record['depth'] == 3
    metrics = []
    for launcher, processes in (('none', 0), ('pytorch', 2)):
        out = mim('test', 'mmblockdrop', SHORT, '--checkpoint',
                  work / 'short/round_1.pth', '--launcher', launcher, '--gpus',
                  processes, '--work-dir', work / launcher, '--cfg-options',
                  *small)
        metrics.append(re.findall(r'tad/mAP: ([\d.]+)', out))
    assert len(metrics[0]) == 1  # by the main process alone
    assert metrics[0] == metrics[1]


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


def test_citation_has_the_version():
    citation = yaml.safe_load((ROOT / 'CITATION.cff').read_text())
    assert citation['version'] == mmblockdrop.__version__


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


@pytest.mark.parametrize(
    'name', ['runtime.txt', 'mminstall.txt', 'onnx.txt', 'tests.txt'])
def test_pins_satisfy_the_ranges(name):
    pins = {
        pin.name.lower(): str(pin.specifier).lstrip('=')
        for pin in requirements('pinned.txt')
    }
    for wanted in requirements(name):
        assert wanted.name.lower() in pins, f'{wanted} is not pinned'
        assert pins[wanted.name.lower()] in wanted.specifier

"""A project on mmaction2 that gets shorter by the lines of the README."""
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
FOREIGN = Path(__file__).resolve().parent / 'foreign'
LINES = (FOREIGN / 'configs' / 'my_shorter_localizer.py').read_text()

#: The project's own program: a plain Runner.
RUN = '''
import sys
from mmengine.config import Config
from mmengine.runner import Runner
name = sys.argv[1]
cfg = Config.fromfile(f'configs/{name}.py')
cfg.work_dir = f'work_dirs/{name}'
runner = Runner.from_cfg(cfg)
runner.train()
'''


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    """The project, its localizer, and the shorter one."""
    folder = tmp_path_factory.mktemp('someone') / 'project'
    shutil.copytree(
        FOREIGN, folder, ignore=shutil.ignore_patterns('__pycache__'))
    (folder / 'run.py').write_text(RUN)
    work = folder / 'work_dirs' / 'my_localizer'
    work.mkdir(parents=True)
    sys.path.insert(0, str(folder))
    try:
        from my_project import ActionnessLocalizer
    finally:
        sys.path.pop(0)
    torch.manual_seed(0)
    model = ActionnessLocalizer(
        dict(type='mmaction.FeatureEncoder', in_channels=6, channels=8,
             num_blocks=4), 8)
    torch.save(
        dict(state_dict=model.state_dict(), meta={}), work / 'epoch_2.pth')
    done = subprocess.run([
        sys.executable, '-W', 'ignore', 'run.py', 'my_shorter_localizer'
    ],
                          cwd=folder,
                          env=dict(
                              os.environ,
                              PYTHONPATH=str(ROOT) + os.pathsep + str(folder),
                              OMP_NUM_THREADS='1'),
                          stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT,
                          text=True)
    assert done.returncode == 0, done.stdout
    return folder


def test_foreign_localizer_gets_shorter(project):
    work = project / 'work_dirs' / 'my_shorter_localizer'
    record = json.loads((work / 'blockdrop.json').read_text())
    assert record['finished'] and record['depth'] == 4
    assert record['metric'] == 'steps/accuracy'
    dropped, = record['rounds'][0]['dropped']
    state = torch.load(work / 'round_1.pth', weights_only=False)['state_dict']
    remaining = {k.split('.')[2] for k in state
                 if k.startswith('backbone.blocks')}
    assert remaining == {'0', '1', '2', '3'} - {str(dropped)}


def test_project_is_untouched(project):
    for path in FOREIGN.rglob('*.py'):
        copy = project / path.relative_to(FOREIGN)
        assert copy.read_text() == path.read_text()
    assert 'mmblockdrop' not in (project / 'my_project/__init__.py').read_text(
    ) + (project / 'configs/my_localizer.py').read_text()


@pytest.mark.parametrize('page', [
    'README.md', 'docs/en/user_guides/your_project.md'])
def test_docs_show_the_lines_that_were_run(page):
    assert f'```python\n{LINES}```' in (ROOT / page).read_text()


def test_lines_are_few():
    """Statements that a user writes, not how they are wrapped."""
    import ast
    assert len(ast.parse(LINES).body) <= 10

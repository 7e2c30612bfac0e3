"""Every program and function that opens a checkpoint rejects a hostile one.

They run in a process of their own, which must not die.
"""
import json

import numpy as np
import pytest
import torch
from patches_kit import ROOT, Calls, start

ENTRIES = ('test', 'train', 'resume', 'teacher', 'compress', 'export',
           'localize', 'localizer', 'pretrained', 'init_cfg', 'read',
           'pbd', 'videomae', 'mmaction2')
# Prints, as JSON, what each entry says.
RUN = r'''
import contextlib, importlib, io, json, os, sys
sys.path[:0] = [os.path.join(os.environ['ROOT'], folder) for folder in (
    'tests', 'tools', 'tools/model_converters')]
os.chdir(os.environ['FOLDER'])
import mmblockdrop
import toy
from mmengine.model import BaseModule
from mmblockdrop.apis import init_localizer
from mmblockdrop.registry import MODELS
from mmblockdrop.utils.checkpoint import read_checkpoint

EVIL = 'evil.pth'
toy.config('run').dump('config.py')
toy.block_drop('run', EVIL).dump('drop.py')

def main(program, *arguments):
    return importlib.import_module(program).main(list(arguments))

def pretrained():
    encoder = toy.localizer(pretrained=EVIL)['backbone']
    MODELS.build(encoder).init_weights()

def init_cfg():
    class Model(BaseModule):
        pass
    Model(dict(type='Pretrained', checkpoint=EVIL)).init_weights()

entries = dict(
    test=lambda: main('test', 'config.py', EVIL),
    train=lambda: main('train', 'config.py', '--cfg-options',
                       f'load_from={EVIL}'),
    resume=lambda: main('train', 'config.py', '--resume', EVIL),
    teacher=lambda: main('train', 'drop.py'),
    compress=lambda: main('compress', 'config.py', EVIL),
    export=lambda: main('export', 'config.py', EVIL, 'out'),
    localize=lambda: main('localize', 'a.mp4', '--config', 'config.py',
                          '--checkpoint', EVIL),
    localizer=lambda: init_localizer('config.py', EVIL, device='cpu'),
    pretrained=pretrained,
    init_cfg=init_cfg,
    read=lambda: read_checkpoint(EVIL),
    pbd=lambda: main('pbd_to_mmblockdrop', EVIL, 'config.py', 'new.pth'),
    videomae=lambda: main('videomae_to_mmblockdrop', EVIL, 'new.pth'),
    mmaction2=lambda: main('mmblockdrop_to_mmaction2', EVIL, 'new.pth'))
for name, entry in entries.items():
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        try:
            print('status', entry())
        except (Exception, SystemExit) as error:
            print(f'{type(error).__name__}: {error}')
            if not isinstance(error, SystemExit):
                import traceback
                traceback.print_exc()
    print(json.dumps([name, said.getvalue()]), file=sys.__stdout__, flush=True)
'''
pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def said(tmp_path_factory) -> dict:
    """What each entry prints or raises."""
    folder = tmp_path_factory.mktemp('entries')
    (folder / 'a.mp4').touch()
    attack = Calls(np.ndarray, (1, ), 'O', b'@AAAAA\0\0')
    torch.save(dict(state_dict={}, x=attack), folder / 'evil.pth')
    process = start(RUN, ROOT=str(ROOT), FOLDER=str(folder))
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, (process.returncode, out[-300:], errors)
    return dict(
        json.loads(line) for line in out.splitlines()
        if line.startswith('["'))


@pytest.mark.parametrize('entry', ENTRIES)
def test_hostile_checkpoint_is_rejected(said, entry):
    assert 'evil.pth' in said[entry] and 'numpy.ndarray' in said[entry]
    assert 'weights_only' not in said[entry]
    assert 'safe_globals' not in said[entry]

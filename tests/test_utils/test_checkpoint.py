"""One reader and one comparison of checkpoints."""
import argparse
import errno
import os

from mmblockdrop.apis import init_localizer
from mmblockdrop.compression import read_localizer
from mmblockdrop.utils.checkpoint import (compare_states, load_strictly,
                                          read_checkpoint, state_dict_of,
                                          write_checkpoint)

import export
import pytest
import torch
import toy
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from torch import nn


class Attack:

    def __reduce__(self):
        return os.system, ('touch attacked', )


def write(path, **meta):
    content = dict(
        state_dict=nn.Linear(2, 3).state_dict(),
        meta=meta,
        history=HistoryBuffer([1.], [1]),
        args=argparse.Namespace(lr=1.))
    torch.save(content, path)
    return content


@pytest.fixture(params=['2.1.2+cpu', torch.__version__])
def torch_version(request, monkeypatch):
    """torch before 2.6 takes no list of further names."""
    monkeypatch.setattr(torch, '__version__', request.param)


def test_files_of_mmengine_and_others_are_read(tmp_path, torch_version):
    content = write(tmp_path / 'a.pth', epoch=3)
    found = read_checkpoint(tmp_path / 'a.pth')
    assert found['meta'] == dict(epoch=3) and found['args'].lr == 1.
    assert found['history'].current() == 1.
    for name, value in content['state_dict'].items():
        assert torch.equal(found['state_dict'][name], value)


def test_files_that_are_missing_or_damaged(tmp_path):
    path = tmp_path / 'epoch_1.pth'
    write(path)
    with pytest.raises(FileNotFoundError, match='load_from=.*epoch_1.pth'):
        read_checkpoint(tmp_path / 'epoch_2.pth', 'load_from')
    with pytest.raises(IsADirectoryError, match='load_from='):
        read_checkpoint(tmp_path, 'load_from')
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(ValueError, match='load_from=.*epoch_1.pth'):
        read_checkpoint(path, 'load_from')
    path.write_bytes(b'')
    with pytest.raises(ValueError, match='load_from=.*epoch_1.pth'):
        read_checkpoint(path, 'load_from')


def test_code_does_not_run(tmp_path, monkeypatch, torch_version):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / 'a.pth', attack=Attack())
    named = f'{os.system.__module__}.system'
    with pytest.raises(ValueError, match=f'checkpoint=.*{named}'):
        read_checkpoint('a.pth')
    assert not os.path.exists('attacked')


@pytest.mark.parametrize('wrap', [
    lambda state: state, lambda state: dict(state_dict=state, meta={}),
    lambda state: dict(model=dict(module=state)),
    lambda state: dict(module=state),
    lambda state: dict(model={f'module.{k}': v for k, v in state.items()})
])
def test_state_dict_is_found(wrap):
    state = nn.Linear(2, 3).state_dict()
    assert list(state_dict_of(wrap(dict(state)))) == ['weight', 'bias']


def test_difference():
    own = dict(a=torch.zeros(2), b=torch.zeros(3), d=torch.zeros(1))
    given = dict(a=torch.zeros(2), b=torch.zeros(4), c=torch.zeros(1))
    found = compare_states(own, given)
    assert found and found.missing == ['d'] and found.unexpected == ['c']
    assert found.reshaped == ['b (4,) instead of (3,)']
    assert found.describe() == ('1 missing: d; 1 unexpected: c; 1 reshaped: '
                                'b (4,) instead of (3,)')
    assert not compare_states(own, own)
    assert not compare_states({k: v.shape for k, v in own.items()}, own)
    many = compare_states(own, {}).describe(limit=2)
    assert many == '3 missing: a, b, ...'
    strange = compare_states(own, dict(own, a='text'))
    assert strange.reshaped == ['a str instead of (2,)']


def test_difference_inside_modules():
    own = {'blocks.0.w': torch.zeros(1), 'head.w': torch.zeros(1)}
    given = {'blocks.0.v': torch.zeros(1), 'head.v': torch.zeros(1)}
    found = compare_states(own, given, prefixes=['blocks'])
    assert (found.missing, found.unexpected) == (['blocks.0.w'],
                                                 ['blocks.0.v'])


def test_new_lora_over_plain_layers():
    own = {
        f'qkv.{name}': torch.zeros(1)
        for name in ('base_layer.weight', 'lora_A.default.weight',
                     'lora_B.default.weight')
    }
    plain = {'qkv.weight': torch.zeros(1)}
    assert compare_states(own, plain)
    assert not compare_states(own, plain, new_lora=True)
    assert compare_states(own, {'proj.weight': torch.zeros(1)}, new_lora=True)


def test_strict_loading(tmp_path):
    model, other = nn.Linear(2, 3), nn.Linear(2, 3)
    load_strictly(model, other.state_dict(), 'a.pth')
    assert torch.equal(model.weight, other.weight)
    before = model.weight.clone()
    state = dict(weight=torch.zeros(3, 2), scale=torch.zeros(1))
    with pytest.raises(ValueError, match='a.pth.*Linear.*bias.*scale'):
        load_strictly(model, state, 'a.pth')
    assert torch.equal(model.weight, before)


@pytest.mark.parametrize('cut', [10, 200, -30])
def test_archive_that_is_cut_off(tmp_path, cut):
    """A checkpoint is a zip archive; half of one is named as such."""
    path = tmp_path / 'model.pth'
    torch.save(dict(state_dict=dict(a=torch.zeros(100)), meta={}), path)
    path.write_bytes(path.read_bytes()[:cut])
    cfg = Config(dict(default_scope='mmaction', model=toy.localizer()))
    with pytest.raises(ValueError, match='checkpoint=.*model.pth'):
        init_localizer(cfg, str(path), device='cpu')


def test_checkpoint_with_code_is_rejected_by_every_door(
        tmp_path, monkeypatch):
    """By name, and without a trace: the localizer, the export, a test."""
    path = tmp_path / 'evil.pth'
    write(path, attack=Attack())
    monkeypatch.chdir(tmp_path)
    cfg = toy.config(tmp_path)
    cfg.dump(str(tmp_path / 'config.py'))
    named = f'{os.system.__module__}.system'
    for door in (lambda: init_localizer(cfg, str(path), device='cpu'),
                 lambda: read_localizer(str(path))):
        with pytest.raises(Exception, match=named):
            door()
    assert export.main(
        [str(tmp_path / 'config.py'), str(path), str(tmp_path / 'out')]) == 1
    assert not os.path.exists('attacked') and not os.path.exists('out')


def test_a_full_disk_is_told(tmp_path):
    resource = pytest.importorskip('resource')
    path = tmp_path / 'model.pth'
    write_checkpoint(dict(a=torch.ones(3)), path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100000, before[1]))
    try:
        with pytest.raises(OSError) as caught:
            write_checkpoint(dict(a=torch.ones(100000)), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.errno == errno.EFBIG
    assert caught.value.filename == str(path)
    assert os.listdir(tmp_path) == ['model.pth']
    assert read_checkpoint(path)['a'].tolist() == [1, 1, 1]

"""Which checkpoint an interrupted run goes on from."""
import errno
import logging
import os
from types import SimpleNamespace

from mmblockdrop.rounds.resume import (explained, go_on, last_checkpoint_held,
                                       last_point, write_whole_files)
from mmblockdrop.utils.io import whole_file, write_json

import pytest
import torch
from mmengine.fileio import LocalBackend, get_file_backend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.runner.checkpoint import save_checkpoint


@pytest.fixture
def work_dir(tmp_path):
    """Two rounds of two epochs; the second round has not ended."""
    for name in ('epoch_1', 'epoch_2', 'epoch_3', 'round_1', 'round_1_best',
                 'round_2_best'):
        torch.save(dict(name=name), tmp_path / f'{name}.pth')
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_3.pth'))
    return tmp_path


RECORD = dict(
    load_from='start.pth',
    rounds=[
        dict(checkpoint='round_1.pth', last_epoch=2, state='aligned'),
        dict(state='dropped')
    ])


def cut(path):
    path.write_bytes(path.read_bytes()[:-40])


def runner_in(work_dir, **settings):
    return SimpleNamespace(
        **dict(
            dict(
                work_dir=str(work_dir),
                logger=logging.getLogger('quiet'),
                hooks=[],
                _resume=True,
                _load_from=None), **settings))


def test_newest_epoch(work_dir):
    assert last_point(work_dir, RECORD).name == 'epoch_3.pth'


def test_result_of_a_round_goes_before_its_last_epoch(work_dir):
    (work_dir / 'last_checkpoint').write_text(str(work_dir / 'epoch_2.pth'))
    assert last_point(work_dir, RECORD).name == 'round_1.pth'
    assert last_point(work_dir, dict(rounds=[])).name == 'epoch_2.pth'


def test_half_a_checkpoint_is_passed_over(work_dir):
    cut(work_dir / 'epoch_3.pth')
    (work_dir / 'epoch_2.pth').unlink()
    (work_dir / 'epoch_1.pth').unlink()
    assert last_point(work_dir, RECORD).name == 'round_1.pth'
    cut(work_dir / 'round_1.pth')
    assert last_point(work_dir, RECORD) is None


@pytest.mark.parametrize('note', ['', 'elsewhere/epoch_3.pth'])
def test_note_that_is_broken_or_moved(work_dir, note):
    (work_dir / 'last_checkpoint').write_text(note)
    os.utime(work_dir / 'epoch_3.pth', (2e9, 2e9))
    assert last_point(work_dir, RECORD).name == 'epoch_3.pth'


def test_record_of_an_earlier_version(work_dir):
    old = dict(rounds=[dict(checkpoint='round_1.pth', state='aligned')])
    assert last_point(work_dir, old).name == 'epoch_3.pth'


def test_nothing_to_go_on_from(tmp_path):
    runner = runner_in(tmp_path)
    go_on(runner, RECORD)
    assert runner._load_from == 'start.pth' and not runner._resume
    runner = runner_in(tmp_path)
    go_on(runner, None)
    assert runner._load_from is None and not runner._resume


def test_checkpoint_that_the_user_names(work_dir):
    runner = runner_in(work_dir, _load_from='mine.pth')
    go_on(runner, RECORD)
    assert runner._load_from == 'mine.pth' and runner._resume


@pytest.mark.parametrize('kept', [1, 2, -1])
def test_the_only_checkpoint_is_held(work_dir, kept):
    hook = CheckpointHook(max_keep_ckpts=kept)
    runner = runner_in(work_dir, hooks=[hook])
    held = work_dir / 'held_epoch_3.pth'
    for name in ('epoch_1.pth', 'epoch_2.pth'):
        (work_dir / name).unlink()
    with pytest.raises(OSError), last_checkpoint_held(runner):
        assert held.exists() == (kept == 1)
        (work_dir / 'epoch_3.pth').unlink()
        raise OSError(errno.ENOSPC, 'No space left on device')
    assert hook.max_keep_ckpts == kept
    found = last_point(work_dir, RECORD)
    assert found == (held if kept == 1 else work_dir / 'round_1.pth')
    with last_checkpoint_held(runner):
        torch.save(dict(), work_dir / 'epoch_4.pth')
        (work_dir / 'last_checkpoint').write_text('epoch_4.pth')
    assert not held.exists()
    assert last_point(work_dir, RECORD).name == 'epoch_4.pth'


def test_error_while_writing_leaves_the_file(tmp_path):
    path = tmp_path / 'a.json'
    write_json(dict(a=1), path)
    with pytest.raises(OSError) as error, whole_file(path) as temporary:
        temporary.write_text('half')
        raise OSError(errno.ENOSPC, 'No space left on device')
    assert error.value.filename == str(path)
    assert path.read_text() == '{\n  "a": 1\n}\n'
    assert [p.name for p in tmp_path.iterdir()] == ['a.json']


def test_checkpoints_are_written_whole(tmp_path, monkeypatch):
    write_whole_files()
    write_whole_files()  # once is enough
    path = tmp_path / 'folder' / 'epoch_1.pth'
    save_checkpoint(dict(epoch=1), str(path))
    assert torch.load(path) == dict(epoch=1)
    plain = LocalBackend.put

    def half(backend, content, path):
        plain(backend, content[:len(content) // 2], path)
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(LocalBackend, 'put', half)
    with pytest.raises(OSError):
        save_checkpoint(dict(epoch=2), str(path))
    assert torch.load(path) == dict(epoch=1)
    assert [p.name for p in path.parent.iterdir()] == ['epoch_1.pth']


def test_a_backend_of_somebody_else_stays(tmp_path):

    class Backend(LocalBackend):
        pass

    before = type(get_file_backend('.'))
    try:
        register_backend('local', Backend, force=True, prefixes='')
        write_whole_files()
        assert type(get_file_backend('.')) is Backend
    finally:
        register_backend('local', before, force=True, prefixes='')


@pytest.mark.parametrize('number', [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_is_explained(work_dir, number):
    with pytest.raises(OSError) as error:
        with explained(runner_in(work_dir), RECORD):
            raise OSError(number, os.strerror(number), 'epoch_4.pth')
    assert error.value.errno == number
    for words in (os.strerror(number), 'epoch_4.pth could not be written',
                  '--resume goes on from epoch_3.pth', 'round_1.pth'):
        assert words in str(error.value)


def test_other_errors_stay_as_they_are(work_dir):
    error = FileNotFoundError(errno.ENOENT, 'No such file', 'video.mp4')
    with pytest.raises(FileNotFoundError) as caught:
        with explained(runner_in(work_dir), RECORD):
            raise error
    assert caught.value is error

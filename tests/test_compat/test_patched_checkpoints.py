"""Checkpoints of mmengine are resumed, and run no code."""
import functools
import http.server
import os
import pickle
import threading
from pathlib import Path

from mmblockdrop.compat.checkpoint import load_file

import mmengine
import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader
from patches_kit import Calls, toy_runner


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory) -> str:
    """A checkpoint that mmengine wrote, with its log history."""
    folder = tmp_path_factory.mktemp('checkpoint')
    runner = toy_runner(folder, 'first', 1)
    runner.message_hub.update_info('best_score', np.float64(0.5))
    runner.message_hub.update_info('flag', np.bool_(True))
    runner.train()
    return str(folder / 'epoch_1.pth')


def test_resume_continues_the_log_history(checkpoint, tmp_path):
    resumed = toy_runner(
        tmp_path, 'second', 2, load_from=checkpoint, resume=True)
    resumed.train()
    whole = toy_runner(tmp_path / 'whole', 'whole', 2)
    whole.train()
    assert torch.equal(resumed.model.weight, whole.model.weight)
    history = resumed.message_hub.log_scalars['train/loss']
    expected = whole.message_hub.log_scalars['train/loss']
    np.testing.assert_array_equal(history.data[0], expected.data[0])
    assert history.statistics('max') == 1
    assert resumed.message_hub.get_info('best_score') == 0.5


def test_checkpoint_patch_is_needed(checkpoint, monkeypatch):
    monkeypatch.setattr(mmengine.runner.checkpoint, 'torch', torch)
    with pytest.raises(pickle.UnpicklingError, match='not an allowed global'):
        CheckpointLoader.load_checkpoint(checkpoint)


@pytest.mark.parametrize('core', ['numpy.core', 'numpy._core'])
def test_checkpoints_of_numpy_1_and_2_are_loaded(tmp_path, core):
    path = tmp_path / 'numpy.pth'
    arrays = dict(
        history=HistoryBuffer([1., 2.], [1, 1]),
        empty=HistoryBuffer(),
        scalar=np.float32(3.),
        columns=np.asfortranarray(np.arange(6.).reshape(2, 3)),
        zero=np.array(True),
        nested=([np.arange(2)], np.complex64(1j)),
        big_endian=np.arange(3, dtype='>i4'))
    torch.save(arrays, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    for name in (b'numpy.core.', b'numpy._core.'):
        content = content.replace(name, core.encode() + b'.')
    path.write_bytes(content)
    assert core.encode() + b'.multiarray' in content
    loaded = CheckpointLoader.load_checkpoint(str(path))
    assert loaded['history'].mean() == 1.5
    assert loaded['empty'].data[0].shape == (0, )
    assert type(loaded['scalar']) is np.float32 and loaded['scalar'] == 3
    assert loaded['nested'][1] == 1j
    pairs = [(loaded[key], arrays[key])
             for key in ('columns', 'zero', 'big_endian')]
    pairs += [(loaded['nested'][0][0], arrays['nested'][0][0])]
    for found, expected in pairs:
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == expected.dtype
        assert found.strides == expected.strides
        assert found.flags.writeable and found.flags.owndata


@pytest.mark.parametrize('use', ['loader', 'runner', 'url'])
def test_code_in_a_checkpoint_is_rejected(tmp_path, monkeypatch, use):
    victim = tmp_path / 'victim'
    path = tmp_path / 'evil.pth'
    attack = Calls(os.system, f'touch {victim}')
    torch.save(dict(state_dict={}, meta=attack), path)
    with pytest.raises(pickle.UnpicklingError) as caught:
        if use == 'loader':
            CheckpointLoader.load_checkpoint(str(path))
        elif use == 'runner':
            toy_runner(
                tmp_path / 'run',
                f'evil{use}',
                1,
                load_from=str(path),
                resume=True).train()
        else:
            monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'home'))
            load_by_http(path)
    assert f'{os.system.__module__}.system' in str(caught.value)
    assert 'evil.pth' in str(caught.value)
    assert 'safe_globals' not in str(caught.value)
    assert 'weights_only' not in str(caught.value)
    assert caught.value.__suppress_context__
    assert not victim.exists()


def load_by_http(path: Path) -> None:
    """Serve a folder and load one of its files by URL."""
    handler = functools.partial(
        http.server.SimpleHTTPRequestHandler, directory=str(path.parent))
    with http.server.HTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            CheckpointLoader.load_checkpoint(
                f'http://127.0.0.1:{server.server_port}/{path.name}')
        finally:
            server.shutdown()


@pytest.mark.parametrize('attack, named', [
    (Calls(getattr, HistoryBuffer, '__init__'), '__init__'),
    (Calls(getattr, HistoryBuffer, '__globals__'), '__globals__'),
    (Calls(getattr, np.ndarray, 'tofile'), 'tofile'),
    (Calls(eval, '1'), 'eval'),
    (Calls(np.load, 'x'), 'load'),
])
def test_getattr_reaches_statistics_only(tmp_path, attack, named):
    path = tmp_path / 'evil.pth'
    torch.save(dict(meta=attack), path)
    with pytest.raises(pickle.UnpicklingError, match=named):
        CheckpointLoader.load_checkpoint(str(path))


class Mine:
    """A type of the user's own, with an array in it."""

    def __init__(self):
        self.array = np.arange(3)


def test_names_allowed_by_the_user_stay_allowed(checkpoint, tmp_path):
    path = tmp_path / 'mine.pth'
    torch.save(dict(mine=Mine(), scalar=np.float64(2)), path)
    with pytest.raises(pickle.UnpicklingError, match='Mine'):
        load_file(path)
    before = set(torch.serialization.get_safe_globals())
    with torch.serialization.safe_globals([np.ndarray, np.dtype, Mine]):
        loaded = load_file(path)
        CheckpointLoader.load_checkpoint(checkpoint)
        after = set(torch.serialization.get_safe_globals())
        assert after == before | {np.ndarray, np.dtype, Mine}
    assert loaded['mine'].array.tolist() == [0, 1, 2]
    assert loaded['scalar'] == 2


def test_safetensors_are_loaded(tmp_path):
    from safetensors.torch import save_file
    path = tmp_path / 'weights.safetensors'
    save_file(dict(weight=torch.ones(2)), path)
    assert load_file(path)['weight'].tolist() == [1, 1]


def test_an_open_file_is_loaded(checkpoint):
    with open(checkpoint, 'rb') as file:
        assert load_file(file)['meta']['epoch'] == 1


def test_absent_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='absent.pth'):
        load_file(tmp_path / 'absent.pth')

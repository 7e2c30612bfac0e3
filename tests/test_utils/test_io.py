"""Reading and writing files: bounds, clear errors, no code."""
import errno
import json
import os
import pickle
import struct

from mmblockdrop.evaluation.external_classifier import ExternalClassifier
from mmblockdrop.utils import io
from mmblockdrop.utils.io import (read_array, read_json, read_lines,
                                  whole_file, write_json)

import numpy as np
import pytest
import torch


class Attack:

    def __init__(self, victim):
        self.victim = victim

    def __reduce__(self):
        return os.system, (f'touch {self.victim}', )


@pytest.mark.parametrize('content, message', [
    (b'{"a": ', r"ann_file='.*f.json' is not JSON: .*line 1 column"),
    (b'\xff\xfe{}', 'is not UTF-8 text: byte 0 is 0xff'),
    (b'[' * 200000, 'nests lists or mappings too deeply'),
    (b'', 'is not JSON'),
])
def test_json_that_cannot_be_read(tmp_path, content, message):
    path = tmp_path / 'f.json'
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_json(path, 'ann_file')


def test_json_with_byte_order_mark_is_read(tmp_path):
    (tmp_path / 'f.json').write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(tmp_path / 'f.json', 'x') == dict(a=1)


def test_files_have_a_largest_size(tmp_path, monkeypatch):
    path = tmp_path / 'f.txt'
    with open(path, 'wb') as file:
        file.truncate(io.MAX_TEXT + 1)  # takes no disk
    with pytest.raises(ValueError, match='at most 16777216 are read'):
        read_lines(path, 'classes')
    monkeypatch.setattr(io, 'MAX_JSON', 3)
    path.write_text('[1, 2]')
    with pytest.raises(ValueError, match='has 6 bytes; at most 3 are read'):
        read_json(path, 'ann_file')


def test_text_that_is_none(tmp_path):
    (tmp_path / 'f.txt').write_bytes(b'jump\0\0\0')
    with pytest.raises(ValueError, match='zero bytes'):
        read_lines(tmp_path / 'f.txt', 'classes')
    with pytest.raises(IsADirectoryError, match='classes='):
        read_lines(tmp_path, 'classes')


def write_header(path, shape, dtype='<f4'):
    """A ``.npy`` file of a header alone."""
    header = str(dict(descr=dtype, fortran_order=False, shape=shape))
    header = header.ljust(117) + '\n'
    path.write_bytes(b'\x93NUMPY\x01\x00' + struct.pack('<H', len(header)) +
                     header.encode())


@pytest.mark.parametrize('shape', [(10**13, ), (2**40, 2**20), (3, 4)])
def test_header_that_promises_too_much(tmp_path, shape):
    path = tmp_path / 'scores.npy'
    write_header(path, shape)
    with pytest.raises(ValueError, match='scores.npy.* is not an array'):
        read_array(path, 'external_classifier.path')


def test_arrays_of_objects_run_nothing(tmp_path):
    victim, path = tmp_path / 'victim', tmp_path / 'scores.npy'
    np.save(path, np.array([Attack(victim)], object), allow_pickle=True)
    with pytest.raises(ValueError, match='is not an array of numbers'):
        ExternalClassifier(str(path))
    path.write_bytes(pickle.dumps(Attack(victim)))
    with pytest.raises(ValueError, match='is not an array of numbers'):
        ExternalClassifier(str(path))
    np.savez(tmp_path / 'several.npz', a=np.zeros(1))
    os.rename(tmp_path / 'several.npz', path)
    with pytest.raises(ValueError, match='archive of several arrays'):
        read_array(path, 'features')
    assert not victim.exists()


def test_files_are_whole_or_absent(tmp_path, monkeypatch):
    path, flushed = tmp_path / 'a.json', []
    plain = os.fsync

    def fsync(descriptor):
        flushed.append(os.readlink(f'/proc/self/fd/{descriptor}'))
        plain(descriptor)

    if os.path.isdir('/proc/self/fd'):
        monkeypatch.setattr(os, 'fsync', fsync)
    write_json(dict(a=1), path)
    if os.path.isdir('/proc/self/fd'):
        assert flushed == [f'{path}.tmp', str(tmp_path)]
    with pytest.raises(OSError) as error, whole_file(path) as temporary:
        temporary.write_text('half')
        raise OSError(errno.ENOSPC, 'No space left on device')
    assert error.value.filename == str(path)
    assert read_json(path, 'a') == dict(a=1)
    assert [p.name for p in tmp_path.iterdir()] == ['a.json']


def test_folder_that_was_removed(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        write_json({}, tmp_path / 'removed' / 'a.json')
    assert error.value.filename == str(tmp_path / 'removed')


def test_equal_keys_are_an_error(tmp_path):
    path = tmp_path / 'a.json'
    path.write_text('{"database": {"v1": {}, "v2": {}, "v1": {}}}')
    with pytest.raises(ValueError, match="ann_file=.*a.json.*'v1' twice"):
        read_json(path, 'ann_file')


def test_what_json_does_not_know_is_null(tmp_path):
    content = dict(
        a=float('nan'), b=[np.float32('inf'), np.arange(2)],
        c=torch.tensor(1.5), d='NaN')
    write_json(content, tmp_path / 'a.json')
    assert json.loads((tmp_path / 'a.json').read_text()) == dict(
        a=None, b=[None, [0, 1]], c=1.5, d='NaN')

"""Reading and writing files: bounds, clear errors, no code."""
import json
import os
import pickle
import struct
import sys

from mmblockdrop.apis import read_actions
from mmblockdrop.data.annotations import load_classes, load_database
from mmblockdrop.evaluation.external_classifier import ExternalClassifier
from mmblockdrop.utils import io
from mmblockdrop.utils.io import read_array, read_json, read_lines

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


@pytest.mark.parametrize('database, message', [
    (dict(v1=[1, 2]), r"video 'v1' is \[1, 2\], expected a mapping"),
    (dict(v1=dict(annotations=5)), "video 'v1' has annotations 5"),
    (dict(v1=dict(annotations=['jump'])), "has the action 'jump'"),
    (dict(v1=dict(annotations=[dict(segment=[0, 1])])), 'has the action {'),
    (dict(v1=dict(duration='long')), "has duration='long', expected a num"),
    (dict(v1=dict(duration=float('nan'))), 'has duration=nan'),
    (dict(v1=dict(annotations=[dict(label='x' * 10**6, segment=[0, 1]), 1])),
     'has the action 1,'),
])
def test_annotations_of_another_form(tmp_path, database, message):
    path = tmp_path / 'annotations.json'
    path.write_text(json.dumps(dict(database=database)))
    with pytest.raises(ValueError, match=message) as caught:
        load_database(str(path))
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize('content, message', [
    ('[1, 2]', r'holds \[1, 2\], expected a list of names'),
    ('{"jump": "first"}', 'expected a list of names, or a mapping'),
    ('5', 'holds 5, expected'),
    ('["jump"', 'is not JSON'),
])
def test_lists_of_classes_of_another_form(tmp_path, content, message):
    (tmp_path / 'classes.json').write_text(content)
    with pytest.raises(ValueError, match=message):
        load_classes('classes.json', str(tmp_path), {}, ())


def test_lists_of_classes_are_read(tmp_path):
    for name, text in (('a.txt', 'run\n\n jump \n'), ('b.json',
                                                      '["run", "jump"]'),
                       ('c.json', '{"jump": 1, "run": 0}')):
        (tmp_path / name).write_text(text)
        assert load_classes(name, str(tmp_path), {}, ()) == ['run', 'jump']


def test_ground_truth_to_draw(tmp_path):
    path = tmp_path / 'a.json'
    path.write_text('{"database": ')
    with pytest.raises(ValueError, match='is not JSON'):
        read_actions(str(path), 'v1.mp4')
    path.write_text('{"database": {"film_1": {"annotations": [{"segment": '
                    '[1, 2], "label": "run"}]}, "odd": {"annotations": '
                    '[{"label": "run"}]}}}')
    for name in ('film_1.mp4', 'v_film_1.mp4'):
        found = read_actions(str(path), name)
        assert found['segments'].tolist() == [[1, 2]]
        assert found['labels'] == ['run']
    with pytest.raises(ValueError, match="'film_2'.*did you mean 'film_1'"):
        read_actions(str(path), 'film_2.mp4')
    with pytest.raises(ValueError, match="'odd' has actions.*'segment'"):
        read_actions(str(path), 'odd.mp4')


@pytest.mark.parametrize('cut', [10, 200, -30])
def test_archive_that_is_cut_off(tmp_path, cut):
    """A checkpoint is a zip archive; half of one is named as such."""
    from mmblockdrop.apis import init_localizer

    import toy
    from mmengine.config import Config
    path = tmp_path / 'model.pth'
    torch.save(dict(state_dict=dict(a=torch.zeros(100)), meta={}), path)
    path.write_bytes(path.read_bytes()[:cut])
    cfg = Config(dict(default_scope='mmaction', model=toy.localizer()))
    with pytest.raises(ValueError, match='model.pth cannot be read'):
        init_localizer(cfg, str(path), device='cpu')


def test_checkpoint_with_code_is_rejected_by_every_door(tmp_path):
    """By name, and without a trace: the localizer, the export, a test."""
    from pathlib import Path
    sys.path.insert(
        0, str(Path(__file__).resolve().parents[2] / 'tools'))
    import export
    import toy

    victim, path = tmp_path / 'victim', tmp_path / 'evil.pth'
    torch.save(dict(state_dict={}, meta=Attack(victim)), path)
    cfg = toy.config(tmp_path)
    cfg.dump(str(tmp_path / 'config.py'))
    from mmblockdrop.apis import init_localizer
    from mmblockdrop.compression import read_localizer
    named = f'{os.system.__module__}.system'
    for door in (lambda: init_localizer(cfg, str(path), device='cpu'),
                 lambda: read_localizer(str(path))):
        with pytest.raises(Exception, match=named):
            door()
    assert export.main(
        [str(tmp_path / 'config.py'), str(path), str(tmp_path / 'out')]) == 1
    assert not victim.exists() and not (tmp_path / 'out').exists()

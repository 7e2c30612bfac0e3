"""Annotation files as they are published.

The small files in ``tests/data/annotations`` are made up in the layouts of
the public ones; the public ones are read beside them where they are.
"""
import json
from pathlib import Path

from mmblockdrop.apis import read_actions
from mmblockdrop.data.annotations import load_classes, load_database
from mmblockdrop.registry import DATASETS

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
SMALL = ROOT / 'tests' / 'data' / 'annotations'
PUBLIC = ROOT.parent / 'shared' / 'data'


def files(small, *public):
    """The small file, and the public ones that are there."""
    found = [PUBLIC.joinpath(*path.split('/')) for path in public]
    return [SMALL / small, *(path for path in found if path.is_file())]


def read(ann_file, subset, **kwargs):
    """Records of a subset, and its plain annotation."""
    dataset = DATASETS.build(
        dict(
            type='mmblockdrop.UntrimmedVideoDataset',
            ann_file=str(ann_file),
            subset=subset,
            data_prefix=dict(),
            **kwargs))
    database = json.loads(ann_file.read_text())['database']
    plain = {name: video for name, video in database.items()
             if video['subset'] == subset}
    return dataset, plain


@pytest.mark.parametrize('subset', ['training', 'validation'])
@pytest.mark.parametrize('ann_file', files(
    'opentad.json', 'thumos14_annotations/thumos_14_anno.json',
    'grid_s1_words_tad/annotations.json',
    'ceiling_adl_tad/annotations.json'))
def test_opentad_layout(ann_file, subset):
    database = json.loads(ann_file.read_text())['database']
    if subset not in {video['subset'] for video in database.values()}:
        subset = 'test'  # GRID and ceiling have no validation part
    dataset, plain = read(ann_file, subset, drop_labels=['Ambiguous'],
                          test_mode=True)
    assert dataset.video_names == list(plain)
    classes = dataset.metainfo['classes']
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        video = plain[info['video_name']]
        wanted = [action for action in video['annotations']
                  if action['label'] != 'Ambiguous']
        assert [classes[label] for label in info['video_labels']] == [
            action['label'] for action in wanted]
        np.testing.assert_array_equal(
            info['video_segments'],
            np.reshape([action['segment'] for action in wanted], (-1, 2)))
        assert info['total_frames'] == video['frame']
        np.testing.assert_allclose(
            info['fps'], video['frame'] / video['duration'], rtol=1e-3)


@pytest.mark.parametrize('ann_file', files(
    'actionformer.json', 'thumos14_annotations/thumos14.json'))
def test_actionformer_layout(ann_file):
    with pytest.raises(ValueError, match='outside the video.*bad_segments'):
        read(ann_file, 'Test', test_mode=True)
    dataset, plain = read(ann_file, 'Test', test_mode=True,
                          bad_segments='drop')
    assert dataset.video_names == list(plain)
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        video = plain[info['video_name']]
        assert info['fps'] == video['fps']
        assert info['total_frames'] == round(
            video['fps'] * video['duration'])
    with pytest.raises(ValueError, match="did you mean 'Validation'"):
        read(ann_file, 'validation')


@pytest.mark.parametrize('ann_file', files(
    'activitynet.json', 'activitynet13/activitynet_13_train_val.json'))
def test_activitynet_layout(ann_file, logged):
    dataset, plain = read(
        ann_file,
        'training',
        windows='resize',
        window_size=192,
        class_agnostic=True,
        filter_cfg=dict(min_action_share=0.01))
    assert dataset.metainfo['classes'] == ('action', )
    assert any('has zero length are left out' in line for line in logged)
    assert any('reaches beyond the video' in line for line in logged)
    names = set()
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        names.add(info['video_name'])
        assert len(info['action_frames'])
        assert len(np.unique(info['action_frames'], axis=0)) == len(
            info['action_frames'])
    for name in set(plain) - names:  # left out: nothing long enough
        for action in plain[name]['annotations']:
            start, end = action['segment']
            assert (end - start) / plain[name]['duration'] <= 0.01


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

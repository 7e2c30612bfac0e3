"""Annotation files as they are published.

The small files in ``tests/data/annotations`` are made up in the layouts of
the public ones; the public ones are read beside them where they are.
"""
import json
from pathlib import Path

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

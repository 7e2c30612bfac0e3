"""The recorded samples of the published code, window by window."""
import json
import random

from mmblockdrop.registry import DATASETS

import numpy as np
import pytest

pytestmark = pytest.mark.parity


class TrueLength:
    """Stands for an open video of which only the length is known."""

    def __init__(self, decoded_frames):
        self.decoded_frames = decoded_frames

    def __call__(self, results):
        frames = self.decoded_frames[results['video_name']]
        return dict(results, total_frames=frames)


def build(tmp_path, annotation, decoded_frames, **kwargs):
    ann_file = tmp_path / 'annotation.json'
    ann_file.write_text(json.dumps(annotation))
    return DATASETS.build(
        dict(
            type='mmblockdrop.PublishedVideoDataset',
            ann_file=str(ann_file),
            data_prefix=dict(),
            drop_labels=['Ambiguous'],
            pipeline=[
                TrueLength(decoded_frames),
                dict(type='mmblockdrop.SampleWindow')
            ],
            **kwargs))


def check(sample, expected):
    """One sample against its record, ground truth where it has one."""
    assert sample['video_name'] == expected['video_name']
    assert sample['frame_inds'].tolist() == expected['frame_inds']
    assert sample['valid_steps'] == expected['valid']
    assert sample['window_size'] == expected['mask_len']
    for key in ('num_clips', 'clip_len', 'snippet_stride', 'offset_frames',
                'window_start_frame', 'duration'):
        if key in expected:
            assert sample[key] == expected[key], key
    if 'gt_labels' in expected:
        assert sample['gt_labels'].tolist() == expected['gt_labels']
        np.testing.assert_allclose(
            sample['gt_segments'],
            np.reshape(expected['gt_segments'], (-1, 2)),
            atol=1e-5)


@pytest.mark.slow
def test_sliding(golden, tmp_path):
    recorded = golden('dataset_windows.json')
    for case in recorded['sliding']:
        dataset = build(
            tmp_path,
            recorded['annotation'],
            recorded['decoded_frames'],
            classes=recorded['class_map'],
            subset=case['subset'],
            windows='sliding',
            test_mode=case['test_mode'],
            overlap_ratio=case['overlap'],
            action_thresh=case['ioa_thresh'],
            window_size=recorded['window_size'],
            snippet_stride=recorded['feature_stride'],
            frames_per_step=case['scale_factor'])
        assert len(dataset) == len(case['windows'])
        for index, expected in enumerate(case['windows']):
            sample = dataset[index]
            check(sample, expected)
            assert sample['fps'] == pytest.approx(expected['fps'], abs=1e-12)
            start = expected['window_start_snippet']
            assert sample['window_start_step'] == start
            assert sample['window_steps'] == expected['window_num_snippets']


@pytest.mark.slow
def test_random_crops(golden, tmp_path):
    recorded = golden('dataset_windows.json')
    for case in recorded['random_trunc']:
        dataset = build(
            tmp_path,
            recorded['annotation'],
            recorded['decoded_frames'],
            classes=recorded['class_map'],
            subset='training',
            window_size=case['trunc_len'],
            action_thresh=case['trunc_thresh'],
            crop_ratio=case['crop_ratio'],
            snippet_stride=recorded['feature_stride'],
            frames_per_step=case['scale_factor'])
        assert len(dataset) == len(case['items'])
        for index, expected in enumerate(case['items']):
            info = dataset.get_data_info(index)
            assert info['action_frames'].tolist() == expected['gt_frames']
            random.seed(expected['python_random_seed'])
            check(dataset[index], expected)


def test_resize(golden, tmp_path):
    recorded = golden('dataset_windows.json')
    for case in recorded['resize']:
        dataset = build(
            tmp_path,
            case['annotation'],
            case['decoded_frames'],
            classes=recorded['class_map'],
            subset=case['subset'],
            windows='resize',
            test_mode=case['test_mode'],
            class_agnostic=case['class_agnostic'],
            window_size=case['resize_length'],
            frames_per_step=case['scale_factor'],
            filter_cfg=dict(
                min_action_share=0.01 if case['filter_gt'] else 0,
                filter_empty=not case['test_mode']))
        assert len(dataset) == len(case['items'])
        for index, expected in enumerate(case['items']):
            check(dataset[index], expected)


def test_an_item_twice_is_the_same(golden, tmp_path):
    recorded = golden('dataset_windows.json')
    expected = recorded['same_item_twice']
    video = recorded['annotation']['database'][expected['video_name']]
    dataset = build(
        tmp_path,
        recorded['annotation'],
        recorded['decoded_frames'],
        classes=recorded['class_map'],
        subset=video['subset'],
        windows='sliding',
        window_size=recorded['window_size'],
        snippet_stride=recorded['feature_stride'])
    names = [dataset.get_data_info(i)['video_name']
             for i in range(len(dataset))]
    index = names.index(expected['video_name'])
    for _ in range(2):
        np.testing.assert_allclose(dataset[index]['gt_segments'],
                                   expected['first'])

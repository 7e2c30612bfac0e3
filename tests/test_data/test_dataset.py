"""Samples of the dataset, from annotation to packed window."""
import json

from mmblockdrop.structures.time_grid import steps_to_seconds

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from tiny_videos import frame_numbers
from torch.utils.data import DataLoader

ACTION = dict(segment=[0.5, 1.5], label='jump')


def test_packed_sample(build):
    dataset = build(
        dict(a=dict(annotations=[
            dict(segment=[0.5, 1.5], label='run'),
            dict(segment=[1.9, 2.2], label='jump')
        ])),
        test_mode=True)
    sample = dataset[0]['data_samples']
    inputs = dataset[0]['inputs']
    assert inputs.shape == (1, 3, 16, 32, 32) and inputs.dtype == torch.uint8
    assert frame_numbers(inputs).tolist() == list(range(16))
    assert sample.video_name == 'a' and sample.fps == 10
    assert sample.duration == pytest.approx(2.4)
    assert (sample.total_frames, sample.window_start_frame) == (24, 0)
    assert (sample.snippet_stride, sample.offset_frames) == (2, 0)
    assert (sample.window_size, sample.valid_steps) == (8, 8)
    assert sample.video_segments.tolist() == [[0.5, 1.5], [1.9, 2.2]]
    assert sample.video_labels.tolist() == [1, 0]
    truth = sample.gt_instances
    assert truth.labels.tolist() == [1]
    assert truth.segments.tolist() == [[2.5, 7.5]]
    assert truth.segments.dtype == torch.float32
    assert truth.labels.dtype == torch.int64
    assert dataset.metainfo['classes'] == ('jump', 'run')


def test_windows_cover_the_video_and_times_agree(build):
    dataset = build(dict(a=dict(frames=30)), test_mode=True)
    assert len(dataset) == 3  # steps 0..8, 4..12, 7..15
    seen = set()
    for packed in dataset:
        sample = packed['data_samples']
        seen.update(frame_numbers(packed['inputs']).tolist())
        seconds = steps_to_seconds(sample.gt_instances.segments,
                                   sample.metainfo)
        for start, end in seconds.tolist():
            assert 0.5 <= start + 1e-6 and end <= 1.5 + 1e-6
            assert end - start >= 0.75 - 1e-6
    assert seen == set(range(30))


def test_video_shorter_than_a_window_is_padded(build):
    dataset = build(dict(a=dict(frames=7, annotations=[])), test_mode=True)
    packed, = dataset
    assert frame_numbers(packed['inputs']).tolist() == [
        0, 1, 2, 3, 4, 5] + [6] * 10
    assert packed['data_samples'].valid_steps == 4


def test_fewer_frames_than_annotated(build):
    entries = dict(a=dict(frames=20, duration=4.8, frame=48))
    starts = [packed['data_samples'] for packed in build(
        entries, test_mode=True, overlap_ratio=0.)]
    assert [s.window_start_frame for s in starts] == [0, 16, 20]
    assert [s.valid_steps for s in starts] == [8, 2, 0]
    assert all(s.total_frames == 20 for s in starts)


def test_rate_and_length_from_the_file(build, root):
    folder = root(dict(a=dict(frames=24), b=dict(frames=36)))
    path = f'{folder}/annotations.json'
    with open(path) as file:
        content = json.load(file)
    for entry in content['database'].values():
        del entry['fps'], entry['duration']
    with open(path, 'w') as file:
        json.dump(content, file)
    dataset = build(data_root=folder, windows='random')
    info = [dataset.get_data_info(index) for index in range(2)]
    assert [i['total_frames'] for i in info] == [24, 36]
    assert [i['fps'] for i in info] == [10, 10]
    assert [i['duration'] for i in info] == pytest.approx([2.4, 3.6])


def test_ground_truth_is_never_changed(build):
    dataset = build(dict(a=dict(frames=40)), test_mode=True)
    for index in range(len(dataset)):
        first, second = dataset[index], dataset[index]
        for key in ('segments', 'labels'):
            assert torch.equal(first['data_samples'].gt_instances[key],
                               second['data_samples'].gt_instances[key])


def test_resize_shows_the_whole_video(build):
    dataset = build(dict(a=dict(frames=32)), windows='resize', window_size=4)
    packed, = dataset
    sample = packed['data_samples']
    assert frame_numbers(packed['inputs']).tolist() == [
        2, 6, 10, 14, 18, 22, 26, 30]  # halves are rounded to even
    assert sample.gt_instances.segments[0].tolist() == pytest.approx(
        [0.5 / 3.2 * 4, 1.5 / 3.2 * 4])
    seconds = steps_to_seconds(sample.gt_instances.segments, sample.metainfo)
    assert seconds[0].tolist() == pytest.approx([0.5, 1.5])


def test_random_windows_follow_seed_and_epoch(build):
    entries = {name: dict(frames=40) for name in 'abcd'}

    def starts(dataset):
        return [dataset[i]['data_samples'].window_start_frame
                for i in range(len(dataset))]

    dataset, again = build(entries), build(entries, serialize_data=False)
    epochs = []
    for epoch in range(4):
        dataset.set_epoch(epoch)
        again.set_epoch(epoch)
        epochs.append(starts(dataset))
        assert starts(again)[::-1] == epochs[-1][::-1]
        np.random.rand()  # neither the global state nor the order matter
        assert [dataset[i]['data_samples'].window_start_frame
                for i in (3, 1)] == [epochs[-1][3], epochs[-1][1]]
    assert len({tuple(epoch) for epoch in epochs}) > 1
    other = build(entries, seed=1)
    other.set_epoch(0)
    assert starts(other) != epochs[0]


def test_drawing_leaves_the_global_generators_alone(build):
    dataset = build(dict(a=dict(frames=40)))
    dataset.set_epoch(0)
    np.random.seed(3)
    expected = np.random.RandomState(3).rand()
    dataset[0]
    assert np.random.rand() == expected


def test_epoch_reaches_workers_that_run(build):
    dataset = build({name: dict(frames=60) for name in 'abcdefgh'})
    loader = DataLoader(dataset, num_workers=2, persistent_workers=True,
                        collate_fn=pseudo_collate)

    def starts():
        return [batch['data_samples'][0].window_start_frame
                for batch in loader]

    dataset.set_epoch(0)
    first = starts()
    dataset.set_epoch(1)
    assert starts() != first
    dataset.set_epoch(0)
    assert starts() == first


def test_several_windows_of_a_video(build):
    dataset = build(dict(a=dict(frames=80)), windows_per_video=6)
    dataset.set_epoch(0)
    starts = {dataset[i]['data_samples'].window_start_frame for i in range(6)}
    assert len(dataset) == 6 and len(starts) > 1


def test_split_is_disjoint_and_complete(build):
    entries = {f'v{index}': dict(frames=8) for index in range(10)}
    parts = {part: build(entries, split=dict(part=part, ratio=0.3, seed=1),
                         test_mode=True).video_names
             for part in ('train', 'val')}
    assert len(parts['val']) == 3
    assert sorted(parts['train'] + parts['val']) == sorted(entries)
    again = build(entries, split=dict(part='val', ratio=0.3, seed=1))
    assert again.video_names == parts['val']
    with pytest.raises(ValueError, match="did you mean 'val'"):
        build(entries, split=dict(part='vall'))


def test_sample_ratio_takes_part_of_the_videos(build):
    entries = {f'v{index}': dict(frames=20) for index in range(10)}
    names = build(entries, sample_ratio=0.3, test_mode=True).video_names
    assert len(names) == 3
    assert names == build(entries, sample_ratio=0.3).video_names
    assert names != build(entries, sample_ratio=0.3, seed=1).video_names


def test_training_skips_what_has_no_action(build):
    entries = dict(a=dict(annotations=[]), b=dict())
    assert len(build(entries)) == 1
    assert len(build(entries, filter_cfg=dict(filter_empty=False))) == 2
    sliding = build(dict(a=dict(frames=60)), windows='sliding')
    assert len(sliding) < len(
        build(dict(a=dict(frames=60)), windows='sliding', test_mode=True))


def test_training_windows_of_the_test_kind(build):
    """Candidates are scored on windows of training videos."""
    dataset = build(dict(a=dict(frames=40)), test_mode=True, subset='training')
    assert len(dataset) > 1
    assert len(dataset[0]['data_samples'].gt_instances) == 1


@pytest.mark.parametrize('classes', [
    'category_idx.txt', ('jump', 'run'), None, 'classes.json', 'map.json'])
def test_classes_from_anywhere(build, root, classes):
    folder = root(dict(a=dict(annotations=[
        ACTION, dict(segment=[0., 0.4], label='run')])))
    with open(f'{folder}/classes.json', 'w') as file:
        json.dump(['jump', 'run'], file)
    with open(f'{folder}/map.json', 'w') as file:
        json.dump(dict(run=1, jump=0), file)
    dataset = build(data_root=folder, classes=classes)
    assert dataset.metainfo['classes'] == ('jump', 'run')
    assert dataset.get_cat_ids(0) == [0, 1]


def test_one_class_for_all(build):
    dataset = build(
        dict(a=dict(annotations=[dict(segment=[0., 1.], label='run')])),
        class_agnostic=True)
    assert dataset.metainfo['classes'] == ('action', )
    assert dataset.get_cat_ids(0) == [0]


@pytest.mark.parametrize('layout', ['TC', 'CT'])
def test_features(build, root, tmp_path, layout):
    folder = root(dict(a=dict(frames=40, fps=25., duration=1.6)), videos=False)
    features = np.arange(40 * 3, dtype=np.float16).reshape(40, 3)
    (tmp_path / 'feats').mkdir()
    np.save(tmp_path / 'feats' / 'a.npy',
            features if layout == 'TC' else features.T)
    dataset = build(
        data_root=folder,
        data_prefix=dict(feature='feats'),
        test_mode=True,
        snippet_stride=1,
        frames_per_step=1,
        window_size=16,
        overlap_ratio=0.,
        pipeline=[
            dict(type='mmblockdrop.LoadFeatures', layout=layout),
            dict(type='mmblockdrop.SampleWindow'),
            dict(type='mmblockdrop.PackTADInputs')
        ])
    inputs = [packed['inputs'] for packed in dataset]
    assert [tuple(x.shape) for x in inputs] == [(3, 16)] * 3
    assert inputs[0].dtype == torch.float32
    np.testing.assert_array_equal(inputs[1].numpy().T, features[16:32])
    np.testing.assert_array_equal(inputs[2].numpy().T, features[24:40])


def test_features_stretched_and_padded(build, root, tmp_path):
    folder = root(dict(a=dict(frames=10)), videos=False)
    (tmp_path / 'feats').mkdir()
    np.save(tmp_path / 'feats' / 'a.npy', np.arange(10.)[:, None])
    cfg = dict(
        data_root=folder,
        data_prefix=dict(feature='feats'),
        snippet_stride=1,
        frames_per_step=1,
        test_mode=True,
        pipeline=[
            dict(type='mmblockdrop.LoadFeatures'),
            dict(type='mmblockdrop.SampleWindow'),
            dict(type='mmblockdrop.PackTADInputs')
        ])
    stretched = build(window_size=5, windows='resize', **cfg)[0]['inputs']
    assert stretched[0].tolist() == [0.5, 2.5, 4.5, 6.5, 8.5]
    packed = build(window_size=12, **cfg)[0]
    assert packed['inputs'][0].tolist() == [*range(10), 0, 0]
    assert packed['data_samples'].valid_steps == 10

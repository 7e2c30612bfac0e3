"""A grid in seconds shows the same whatever the rate of a video."""
import copy
import json
import pickle
from collections import OrderedDict

from mmblockdrop.structures.grid_rate import follow_grid
from mmblockdrop.structures.time_grid import steps_to_seconds
from mmblockdrop.utils.video import ResampledVideo, Video

import numpy as np
import pytest
from mmengine.dataset import ConcatDataset
from tiny_videos import PIPELINE, RATES, frame_numbers, moments, write_moments

ACTION = dict(segment=[2., 4.], label='jump')
CACHED = [
    dict(
        type='mmblockdrop.CachedFrames',
        transforms=[dict(type='mmblockdrop.OpenVideo'),
                    dict(type='mmaction.DecordDecode')]),
    *PIPELINE[1:]
]


@pytest.fixture
def films(tmp_path):
    """The same film at several rates, with annotations of nothing else."""
    (tmp_path / 'videos').mkdir()
    for name in RATES:
        write_moments(tmp_path / 'videos' / f'{name}.mp4', **moments(name))
    write_annotations(tmp_path, {name: {} for name in RATES})
    return tmp_path


def write_annotations(folder, entries):
    database = {
        name: dict(dict(subset='training', annotations=[ACTION]), **entry)
        for name, entry in entries.items()
    }
    (folder / 'annotations.json').write_text(
        json.dumps(dict(database=database)))
    (folder / 'category_idx.txt').write_text('jump\nrun\n')


def by_video(dataset):
    """Numbers of the frames of each window of each video."""
    found = {}
    for packed in dataset:
        sample = packed['data_samples']
        found.setdefault(sample.video_name, []).append(
            (sample.window_start_frame,
             frame_numbers(packed['inputs']).tolist(), sample.valid_steps,
             sample.gt_instances.segments.tolist()))
    return found


SECONDS = dict(sample_fps=5, snippet_stride=None, window_size=16,
               test_mode=True)


@pytest.mark.parametrize('pipeline', [PIPELINE, CACHED],
                         ids=['decoded', 'cached'])
def test_the_same_moments_of_every_video(films, build, pipeline, tmp_path):
    pipeline = copy.deepcopy(pipeline)
    if 'transforms' in pipeline[0]:
        pipeline[0]['cache_dir'] = str(tmp_path / 'cache')
    dataset = build(data_root=str(films), pipeline=pipeline, **SECONDS)
    found = by_video(dataset)
    assert set(found) == set(RATES)
    for name in RATES:
        assert found[name] == found['10']
    # 8 s are 40 steps of two frames, 0.1 s apart: windows at 0, 8, 16, 24.
    assert [start for start, *_ in found['10']] == [0, 16, 32, 48]
    for start, numbers, valid, _ in found['10']:
        assert numbers == list(range(start, start + 32))
        assert valid == 16
    sample = dataset[1]['data_samples']
    assert steps_to_seconds(sample.gt_instances.segments,
                            sample.metainfo).tolist() == [[2., 4.]]


def test_step_k_is_at_k_over_sample_fps(films, build):
    """Frames of a video at 20 per second, asked for every quarter second."""
    write_moments(films / 'videos' / 'n.mp4', np.arange(100) / 20,
                  np.arange(100), 20)
    write_annotations(films, dict(n={}))
    dataset = build(
        data_root=str(films), sample_fps=4., snippet_stride=None,
        frames_per_step=1, window_size=20, test_mode=True)
    packed, = dataset
    assert frame_numbers(packed['inputs']).tolist() == list(range(0, 100, 5))
    # More steps than frames: each comes twice.
    dataset = build(
        data_root=str(films), sample_fps=40., snippet_stride=None,
        frames_per_step=1, window_size=200, test_mode=True)
    packed, = dataset
    assert frame_numbers(packed['inputs']).tolist() == np.repeat(
        np.arange(100), 2).tolist()
    assert packed['data_samples'].duration == pytest.approx(5)


def test_annotated_duration_needs_no_file(films, build):
    write_annotations(films, dict(gone=dict(duration=7.6)))
    dataset = build(data_root=str(films), data_prefix=dict(), **SECONDS)
    info = dataset.get_data_info(0)
    assert (info['fps'], info['total_frames']) == (10., 76)


def test_a_still_picture_is_shown_until_the_next(tmp_path):
    write_moments(tmp_path / 'a.mp4', [0, 0.1, 0.2, 9.9, 10.], range(5))
    video = ResampledVideo(Video(tmp_path / 'a.mp4'), 2.)
    frames = video.read(range(len(video)))
    shown = (frames[:, 0, 4::8, 0] > 127) @ 2**np.arange(8)
    assert shown[:20].tolist() == [0] + [2] * 19
    assert set(shown[20:]) == {4}


def test_cached_frames_of_two_rates_are_two_files(films, build, tmp_path):
    pipeline = copy.deepcopy(CACHED)
    pipeline[0]['cache_dir'] = str(tmp_path / 'cache')
    settings = dict(data_root=str(films), pipeline=pipeline, test_mode=True,
                    window_size=40)
    slow = by_video(build(**settings, sample_fps=2.5, snippet_stride=None))
    fast = by_video(build(**settings, sample_fps=5., snippet_stride=None))
    own = by_video(build(**settings, snippet_stride=2))
    assert slow['20'][0][1][:4] == [0, 2, 4, 6]
    assert fast['20'][0][1][:4] == own['10'][0][1][:4] == [0, 1, 2, 3]
    assert own['20'][0][1][:4] == [0, 0, 1, 1]


@pytest.mark.parametrize('kwargs, text', [
    (dict(sample_fps=0), 'sample_fps=0'),
    (dict(sample_fps='5'), "sample_fps='5'"),
    (dict(sample_fps=5, snippet_stride=2), 'snippet_stride=2'),
    (dict(sample_fps=5, windows='resize'), "windows='resize'"),
    (dict(sample_fps=5, fps=10.), 'fps=10.0'),
    (dict(sample_fps=5, offset_frames=8), 'offset_frames=8'),
])
def test_settings_that_contradict_a_grid_in_seconds(build, kwargs, text):
    with pytest.raises(ValueError, match=text):
        build(**dict(dict(snippet_stride=None), **kwargs), lazy_init=True)


def test_another_opener_than_ours_is_an_error(films, build):
    pipeline = [dict(type='mmaction.DecordInit'), *PIPELINE[1:]]
    dataset = build(data_root=str(films), pipeline=pipeline, **SECONDS)
    with pytest.raises(ValueError, match='mmblockdrop.OpenVideo'):
        dataset[0]


# What a data set says of its grid -------------------------------------------


def test_meta_of_a_grid_in_seconds(films, build):
    meta = build(data_root=str(films), **SECONDS).metainfo
    assert meta == dict(classes=('jump', 'run'), sample_fps=5.)


def test_meta_of_a_grid_of_frames(films, build, logged):
    dataset = build(data_root=str(films))
    meta = dataset.metainfo
    assert meta['sample_fps'] is None
    assert (meta['video_fps']['min'], meta['video_fps']['max']) == (
        10., pytest.approx(29.97, abs=0.01))
    assert any('sample_fps' in line for line in logged)
    stored = pickle.loads(pickle.dumps(meta))
    assert type(stored['video_fps']) is OrderedDict
    assert list(stored['video_fps'].items()) == list(
        meta['video_fps'].items())


def test_data_sets_of_other_rates_can_be_joined(films, build):
    write_annotations(films, {'10': {}, '20': dict(subset='more')})
    parts = [build(data_root=str(films), subset=name)
             for name in ('training', 'more')]
    assert [p.metainfo['video_fps']['max'] for p in parts] == [10., 20.]
    assert ConcatDataset(parts).metainfo['video_fps']['max'] == 10.


@pytest.mark.parametrize('trained, warned', [(10., True), (19.2, False)])
def test_videos_of_another_rate_than_the_model(films, build, logged, trained,
                                               warned):
    write_annotations(films, {'20': {}})
    rates = dict(median=trained, min=trained, max=trained)
    cfg = dict(type='mmblockdrop.UntrimmedVideoDataset')
    follow_grid(cfg, dict(sample_fps=None, video_fps=rates))
    build(data_root=str(films), test_mode=True, metainfo=cfg['metainfo'])
    assert bool([line for line in logged if "'20' has 20" in line]) == warned


def test_a_config_follows_the_model():
    ours = dict(type='mmblockdrop.PublishedVideoDataset', snippet_stride=4)
    cfg = dict(type='ConcatDataset', datasets=[
        ours, dict(type='RepeatDataset', dataset=dict(ours)),
        dict(type='mmaction.VideoDataset')])
    follow_grid(cfg, dict(classes=['a']))
    assert cfg['datasets'][0] == ours
    follow_grid(cfg, dict(classes=['a'], sample_fps=7.5))
    first, second, other = cfg['datasets']
    for found in (first, second['dataset']):
        assert (found['sample_fps'], found['snippet_stride']) == (7.5, None)
    assert other == dict(type='mmaction.VideoDataset')


@pytest.mark.parametrize('meta', [
    dict(sample_fps=-1), dict(sample_fps='fast'),
    dict(sample_fps=float('nan')),
    dict(sample_fps=None, video_fps=dict(median=25.))
])
def test_a_checkpoint_with_a_rate_that_is_none(meta):
    with pytest.raises(ValueError, match='dataset_meta'):
        follow_grid(dict(type='mmblockdrop.UntrimmedVideoDataset'), meta)

"""Wrong paths, wrong annotations, and files that cannot be read."""
import json
import os
from pathlib import Path

from mmblockdrop.quickstart.own_videos import find_readable

import numpy as np
import pytest
from mmengine.dataset import pseudo_collate
from programs import load_program
from tiny_videos import PIPELINE
from torch.utils.data import DataLoader


def entries(count=5, **kwargs):
    return {f'v{index}': dict(kwargs) for index in range(count)}


def actions(*segments, label='jump'):
    return [dict(segment=list(segment), label=label) for segment in segments]


# Paths and keys of a config --------------------------------------------------


@pytest.mark.parametrize('change, message', [
    (dict(ann_file='anotations.json'),
     r"ann_file=.*no 'anotations.json'; did you mean 'annotations.json'"),
    (dict(data_prefix=dict(video='video')),
     r"data_prefix\['video'\]=.*no 'video'; did you mean 'videos'"),
    (dict(classes='categories.txt'),
     r"classes=.*no 'categories.txt'; did you mean 'category_idx.txt'"),
])
def test_path_that_does_not_exist(build, root, change, message):
    with pytest.raises(FileNotFoundError, match=message):
        build(data_root=root(entries()), **change)


def test_data_root_that_does_not_exist(build, root):
    folder = root(entries())
    wrong = f'{folder}-wrong/deep'
    with pytest.raises(FileNotFoundError, match='data_root=.*did you mean'):
        build(data_root=wrong)


@pytest.mark.parametrize('change, message', [
    (dict(subset='train'), "subset='train'.*did you mean 'training'"),
    (dict(subset=['training', 'test']), "subset='test' has no video"),
    (dict(windows='slide'), "windows='slide'.*did you mean 'sliding'"),
    (dict(bad_segments='dropped'), "did you mean 'drop'"),
    (dict(data_prefix=dict(videos='videos')), "did you mean 'video'"),
    (dict(filter_cfg=dict(filter_emty=True)), "did you mean 'filter_empty'"),
    (dict(split=dict(part='val', rate=.2)), "'rate'.*did you mean 'ratio'"),
    (dict(frames_per_step=4), 'frames_per_step=4 must divide'),
    (dict(classes=['jump', 'jump']), 'each once'),
    (dict(sample_ratio=2.), 'sample_ratio=2.0'),
    (dict(split=dict(part='val', ratio=1.)), r"split\['ratio'\]=1.0"),
])
def test_wrong_key_names_the_right_one(build, root, change, message):
    with pytest.raises(ValueError, match=message):
        build(data_root=root(entries()), **change)


def test_annotations_that_are_not(build, root, tmp_path):
    folder = root(entries())
    (tmp_path / 'cut.json').write_text('{"database": {"a"')
    with pytest.raises(ValueError, match='cut.json.* is not JSON'):
        build(data_root=folder, ann_file='cut.json')
    (tmp_path / 'other.json').write_text('{"databases": {}}')
    with pytest.raises(ValueError, match="did you mean 'databases'"):
        build(data_root=folder, ann_file='other.json')


# Annotations -----------------------------------------------------------------


def test_unknown_label(build):
    wrong = dict(a=dict(annotations=actions((0, 1), label='jumps')))
    with pytest.raises(ValueError, match="'a'.*did you mean 'jump'"):
        build(wrong)
    dropped = build(wrong, drop_labels=['jumps'], test_mode=True)
    assert dropped.get_cat_ids(0) == []


@pytest.mark.parametrize('segment, defect', [
    ((1.5, 0.5), 'is reversed'),
    ((7., 8.), 'is outside the video'),
    ((-3., -1.), 'is outside the video'),
    ((0., float('nan')), 'is not finite'),
    ((1., ), 'is not two numbers'),
])
def test_segment_that_cannot_be_meant(build, segment, defect, logged):
    wrong = dict(a=dict(annotations=actions((0.5, 1.5), segment)))
    with pytest.raises(ValueError, match=f"video 'a'.*{defect}.*bad_segments"):
        build(wrong)
    dataset = build(wrong, bad_segments='drop', test_mode=True)
    assert dataset[0]['data_samples'].video_segments.tolist() == [[0.5, 1.5]]
    assert logged[0].startswith(f'1 actions whose segment {defect} are left')


def test_segment_beyond_the_end_is_cut_when_shown(build):
    dataset = build(
        dict(a=dict(frames=16, annotations=actions((0.6, 1.8)))),
        test_mode=True)
    sample = dataset[0]['data_samples']
    assert sample.video_segments.tolist() == [[0.6, 1.8]]
    assert sample.gt_instances.segments.tolist() == [[3, 8]]


def test_segment_of_no_length_is_left_out(build):
    dataset = build(
        dict(a=dict(annotations=actions((0.5, 1.5), (1, 1)))), test_mode=True)
    assert len(dataset[0]['data_samples'].video_segments) == 1


@pytest.mark.parametrize('factor, duration, unit', [
    (1000, 2.4, 'milliseconds'), (10, 2.4, 'frames'),
    (1000, 2400., 'milliseconds')])
@pytest.mark.parametrize('bad_segments', ['error', 'drop'])
def test_times_that_are_no_seconds(build, root, factor, duration, unit,
                                   bad_segments):
    entry = dict(annotations=actions([factor, 2 * factor]), duration=duration)
    folder = root(dict(a=dict(entry, frame=24), b=dict(entry, frame=24)))
    with pytest.raises(ValueError, match=f'annotations.json.*{unit}'):
        build(data_root=folder, bad_segments=bad_segments)


@pytest.mark.parametrize('grid', [{}, dict(sample_fps=5, snippet_stride=None)])
def test_a_duration_in_milliseconds_is_told_by_the_file(build, grid):
    entry = dict(duration=2400., annotations=actions([1000, 2000]))
    dataset = build(dict(a=entry), **grid)
    with pytest.raises(ValueError, match='a.mp4.*duration=2400.*millisec'):
        dataset[0]


def test_one_action_far_away_is_left_out(build, logged):
    dataset = build(dict(a=dict(annotations=actions([0.5, 1.5], [1, 2], [
        1000, 1500]))), bad_segments='drop')
    assert len(dataset.get_data_info(0)['video_labels']) == 2


@pytest.mark.parametrize('classes', [None, 'category_idx.txt',
                                     ['jump', 'run ', 'Run']])
def test_blanks_in_labels(build, logged, classes):
    spelled = [dict(segment=[0.5, 1.5], label=label)
               for label in ('jump', ' jump', 'run', 'run ', 'run\n')]
    if classes and 'Run' in classes:
        spelled.append(dict(segment=[0.5, 1.5], label='Run'))
    dataset = build(dict(a=dict(annotations=spelled)), classes=classes)
    labels = dataset.get_data_info(0)['video_labels'].tolist()
    assert labels == [0, 0, 1, 1, 1, 2][:len(spelled)]
    found = [line for line in logged if 'blanks around' in line]
    assert len(found) == 1 and 'annotations.json' in found[0]
    assert '3 actions' in found[0]


def test_labels_that_differ_in_case(build, logged):
    spelled = [dict(segment=[0.5, 1.5], label=label)
               for label in ('jump', 'Jump', 'jump', 'run')]
    dataset = build(dict(a=dict(annotations=spelled)), classes=None)
    assert dataset.metainfo['classes'] == ('Jump', 'jump', 'run')
    found = [line for line in logged if "'Jump' (1 actions)" in line]
    assert len(found) == 1 and "'jump' (2 actions)" in found[0]


def test_a_label_to_drop_may_have_blanks(build):
    spelled = [dict(segment=[0.5, 1.5], label=label)
               for label in ('jump', 'Ambiguous ', 'Ambiguous')]
    dataset = build(dict(a=dict(annotations=spelled)), classes=None,
                    drop_labels=['Ambiguous'])
    assert dataset.metainfo['classes'] == ('jump', )


def test_nothing_left(build):
    with pytest.raises(ValueError, match='no sample remains of the 2 videos'):
        build(entries(2, annotations=[]))


def test_times_that_cannot_be(build, root):
    with pytest.raises(ValueError, match="video 'a'.*all must be positive"):
        build(dict(a=dict(duration=0.)))
    folder = root(dict(a=dict(frames=10)), videos=False)
    path = f'{folder}/annotations.json'
    content = json.load(open(path))
    del content['database']['a']['fps']
    json.dump(content, open(path, 'w'))
    with pytest.raises(ValueError, match="video 'a'.*needs 'duration'"):
        build(data_root=folder, data_prefix=dict())


# Files -----------------------------------------------------------------------


def spoil(folder, name, how):
    """Damage a video in one of the ways that happen."""
    path = os.path.join(folder, 'videos', f'{name}.mp4')
    content = open(path, 'rb').read()
    half = len(content) // 2
    if how == 'missing':
        os.remove(path)
    else:
        start, stop = content.find(b'mdat') + 4, content.find(b'moov') - 4
        middle = (start + stop) // 2
        open(path, 'wb').write({
            'empty': b'',
            'cut': content[:half],
            'text': b'no video at all',
            'damaged': (content[:middle] + b'\xff' * (stop - middle) +
                        content[stop:]),
        }[how])


HOWS = ['missing', 'empty', 'cut', 'text', 'damaged']


@pytest.mark.parametrize('how', HOWS)
def test_training_draws_another(build, root, logged, how):
    folder = root(entries(5))
    spoil(folder, 'v2', how)
    dataset = build(data_root=folder, max_broken_share=0.2)
    names = {dataset[index]['data_samples'].video_name for index in range(5)}
    assert 'v2' not in names
    assert len(dataset.broken) == 1
    warning, = logged
    assert 'v2' in warning and '1 of 5 videos' in warning
    assert warning.endswith('they are skipped')


@pytest.mark.parametrize('how', HOWS)
def test_testing_shows_black(build, root, how):
    folder = root(entries(5))
    spoil(folder, 'v2', how)
    dataset = build(data_root=folder, max_broken_share=0.2, test_mode=True)
    samples = [dataset[index] for index in range(len(dataset))]
    broken = [sample for sample in samples
              if sample['data_samples'].video_name == 'v2']
    assert len(broken) == 2 and len(samples) == 10
    for sample in broken[1:]:
        # The first window of a damaged video may still be read.
        assert not sample['inputs'].any()
        assert sample['inputs'].shape == samples[0]['inputs'].shape
        assert sample['data_samples'].valid_steps == 0
        assert len(sample['data_samples'].gt_instances) == 0
        assert len(sample['data_samples'].video_segments) == 1
    assert len(dataset.broken) == 1


@pytest.mark.parametrize('how', HOWS)
@pytest.mark.parametrize('test_mode', [True, False])
def test_too_many_stop_the_run(build, root, how, test_mode):
    folder = root(entries(5))
    spoil(folder, 'v2', how)
    with pytest.raises(RuntimeError, match='v2.*1 of 5 videos') as error:
        dataset = build(data_root=folder, test_mode=test_mode)
        for index in range(len(dataset)):
            dataset[index]
    assert 'max_broken_share=0.05' in str(error.value)


@pytest.mark.parametrize('test_mode', [True, False])
def test_unreadable_and_of_unknown_length(build, root, test_mode):
    folder = root(entries(5))
    spoil(folder, 'v2', 'text')
    path = f'{folder}/annotations.json'
    content = json.load(open(path))
    for entry in content['database'].values():
        del entry['fps'], entry['duration']
    json.dump(content, open(path, 'w'))
    dataset = build(data_root=folder, max_broken_share=0.2,
                    test_mode=test_mode)
    names = {sample['data_samples'].video_name for sample in (
        dataset[index] for index in range(len(dataset)))}
    assert ('v2' in names) == test_mode


def test_wrong_suffix_is_told(build, root):
    folder = root(entries(3))
    with pytest.raises(RuntimeError, match="suffix of .'.avi',.*v0.mp4"):
        build(data_root=folder, suffixes=['.avi'])


def named(root, *names):
    """A data set of videos in a folder of their own, under other names."""
    folder = root(entries(len(names)))
    path = f'{folder}/annotations.json'
    content = json.load(open(path))
    content['database'] = dict(zip(names, content['database'].values()))
    json.dump(content, open(path, 'w'))
    os.mkdir(f'{folder}/videos/sub')
    os.rename(f'{folder}/videos/v1.mp4', f'{folder}/videos/sub/v1.MP4')
    return folder


def test_names_with_suffix_or_folder(build, root, capsys):
    """The same look-up in the data set and in the programs."""
    folder = named(root, 'v0.MP4', 'sub/v1.mp4')
    dataset = build(data_root=folder, test_mode=True)
    assert [os.path.relpath(name, f'{folder}/videos')
            for name in dataset.filenames] == ['v0.mp4', 'sub/v1.MP4']
    assert [packed['data_samples'].video_name for packed in dataset][::2] == [
        'v0.MP4', 'sub/v1.mp4']
    assert load_program('data/check_data').main(
        [folder, '--workers', '1', '--strict']) == 0
    assert 'Everything fits' in capsys.readouterr().out
    assert load_program('data/write_frame_counts').main(
        [folder, '--workers', '1']) == 0
    assert find_readable(Path(folder), 'sub/v1').name == 'v1.MP4'


@pytest.mark.parametrize('name', ['../v1', '{folder}/videos/v0.mp4'])
def test_names_outside_the_folder_of_videos(build, root, name, capsys):
    folder = named(root, 'v0', 'v1')
    name = name.format(folder=folder)
    path = f'{folder}/annotations.json'
    content = json.load(open(path))
    content['database'] = {name: content['database']['v0']}
    json.dump(content, open(path, 'w'))
    os.rename(f'{folder}/videos/sub/v1.MP4', f'{folder}/v1.mp4')
    with pytest.raises(ValueError, match=f"annotations.json.*'{name}'"):
        build(data_root=folder)
    with pytest.raises(ValueError, match=f"annotations.json.*'{name}'"):
        find_readable(Path(folder), name)
    assert load_program('data/check_data').main(
        [folder, '--workers', '1']) == 1
    assert f'bad entry: {name}' in capsys.readouterr().out
    for program in ('data/write_frame_counts', ):
        assert load_program(program).main([folder, '--workers', '1']) == 2
        assert repr(name) in capsys.readouterr().err
    # Where no file is read a name is a name.
    assert build(data_root=folder, data_prefix=dict()).video_names == [name]


def test_a_folder_in_place_of_a_video(build, root):
    folder = root(dict(v0=dict(frames=0, duration=3.)))
    os.mkdir(f'{folder}/videos/v0.mp4')
    dataset = build(data_root=folder, max_broken_share=0)
    with pytest.raises(RuntimeError, match='v0.mp4.*folder'):
        dataset[0]


def test_filename_template(build, root):
    folder = root({'v_a': dict(), 'v_b': dict()})
    path = f'{folder}/annotations.json'
    content = json.load(open(path))
    content['database'] = {
        name[2:]: entry for name, entry in content['database'].items()}
    json.dump(content, open(path, 'w'))
    dataset = build(data_root=folder, filename_tmpl='v_{}')
    assert {dataset[i]['data_samples'].video_name for i in range(2)} == {
        'a', 'b'}


def test_workers_count_together(build, root):
    folder = root(entries(8))
    for name in ('v1', 'v4'):
        spoil(folder, name, 'text')
    dataset = build(data_root=folder, max_broken_share=0.25, test_mode=True)
    loader = DataLoader(dataset, num_workers=2, collate_fn=pseudo_collate)
    assert len(list(loader)) == len(dataset)
    assert len(dataset.broken) == 2


def test_black_frames_of_the_cached_size(build, root, tmp_path):
    folder = root(entries(5))
    spoil(folder, 'v0', 'text')
    frames = dict(
        type='mmblockdrop.CachedFrames',
        cache_dir=str(tmp_path / 'cache'),
        transforms=[
            dict(type='mmblockdrop.OpenVideo'),
            dict(type='mmaction.DecordDecode'),
            dict(type='mmaction.Resize', scale=(24, 20), keep_ratio=False)
        ])
    dataset = build(
        data_root=folder,
        test_mode=True,
        max_broken_share=0.2,
        pipeline=[frames, *PIPELINE[1:]])
    shapes = {tuple(sample['inputs'].shape) for sample in dataset}
    assert shapes == {(1, 3, 16, 20, 24)}
    assert not dataset[0]['inputs'].any() and dataset[2]['inputs'].any()


@pytest.mark.parametrize('content', [
    b'', b'text', np.zeros((2, 3, 4)), np.zeros(5), None])
def test_features_that_cannot_be_read(build, root, tmp_path, content):
    folder = root(entries(2), videos=False)
    (tmp_path / 'feats').mkdir()
    np.save(tmp_path / 'feats' / 'v0.npy', np.ones((24, 3)))
    path = tmp_path / 'feats' / 'v1.npy'
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.save(path, content)
    dataset = build(
        data_root=folder,
        data_prefix=dict(feature='feats'),
        snippet_stride=1,
        frames_per_step=1,
        window_size=24,
        max_broken_share=0.5,
        test_mode=True,
        pipeline=[
            dict(type='mmblockdrop.LoadFeatures'),
            dict(type='mmblockdrop.SampleWindow'),
            dict(type='mmblockdrop.PackTADInputs')
        ])
    assert dataset[0]['inputs'].shape == dataset[1]['inputs'].shape == (3, 24)
    assert dataset[1]['data_samples'].valid_steps == 0


def test_pipeline_that_lacks_a_part(build, root):
    folder = root(entries(1))
    with pytest.raises(KeyError, match="neither 'imgs' nor 'inputs'"):
        build(data_root=folder, pipeline=[PIPELINE[0], PIPELINE[-1]])[0]

"""Frames kept on disk."""
import os
import time
from concurrent.futures import ThreadPoolExecutor

from mmblockdrop.data import CachedFrames

import pytest
import torch
from mmaction.datasets.transforms import DecordDecode, DecordInit, Flip
from mmengine.dataset import pseudo_collate
from tiny_videos import PIPELINE, frame_numbers, write_video
from torch.utils.data import DataLoader

RESIZE = dict(type='mmaction.Resize', scale=(16, 16), keep_ratio=False)


def cached(folder, resize=RESIZE):
    return dict(
        type='mmblockdrop.CachedFrames',
        cache_dir=str(folder),
        transforms=[PIPELINE[0], PIPELINE[2], resize])


def kept(folder):
    return sorted(os.listdir(folder))


@pytest.mark.parametrize('windows', ['random', 'resize', 'sliding'])
def test_same_samples_with_and_without(build, tmp_path, windows):
    entries = {name: dict(frames=300) for name in 'abc'}
    plain = build(entries, windows=windows, pipeline=[
        *PIPELINE[:3], RESIZE, *PIPELINE[3:]])
    fast = build(entries, windows=windows, pipeline=[
        cached(tmp_path / 'cache'), *PIPELINE[1:]])
    for dataset in (plain, fast):
        dataset.set_epoch(0)
    for _ in range(2):  # first it writes, then it reads
        for index in range(len(plain)):
            one, two = plain[index], fast[index]
            assert torch.equal(one['inputs'], two['inputs'])
            assert (one['data_samples'].metainfo_keys() ==
                    two['data_samples'].metainfo_keys())
            assert torch.equal(one['data_samples'].gt_instances.segments,
                               two['data_samples'].gt_instances.segments)
    assert len(kept(tmp_path / 'cache')) == 3


def test_a_full_disk_is_an_error_of_the_file(build, tmp_path):
    resource = pytest.importorskip('resource')
    cache = tmp_path / 'cache'
    dataset = build(dict(a=dict(frames=60)), windows='resize',
                    pipeline=[cached(cache), *PIPELINE[1:]])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30000, before[1]))
    try:
        with pytest.raises(OSError) as caught:
            dataset[0]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert str(cache) in str(caught.value.filename)
    assert not kept(cache)
    assert dataset[0] is not None and len(kept(cache)) == 1


def test_a_changed_video_or_recipe_is_decoded_anew(build, root, tmp_path):
    folder, cache = root(dict(a=dict(frames=20))), tmp_path / 'cache'

    def numbers(resize=RESIZE):
        dataset = build(data_root=folder, windows='resize', window_size=4,
                        pipeline=[cached(cache, resize), *PIPELINE[1:]])
        return frame_numbers(dataset[0]['inputs']).tolist()

    first = numbers()
    assert numbers() == first and len(kept(cache)) == 1
    numbers(dict(RESIZE, scale=(24, 24)))
    assert len(kept(cache)) == 2
    write_video(f'{folder}/videos/a.mp4', 40)
    os.utime(f'{folder}/videos/a.mp4', (time.time() + 9, time.time() + 9))
    assert numbers()[-1] > first[-1]
    assert len(kept(cache)) == 3


def test_a_cut_off_file_is_written_again(build, tmp_path):
    cache = tmp_path / 'cache'
    dataset = build(dict(a=dict()), test_mode=True,
                    pipeline=[cached(cache), *PIPELINE[1:]])
    expected = dataset[0]['inputs']
    path = cache / kept(cache)[0]
    path.write_bytes(path.read_bytes()[:1000])
    assert torch.equal(dataset[0]['inputs'], expected)


def test_many_at_once(build, tmp_path):
    cache = tmp_path / 'cache'
    dataset = build({name: dict(frames=40) for name in 'abcd'},
                    test_mode=True, overlap_ratio=0.8,
                    pipeline=[cached(cache), *PIPELINE[1:]])
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(dataset.__getitem__, range(len(dataset))))
    loader = DataLoader(dataset, num_workers=2, collate_fn=pseudo_collate)
    for batch in loader:
        sample = batch['data_samples'][0]
        start, count = sample.window_start_frame, len(batch['inputs'][0][0][0])
        assert frame_numbers(batch['inputs'][0]).tolist() == list(
            range(start, start + count))
    assert len(kept(cache)) == 4
    assert all(name.endswith('.npy') for name in kept(cache))


@pytest.mark.parametrize('name', ['Flip', 'RandomResizedCrop', 'ColorJitter'])
def test_what_is_random_is_rejected(build, name):
    frames = cached('cache')
    frames['transforms'].append(dict(type=f'mmaction.{name}'))
    with pytest.raises(ValueError, match=f'{name} is random'):
        build(dict(a=dict()), pipeline=[frames])


def test_random_transforms_of_ours_are_rejected(build):
    frames = cached('cache')
    frames['transforms'].append(
        dict(type='mmblockdrop.RandomSquareCrop', crop_size=16))
    with pytest.raises(ValueError, match='RandomSquareCrop'):
        build(dict(a=dict()), pipeline=[frames])


def test_transforms_must_open_and_decode(build):
    with pytest.raises(ValueError, match='open the video first'):
        build(dict(a=dict()), pipeline=[
            dict(type='mmblockdrop.CachedFrames', cache_dir='x',
                 transforms=[PIPELINE[0]])])


def test_classes_as_types_are_read_as_their_names(tmp_path):
    """Types are classes in configs of mmengine's new style."""
    classes = [dict(type=DecordInit), dict(type=DecordDecode)]
    names = [dict(type='mmaction.DecordInit'),
             dict(type='mmaction.DecordDecode')]
    assert CachedFrames(classes, str(tmp_path)).recipe == CachedFrames(
        names, str(tmp_path)).recipe
    with pytest.raises(ValueError, match='Flip'):
        CachedFrames([*classes, dict(type=Flip)], str(tmp_path))

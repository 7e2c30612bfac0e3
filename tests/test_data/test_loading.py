"""Videos that stay open between windows."""
import pickle
import random

from mmblockdrop.data import OpenVideo
from mmblockdrop.data import loading as module
from mmblockdrop.registry import TRANSFORMS

import numpy as np
import pytest
from mmengine.registry import init_default_scope
from tiny_videos import frame_numbers, write_video


@pytest.fixture
def opened(monkeypatch):
    """Names of the files that were opened."""
    names = []
    plain = module.Video

    def count(filename, *args):
        names.append(filename)
        return plain(filename, *args)

    monkeypatch.setattr(module, 'Video', count)
    return names


def record(path, **kwargs):
    return dict(filename=str(path), fps=10., total_frames=40, **kwargs)


def test_windows_of_a_video_open_it_once(build, opened):
    dataset = build(
        dict(a=dict(frames=60), b=dict(frames=60)), subset='training',
        test_mode=True)
    assert len(dataset) > 6
    order = list(range(len(dataset)))
    first = {i: frame_numbers(dataset[i]['inputs']) for i in order}
    assert len(opened) == 2
    random.Random(0).shuffle(order)
    for index in order:
        info = dataset.get_data_info(index)
        shown = frame_numbers(dataset[index]['inputs'])
        np.testing.assert_array_equal(shown, first[index])
        stop = info['window_start_step'] * 2 + np.arange(16)
        np.testing.assert_array_equal(shown, np.minimum(stop, 59))


def test_a_changed_video_is_opened_again(tmp_path, opened):
    write_video(tmp_path / 'a.mp4', 40)
    step = OpenVideo()
    assert len(step(record(tmp_path / 'a.mp4'))['video_reader']) == 40
    write_video(tmp_path / 'a.mp4', 55)
    assert len(step(record(tmp_path / 'a.mp4'))['video_reader']) == 55
    assert len(opened) == 2


def test_copies_share_no_reader(tmp_path):
    write_video(tmp_path / 'a.mp4', 40)
    step = OpenVideo(size=(64, 40))
    ours = step(record(tmp_path / 'a.mp4'))['video_reader']
    copy = pickle.loads(pickle.dumps(step))
    assert copy(record(tmp_path / 'a.mp4'))['video_reader'] is not ours
    assert step(record(tmp_path / 'a.mp4'))['video_reader'] is ours


def test_size_of_the_decoder(tmp_path):
    init_default_scope('mmaction')
    write_video(tmp_path / 'a.mp4', 40)
    step = OpenVideo(size=(64, 48))
    results = dict(record(tmp_path / 'a.mp4'), frame_inds=np.array([3, 39]))
    decode = TRANSFORMS.build(dict(type='DecordDecode'))
    for extra in (dict(), dict(broken=True, black_shape=(9, 9))):
        imgs = decode(step(dict(results, **extra)))['imgs']
        assert [x.shape for x in imgs] == [(48, 64, 3)] * 2
    assert 'size=(64, 48)' in repr(step)
    with pytest.raises(ValueError, match='narrower than 64'):
        OpenVideo(size=(48, 64))

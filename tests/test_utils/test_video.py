"""The one door to video files."""
import ast
import subprocess
import sys
from pathlib import Path

from mmblockdrop.utils.video import (FrameArray, UnreadableVideoError, Video,
                                     find_media, probe_video)

import decord
import numpy as np
import pytest
from tiny_videos import write_video

ROOT = Path(__file__).resolve().parents[2]
DOOR = ('mmblockdrop/utils/video.py', 'mmblockdrop/utils/time_stamps.py')


@pytest.fixture
def path(tmp_path):
    write_video(tmp_path / 'a.mp4', 30, 10.)
    return tmp_path / 'a.mp4'


def test_frames_are_those_of_the_decoder(path):
    reader = decord.VideoReader(str(path))
    video = Video(path)
    assert (len(video), video.fps) == (30, 10.)
    plain = reader.get_batch(range(30)).asnumpy()
    assert np.array_equal(video.read(range(30)), plain)
    assert np.array_equal(video.read([7, 3, 7]), plain[[7, 3, 7]])
    assert np.array_equal(video.get_batch([29]).asnumpy(), plain[[29]])
    for index in (0, 29, 13, 4):
        assert np.array_equal(video[index], plain[index])
        assert np.array_equal(video[index], reader[index].asnumpy())
    np.testing.assert_allclose(video.times(), np.arange(30) / 10, atol=1e-6)


def test_arrays_and_files_give_the_same(path):
    video = Video(path)
    kept = FrameArray(video.read(range(30)), video.fps)
    assert (len(kept), kept.get_avg_fps()) == (30, video.get_avg_fps())
    assert np.array_equal(kept.read([5, 2]), video.read([5, 2]))
    assert np.array_equal(kept[5], video[5])
    assert not FrameArray.black(4, (6, 8), 10.).read([0, 3]).any()


def test_size_of_the_decoder(path):
    assert Video(path, size=(64, 48))[0].shape == (48, 64, 3)


def test_unreadable_files_are_named(path):
    for content, found in ((None, 'no such file'), (b'', 'zero bytes'),
                           (path.read_bytes()[:200], 'not a video')):
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
        for reads in (Video, probe_video):
            with pytest.raises(UnreadableVideoError, match=found) as caught:
                reads(path)
            assert caught.value.filename == str(path)


def test_frames_beyond_the_end_are_an_error_of_the_file(path):
    with pytest.raises(UnreadableVideoError, match='a.mp4.*decoded'):
        Video(path).read([30])


def test_a_changed_file_is_probed_again(path):
    assert probe_video(path) == (30, 10.)
    write_video(path, 45, 15.)
    assert probe_video(str(path)) == (45, 15.)


def test_files_are_found_whatever_their_suffix(tmp_path):
    for name in ('a.MP4', 'b.webm', 'b.mkv', 'c.txt'):
        (tmp_path / name).write_bytes(b'')
    folder = str(tmp_path)
    assert find_media(folder, 'a') == str(tmp_path / 'a.MP4')
    assert find_media(folder, 'a.MP4') == str(tmp_path / 'a.MP4')
    assert find_media(folder, 'b') == str(tmp_path / 'b.mkv')
    assert find_media(folder, 'c') is None


@pytest.mark.parametrize('name, file', [
    ('x', 'x.mp4'),
    ('x.mp4', 'x.mp4'),
    ('x.MP4', 'x.mp4'),
    ('x.avi', None),
    ('y.1', 'y.1.mkv'),
    ('IMG_1', 'IMG_1.MP4'),
    ('IMG_1.mp4', 'IMG_1.MP4'),
    ('IMG_1.MP4', 'IMG_1.MP4'),
    ('both.MP4', 'both.MP4'),
    ('both.mp4', 'both.mp4'),
    ('sub/x', 'sub/x.webm'),
    ('sub/x.webm', 'sub/x.webm'),
    ('sub/../x', 'x.mp4'),
    ('./sub//x', 'sub/x.webm'),
    ('link/x', 'link/x.mov'),
    ('linked', 'linked.mp4'),
    ('absent/x', None),
    ('x/x', None),
    ('sub', None),
    ('', None),
    ('a\0b', None),
    ('a\0b/x', None),
    ('x' * 300, None),
])
def test_one_look_up_for_every_way_to_name_a_video(tmp_path, name, file):
    outside, folder = tmp_path / 'outside', tmp_path / 'videos'
    for path in (outside, folder / 'sub'):
        path.mkdir(parents=True)
    (outside / 'x.mov').touch()
    (folder / 'link').symlink_to(outside)
    (folder / 'linked.mp4').symlink_to(outside / 'x.mov')
    for other in ('x.mp4', 'y.1.mkv', 'IMG_1.MP4', 'both.MP4', 'both.mp4',
                  'sub/x.webm'):
        (folder / other).touch()
    found = find_media(str(folder), name)
    assert found == (None if file is None else str(folder / file))


@pytest.mark.parametrize('name', ['../x', '../videos/x', 'sub/../../x', '..',
                                  '/etc/x', '//etc/x.mp4'])
def test_names_that_lead_out_of_the_folder(tmp_path, name):
    with pytest.raises(ValueError, match=f"a.json: .*'{name}'.*outside"):
        find_media(str(tmp_path), name, where='a.json')


def test_a_folder_and_a_dead_link_are_told(tmp_path):
    (tmp_path / 'a.mp4').mkdir()
    (tmp_path / 'b.mp4').symlink_to(tmp_path / 'gone.mp4')
    with pytest.raises(UnreadableVideoError, match='a.mp4.*folder'):
        Video(tmp_path / 'a.mp4')
    with pytest.raises(UnreadableVideoError, match='b.mp4.*gone.mp4'):
        Video(tmp_path / 'b.mp4')


def test_nothing_else_imports_the_decoders():
    files = [
        path for folder in ('mmblockdrop', 'tools', 'projects', 'demo')
        for path in (ROOT / folder).rglob('*.py')
        if path.relative_to(ROOT).as_posix() not in DOOR
    ]
    found = [
        str(path) for path in files for node in ast.walk(
            ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and not node.level
        and str(node.module).split('.')[0] in ('av', 'decord')
        or isinstance(node, ast.Import) and any(
            alias.name.split('.')[0] in ('av', 'decord')
            for alias in node.names)
    ] if files else ['no files']
    assert not found


def test_decoders_are_imported_when_a_video_is_opened():
    code = ('import sys, mmblockdrop.utils.video as v; '
            'assert not {"av", "decord"} & {*sys.modules}')
    subprocess.run([sys.executable, '-c', code], check=True, cwd=ROOT)

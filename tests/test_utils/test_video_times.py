"""Frames of the door to video files are those of their time stamps."""
import json
import sys
import warnings
from fractions import Fraction

from mmblockdrop.data.prepare.check import check_folder, inspect_video
from mmblockdrop.utils import time_stamps
from mmblockdrop.utils.time_stamps import StampReader, read_timing
from mmblockdrop.utils.video import UnreadableVideoError, Video, probe_video

import av
import decord
import numpy as np
import pytest

WIDTH, HEIGHT, BITS = 96, 64, 8


def picture(number, width=WIDTH):
    """The bits of a number as upright stripes."""
    bits = (number >> np.arange(BITS)) % 2 * 255
    row = np.repeat(bits, width // BITS).astype(np.uint8)
    return np.broadcast_to(row[None, :, None], (HEIGHT, width, 3)).copy()


def numbers(frames):
    """Numbers [N] that frames [N, H, W, 3] show."""
    rows = np.asarray(frames, float).mean(axis=(1, 3))
    bits = rows.reshape(len(rows), BITS, -1).mean(-1) > 127
    return (bits << np.arange(BITS)).sum(-1)


def write(path, codec='libx264', times=None, width=WIDTH, sound=None,
          **options):
    """A file whose frame k, at times[k] s (k / 20), shows k.

    ``sound`` is the length in seconds of a sound track from 0 s.
    """
    times = np.arange(90) / 20 if times is None else times
    tick = Fraction(1, 20 if codec.startswith('mp') or str(path).endswith(
        'avi') else 1000)
    with av.open(str(path), 'w') as container:
        stream = container.add_stream(codec, rate=20, options=options)
        stream.width, stream.height = width, HEIGHT
        stream.pix_fmt, stream.bit_rate = 'yuv420p', 2_000_000
        stream.codec_context.gop_size = 15
        stream.codec_context.max_b_frames = 2
        stream.codec_context.time_base = tick
        packets = []
        if sound is not None:
            track = container.add_stream('aac', rate=8000, layout='mono')
            for index in range(int(sound * 8000) // 1024):
                frame = av.AudioFrame.from_ndarray(
                    np.zeros((1, 1024), np.float32), 'fltp', 'mono')
                frame.sample_rate, frame.pts = 8000, index * 1024
                packets += track.encode(frame)
            packets += track.encode()
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(picture(number, width))
            frame.time_base, frame.pts = tick, round(time / tick)
            packets += stream.encode(frame)
        packets += stream.encode()
        for packet in sorted((p for p in packets if p.dts is not None),
                             key=lambda p: p.dts * p.time_base):
            container.mux(packet)


def sequential(path):
    """Numbers of all frames, decoded one after another."""
    with av.open(str(path)) as container:
        return numbers([frame.to_ndarray(format='rgb24')
                        for frame in container.decode(video=0)])


UNEVEN = np.cumsum(np.random.default_rng(0).integers(1, 5, 90)) / 20 - 0.05

#: Files of which decord finds other frames than it is asked for.
LIARS = [
    ('a.avi', dict(codec='mpeg4')),
    ('a.avi', dict()),
    ('a.mkv', dict(codec='mpeg4')),
    ('a.mpg', dict(codec='mpeg2video')),
    ('a.ts', dict(codec='mpeg2video')),
    ('a.ts', dict()),
    ('a.mp4', {'x264-params': 'open-gop=1:b-adapt=0:scenecut=0:keyint=20'}),
]


@pytest.mark.parametrize('name, options', LIARS)
def test_number_k_is_the_kth_frame(tmp_path, name, options):
    path = tmp_path / name
    write(path, **options)
    video = Video(path)
    assert (len(video), video.fps) == (90, 20.)
    assert video.timing.reason
    assert np.array_equal(numbers(video.read(range(90))), np.arange(90))
    assert np.array_equal(sequential(path), np.arange(90))
    order = np.random.default_rng(0).permutation(90)
    assert np.array_equal([numbers(video[k][None])[0] for k in order], order)
    assert np.array_equal(numbers(video.read([8, 3, 8, -1])), [8, 3, 8, 89])
    np.testing.assert_allclose(video.times(), np.arange(90) / 20, atol=2e-3)


@pytest.mark.parametrize('name', ['a.mp4', 'a.mkv'])
def test_a_variable_rate_is_read_as_an_even_one(tmp_path, name):
    write(tmp_path / name, times=UNEVEN)
    video = Video(tmp_path / name)
    # The file begins with its first frame.
    shown_at = UNEVEN - UNEVEN[0]
    assert video.fps == pytest.approx(89 / shown_at[-1], rel=0.02)
    asked = np.arange(len(video)) / video.fps
    right = np.searchsorted(shown_at, asked + 2e-3, 'right') - 1
    assert np.array_equal(numbers(video.read(range(len(video)))), right)
    np.testing.assert_allclose(video.times(), shown_at[right], atol=2e-3)
    assert len(video) / video.fps == pytest.approx(shown_at[-1], abs=0.3)
    assert probe_video(tmp_path / name) == (len(video), video.fps)


@pytest.mark.parametrize('name', ['a.mp4', 'a.mkv', 'a.ts'])
def test_pictures_that_begin_after_the_sound(tmp_path, name):
    write(tmp_path / name, times=np.arange(90) / 20 + 2, sound=6.)
    video = Video(tmp_path / name)
    found = numbers(video.read(range(len(video))))
    # Of a TS file the sound may begin a packet earlier.
    right = np.maximum(np.arange(len(video)) - 40, 0)
    assert abs(found - right).max() <= (3 if name == 'a.ts' else 0)
    assert len(video) == pytest.approx(130, abs=3)


@pytest.mark.parametrize('name', ['a.mp4', 'a.mkv'])
def test_a_start_of_all_streams_is_the_beginning(tmp_path, name):
    write(tmp_path / name, times=np.arange(90) / 20 + 3)
    video = Video(tmp_path / name)
    assert (len(video), video.fps, video.timing.start) == (90, 20., 0.)
    assert np.array_equal(numbers(video.read(range(90))), np.arange(90))


def test_frames_that_an_edit_list_hides(tmp_path):
    """Packets before zero, as a cut without encoding leaves them."""
    whole, path = tmp_path / 'whole.mp4', tmp_path / 'cut.mp4'
    write(whole)
    with av.open(str(whole)) as source, av.open(
            str(path), 'w', options={'use_editlist': '1'}) as target:
        stream = source.streams.video[0]
        out = target.add_stream_from_template(stream)
        cut = round(Fraction(1) / stream.time_base)  # 20 frames
        for packet in source.demux(stream):
            if packet.dts is not None:
                packet.pts, packet.dts = packet.pts - cut, packet.dts - cut
                packet.stream = out
                target.mux(packet)
    video = Video(path)
    assert len(video) == 70 and video.timing.hidden > 0
    assert np.array_equal(numbers(video.read(range(70))), np.arange(20, 90))
    assert inspect_video(str(path)).hidden == video.timing.hidden


@pytest.mark.parametrize('name', ['a.mp4', 'a.mkv'])
def test_ordinary_files_stay_with_decord(tmp_path, name):
    path = tmp_path / name
    write(path)
    video, reader = Video(path, size=(80, 48)), decord.VideoReader(
        str(path), width=80, height=48)
    assert (video.timing.reason, video.timing.index) == ('', None)
    assert (len(video), video.fps) == (len(reader), reader.get_avg_fps())
    asked = [70, 3, 44]
    assert np.array_equal(
        video.read(asked), reader.get_batch(asked).asnumpy())


def test_both_decoders_give_the_same_pixels(tmp_path):
    path = tmp_path / 'a.mp4'
    write(path)
    timing = read_timing(str(path), 0, 0, use_decord=False)
    ours = StampReader(str(path), timing.index, 1, None)
    assert np.array_equal(
        ours.read([70, 3, 44]), Video(path).read([70, 3, 44]))


@pytest.mark.parametrize('codec, width', [('libsvtav1', WIDTH),
                                          ('libx264', 48)])
def test_what_decord_cannot_read(tmp_path, codec, width):
    write(tmp_path / 'a.mp4', codec, width=width)
    video = Video(tmp_path / 'a.mp4')
    assert video[0].shape == (HEIGHT, width, 3)
    assert np.array_equal(numbers(video.read([50, 7])), [50, 7])
    assert Video(tmp_path / 'a.mp4', size=(32, 32))[3].shape == (32, 32, 3)


def test_damaged_files_are_named_with_a_reason(tmp_path):
    path = tmp_path / 'a.mp4'
    write(path, movflags='faststart')
    with av.open(str(path)) as source, av.open(
            str(tmp_path / 'b.mp4'), 'w',
            options={'movflags': 'faststart'}) as target:
        stream = source.streams.video[0]
        out = target.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.dts is not None:
                packet.stream = out
                target.mux(packet)
    whole = (tmp_path / 'b.mp4').read_bytes()
    path.write_bytes(whole[:len(whole) * 2 // 3])
    with pytest.raises(UnreadableVideoError, match='a.mp4.* of 90') as caught:
        Video(path)
    assert caught.value.filename == str(path)
    path.write_text('#EXTM3U\n#EXTINF:9,\nb.mp4\n#EXT-X-ENDLIST\n')
    with pytest.raises(UnreadableVideoError, match='a.mp4.*not a video'):
        Video(path)


def test_the_check_names_what_it_finds(tmp_path):
    write(tmp_path / 'a.mp4', times=np.r_[np.arange(60) / 20,
                                          3 + np.arange(30) / 5])
    write(tmp_path / 'b.avi')  # H.264 in AVI tells no times
    write(tmp_path / 'c.mpg', 'mpeg2video')
    problems, found = check_folder(dict(a={}, b={}, c={}), str(tmp_path))
    kinds = {(p.video, p.kind) for p in problems}
    assert kinds == {('a', 'variable frame rate'),
                     ('a', 'other frame rate'), ('b', 'slow to read'),
                     ('c', 'slow to read')}
    assert not any(problem.is_error for problem in problems)
    assert found['a'].drift > 0.5 and found['c'].drift < 0.05
    assert json.dumps(found['a']._asdict())


def test_without_pyav(tmp_path, monkeypatch):
    write(tmp_path / 'a.mp4')
    monkeypatch.setitem(sys.modules, 'av', None)
    time_stamps._pyav.cache_clear()
    read_timing.cache_clear()
    try:
        with pytest.warns(UserWarning, match='PyAV'):
            video = Video(tmp_path / 'a.mp4')
        assert video.timing is None and len(video) == 90
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            assert numbers(Video(tmp_path / 'a.mp4').read([9])) == [9]
        assert inspect_video(str(tmp_path / 'a.mp4')).drift < 1e-3
    finally:
        time_stamps._pyav.cache_clear()
        read_timing.cache_clear()

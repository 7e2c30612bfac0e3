"""Programs that check and prepare folders of videos."""
import json
import os
import stat
import sys
from pathlib import Path

from mmblockdrop.data.prepare.check import Found, check_entry
from mmblockdrop.data.prepare.parallel import for_each
from mmblockdrop.data.prepare.transcode import (Recipe, find_ffmpeg,
                                                target_size, transcode)
from mmblockdrop.utils.video import Video

import check_data
import cv2
import decord
import numpy as np
import pytest
import resize_videos
import write_frame_counts
from tiny_videos import BITS, write_video

ROOT = Path(__file__).resolve().parents[2]
SMALL = ROOT / 'tests' / 'data' / 'annotations'
PUBLIC = ROOT.parent / 'shared' / 'data'


def all_frames(path):
    video = Video(path)
    return video.read(range(len(video)))


def numbers(path):
    """Frame numbers that the stripes of a video show."""
    frames = all_frames(path).astype(float)
    rows = frames.mean(axis=(1, 3)).reshape(len(frames), BITS, -1).mean(-1)
    return ((rows > 127) << np.arange(BITS)).sum(-1).tolist()


def spoil(path):
    """Cut a video off."""
    path.write_bytes(path.read_bytes()[:200])


# Checking ------------------------------------------------------------------


def test_a_folder_that_fits(root, capsys):
    folder = root(dict(a=dict(), b=dict(frames=30, annotations=[])))
    assert check_data.main(
        [folder, '--classes', 'category_idx.txt', '--workers', '1']) == 0
    out = capsys.readouterr().out
    assert '2 videos, 1 actions; 2 files are readable' in out
    assert 'Everything fits' in out


def test_everything_that_does_not_fit_is_listed(root, tmp_path, capsys):
    folder = root(
        dict(
            good=dict(),
            gone=dict(frames=0, duration=2.4),
            cut=dict(),
            rate=dict(),
            long=dict(),
            count=dict(frame=40, duration=2.4),
            label=dict(annotations=[dict(segment=[0, 1], label='rum')]),
            late=dict(annotations=[dict(segment=[9, 10], label='run')]),
            over=dict(annotations=[dict(segment=[1, 10], label='run')]),
            empty=dict(annotations=[dict(segment=[1, 1], label='run')]),
            text=dict(annotations=[dict(segment='1-2', label='run')]),
            entry=dict(annotations='none'),
            nameless=dict(annotations=[dict(segment=[0, 1], label=[3])])))
    videos = Path(folder) / 'videos'
    spoil(videos / 'cut.mp4')
    write_video(videos / 'rate.mp4', 48, 20.)
    write_video(videos / 'long.mp4', 60, 10.)
    write_video(videos / 'goon.mp4', 5, 10.)
    report = tmp_path / 'out' / 'report.json'
    status = check_data.main([
        folder, '--classes', 'category_idx.txt', '--workers', '1', '--out',
        str(report)
    ])
    assert status == 1
    content = json.loads(report.read_text())
    kinds = {(p['video'], p['kind']) for p in content['problems']}
    assert kinds == {
        ('gone', 'missing file'), ('cut', 'unreadable file'),
        ('rate', 'wrong frame rate'), ('rate', 'other frame rate'),
        ('long', 'wrong duration'),
        ('count', 'wrong frame count'),
        ('label', 'unknown label'), ('late', 'bad segment'),
        ('over', 'segment beyond the end'),
        ('empty', 'segment of zero length'), ('text', 'bad segment'),
        ('entry', 'bad entry'), ('nameless', 'bad entry'),
        ('goon', 'file not annotated')
    }
    assert content['errors'] + content['warnings'] == len(
        content['problems'])
    assert content['videos'] == 13 and content['readable'] == 11
    good = content['files']['good']
    assert (good['frames'], good['fps']) == (24, 10.)
    assert good['drift'] < 1e-3
    out = capsys.readouterr().out
    assert "did you mean 'run'" in out and "did you mean 'goon'" in out
    assert 'missing file |' in out


@pytest.mark.parametrize('entry, key', [
    (dict(fps=None), None),
    (dict(fps=0.), 'fps=0.0'),
    (dict(frame=-3), 'frame=-3'),
    (dict(duration='long'), "duration='long'"),
    ([1], '[1]'),
])
def test_form_of_an_entry(entry, key):
    found = check_entry('a', entry)
    assert [problem.kind for problem in found] == ['bad entry'] * bool(key)
    assert not key or key in found[0].detail


def test_entries_that_do_not_fit_each_other(root, tmp_path, capsys):
    far = dict(annotations=[dict(segment=[1000, 2000], label='jump')])
    folder = root(dict(
        a=far, b=far, c=dict(far, fps=25., frames=50),
        d=dict(annotations=[dict(segment=[0, 1], label='Jump '),
                            dict(segment=[0, 1], label='run ')])))
    out = tmp_path / 'report.json'
    assert check_data.main([folder, '--workers', '1', '--classes',
                            'category_idx.txt', '--out', str(out)]) == 1
    problems = {}
    for problem in json.loads(out.read_text())['problems']:
        problems.setdefault(problem['kind'], []).append(problem)
    assert 'milliseconds' in problems['wrong unit'][0]['detail']
    assert problems['wrong unit'][0]['weight'] == 'error'
    assert [p['video'] for p in problems['other frame rate']] == ['c']
    assert "'Jump' (1 actions)" in problems['similar labels'][0]['detail']
    assert len(problems['label with blanks']) == 2
    assert [p['detail'][:12] for p in problems['unknown label']] == [
        "label 'Jump "]


def test_warnings_are_errors_if_asked(root):
    folder = root(
        dict(a=dict(annotations=[dict(segment=[1, 10], label='run')])))
    args = [folder, '--workers', '1', '--no-decode']
    assert check_data.main(args) == 0
    assert check_data.main([*args, '--strict']) == 1


def test_parts_of_a_folder(root, tmp_path, capsys):
    folder = root(
        dict(a=dict(), gone=dict(frames=0, duration=1.), b=dict(
            subset='test', annotations=[dict(segment=[0, 1], label='rum')])))
    (tmp_path / 'blocked.json').write_text('["gone"]')
    args = [folder, '--workers', '1', '--classes', 'category_idx.txt']
    assert check_data.main([*args, '--block-list', 'blocked.json']) == 1
    assert 'unknown label' in capsys.readouterr().out
    assert check_data.main([*args, '--block-list', 'blocked.json', '--subset',
                            'training']) == 0
    assert check_data.main([*args, '--subset', 'trainings']) == 2
    assert "did you mean 'training'" in capsys.readouterr().err


def test_what_cannot_be_checked(tmp_path, capsys):
    assert check_data.main([str(tmp_path / 'nowhere')]) == 2
    assert 'does not exist' in capsys.readouterr().err


def test_frames_at_uneven_times():
    problems = check_entry('a', dict(), found=Found(100, 10., 1.5))
    assert [p.kind for p in problems] == ['variable frame rate']
    assert 'constant rate' in problems[0].detail


def public(small, *paths):
    """The small file, and the public ones that are there."""
    found = [PUBLIC.joinpath(*path.split('/')) for path in paths]
    return [SMALL / small, *(path for path in found if path.is_file())]


@pytest.mark.parametrize('path', [
    *public('opentad.json', 'thumos14_annotations/thumos_14_anno.json',
            'grid_s1_words_tad/annotations.json'),
    *public('actionformer.json', 'thumos14_annotations/thumos14.json'),
    *public('activitynet.json', 'activitynet13/activitynet_13_train_val.json')
], ids=lambda path: f'{path.parent.name}-{path.stem}')
def test_published_annotations(path, tmp_path):
    database = json.loads(path.read_text())['database']
    labels = {a['label'] for v in database.values()
              for a in v['annotations']} - {'Ambiguous'}
    (tmp_path / 'names.txt').write_text('\n'.join(sorted(labels)))
    out = tmp_path / 'report.json'
    status = check_data.main([
        str(path.parent), '--ann', path.name, '--no-videos', '--classes',
        str(tmp_path / 'names.txt'), '--drop-labels', 'Ambiguous', '--out',
        str(out)
    ])
    problems = json.loads(out.read_text())['problems']
    outside = beyond = 0
    for video in database.values():
        for action in video['annotations']:
            start, end = action['segment']
            if start == end:
                continue
            wrong = end < start or start >= video['duration'] or end <= 0
            outside += wrong
            beyond += not wrong and end > video['duration']
    kinds = [p['kind'] for p in problems]
    assert kinds.count('segment beyond the end') == beyond
    assert kinds.count('bad segment') == outside
    assert status == int(outside > 0)
    assert set(kinds) <= {
        'segment beyond the end', 'bad segment', 'segment of zero length'
    }


# Frame counts --------------------------------------------------------------


def test_frame_counts_go_into_a_copy(root, capsys):
    folder = root(dict(a=dict(), b=dict(frames=30), c=dict()))
    ann = Path(folder) / 'annotations.json'
    content = json.loads(ann.read_text())
    for entry in content['database'].values():
        entry.pop('fps')
    content['database']['b'].pop('duration')
    content['version'] = 'mine'
    ann.write_text(json.dumps(content))
    spoil(Path(folder) / 'videos' / 'c.mp4')
    assert write_frame_counts.main([folder, '--workers', '1']) == 1
    assert 'not read: c' in capsys.readouterr().err
    copy = json.loads((Path(folder) / 'annotations_frames.json').read_text())
    assert copy['version'] == 'mine'
    assert copy['database']['b'] == dict(
        content['database']['b'], frame=30, fps=10., duration=3.)
    assert copy['database']['c'] == content['database']['c']
    assert json.loads(ann.read_text()) == content
    # What is known is not read again.
    (Path(folder) / 'videos' / 'a.mp4').unlink()
    write_video(Path(folder) / 'videos' / 'c.mp4', 24, 10.)
    assert write_frame_counts.main([folder, '--workers', '1']) == 0
    copy = json.loads((Path(folder) / 'annotations_frames.json').read_text())
    assert copy['database']['a']['frame'] == 24
    assert copy['database']['c']['frame'] == 24


def test_annotations_are_never_overwritten(root, capsys):
    folder = root(dict(a=dict()))
    before = (Path(folder) / 'annotations.json').read_text()
    status = write_frame_counts.main([folder, '--out', 'annotations.json'])
    assert status == 2 and '--out' in capsys.readouterr().err
    assert (Path(folder) / 'annotations.json').read_text() == before


# Re-encoding ---------------------------------------------------------------

#: A stand-in for ffmpeg: the command line that we use, by OpenCV.
STAND_IN = '''#!{python}
import sys, cv2, numpy as np
args = sys.argv[1:]
source, filters = (args[args.index(k) + 1] for k in ('-i', '-vf'))
open({said!r}, 'w').write(' '.join(args))
fps, size = filters.split(',')
fps, size = float(fps[4:]), [int(x) for x in size[6:].split(':')]
if source == 'pipe:0':
    width, height = map(int, args[args.index('-s') + 1].split('x'))
    rate = float(args[args.index('-r') + 1])
    frames = np.frombuffer(sys.stdin.buffer.read(), np.uint8).reshape(
        -1, height, width, 3)[..., ::-1]
else:
    reader = cv2.VideoCapture(source)
    rate = reader.get(cv2.CAP_PROP_FPS)
    total = int(reader.get(cv2.CAP_PROP_FRAME_COUNT))
    frames = [reader.read()[1] for _ in range(total)]
count = round(len(frames) / rate * fps)
writer = cv2.VideoWriter(
    args[-1], cv2.VideoWriter_fourcc(*'mp4v'), fps, size)
for i in np.arange(count) * len(frames) // max(1, count):
    writer.write(cv2.resize(frames[i], size))
writer.release()
'''


@pytest.fixture
def ffmpeg(tmp_path, monkeypatch):
    """Give a program ffmpeg; returns the file that holds its arguments."""

    def make(text=STAND_IN):
        folder = tmp_path / 'bin'
        folder.mkdir(exist_ok=True)
        said, program = folder / 'said', folder / 'ffmpeg'
        program.write_text(
            text.format(python=sys.executable, said=str(said)))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv('PATH', f'{folder}{os.pathsep}/usr/bin:/bin')
        return said

    return make


def resize(source, target, *args):
    return resize_videos.main(
        [str(source), str(target), '--workers', '1', *args])


def test_frames_and_folders_stay(tmp_path, ffmpeg):
    said = ffmpeg()
    source = tmp_path / 'in'
    (source / 'deep').mkdir(parents=True)
    write_video(source / 'deep' / 'a.mp4', 40, 10.)
    target = tmp_path / 'out'
    assert resize(source, target, '--short-side', '0', '--gop', '8') == 0
    assert numbers(target / 'deep' / 'a.mp4') == list(range(40))
    words = said.read_text()
    assert '-g 8 -keyint_min 8' in words and '-an' in words
    assert 'fps=10.000000,scale=32:32' in words and 'libx264' in words
    assert '-crf 20' in words


@pytest.mark.parametrize('size, recipe, expected', [
    ((320, 180), Recipe(160), (284, 160)),
    ((320, 180), Recipe(None), (320, 180)),
    ((90, 61), Recipe(160), (90, 60)),
    ((320, 180), Recipe(size=(171, 128)), (172, 128)),
    ((320, 180), Recipe(20), (36, 20)),
])
def test_size_of_the_copy(size, recipe, expected):
    assert target_size(*size, recipe) == expected


def test_size_and_rate(tmp_path, ffmpeg):
    ffmpeg()
    write_video(tmp_path / 'a.mp4', 24, 10.)
    recipe = Recipe(size=(64, 48), fps=5.)
    new = tmp_path / 'out' / 'b.mp4'
    assert transcode(str(tmp_path / 'a.mp4'), str(new), recipe) == 12
    assert Video(new)[0].shape == (48, 64, 3)
    assert [n // 2 for n in numbers(new)] == list(range(12))
    assert transcode(str(tmp_path / 'a.mp4'), str(new),
                     recipe._replace(size=(16, 16))) == 12
    assert Video(new)[11].shape == (16, 16, 3)
    with pytest.raises(ValueError, match='gop=0'):
        transcode(str(tmp_path / 'a.mp4'), str(new), recipe._replace(gop=0))


@pytest.mark.parametrize('suffix, piped', [('.mp4', False), ('.avi', True)])
def test_ffmpeg_gets_frames_where_a_file_lies(tmp_path, ffmpeg, suffix,
                                              piped):
    said = ffmpeg()
    source = tmp_path / f'a{suffix}'
    writer = cv2.VideoWriter(
        str(source), cv2.VideoWriter_fourcc(*'mp4v'), 10., (96, 64))
    for level in range(0, 240, 10):
        writer.write(np.full((64, 96, 3), level, np.uint8))
    writer.release()
    new = tmp_path / 'out' / 'a.mp4'
    assert transcode(str(source), str(new), Recipe(short_side=None)) == 24
    assert (f'-i {source}' in said.read_text()) != piped
    assert ('-s 96x64 -r 10.000000 -i pipe:0' in said.read_text()) == piped
    levels = Video(new).read(range(24)).mean((1, 2, 3))
    np.testing.assert_allclose(levels, np.arange(0, 240, 10), atol=8)


def test_an_interrupted_call_is_continued(tmp_path, capsys, ffmpeg):
    ffmpeg()
    source, target = tmp_path / 'in', tmp_path / 'out'
    source.mkdir()
    for name in 'abc':
        write_video(source / f'{name}.mp4', 12, 10.)
    spoil(source / 'b.mp4')
    assert resize(source, target) == 1
    streams = capsys.readouterr()
    assert '2 written, 1 failed' in streams.out
    assert 'failed: b.mp4: cannot read' in streams.err
    made = os.stat(target / 'a.mp4').st_mtime_ns
    (target / 'c.mp4').unlink()
    (target / 'c.mp4.0.part.mp4').write_bytes(b'half')
    write_video(source / 'b.mp4', 12, 10.)
    assert resize(source, target) == 0
    assert '1 are finished; ffmpeg writes 2' in capsys.readouterr().out
    assert os.stat(target / 'a.mp4').st_mtime_ns == made
    assert sorted(p.name for p in target.iterdir()) == [
        'a.mp4', 'b.mp4', 'c.mp4', 'recipe.json'
    ]
    assert resize(source, target, '--gop', '99') == 2
    assert 'gop=16, now 99' in capsys.readouterr().err
    assert resize(source, source / 'small') == 2
    assert resize(source, tmp_path / 'more', '--gop', '0') == 2
    assert '--gop=0' in capsys.readouterr().err


def test_copies_of_another_encoder_are_not_mixed_in(tmp_path, capsys, ffmpeg):
    ffmpeg()
    (tmp_path / 'in').mkdir()
    (tmp_path / 'out').mkdir()
    write_video(tmp_path / 'in' / 'a.mp4', 12, 10.)
    (tmp_path / 'out' / 'recipe.json').write_text(
        json.dumps(dict(Recipe()._asdict(), encoder='opencv')))
    assert resize(tmp_path / 'in', tmp_path / 'out') == 2
    assert "encoder='opencv', now 'ffmpeg'" in capsys.readouterr().err


def test_a_failure_of_ffmpeg_is_told(tmp_path, ffmpeg, capsys):
    ffmpeg('#!/bin/sh\necho no such codec >&2; exit 1\n')
    (tmp_path / 'in').mkdir()
    write_video(tmp_path / 'in' / 'a.mp4', 12, 10.)
    assert resize(tmp_path / 'in', tmp_path / 'out') == 1
    assert 'no such codec' in capsys.readouterr().err
    assert not (tmp_path / 'out' / 'a.mp4').exists()


def test_without_ffmpeg(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('PATH', str(tmp_path))
    monkeypatch.setitem(sys.modules, 'imageio_ffmpeg', None)
    (tmp_path / 'in').mkdir()
    write_video(tmp_path / 'in' / 'a.mp4', 12, 10.)
    with pytest.raises(FileNotFoundError, match='install.*imageio-ffmpeg'):
        find_ffmpeg()
    assert resize(tmp_path / 'in', tmp_path / 'out') == 2
    assert 'ffmpeg' in capsys.readouterr().err


def test_key_frames_of_the_real_program(tmp_path):
    write_video(tmp_path / 'a.mp4', 40, 10.)
    new = tmp_path / 'b.mp4'
    recipe = Recipe(size=(64, 64), gop=8, crf=10)
    assert transcode(str(tmp_path / 'a.mp4'), str(new), recipe) == 40
    assert numbers(new) == list(range(40))
    reader = decord.VideoReader(str(new))
    assert reader.get_avg_fps() == pytest.approx(10)
    keys = [*reader.get_key_indices(), 40]
    assert keys[0] == 0 and max(np.diff(keys)) <= 8


# Many files ----------------------------------------------------------------


def half(item):
    """Half of an even number."""
    if item == 6:
        os._exit(1)  # as a decoder that crashes
    if item % 2:
        raise ValueError(f'{item} is odd')
    return item // 2


def test_a_crash_and_an_error_stop_nothing_else():
    done, failed = for_each(half, range(9), workers=2)
    assert done == {0: 0, 2: 1, 4: 2, 8: 4}
    assert failed == {
        1: '1 is odd',
        3: '3 is odd',
        5: '5 is odd',
        6: 'the decoder crashed on this file',
        7: '7 is odd'
    }

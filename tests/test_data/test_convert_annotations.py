"""Annotations of other programs to ours and back."""
import copy
import json
import random

from mmblockdrop.data.annotations import load_database
from mmblockdrop.data.prepare.annotation_formats import Options
from mmblockdrop.data.prepare.convert_annotations import convert, split_videos
from mmblockdrop.quickstart.own_videos import read_database

import convert_annotations as program
import pytest
from tiny_videos import write_video

VIA = dict(
    project=dict(pid='p', vid_list=['1']),
    config={},
    attribute={
        '1': dict(aname='Activity', anchor_id='FILE1_Z2_XY0', type=4,
                  options={'1': 'jump', '2': 'run'}, default_option_id=''),
        '2': dict(aname='Note', anchor_id='FILE1_Z2_XY0', type=1, options={})},
    file={'1': dict(fid='1', fname='a.mp4', type=4, loc=1, src='')},
    metadata={
        '1_x': dict(vid='1', flg=0, z=[0.5, 1.25], xy=[],
                    av={'1': '1', '2': 'good'}),
        '1_y': dict(vid='1', flg=0, z=[1.5, 2], xy=[], av={'1': '2'}),
        '1_z': dict(vid='1', flg=0, z=[1.5], xy=[2, 1, 1, 3, 3], av={})},
    view={'1': dict(fid_list=['1'])})
ELAN = '''<?xml version="1.0" encoding="UTF-8"?>
<ANNOTATION_DOCUMENT FORMAT="3.0" VERSION="3.0">
 <HEADER MEDIA_FILE="" TIME_UNITS="milliseconds">
  <MEDIA_DESCRIPTOR MEDIA_URL="file:///C:/x/a.wav" MIME_TYPE="audio/x-wav"/>
  <MEDIA_DESCRIPTOR MEDIA_URL="file:///C:/my%20x/a.mp4"
    MIME_TYPE="video/mp4" TIME_ORIGIN="SHIFT"/>
 </HEADER>
 <TIME_ORDER>
  <TIME_SLOT TIME_SLOT_ID="ts1" TIME_VALUE="500"/>
  <TIME_SLOT TIME_SLOT_ID="ts2" TIME_VALUE="1250"/>
  <TIME_SLOT TIME_SLOT_ID="ts3"/>
 </TIME_ORDER>
 <TIER TIER_ID="action" LINGUISTIC_TYPE_REF="default-lt">
  <ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a1"
    TIME_SLOT_REF1="ts1" TIME_SLOT_REF2="ts2">
   <ANNOTATION_VALUE>jump</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION>
  </ANNOTATION>
  <ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a2"
    TIME_SLOT_REF1="ts2" TIME_SLOT_REF2="ts3">
   <ANNOTATION_VALUE>run</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION>
  </ANNOTATION>
 </TIER>
 <TIER TIER_ID="word" PARENT_REF="action" LINGUISTIC_TYPE_REF="sym">
  <ANNOTATION><REF_ANNOTATION ANNOTATION_ID="a3" ANNOTATION_REF="a1">
   <ANNOTATION_VALUE>hop</ANNOTATION_VALUE></REF_ANNOTATION></ANNOTATION>
 </TIER>
</ANNOTATION_DOCUMENT>'''
BORIS = dict(
    project_format_version='7.0',
    behaviors_conf={'0': dict(type='State event', code='jump'),
                    '1': dict(type='Point event', code='blink')},
    observations=dict(
        one=dict(
            type='MEDIA', file={'1': ['/d/a.mp4', '/d/b.mp4'], '2': []},
            events=[[1.5, 'x', 'jump', '', ''], [1.75, 'y', 'jump', '', ''],
                    [2.25, 'x', 'jump', '', ''], [2.5, '', 'blink', '', ''],
                    [2.75, 'y', 'jump', '', ''], [5, 'x', 'jump', '', ''],
                    [5.5, 'x', 'jump', '', '']],
            media_info=dict(length={'/d/a.mp4': 3., '/d/b.mp4': 4.},
                            fps={'/d/a.mp4': 25., '/d/b.mp4': 25.}),
            **{'time offset': 1.}),
        live=dict(type='LIVE', file=[], events=[])))
BORIS_AGGREGATED = (
    'Observation id\tMedia file\tTotal length\tFPS\tSubject\tBehavior\t'
    'Behavior type\tStart (s)\tStop (s)\n'
    'one\tC:\\d\\a.mp4\t3.0\t25.0\tx\tjump\tSTATE\t0.500\t1.250\n'
    'one\tC:\\d\\a.mp4\t3.0\t25.0\tx\tblink\tPOINT\t1.000\t1.000\n')
BORIS_EVENTS = (
    'Observation id\tone\t\t\t\t\nTime offset (s)\t0.5\t\t\t\t\n\t\t\t\t\t\n'
    'Time\tMedia file path\tFPS\tSubject\tBehavior\tStatus\n'
    '1.000\ta.mp4\t25.0\tx\tjump\tSTART\n'
    '1.200\ta.mp4\t25.0\ty\tjump\tSTART\n'
    '1.750\ta.mp4\t25.0\tx\tjump\tSTOP\n'
    '1.800\ta.mp4\t25.0\ty\tjump\tSTOP\n')
LABEL_STUDIO = [
    dict(id=4, data=dict(video='/data/upload/1/3d3ad63e-a.mp4'),
         annotations=[dict(id=1, was_cancelled=False, result=[
             dict(id='r', type='timelinelabels', from_name='t',
                  to_name='video', value=dict(
                      ranges=[dict(start=6, end=12)],
                      timelinelabels=['jump'])),
             dict(id='c', type='choices', value=dict(choices=['x']))])]),
    dict(id=5, data=dict(clip='s3://bucket/b.mp4'),
         annotations=[dict(result=[dict(
             id='s', type='labels', value=dict(
                 start=0.25, end=1, channel=0, labels=['run']))])])]
CVAT = '''<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version>
<meta><task><id>1</id><name>t</name><frame_filter>step=5</frame_filter></task>
<source>a.mp4</source></meta>
<track id="0" label="jump" source="manual">
 <box frame="5" outside="0" keyframe="1" xtl="0" ytl="0" xbr="1" ybr="1"/>
 <box frame="10" outside="0" keyframe="0" xtl="0" ytl="0" xbr="1" ybr="1"/>
 <box frame="15" outside="1" keyframe="1" xtl="0" ytl="0" xbr="1" ybr="1"/>
 <box frame="20" outside="0" keyframe="1" xtl="0" ytl="0" xbr="1" ybr="1"/>
</track>
<image id="0" name="frame_000000"><tag label="run"/></image>
<image id="5" name="frame_000005"><tag label="run"/></image>
<image id="15" name="frame_000015"><tag label="run"/></image>
</annotations>'''
CVAT_BACKUP = [dict(
    version=0, shapes=[], tags=[dict(frame=3, label='run')],
    tracks=[dict(label='jump', frame=5, shapes=[
        dict(type='rectangle', frame=5, outside=False),
        dict(type='rectangle', frame=12, outside=True)])])]
THUMOS = ('video_validation_0000001  0.50 1.25 \n\n'
          'video_test_0000002 2 3\n')
MMACTION = {'v_a': dict(duration_second=10., duration_frame=250, fps=30,
                        annotations=[dict(segment=[1, 2], label='jump')])}
JUMP, RUN = ([0.5, 1.25], 'jump'), ([1.5, 2], 'run')
FRAMES = Options(fps=10)


def write(tmp_path, name, content):
    path = tmp_path / name
    path.write_text(
        content if isinstance(content, str) else json.dumps(content))
    return path


def actions(path):
    """Actions by video, read as the data set reads them."""
    return {name: [(a['segment'], a['label']) for a in entry['annotations']]
            for name, entry in load_database(str(path)).items()}


@pytest.mark.parametrize('name, content, options, expected', [
    ('a.csv', 'Video File,Start (s),End (s),Label\na.mp4,0.5,0:01.25,jump\n',
     None, dict(a=[JUMP])),
    ('a.csv', 'video;start;end;class\na;0,5;1,25;jump\nb;;;\n', None,
     dict(a=[JUMP], b=[])),
    ('a.csv', 'video,start_ms,end_ms,action\na,500,1250,jump\n', None,
     dict(a=[JUMP])),
    ('a.csv', 'video,start_frame,end_frame,action\na,5,12,jump\n', FRAMES,
     dict(a=[([0.5, 1.2], 'jump')])),
    ('a.csv', 'labelId,timestamp,endTimestamp\njump,0.5,1.25\n',
     Options(video='{}'), dict(a=[JUMP])),
    ('a.csv', 'file,start,end,label\nd/50%25?.MP4,1,2,x\n'
     'http://h/b%20c.mp4?k=1,1,2,x\nC:\\d\\e.avi,1,2,x\n', None,
     {name: [([1, 2], 'x')] for name in ('50%25?', 'b c', 'e')}),
    ('a.tsv', 'x\ty\tz\njump\t0.5\t1.25\n',
     Options(video='v', columns=dict(label='x', start='y', end='z')),
     dict(v=[JUMP])),
    ('a.json', VIA, Options(tiers=['Activity']), dict(a=[JUMP, RUN])),
    ('a.json', VIA, None, dict(a=[JUMP, ([0.5, 1.25], 'good'), RUN])),
    ('a.eaf', ELAN.replace('SHIFT', '0'), None, dict(a=[JUMP])),
    ('a.eaf', ELAN.replace('SHIFT', '1000'), None,
     dict(a=[([1.5, 2.25], 'jump')])),
    ('a.boris', BORIS, None,
     dict(a=[JUMP, ([0.75, 1.75], 'jump')], b=[([1, 1.5], 'jump')])),
    ('a.tsv', BORIS_AGGREGATED, None, dict(a=[JUMP])),
    ('a.csv', BORIS_AGGREGATED.replace('\t', ','), None, dict(a=[JUMP])),
    ('a.tsv', BORIS_EVENTS, None, dict(a=[JUMP, ([0.7, 1.3], 'jump')])),
    ('a.json', LABEL_STUDIO, FRAMES,
     dict(a=[([0.5, 1.2], 'jump')], b=[([0.25, 1], 'run')])),
    ('a.xml', CVAT, FRAMES,
     dict(a=[([0, 1], 'run'), ([0.5, 1.5], 'jump'), ([1.5, 2], 'run'),
             ([2, 2.5], 'jump')])),
    ('a.json', CVAT_BACKUP, Options(video='a', fps=10),
     dict(a=[([0.3, 0.4], 'run'), ([0.5, 1.2], 'jump')])),
    ('jump_val.txt', THUMOS, None,
     dict(video_validation_0000001=[JUMP],
          video_test_0000002=[([2, 3], 'jump')])),
    ('a.json', MMACTION, None, dict(v_a=[([1, 2], 'jump')])),
])
def test_every_format_gives_seconds(tmp_path, name, content, options,
                                    expected):
    target = tmp_path / 'out.json'
    convert(write(tmp_path, name, content), target, options)
    assert actions(target) == expected


@pytest.mark.parametrize('name', ['actionformer', 'activitynet', 'opentad'])
@pytest.mark.parametrize('suffix', ['csv', 'tsv'])
def test_round_trip_through_a_table(tmp_path, name, suffix):
    source = f'tests/data/annotations/{name}.json'
    first, table, second = (
        tmp_path / f'1.{end}' for end in ('json', suffix, 'JSON'))
    convert(source, first)
    convert(first, table)
    convert(table, second)
    assert load_database(str(first)) == load_database(str(second))
    original = load_database(source)
    for video, entry in load_database(str(first)).items():
        for key in ('subset', 'duration', 'fps'):
            assert entry.get(key) == original[video].get(key)


def test_what_is_left_out_is_counted(tmp_path):
    found = convert(write(tmp_path, 'a.boris', BORIS), tmp_path / 'o.json')
    assert +found.left_out == {'point events': 1,
                               'observations without video': 1}
    found = convert(write(tmp_path, 'a.eaf', ELAN.replace('SHIFT', '0')),
                    tmp_path / 'p.json')
    assert +found.left_out == {'ELAN annotations without own time': 2}


def test_thumos_parts_are_subsets(tmp_path):
    convert(write(tmp_path, 'jump_val.txt', THUMOS), tmp_path / 'o.json')
    database = load_database(str(tmp_path / 'o.json'))
    assert {name[:8]: entry['subset'] for name, entry in database.items()
            } == dict(video_va='training', video_te='test')


def test_folder_of_files_measured_and_split(tmp_path, capsys):
    (tmp_path / 'labels').mkdir()
    (tmp_path / 'videos').mkdir()
    for index in range(6):
        write(tmp_path / 'labels', f'v{index}.csv',
              'labelId,timestamp,endTimestamp\njump,0.5,1.25\n')
        write_video(tmp_path / 'videos' / f'v{index}.mp4', 24 + index, 10.)
    target = tmp_path / 'annotations.json'
    assert program.main([
        str(tmp_path / 'labels'), str(target), '--video', '{}', '--videos',
        str(tmp_path / 'videos'), '--split', '0.6,0.2,0.2']) == 0
    database = read_database(tmp_path)  # as the quickstart does
    assert {entry['subset'] for entry in database.values()} == {
        'training', 'validation', 'test'}
    assert database['v3']['duration'] == pytest.approx(2.7)
    assert (database['v3']['frame'], database['v3']['fps']) == (27, 10)
    assert '6 videos, 6 actions of 1 classes' in capsys.readouterr().out
    assert program.main([str(tmp_path / 'labels'), str(target)]) == 2
    assert 'annotations.json exists' in capsys.readouterr().err


def test_split_depends_on_names_and_seed_alone():
    names = [f'v{index}' for index in range(20)]
    split = split_videos(names, (0.7, 0.15, 0.15))
    assert split == split_videos(names[::-1], (0.7, 0.15, 0.15))
    assert split != split_videos(names, (0.7, 0.15, 0.15), seed=1)
    assert sorted(split.values()).count('training') == 14
    assert sorted(split_videos('abc', (0.9, 0.05, 0.05)).values()) == [
        'test', 'training', 'validation']
    for shares in ((0.5, 0.5), (0.5, 0.2, 0.2), (0, 0.5, 0.5)):
        with pytest.raises(ValueError, match='--split'):
            split_videos(names, shares)
    with pytest.raises(ValueError, match='2 videos'):
        split_videos('ab', (0.8, 0.1, 0.1))


GOOD = 'video,start,end,label\n'
LAUGHS = ('<!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;">]>'
          '<annotations>&c;</annotations>')


@pytest.mark.parametrize('name, content, words', [
    ('a.csv', 'video,begn,end,label\na,1,2,x\n', ("'start'", "'begn'")),
    ('a.csv', GOOD + 'a,1,2,x\na,3,2,x\n', ('row 3', 'end 2', 'start 3')),
    ('a.csv', GOOD + 'a,nan,2,x\n', ('row 2', "'nan'")),
    ('a.csv', GOOD + 'a,1,,x\n', ('row 2', 'end', "''")),
    ('a.csv', GOOD + 'a,1,2,\n', ('row 2', 'label')),
    ('a.csv', GOOD + 'a.mp4,1,2,x\nb/a.mp4,1,2,x\n', ('row 3', "'b/a.mp4'")),
    ('a.csv', GOOD, ('0 videos', )),
    ('a.csv', 'start,end,label\n1,2,x\n', ('--video', )),
    ('a.csv', 'video,start_frame,end_frame,label\na,1,2,x\n', ('--fps', )),
    ('a.csv', '', ('a.csv', "'start'")),
    ('a.docx', 'x', ("'.docx'", "'.csv'")),
    ('a.jsn', '{}', ("did you mean '.json'", )),
    ('a.json', '{"data_base": 1}', ("'activitynet'", "'data_base'")),
    ('a.json', dict(VIA, view={}), ("metadata '1_x'", "'1'")),
    ('a.json', dict(VIA, metadata={'k': dict(
        vid='1', z=[2, 1], av={'1': '1'})}), ("metadata 'k'", 'end 1')),
    ('a.eaf', '<ANNOTATION_DOCUMENT>', ('not XML', 'a.eaf')),
    ('a.eaf', ELAN.replace('SHIFT', '0').replace('"500"', '"x"'),
     ("annotation 'a1'", "'x'")),
    ('a.eaf', ELAN.replace('milliseconds', 'seconds'), ('TIME_UNITS', )),
    ('a.xml', LAUGHS, ('DOCTYPE', 'a.xml')),
    ('a.xml', '<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotations/>',
     ('DOCTYPE', )),
    ('a.xml', '<x/>', ("'cvat'", "'x'")),
    ('a.boris', dict(BORIS, observations=dict(one=dict(
        BORIS['observations']['one'], events=[[1, '', 'jump', '', '']]))),
     ("observation 'one'", 'event 0', 'STOP')),
    ('a.tsv', BORIS_AGGREGATED.replace('Stop (s)', 'S'), ("'Stop (s)'", )),
    ('a.tsv', BORIS_AGGREGATED.replace('a.mp4\t3.0\t25.0\tx\tblink\tPOINT',
                                       'b.mp4\t3.0\t25.0\tx\tblink\tSTATE'),
     ('row 3', 'b.mp4', '.boris')),
    ('a.csv', BORIS_AGGREGATED.replace('C:\\d\\a.mp4', 'NA'), ('--video', )),
    ('x_val.txt', 'a 1\n', ('line 1', "'a 1'")),
    ('a.json', [dict(id=7, data=dict(video='a.mp4'), annotations=[dict(
        result=[dict(id='r', type='labels', value=dict(
            start=None, end=1, labels=['x']))])])], ('task 7', 'None')),
])
def test_bad_files_are_named(tmp_path, name, content, words):
    path = write(tmp_path, name, content)
    with pytest.raises(ValueError) as error:
        convert(path, tmp_path / 'out.json')
    for word in (str(path), *words):
        assert word in str(error.value)
    assert not (tmp_path / 'out.json').exists()


def test_bad_arguments(tmp_path, capsys):
    good = write(tmp_path, 'a.csv', GOOD + 'clip,1,2,x\n')
    (tmp_path / 'videos').mkdir()
    write_video(tmp_path / 'videos' / 'clips.mp4')
    for arguments, words in (
            (['--format', 'elen'], ('--format', "did you mean 'elan'")),
            (['--column', 'begin=x'], ('--column', "'begin'")),
            (['--column', 'start=strt'], ("'strt'", "did you mean 'start'")),
            (['--split', 'a,b'], ('--split', "'a,b'")),
            (['--videos', str(tmp_path / 'videos')],
             ("'clip'", "did you mean 'clips'")),
            (['--fps', 'nan'], ('--fps', 'nan'))):
        assert program.main([str(good), str(tmp_path / 'o.json'), *arguments
                             ]) == 2
        message = capsys.readouterr().err
        assert all(word in message for word in words), message
    good.write_bytes(b'video,start,end,label\nm\xfcde,1,2,x\n')
    with pytest.raises(ValueError, match='a.csv.*not UTF-8.*0xfc'):
        convert(good, tmp_path / 'o.json')
    with pytest.raises(ValueError, match="'.xlsx'"):
        convert(good, tmp_path / 'o.xlsx')
    with pytest.raises(FileNotFoundError, match='b.csv'):
        convert(tmp_path / 'b.csv', tmp_path / 'o.json')


def places(content, place=()):
    """Places of all values in JSON."""
    yield place
    for key in content if isinstance(content, dict) else range(
            len(content) if isinstance(content, list) else 0):
        yield from places(content[key], (*place, key))


def spoil(content, draw):
    """Change a few characters, or one value of JSON."""
    if isinstance(content, str):
        for _ in range(draw.randint(1, 4)):
            at = draw.randrange(len(content))
            content = content[:at] + draw.choice('"<>&,;\t\n\0-x') + content[
                at + draw.choice((0, 1, 20)):]
        return content
    odd = draw.choice([None, True, -1, 1e400, 10**400, '', 'nan', [], {},
                       [[1, 2]], {'a': 1}])
    *above, last = draw.choice([*places(content)][1:])
    content = inside = copy.deepcopy(content)
    for key in above:
        inside = inside[key]
    inside[last] = odd
    return content


@pytest.mark.parametrize('name, content, options', [
    ('a.json', VIA, None), ('a.eaf', ELAN, None), ('a.boris', BORIS, None),
    ('a.tsv', BORIS_EVENTS, None), ('a.json', LABEL_STUDIO, FRAMES),
    ('a.xml', CVAT, FRAMES),
    ('a.json', CVAT_BACKUP, Options(video='a', fps=10)),
    ('jump_val.txt', THUMOS, None), ('a.json', MMACTION, None)])
def test_spoiled_files_convert_or_are_named(tmp_path, name, content, options):
    draw = random.Random(0)
    for count in range(40):
        path = write(tmp_path, name, spoil(content, draw))
        try:
            convert(path, tmp_path / f'{count}.json', options)
        except ValueError as error:
            assert str(path) in str(error)

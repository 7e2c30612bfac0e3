"""What is checked before the first step of a run."""
import json
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

from mmblockdrop.data.prepare.run_check import (check_data, check_disk,
                                                check_run)

import pytest
import toy
from mmengine.config import Config
from mmengine.runner import Runner
from tiny_videos import PIPELINE

LOADERS = dict(train='training', val='validation', test='test')
ALL = ('train', 'val', 'test', 'score')


@pytest.fixture
def make(root):
    """Config of a run over tiny videos; ``make(name=dict(...entry))``."""

    def config(videos=None, **dataset):
        names = dict(a='training', b='training', c='validation', d='test')
        entries = {name: dict(subset=subset, **(videos or {}).pop(name, {}))
                   for name, subset in names.items()}
        entries.update(videos or {})
        data_root = root(entries)
        cfg = dict(default_scope='mmaction')
        for role, subset in LOADERS.items():
            cfg[f'{role}_dataloader'] = dict(
                dataset=dict(
                    dict(
                        type='mmblockdrop.UntrimmedVideoDataset',
                        ann_file='annotations.json',
                        data_root=data_root,
                        classes=['jump', 'run'],
                        subset=subset,
                        window_size=8,
                        snippet_stride=2,
                        test_mode=role != 'train',
                        pipeline=PIPELINE), **dataset))
            cfg[f'{role}_evaluator'] = dict(type='mmblockdrop.TADMetric')
        cfg['model'] = dict(
            type='mmblockdrop.ActionFormer', head=dict(num_classes=2))
        return Config(cfg)

    return config


def actions(*segments, label='jump'):
    return dict(annotations=[
        dict(segment=list(s), label=label) for s in segments])


def line(lines, start):
    found, = [x for x in lines if x.startswith(start)]
    return found


def test_counts_of_every_subset(make):
    cfg = make(
        dict(
            a=actions((.2, .8), (1, 1.6), (9, 12)),
            c=actions((.2, .8), label='run'),
            extra=dict(subset='draft')),
        bad_segments='drop')
    lines = check_data(cfg, ALL)
    assert line(lines, 'train:').startswith(
        "train: 2 videos, 3 actions of 1 class (subset 'training'); 1 action ")
    assert line(lines, 'val:') == (
        "val: 1 video, 1 action of 1 class (subset 'validation')")
    assert line(lines, 'test:') == (
        "test: 1 video, 1 action of 1 class (subset 'test')")
    assert line(lines, 'not used:').startswith(
        "not used: 1 video of subset 'draft' in ")
    assert line(lines, 'classes without') == (
        "classes without a training action: 'run'")
    assert not [x for x in lines if 'opened' in x]  # all of them were


def test_all_data_sets_lay_one_grid(make):
    cfg = make(sample_fps=5., snippet_stride=None)
    check_data(cfg, ALL)
    cfg.test_dataloader.dataset.update(sample_fps=None, snippet_stride=2)
    wanted = 'test_dataloader.dataset.sample_fps=None, expected 5.0'
    assert line(check_data(cfg), 'test_dataloader').startswith(wanted)
    with pytest.raises(ValueError, match=wanted):
        check_data(cfg, ALL)


def test_a_duration_in_milliseconds_ends_the_check(make):
    cfg = make(dict(d=dict(duration=2400., **actions((200., 800.)))))
    with pytest.raises(ValueError, match="test: video 'd'.*milliseconds"):
        check_data(cfg)


def test_a_class_that_occurs_once_is_named(make):
    cfg = make(dict(a=actions((.2, .8), label='run')))
    assert line(check_data(cfg), 'classes with one') == (
        "classes with one training action: 'jump', 'run'")


@pytest.mark.parametrize('damage', ['missing', 'empty', 'cut'])
def test_a_test_video_that_cannot_be_read(make, damage):
    cfg = make()
    path = f'{cfg.test_dataloader.dataset.data_root}/videos/d.mp4'
    content = open(path, 'rb').read()
    with open(path, 'wb') as file:
        file.write(b'' if damage == 'empty' else content[:300])
    if damage == 'missing':
        shutil.move(path, path + '.bak')
    with pytest.raises(RuntimeError, match=r'max_broken_share') as error:
        check_data(cfg, ALL)
    assert 'd.mp4' in str(error.value)
    # Another program tests: training may begin.
    assert 'd.mp4' in line(check_data(cfg), 'test: ' + (
        '1 of 1 video' if damage != 'missing' else ''))
    for role in LOADERS:
        cfg[f'{role}_dataloader'].dataset.max_broken_share = 1.
    check_data(cfg, ALL)


def test_videos_shorter_than_annotated(make):
    cfg = make(dict(d=dict(duration=30.)))
    assert line(check_data(cfg), "test: video 'd' lasts 2.4 s") == (
        "test: video 'd' lasts 2.4 s, annotated are 30.0 s")


def test_without_time_files_are_only_looked_up(make):
    cfg = make()
    assert line(check_data(cfg, seconds=0), '0 of 4 files opened')
    path = f'{cfg.test_dataloader.dataset.data_root}/videos/d.mp4'
    open(path, 'w').close()
    with pytest.raises(RuntimeError, match='d.mp4'):
        check_data(cfg, ALL, seconds=0)


def test_a_test_subset_without_actions(make):
    cfg = make(dict(d=actions()))
    with pytest.raises(ValueError, match='test_dataloader.dataset.*1 video'):
        check_data(cfg, ALL)
    assert line(check_data(cfg), 'test: test_dataloader.dataset')
    cfg.test_evaluator = dict(type='DumpResults')
    check_data(cfg, ALL)


def test_classes_of_data_and_head(make):
    cfg = make()
    cfg.model.head.num_classes = 1
    with pytest.raises(ValueError, match='model.head.num_classes=1.*2'):
        check_data(cfg)
    cfg.model = dict(type='mmblockdrop.TeacherStudentWrapper',
                     localizer=cfg.model)
    with pytest.raises(ValueError, match='model.localizer.head.num_classes=1'):
        check_data(cfg)
    cfg.model.localizer.head.num_classes = 3
    assert line(check_data(cfg), 'model.localizer.head.num_classes=3')
    cfg.val_dataloader.dataset.classes = ['run', 'jump']
    with pytest.raises(ValueError, match="class 0 is 'run'.*'jump'"):
        check_data(cfg)


def test_foreign_data_sets_are_passed_over():
    cfg = Config(dict(
        default_scope='mmaction',
        train_dataloader=dict(dataset=dict(type='NobodyKnows')),
        val_dataloader=dict(dataset=dict(type='RepeatDataset', times=2,
                                         dataset=dict(type='ToyVideos')))))
    text, = check_data(cfg, ALL)
    assert 'nothing' in text


def test_inside_of_wrappers(make):
    cfg = make()
    dataset = cfg.train_dataloader.dataset
    cfg.train_dataloader.dataset = dict(
        type='RepeatDataset', times=2,
        dataset=dict(type='ConcatDataset', datasets=[dataset, dataset]))
    assert line(check_data(cfg), 'train:').count('2 videos') == 2


@pytest.mark.parametrize('missing', [False, True])
def test_features_of_mmaction2(tmp_path, missing):
    video = dict(duration_second=4., feature_frame=16,
                 annotations=[dict(segment=[0, 1], label='run')])
    (tmp_path / 'annotations.json').write_text(json.dumps(dict(v=video)))
    if not missing:
        (tmp_path / 'v.csv').write_text('f0\n1\n')
    cfg = Config(dict(
        default_scope='mmaction',
        train_dataloader=dict(dataset=dict(
            type='ActivityNetDataset',
            ann_file=str(tmp_path / 'annotations.json'),
            data_prefix=dict(video=str(tmp_path)),
            pipeline=[]))))
    if missing:
        with pytest.raises(RuntimeError, match='v.csv'):
            check_data(cfg)
    else:
        assert line(check_data(cfg), 'train:') == (
            'train: 1 video, 1 action of 1 class')


def test_disk_without_room(tmp_path, monkeypatch):
    runner = Runner.from_cfg(toy.config(tmp_path / 'run'))
    assert check_disk(runner) == []
    usage = namedtuple('usage', 'free')
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage(100))
    with pytest.raises(ValueError, match=f'work_dir={str(tmp_path)!r}'[:-1]):
        check_run(runner)
    size = sum(p.numel() * 4 for p in runner.model.parameters())
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage(4 * size))
    text, = check_disk(runner)
    assert 'GiB' in text


TWO_PROCESSES = '''
import sys
from types import SimpleNamespace
import torch.distributed as dist
from mmengine.config import Config
from mmblockdrop.data.prepare.run_check import check_run
dist.init_process_group('gloo', init_method='file://' + sys.argv[2],
                        rank=int(sys.argv[1]), world_size=2)
try:
    check_run(SimpleNamespace(cfg=Config.fromfile(sys.argv[3])))
except RuntimeError as error:
    print(error)
dist.destroy_process_group()
'''


@pytest.mark.slow
def test_all_processes_get_the_verdict_of_the_first(make, tmp_path):
    cfg = make()
    (tmp_path / 'videos/c.mp4').write_bytes(b'cut')
    cfg.dump(str(tmp_path / 'config.py'))
    runs = [
        subprocess.Popen(
            [sys.executable, '-c', TWO_PROCESSES, str(rank),
             str(tmp_path / 'meet'), str(tmp_path / 'config.py')],
            stdout=subprocess.PIPE, text=True,
            cwd=Path(__file__).resolve().parents[2]) for rank in range(2)
    ]
    for run in runs:
        assert 'c.mp4' in run.communicate(timeout=500)[0]

"""Previews: every depth measured, nothing trained."""
import json
import shutil
from pathlib import Path

from mmblockdrop.compression.preview_config import list_videos, preview_config
from mmblockdrop.report.preview import (choose_depth, describe_preview,
                                        draw_preview, preview_points,
                                        preview_table)
from mmblockdrop.rounds.preview import preview_key, take_from_preview

import compress
import cv2
import pytest
import torch
import toy
from mmengine.config import Config
from programs import load_program
from rounds_kit import blocks_in, metric_of, read_record, read_weights, train
from tiny_videos import PIPELINE, write_video

pytestmark = pytest.mark.usefixtures('unmeasured')
KEYS = {'dropped', 'blocks_left', 'feature_error', 'metric', 'macs', 'params',
        'latency_ratio'}


def read_points(folder):
    """Content of ``preview.json``."""
    return json.loads((folder / 'preview.json').read_text())


@pytest.fixture(scope='module')
def previewed(block_drop, unmeasured, tmp_path_factory):
    """Config and folder of a preview until one block remains."""
    folder = tmp_path_factory.mktemp('previewed')
    cfg = block_drop(folder / 'unused')
    train(preview_config(cfg, folder, until=1))
    return cfg, folder


def test_points_are_measured_depth_by_depth(previewed, trained):
    cfg, folder = previewed
    points = read_points(folder)
    assert [len(p['blocks_left']) for p in points] == [4, 3, 2, 1]
    for point in points:
        assert KEYS <= set(point)
        assert sorted(point['dropped'] + point['blocks_left']) == [0, 1, 2, 3]
        low, high = point['metric_interval']
        assert low <= point['metric'] <= high
    assert points[0]['feature_error'] == 0 < points[1]['feature_error']
    assert points[0]['latency_ratio'] == 1
    assert points[0]['metric'] == metric_of(
        read_weights(trained)[0], cfg, [])
    assert (folder / 'preview.md').is_file()
    assert cv2.imread(str(folder / 'preview.png')) is not None


def test_metric_is_that_of_the_test_program(previewed, tmp_path):
    """For the checkpoint of a depth, on the same videos."""
    cfg, folder = previewed
    plain = toy.config(tmp_path / 'test')
    plain.test_dataloader = cfg.val_dataloader
    plain.test_evaluator = cfg.val_evaluator
    plain.dump(str(tmp_path / 'plain.py'))
    work = tmp_path / 'taken'
    result = take_from_preview(folder / 'preview', 2, work)
    load_program('test').main([
        str(tmp_path / 'plain.py'), str(result), '--work-dir',
        str(tmp_path / 'test')
    ])
    found = json.loads(sorted(
        (tmp_path / 'test').glob('*/*.json'))[-1].read_text().splitlines()[-1])
    assert found['tad/mAP'] == pytest.approx(
        read_points(folder)[2]['metric'], abs=1e-12)
    state, meta = read_weights(result)
    record = read_record(work)
    assert blocks_in(state) == read_points(folder)[2]['blocks_left']
    assert record['result'] == 'round_2.pth' and record['finished']
    assert len(record['rounds']) == len(meta['blockdrop']['rounds']) == 2
    assert (work / 'blockdrop.md').is_file()


def test_it_is_a_run_without_training(previewed, block_drop, tmp_path):
    """The same blocks, repaired alike, as by the loop itself."""
    _, folder = previewed
    train(
        block_drop(
            tmp_path,
            epochs_per_round=0,
            lora=None,
            scorer=dict(type='mmblockdrop.FeatureErrorScorer'),
            repair=dict(type='mmblockdrop.LinearRepair')))
    ours, theirs = (
        read_weights(x / 'round_2.pth')[0]
        for x in (folder / 'preview', tmp_path))
    assert list(ours) == list(theirs)
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


def test_the_checkpoint_is_not_changed(previewed, trained):
    cfg, _ = previewed
    assert cfg.model.checkpoint == trained
    assert blocks_in(read_weights(trained)[0]) == [0, 1, 2, 3]


def test_an_interrupted_preview_goes_on(previewed, tmp_path, monkeypatch):
    cfg, folder = previewed
    calls = []

    def killed(*args):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr('mmblockdrop.rounds.preview.write_preview', killed)
        with pytest.raises(KeyboardInterrupt):
            train(preview_config(cfg, tmp_path, until=1))
    written = (tmp_path / 'preview' / 'round_1.pth').stat().st_mtime_ns
    train(preview_config(cfg, tmp_path, until=1))
    assert (tmp_path / 'preview' / 'round_1.pth').stat().st_mtime_ns == written
    timeless = [[{k: v for k, v in p.items() if 'latency' not in k}
                 for p in read_points(x)] for x in (folder, tmp_path)]
    assert timeless[0] == timeless[1]


def test_a_longer_preview_takes_up_a_shorter_one(previewed, tmp_path):
    cfg, folder = previewed
    train(preview_config(cfg, tmp_path, drops=1))
    first = tmp_path / 'preview' / 'round_1.pth'
    written = first.stat().st_mtime_ns
    train(preview_config(cfg, tmp_path))
    assert first.stat().st_mtime_ns == written
    assert [p['dropped'] for p in read_points(tmp_path)] == [
        p['dropped'] for p in read_points(folder)[:3]]


def test_another_model_begins_again(previewed, tmp_path):
    cfg, folder = previewed
    shutil.copytree(folder, tmp_path / 'old')
    first = tmp_path / 'old' / 'preview' / 'round_1.pth'
    written = first.stat().st_mtime_ns
    other = Config(cfg.to_dict())
    other.train_cfg.protect = [read_points(folder)[1]['dropped'][0]]
    train(preview_config(other, tmp_path / 'old', until=3))
    assert first.stat().st_mtime_ns != written
    assert not (tmp_path / 'old' / 'preview' / 'round_2.pth').exists()
    assert not {*other.train_cfg.protect} & {
        i for p in read_points(tmp_path / 'old') for i in p['dropped']}


def test_the_key_tells_model_and_data_apart(previewed):
    cfg, folder = previewed
    keys = [preview_key(preview_config(cfg, folder, until=n)) for n in (1, 2)]
    assert keys[0] == keys[1]
    other = Config(cfg.to_dict())
    other.val_dataloader.dataset.seed = 77
    changed = preview_key(preview_config(other, folder))
    assert changed['model'] == keys[0]['model']
    assert changed['data'] != keys[0]['data']


@pytest.mark.parametrize('until', [0, 4, 1.5])
def test_until_must_leave_something_to_do(until, previewed, tmp_path):
    with pytest.raises(ValueError, match='train_cfg.until') as error:
        train(preview_config(previewed[0], tmp_path, until=until))
    assert str(until) in str(error.value)


def test_config_that_is_of_no_block_drop(tmp_path):
    with pytest.raises(ValueError, match='DistillationLoop'):
        preview_config(toy.config(tmp_path), tmp_path)


# ------------------------------------------------------------- what to choose
def points_of(*rows):
    """Points of metric, feature error, MACs and latency ratio."""
    return [
        dict(dropped=[*range(i)], blocks_left=[*range(i, 5)], metric=metric,
             metric_interval=None, feature_error=error, macs=macs, params=100,
             latency_ratio=ratio, latency_ms=20 * ratio)
        for i, (metric, error, macs, ratio) in enumerate(rows)
    ]


POINTS = points_of((.60, 0., 1000, 1.), (.61, .001, 800, .85),
                   (.57, .005, 600, .7), (.595, .012, 400, .5),
                   (.30, .1, 200, .3))


@pytest.mark.parametrize('options, dropped', [
    (dict(tolerance=.01), 3), (dict(tolerance=.001), 1),
    (dict(tolerance=.5), 4), (dict(budget=dict(macs='80%')), 1),
    (dict(budget=dict(macs=799)), 2), (dict(budget=dict(latency_ms=10)), 3),
    (dict(budget=dict(latency_ms='70%', macs='50%')), 3),
    (dict(budget=dict(macs='1%')), None), (dict(drops=2), 2),
    (dict(drops=3, budget=dict(macs='90%')), 1),
    (dict(drops=2, tolerance=.01), 1),
    (dict(budget=dict(macs='20%'), tolerance=.01), 3)])
def test_choice_of_a_depth(options, dropped):
    choice = choose_depth(POINTS, **options)
    found = None if choice.point is None else len(choice.point['dropped'])
    assert found == dropped and not choice.is_full


def test_choice_without_labels_goes_by_the_features():
    points = [dict(p, metric=None) for p in POINTS]
    assert len(choose_depth(points, .01).point['dropped']) == 2
    assert choose_depth(points, .0001).is_full


def test_choice_where_lower_is_better():
    assert len(choose_depth(
        POINTS, .05, higher_is_better=False).point['dropped']) == 4


def test_text_and_picture_without_labels(previewed, tmp_path):
    record = read_record(previewed[1] / 'preview')
    record.update(metric='feature_error', higher_is_better=False)
    for entry in record['rounds']:
        entry.pop('metric')
        entry.pop('metric_interval')
    assert [p['metric'] for p in preview_points(record)] == [None] * 4
    assert 'mAP' not in preview_table(record)
    assert 'No label' in describe_preview(record, budgets=[dict(macs='5%')])
    picture = draw_preview(record, tmp_path / 'x.png')
    assert cv2.imread(str(picture)) is not None


# ---------------------------------------------------------------- the program
@pytest.fixture
def command(trained, tmp_path):
    """Arguments of the program for the toy, with a work directory."""
    cfg = toy.config(tmp_path / 'unused')
    cfg.pop('work_dir')
    cfg.score_dataloader = toy.loader(5, 0)
    cfg.dump(str(tmp_path / 'plain.py'))
    return [str(tmp_path / 'plain.py'), trained, '--work-dir',
            str(tmp_path / 'work')]


@pytest.mark.slow
def test_program_previews_and_writes_a_depth(command, tmp_path, capsys):
    work = tmp_path / 'work'
    assert compress.main(
        [*command, '--preview', '--max-params', '90%', '80%']) == 0
    out = capsys.readouterr().out
    assert '(90%)' in out and '(80%)' in out and '--no-training' in out
    points = read_points(work)
    assert [len(p['blocks_left']) for p in points] == [4, 3, 2]
    assert not (work / 'round_1.pth').exists()
    first = work / 'preview' / 'round_1.pth'
    written = first.stat().st_mtime_ns
    assert compress.main([*command, '--no-training', '--drop', '2']) == 0
    assert first.stat().st_mtime_ns == written
    assert blocks_in(read_weights(
        work / 'round_2.pth')[0]) == points[2]['blocks_left']
    # One more than was previewed.
    assert compress.main(
        [*command, '--no-training', '--drop', '3', '--overwrite']) == 0
    assert first.stat().st_mtime_ns == written
    assert len(read_record(work)['rounds']) == 3
    assert read_record(work)['result'] == 'round_3.pth'


@pytest.mark.slow
def test_no_training_until_a_budget(command, tmp_path):
    assert compress.main(
        [*command, '--no-training', '--max-params', '90%']) == 0
    record = read_record(tmp_path / 'work')
    assert len(record['rounds']) == 1  # no deeper than the budget
    assert compress.main([*command, '--no-training', '--max-params', '10%',
                          '--overwrite']) == 1


@pytest.mark.parametrize('options, words', [
    (['--until', '2'], ['--until 2', '--preview']),
    (['--calibrate', 'x'], ['--calibrate x', '--no-training']),
    (['--preview', '--drop', '1'], ['--drop 1', '--until']),
    (['--preview', '--no-training'], ['--preview', '--no-training']),
    (['--max-macs', '70%', '50%'], ['--max-macs 70% 50%', '--preview']),
    (['--preview', '--calibrate', 'nowhere'], ['--calibrate', 'nowhere'])])
def test_options_that_do_not_go_together(options, words, command, capsys):
    assert compress.main([*command, *options]) == 1
    error = capsys.readouterr().err
    assert all(word in error for word in words)


# ------------------------------------------------------- videos without labels
@pytest.fixture
def on_videos(trained, tmp_path):
    """As ``command``, for a config that reads videos, which are not there."""
    cfg = toy.config(tmp_path / 'unused')
    cfg.pop('work_dir')
    dataset = dict(
        type='mmblockdrop.UntrimmedVideoDataset',
        ann_file='nowhere.json',
        data_root='nowhere',
        classes=['dim', 'bright'],
        subset='validation',
        window_size=toy.STEPS,
        snippet_stride=2,
        frames_per_step=2,
        test_mode=True,
        pipeline=[
            *PIPELINE[:3],
            dict(type='mmaction.Resize', scale=(toy.SIZE, toy.SIZE),
                 keep_ratio=False), *PIPELINE[3:]
        ])
    for name in ('train', 'val', 'test'):
        cfg[f'{name}_dataloader'].dataset = dataset
    cfg.dump(str(tmp_path / 'videos.py'))
    return [str(tmp_path / 'videos.py'), trained, '--work-dir',
            str(tmp_path / 'work')]


def test_videos_without_labels_are_enough(on_videos, tmp_path, capsys):
    folder = tmp_path / 'films'
    folder.mkdir()
    for name in ('a.mp4', 'b.mp4', 'C.MP4'):
        write_video(folder / name.lower(), frames=20)
    (folder / 'c.mp4').rename(folder / 'C.MP4')
    (folder / 'broken.mp4').write_bytes(b'no video')
    assert compress.main(
        [*on_videos, '--preview', '--calibrate', str(folder)]) == 0
    points = read_points(tmp_path / 'work')
    assert [p['metric'] for p in points] == [None] * 3
    assert points[0]['feature_error'] == 0 < points[2]['feature_error']
    assert 'No label' in capsys.readouterr().out
    # The same videos serve what is written then.
    assert compress.main([*on_videos, '--no-training', '--drop', '1']) == 0
    _, meta = read_weights(tmp_path / 'work' / 'round_1.pth')
    assert [*meta['dataset_meta']['classes']] == ['dim', 'bright']


def test_some_videos_are_held_out(tmp_path):
    folder = tmp_path / 'films'
    folder.mkdir()
    with pytest.raises(FileNotFoundError, match='films'):
        list_videos(folder, tmp_path / 'x.json')
    write_video(folder / 'a.mp4')
    assert list_videos(folder, tmp_path / 'x.json') == dict(
        calibration=['a'], held_out=[])
    for name in 'bcdef':
        shutil.copy(folder / 'a.mp4', folder / f'{name}.mp4')
    found = list_videos(folder, tmp_path / 'x.json')
    assert found == dict(calibration=[*'abcdf'], held_out=['e'])
    database = json.loads((tmp_path / 'x.json').read_text())['database']
    assert database['e']['subset'] == 'held_out'
    assert database['a']['duration'] == pytest.approx(2.4)
    assert not database['a']['annotations']


def test_features_cannot_be_calibrated_on_videos(on_videos, tmp_path, capsys):
    cfg = Config.fromfile(on_videos[0])
    cfg.val_dataloader.dataset.data_prefix = dict(feature='features')
    cfg.dump(on_videos[0])
    (tmp_path / 'films').mkdir()
    assert compress.main([*on_videos, '--preview', '--calibrate',
                          str(tmp_path / 'films')]) == 1
    assert 'val_dataloader.dataset' in capsys.readouterr().err


def test_choosing_on_the_test_data_is_said(block_drop, tmp_path, caplog):
    cfg = block_drop(tmp_path)
    assert Path(cfg.work_dir) == tmp_path
    from mmengine.logging import MMLogger
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    try:
        preview_config(cfg, tmp_path)
        assert 'test_dataloader' in caplog.text
        caplog.clear()
        cfg.test_dataloader.dataset.seed = 5
        preview_config(cfg, tmp_path)
        assert 'test_dataloader' not in caplog.text
    finally:
        logger.removeHandler(caplog.handler)

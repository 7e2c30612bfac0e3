"""Configs that the quickstart derives for someone's own videos."""
import json
import os
from pathlib import Path

from mmblockdrop.data.prepare.synthetic import DemoSpec, make_dataset
from mmblockdrop.registry import DATASETS, MODELS

import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope
from origin import set_aside_unless_same
from own_videos import KNOWN, PROJECTS, choose_subsets, write_configs
from quickstart import (BASELINE, BLOCK_DROP, is_finished, is_newer,
                        metrics_file, read_metrics, unseen_video)

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope='module')
def own(tmp_path_factory):
    folder = tmp_path_factory.mktemp('own')
    make_dataset(
        str(folder),
        DemoSpec(
            seed=1,
            videos=dict(training=8, test=1),
            shortest=8.,
            longest=10.),
        num_workers=1)
    return folder


def write(own, work):
    return write_configs(own, work, str(ROOT / BASELINE),
                         str(ROOT / BLOCK_DROP))


@pytest.mark.slow
def test_derived_configs_read_the_videos_and_build(own, tmp_path):
    baseline, drop = (Config.fromfile(f) for f in write(own, tmp_path))
    init_default_scope('mmaction')
    model = MODELS.build(baseline.model)
    database = json.loads((own / 'annotations.json').read_text())['database']
    labels = {a['label'] for v in database.values() for a in v['annotations']}
    assert model.head.num_classes == len(labels)
    data = DATASETS.build(baseline.train_dataloader.dataset)
    held_out = DATASETS.build(baseline.val_dataloader.dataset)
    sample = data[0]['data_samples']
    assert sample.window_size == baseline.model.window_size
    names = {data.get_data_info(i)['video_name'] for i in range(len(data))}
    other = {held_out.get_data_info(i)['video_name']
             for i in range(len(held_out))}
    assert names and other and not names & other
    assert drop.model.localizer == baseline.model
    scored = drop.train_cfg.score_dataloader.dataset
    assert scored.data_root == str(own)
    scored = DATASETS.build(scored)  # of so few videos on all
    assert names <= {scored.get_data_info(i)['video_name']
                     for i in range(len(scored))}


@pytest.mark.parametrize('name', sorted(KNOWN))
def test_data_sets_with_configs_of_ours_get_those(own, tmp_path, name):
    (tmp_path / name).symlink_to(own)
    files = write_configs(tmp_path / name, tmp_path, BASELINE, BLOCK_DROP)
    for file, known in zip(files, KNOWN[name]):
        cfg, ours = map(Config.fromfile, (file, PROJECTS / known))
        assert cfg.model.type == ours.model.type
        datasets = [cfg[f'{part}_dataloader'].dataset
                    for part in ('train', 'val', 'test', 'score')]
        for dataset in datasets:
            assert dataset.data_root == str(tmp_path / name)
            assert dataset.pipeline[0].cache_dir == str(tmp_path / 'cache')
        before = ours.test_dataloader.dataset
        before.data_root = datasets[2].data_root
        before.pipeline[0].cache_dir = datasets[2].pipeline[0].cache_dir
        assert datasets[2] == before
    assert cfg.model.localizer == Config.fromfile(files[0]).model
    assert cfg.model.localizer == ours.model.localizer


def test_without_the_projects_they_are_derived(own, tmp_path, monkeypatch):
    monkeypatch.setattr('own_videos.PROJECTS', tmp_path / 'projects')
    data = tmp_path / min(KNOWN)
    data.symlink_to(own)
    known, other = (
        Config.fromfile(write(folder, tmp_path)[0]) for folder in (data, own))
    assert known.model == other.model


@pytest.mark.parametrize('subsets,val,test', [
    (['testing', 'training'], 'training', 'testing'),
    (['training', 'validation'], 'training', 'validation'),
    (['test', 'training', 'validation'], 'validation', 'test')])
def test_roles_of_subsets(subsets, val, test):
    roles = choose_subsets(subsets, Path('.'))
    assert roles['train']['subset'] == 'training'
    assert roles['val']['subset'] == val
    assert roles['test']['subset'] == test
    assert ('split' in roles['val']) == (val == 'training')


def test_unusable_folders_are_named(tmp_path):
    with pytest.raises(SystemExit, match='annotations.json and a folder'):
        write(tmp_path, tmp_path)
    (tmp_path / 'videos').mkdir()
    (tmp_path / 'annotations.json').write_text('{"version": 1}')
    with pytest.raises(SystemExit, match="ActivityNet's format"):
        write(tmp_path, tmp_path)
    (tmp_path / 'annotations.json').write_text(
        '{"database": {"a": {"subset": "training"}}}')
    with pytest.raises(SystemExit, match="'a' has no 'duration'"):
        write(tmp_path, tmp_path)


@pytest.mark.slow
def test_actions_that_cannot_be_meant_are_left_out(own, tmp_path):
    content = json.loads((own / 'annotations.json').read_text())
    entry = next(iter(content['database'].values()))
    wrong = [[5, 1], [9000, 9990], None, ['a', 'b'], [2]]
    entry['annotations'] += [dict(segment=s, label='swap') for s in wrong]
    (tmp_path / 'videos').symlink_to(own / 'videos')
    (tmp_path / 'annotations.json').write_text(json.dumps(content))
    plain, mended = tmp_path / 'plain', tmp_path / 'mended'
    for folder in (plain, mended):
        folder.mkdir()
    expected = Config.fromfile(write(own, plain)[0]).train_dataloader.dataset
    found = Config.fromfile(write(tmp_path, mended)[0]).train_dataloader
    for key in ('window_size', 'snippet_stride'):
        assert found.dataset[key] == expected[key]
    entry['annotations'][-1].pop('label')
    (tmp_path / 'annotations.json').write_text(json.dumps(content))
    with pytest.raises(SystemExit, match="'label': name"):
        write(tmp_path, mended)


def test_the_unseen_video_is_of_the_test_part_and_whole(own, tmp_path):
    action = [dict(segment=[0, 1], label='swap')]
    whole = next((own / 'videos').glob('*.mp4')).read_bytes()
    (tmp_path / 'videos').mkdir()
    database = {}
    for name, subset in (('a', 'validation'), ('b', 'test'), ('c[1]', 'test'),
                         ('d', 'training')):
        database[name] = dict(subset=subset, annotations=action)
        (tmp_path / f'videos/{name}.mp4').write_bytes(
            whole[:200] if name == 'b' else whole)
    path = tmp_path / 'annotations.json'
    path.write_text(json.dumps(dict(database=database)))
    assert unseen_video(tmp_path).name == 'c[1].mp4'
    del database['c[1]']
    path.write_text(json.dumps(dict(database=database)))
    assert unseen_video(tmp_path).name == 'a.mp4'
    del database['a']
    path.write_text(json.dumps(dict(database=database)))
    with pytest.raises(SystemExit, match='no test video .* can be read'):
        unseen_video(tmp_path)


def test_results_of_something_else_are_set_aside(tmp_path, capsys):
    config, annotations = tmp_path / 'c.py', tmp_path / 'annotations.json'
    config.write_text('depth = 8')
    annotations.write_text('{}')
    work = tmp_path / 'work'
    for name in ('full', 'cache'):
        (work / name).mkdir(parents=True)

    def call():
        set_aside_unless_same(work, [str(config)], annotations)
        return sorted(p.name for p in work.iterdir())

    # Nobody knows what these were made from.
    assert call() == ['before_1', 'cache', 'made_from.json']
    assert (work / 'before_1/full').is_dir()
    (work / 'full').mkdir()
    again = ['before_1', 'cache', 'full', 'made_from.json']
    assert call() == again  # nothing has changed
    for file, text in ((config, 'depth = 6'), (annotations, '{"a": 1}')):
        capsys.readouterr()
        file.write_text(text)
        assert 'full' not in call()
        assert f'Changed since the last call: {file.name}. ' in (
            capsys.readouterr().out)
        (work / 'full').mkdir()
    assert (work / 'before_3/full').is_dir()


def test_tests_are_reused_until_the_weights_change(tmp_path):
    weights = tmp_path / 'epoch_2.pth'
    weights.touch()
    assert not is_newer(metrics_file(tmp_path), weights)
    with pytest.raises(FileNotFoundError, match='no metrics'):
        read_metrics(tmp_path)
    for run, value in (('20260101_1', 0.1), ('20260102_1', 0.2)):
        (tmp_path / run).mkdir()
        (tmp_path / run / f'{run}.json').write_text(f'{{"tad/mAP": {value}}}')
    assert read_metrics(tmp_path) == {'tad/mAP': 0.2}
    assert is_newer(metrics_file(tmp_path), weights)
    later = metrics_file(tmp_path).stat().st_mtime + 9
    os.utime(weights, (later, later))
    assert not is_newer(metrics_file(tmp_path), weights)


def test_a_run_counts_as_finished_only_when_it_says_so(tmp_path):
    report = tmp_path / 'blockdrop.json'
    assert not is_finished(report)
    report.write_text('{"rounds": []}')
    assert not is_finished(report)
    report.write_text('{"rounds": [], "finished": true}')
    assert is_finished(report)

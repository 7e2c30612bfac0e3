"""The quickstart: its seven steps, and configs for a folder of videos."""
import json
import os
import shutil
from pathlib import Path

from mmblockdrop.data.prepare.synthetic import DemoSpec, make_dataset
from mmblockdrop.quickstart import (DEMO, ConfigPair, StepFailed, own_videos,
                                    quickstart, steps)
from mmblockdrop.quickstart.__main__ import main
from mmblockdrop.quickstart.origin import set_aside_unless_same
from mmblockdrop.quickstart.own_videos import (choose_subsets,
                                               pretrained_encoder,
                                               write_configs)
from mmblockdrop.quickstart.steps import (is_newer, run_has_finished,
                                          unseen_video)
from mmblockdrop.registry import DATASETS, MODELS

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from tiny_videos import write_video

SMALL = DemoSpec(
    seed=1, videos=dict(training=6, validation=1, test=2), longest=24.)
IN_PLACE = dict(num_workers=0, persistent_workers=False)


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Configs of three blocks, one of which goes, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    full = Config.fromfile(DEMO.baseline)
    drop = Config.fromfile(DEMO.block_drop)
    full.train_cfg.update(max_epochs=2, val_interval=2)
    drop.train_cfg.update(drops=1)
    full.model.backbone.depth = drop.model.localizer.backbone.depth = 3
    for cfg in (full, drop):
        for name in ('train', 'val', 'test', 'score'):
            cfg[f'{name}_dataloader'].update(IN_PLACE)
    drop.train_cfg.score_dataloader.update(IN_PLACE)
    drop.train_cfg.score_dataloader.dataset.sample_ratio = 1.
    pair = ConfigPair(tmp_path / 'full.py', tmp_path / 'drop.py')
    for cfg, path in zip((full, drop), pair):
        path.write_text(Config(
            cfg.to_dict(), format_python_code=False).pretty_text)
    return pair


@pytest.mark.slow
def test_all_steps(small, tmp_path, capsys):
    """In another folder than the repository's, as all paths are relative."""
    table = quickstart(configs=small, demo=SMALL)
    assert table == Path('work_dirs/quickstart/results.md')
    rows = [line.split('|')[1:-1] for line in table.read_text().splitlines()
            if line.startswith('|')]
    assert [row[0].strip() for row in rows[2:]] == ['full', 'compressed']
    assert [int(row[1]) for row in rows[2:]] == [3, 2]
    assert float(rows[3][2].split()[0]) < float(rows[2][2])  # parameters
    assert 'test: 2 videos with' in table.read_text()
    output = capsys.readouterr()
    lines = (output.out + output.err).splitlines()
    assert len(lines) < 200
    assert [line for line in lines if line.startswith('train: 6 videos, ')]
    assert not [line for line in lines if 'paramwise_options' in line]
    work = tmp_path / 'work_dirs' / 'quickstart'
    assert {'blockdrop_scores.png', 'blockdrop_tradeoff.png'} <= {
        path.name for path in (work / 'blockdrop').glob('*.png')}
    video, = work.glob('demo_test_*.json')
    assert video.with_suffix('.png').stat().st_size > 10000
    assert 'paramwise_options' in next(
        (work / 'full').rglob('*.log')).read_text()
    best, = (work / 'full').glob('best_tad_mAP_epoch_*.pth')
    assert best.read_bytes() == (work / 'full/best.pth').read_bytes()
    written = {path: path.stat().st_mtime_ns for path in work.rglob('*')
               if path.name not in ('results.md', 'made_from.json')
               and path.is_file()}
    capsys.readouterr()

    quickstart(configs=small, demo=SMALL)
    assert capsys.readouterr().out.count('reused') == 7
    assert written == {path: path.stat().st_mtime_ns for path in written}


def test_a_step_that_fails_is_named(small, tmp_path, monkeypatch, capsys):
    (tmp_path / 'empty').mkdir()
    assert main(['--data', 'empty']) == 1
    assert 'annotations.json' in capsys.readouterr().err
    assert not (tmp_path / 'work_dirs').exists()

    def broken(*args):
        raise RuntimeError('no room')

    monkeypatch.setattr(steps, 'make_dataset', broken)
    with pytest.raises(StepFailed, match='videos.*RuntimeError: no room'):
        quickstart(configs=small, demo=SMALL)
    assert main([]) == 1
    assert 'RuntimeError: no room' in capsys.readouterr().err


@pytest.mark.slow
def test_three_videos_of_one_class(small, tmp_path, monkeypatch, capsys):
    """Of two seconds each, with an action of half the video."""
    monkeypatch.setattr(own_videos, 'EPOCH', 2)
    (tmp_path / 'mine/videos').mkdir(parents=True)
    database = {}
    for name, subset in (('a', 'training'), ('b', 'validation'),
                         ('c', 'test')):
        write_video(tmp_path / f'mine/videos/{name}.mp4', 20)
        database[name] = dict(subset=subset, duration=2., annotations=[
            dict(segment=[.5, 1.5], label='jump')])
    (tmp_path / 'mine/annotations.json').write_text(
        json.dumps(dict(database=database)))
    (tmp_path / 'mine/category_idx.txt').write_text('run\njump\n')
    table = quickstart('mine', configs=small)
    assert 'test: 1 video with 1 action' in table.read_text()
    output = capsys.readouterr().out
    assert "not read: 'category_idx.txt'" in output
    assert "classes with one training action: 'jump'" in output
    assert 'on 48 x 48 grey pixels, trained from scratch' in output
    written = Config.fromfile('work_dirs/quickstart_mine/baseline.py')
    dataset = written.train_dataloader.dataset
    assert dataset.window_size / dataset.sample_fps < 8
    assert not {'data_root', 'num_classes', 'window_size'} & {*written}


@pytest.mark.slow
def test_a_broken_test_video_ends_it_before_training(small, own, tmp_path,
                                                     capsys):
    shutil.copytree(own, tmp_path / 'mine')
    annotations = tmp_path / 'mine/annotations.json'
    content = json.loads(annotations.read_text())
    for entry in content['database'].values():
        entry['annotations'] = [dict(segment=[1, 4], label='swap')]
    annotations.write_text(json.dumps(content))
    path, = (tmp_path / 'mine/videos').glob('demo_test_*')
    path.write_bytes(path.read_bytes()[:500])
    assert main(['--data', 'mine']) == 1
    assert path.name in capsys.readouterr().err
    assert not [*tmp_path.rglob('*.pth')]


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


@pytest.fixture(scope='module')
def derived(own, tmp_path_factory):
    """Configs that the quickstart derives for a folder of videos."""
    return [Config.fromfile(path) for path in write(
        own, tmp_path_factory.mktemp('derived'))]


def write(own, work):
    return write_configs(own, work, *DEMO)


@pytest.mark.slow
def test_derived_configs_read_the_videos_and_build(own, derived):
    baseline, drop = derived
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


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    """A small transformer of mmpretrain with random weights."""
    init_default_scope('mmaction')
    model = MODELS.build(
        dict(
            type='mmpretrain.VisionTransformer',
            arch=dict(
                embed_dims=64,
                num_layers=3,
                num_heads=1,
                feedforward_channels=64),
            img_size=28,
            patch_size=14,
            layer_scale_init_value=1.))
    path = tmp_path_factory.mktemp('weights') / 'vit.pth'
    torch.save(dict(state_dict={
        f'backbone.{k}': v for k, v in model.state_dict().items()}), path)
    return path


@pytest.mark.slow
def test_pretrained_encoder_of_frames(own, weights, tmp_path, capsys):
    files = write_configs(own, tmp_path, *DEMO, str(weights))
    assert f'pretrained and frozen, 3 blocks of width 64, from {weights}' in (
        capsys.readouterr().out)
    baseline, drop = map(Config.fromfile, files)
    init_default_scope('mmaction')
    model = MODELS.build(baseline.model)
    model.init_weights()
    state = torch.load(weights, weights_only=True)['state_dict']
    blocks = model.backbone.encoder.layers
    assert torch.equal(blocks[2].ln1.weight,
                       state['backbone.layers.2.ln1.weight'])
    assert not any(p.requires_grad for p in model.backbone.parameters())
    sample = DATASETS.build(baseline.train_dataloader.dataset)[0]
    assert sample['inputs'].shape[0:2] == (1, 3)
    assert sample['inputs'].shape[2:] == (baseline.model.window_size, 84, 84)
    inputs = model.data_preprocessor(
        dict(inputs=[sample['inputs']], data_samples=[
            sample['data_samples']]), True)
    assert 'loss_cls' in model(**inputs, mode='loss')
    assert drop.train_cfg.repair.type == 'mmblockdrop.LinearRepair'
    stacks = [drop.custom_hooks[0].stack, drop.model.alignments.block.stack]
    assert stacks == ['backbone.encoder.layers'] * 2
    assert drop.model.localizer == baseline.model


def test_weights_that_cannot_be_downloaded(capsys):
    assert pretrained_encoder('file-of-nobody://nowhere.invalid/x') is None
    assert 'from scratch' in capsys.readouterr().out


def test_weights_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match='--backbone.*dinov2-small'):
        pretrained_encoder('dinov2-smal')
    path = tmp_path / 'other.pth'
    torch.save(dict(weight=torch.ones(1)), path)
    with pytest.raises(ValueError, match='backbone.pretrained.*patch_embed'):
        pretrained_encoder(str(path))
    with pytest.raises(SystemExit):
        main(['--backbone', 'dinov2-small'])


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


def test_folders_that_lack_something(tmp_path):
    with pytest.raises(FileNotFoundError, match='data=.*annotations.json'):
        write(tmp_path, tmp_path)
    path = tmp_path / 'annotations.json'
    path.write_text('{"version": 1}')
    with pytest.raises(FileNotFoundError, match='data=.*videos'):
        write(tmp_path, tmp_path)
    (tmp_path / 'videos').mkdir()
    with pytest.raises(ValueError, match=f"{path}.*'database'"):
        write(tmp_path, tmp_path)
    path.write_text('{"database": {"a": {"subset": "training"}}}')
    with pytest.raises(ValueError, match=f"{path}.*'a'.*'duration'"):
        write(tmp_path, tmp_path)
    entry = dict(subset='training', duration=5, annotations=[])
    path.write_text(json.dumps(dict(database=dict(a=entry))))
    with pytest.raises(ValueError, match=f"{path}.*'training'"):
        write(tmp_path, tmp_path)
    with pytest.raises(ValueError, match='none of the 1 training'):
        entry['annotations'] = [dict(segment=[1, 2], label='run')]
        path.write_text(json.dumps(dict(
            database=dict(a=entry, b=dict(entry, subset='test')))))
        write(tmp_path, tmp_path)


@pytest.mark.slow
def test_actions_that_cannot_be_meant_are_left_out(own, derived, tmp_path):
    content = json.loads((own / 'annotations.json').read_text())
    entry = next(iter(content['database'].values()))
    wrong = [[5, 1], [9000, 9990], None, ['a', 'b'], [2]]
    entry['annotations'] += [dict(segment=s, label='swap') for s in wrong]
    (tmp_path / 'videos').symlink_to(own / 'videos')
    (tmp_path / 'annotations.json').write_text(json.dumps(content))
    expected = derived[0].train_dataloader.dataset
    found = Config.fromfile(write(tmp_path, tmp_path)[0]).train_dataloader
    for key in ('window_size', 'sample_fps'):
        assert found.dataset[key] == expected[key]
    entry['annotations'][-1].pop('label')
    (tmp_path / 'annotations.json').write_text(json.dumps(content))
    with pytest.raises(ValueError, match="'label': name"):
        write(tmp_path, tmp_path)
    entry['annotations'][-1]['label'] = 'Swap '
    (tmp_path / 'annotations.json').write_text(json.dumps(content))
    with pytest.raises(ValueError, match="'Swap *', 'swap'"):
        write(tmp_path, tmp_path)


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
    with pytest.raises(ValueError, match='annotations.json has no test'):
        unseen_video(tmp_path)


def test_results_of_something_else_are_set_aside(tmp_path, capsys):
    config, annotations = tmp_path / 'c.py', tmp_path / 'annotations.json'
    config.write_text('depth = 8')
    annotations.write_text('{}')
    work = tmp_path / 'work'
    for name in ('full', 'cache'):
        (work / name).mkdir(parents=True)

    def call():
        set_aside_unless_same(work, [config], annotations)
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


def test_a_result_is_reused_until_its_source_changes(tmp_path):
    source, result = tmp_path / 'epoch_2.pth', tmp_path / 'metrics.json'
    source.touch()
    assert not is_newer(result, source)
    result.touch()
    os.utime(source, (100, 100))
    assert is_newer(result, source)
    later = result.stat().st_mtime + 9
    os.utime(source, (later, later))
    assert not is_newer(result, source)


def test_a_run_counts_as_finished_only_when_it_says_so(tmp_path):
    report = tmp_path / 'blockdrop.json'
    assert not run_has_finished(report)
    for content, finished in (('{"rounds": []}', False),
                              ('{"rounds": [], "finished": true}', True)):
        report.write_text(content)
        assert run_has_finished(report) == finished

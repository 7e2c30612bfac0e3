"""One video in, segments out; with a compressed checkpoint too."""
import copy
import json
import logging
import runpy
import sys
from pathlib import Path

from mmblockdrop.apis import (init_localizer, localization_text,
                              localize_video, of_classes)
from mmblockdrop.compression import add_lora, replay
from mmblockdrop.inference.localize import metric_of, without_cache

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from programs import load_program
from tiny_videos import RATES, moments, write_moments

ROOT = Path(__file__).resolve().parents[2]
CLASSES = ['run', 'jump', 'fall']


@pytest.fixture(scope='module')
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp('videos') / 'clip.mp4'
    writer = cv2.VideoWriter(
        str(path), cv2.VideoWriter_fourcc(*'mp4v'), 25, (64, 64))
    rng = np.random.default_rng(0)
    for _ in range(150):
        writer.write(rng.integers(0, 255, (64, 64, 3), np.uint8))
    writer.release()
    return path


def localizer_cfg(**backbone):
    return dict(
        type='mmblockdrop.ActionFormer',
        data_preprocessor=dict(
            type='mmaction.ActionDataPreprocessor',
            mean=[127.5] * 3,
            std=[64.] * 3,
            format_shape='NCTHW'),
        backbone=dict(
            type='mmblockdrop.LoRAViT',
            img_size=32,
            embed_dims=16,
            depth=3,
            num_heads=2,
            num_frames=16,
            **backbone),
        clip_frames=16,
        window_size=32,
        projection=dict(
            type='mmblockdrop.ConvTransformerProjection',
            in_channels=16,
            out_channels=16,
            arch=(1, 1, 1),
            num_heads=2,
            path_drop=0.),
        head=dict(
            type='mmblockdrop.ActionFormerHead',
            num_classes=3,
            in_channels=16,
            prior_prob=0.3,
            strides=[1, 2]))


def make_config(folder, wrapped=False):
    model = localizer_cfg()
    if wrapped:
        model = dict(type='mmblockdrop.TeacherStudentWrapper',
                     localizer=model)
    cfg = Config(
        dict(
            default_scope='mmaction',
            model=model,
            test_dataloader=dict(
                dataset=dict(
                    type='mmblockdrop.UntrimmedVideoDataset',
                    ann_file='absent.json',
                    data_root='absent',
                    data_prefix=dict(video='absent'),
                    classes=CLASSES,
                    subset='test',
                    block_list='annotations/blocked.json',
                    window_size=32,
                    snippet_stride=2,
                    frames_per_step=2,
                    test_mode=True,
                    pipeline=[
                        dict(
                            type='mmblockdrop.CachedFrames',
                            cache_dir='absent',
                            transforms=[
                                dict(type='mmblockdrop.OpenVideo'),
                                dict(type='DecordDecode'),
                                dict(type='Resize', scale=(32, 32),
                                     keep_ratio=False)
                            ]),
                        dict(type='mmblockdrop.SampleWindow'),
                        dict(type='DecordDecode'),
                        dict(type='FormatShape', input_format='NCTHW'),
                        dict(type='mmblockdrop.PackTADInputs')
                    ])),
            test_evaluator=dict(type='mmblockdrop.TADMetric',
                                max_per_video=9)))
    path = Path(folder) / 'config.py'
    cfg.dump(path)
    return str(path)


@pytest.fixture
def config(tmp_path):
    return make_config(tmp_path)


def checkpoint_of(model, path, **meta):
    content = dict(
        state_dict=model.state_dict(),
        meta=dict(dataset_meta=dict(classes=CLASSES), **meta))
    torch.save(content, path)
    return str(path)


def test_finds_segments_in_seconds(config, video):
    torch.manual_seed(0)
    model = init_localizer(config)
    found = localize_video(model, video)
    assert found['duration'] == pytest.approx(6)
    assert len(found['scores']) == 9  # the metric's limit
    assert found['segments'].min() >= 0 and found['segments'].max() <= 6
    # 150 frames are 75 steps: more than a window of 32 steps (2.56 s).
    assert found['segments'].max() > 3
    first = found['detections'][0]
    assert first['label'] in CLASSES
    assert first['score'] == pytest.approx(found['scores'].max())
    few = localize_video(model, video, score_thr=found['scores'].mean())
    assert len(few['scores']) < 9


@pytest.mark.parametrize('lora', [None, dict(rank=2)])
def test_a_compressed_checkpoint_gives_the_same_segments(
        tmp_path, video, lora):
    config = make_config(tmp_path, wrapped=True)
    model = init_localizer(config)
    record = dict(stack='backbone.blocks', depth=3,
                  rounds=[dict(round=1, dropped=[1])])
    replay(model, record)
    if lora:
        record['lora'] = lora
        add_lora(model.backbone.blocks, **lora)
        for name, parameter in model.named_parameters():
            if 'lora_B' in name:
                torch.nn.init.normal_(parameter, std=0.1)
    file = checkpoint_of(model.eval(), tmp_path / 'c.pth', blockdrop=record)
    expected = localize_video(model, video)
    loaded = init_localizer(config, file)
    assert not any('lora' in name for name, _ in loaded.named_parameters())
    found = localize_video(loaded, video)
    np.testing.assert_allclose(found['scores'], expected['scores'], atol=1e-5)


def test_new_style_configs_name_classes(config, tmp_path, video):
    """The evaluator's settings and the pipeline are found by class."""
    from mmblockdrop import data, distillation, evaluation
    cfg = Config.fromfile(config)
    cfg.model = dict(
        type=distillation.TeacherStudentWrapper, localizer=cfg.model)
    cfg.test_evaluator['type'] = evaluation.TADMetric
    dataset = cfg.test_dataloader.dataset
    dataset.type = data.UntrimmedVideoDataset
    dataset.pipeline[0].type = data.CachedFrames
    torch.manual_seed(0)
    found = localize_video(init_localizer(cfg), video)
    torch.manual_seed(0)
    wanted = localize_video(init_localizer(config), video)
    assert len(found['scores']) == 9
    np.testing.assert_array_equal(found['segments'], wanted['segments'])


def test_evaluators_of_other_kinds_are_passed_over():
    metric = metric_of(
        Config(
            dict(
                default_scope='mmaction',
                test_evaluator=[
                    dict(type='AccMetric'),
                    dict(
                        type='mmblockdrop.PublishedTADMetric',
                        max_per_video=4)
                ])))
    assert metric.max_per_video == 4
    assert metric_of(Config(dict(val_evaluator=dict(type='AccMetric'))))


def test_the_config_of_the_caller_is_not_changed(config, tmp_path):
    cfg = Config.fromfile(config)
    cfg.model.backbone.pretrained = str(tmp_path / 'absent.pth')
    before = copy.deepcopy(cfg.to_dict())
    init_localizer(cfg)
    assert cfg.to_dict() == before


# Rates -----------------------------------------------------------------------


@pytest.fixture(scope='module')
def films(tmp_path_factory):
    """The same 8 s at several rates, annotated."""
    folder = tmp_path_factory.mktemp('films')
    for name in RATES:
        write_moments(folder / f'{name}.mp4', **moments(name))
    action = dict(segment=[2, 4], label='run')
    (folder / 'annotations.json').write_text(json.dumps(dict(database={
        name: dict(subset=name, annotations=[action])
        for name in RATES})))
    return folder


def on_films(config, films, **settings):
    """The config with data sets over the films, tested as it is trained."""
    cfg = Config.fromfile(config)
    dataset = dict(
        cfg.test_dataloader.dataset, data_root=str(films), block_list=[],
        ann_file='annotations.json', subset='20', data_prefix=dict(video=''),
        **settings)
    dataset['pipeline'] = without_cache(dataset['pipeline'])
    loader = dict(batch_size=1, sampler=dict(type='DefaultSampler'))
    cfg.train_dataloader = dict(loader, dataset=dataset)
    cfg.test_dataloader = dict(loader, dataset=copy.deepcopy(dataset))
    return cfg


def trained(cfg, folder):
    """Checkpoint of an epoch."""
    Runner(
        cfg.model, str(folder), cfg.train_dataloader,
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=1e-3)),
        default_scope='mmaction').train()
    return str(folder / 'epoch_1.pth')


SECONDS = dict(sample_fps=5., snippet_stride=None)


def test_the_same_detections_whatever_the_rate(config, films):
    torch.manual_seed(0)
    model = init_localizer(on_films(config, films, **SECONDS))
    found = [localize_video(model, films / f'{name}.mp4') for name in RATES]
    assert len(found[0]['scores']) == 9
    for other in found[1:]:
        np.testing.assert_allclose(other['scores'], found[0]['scores'],
                                   atol=1e-3)
        np.testing.assert_allclose(other['segments'], found[0]['segments'],
                                   atol=0.2)
        assert other['labels'].tolist() == found[0]['labels'].tolist()


def test_a_grid_in_seconds_is_followed(config, films, tmp_path):
    """Through a checkpoint to localizing, testing and export."""
    cfg = on_films(config, films, **SECONDS)
    file = trained(cfg, tmp_path / 'run')
    wanted = localize_video(init_localizer(cfg, file), films / '20.mp4')
    # The config of the caller counts frames, two to a step.
    model = init_localizer(on_films(config, films), file)
    assert model.dataset_meta['sample_fps'] == 5.
    found = localize_video(model, films / '20.mp4')
    np.testing.assert_array_equal(found['segments'], wanted['segments'])

    tested = load_program('test').follow_checkpoint(
        Config(dict(on_films(config, films), load_from=file)))
    assert tested.test_dataloader.dataset.sample_fps == 5.
    export = load_program('export')
    assert export.main([config, file, str(tmp_path / 'out')]) == 0
    report = json.loads((tmp_path / 'out/export.json').read_text())
    assert report['sample_fps'] == 5.
    short = init_localizer(
        str(tmp_path / 'out/model.py'), str(tmp_path / 'out/model.pth'))
    assert short.cfg.test_dataloader.dataset.sample_fps == 5.
    assert short.dataset_meta['sample_fps'] == 5.


def test_a_grid_of_frames_warns_of_other_rates(config, films, tmp_path):
    cfg = on_films(config, films)
    file = trained(cfg, tmp_path)
    model = init_localizer(cfg, file)
    assert model.dataset_meta['sample_fps'] is None
    assert dict(model.dataset_meta['video_fps']) == dict(
        median=20., min=20., max=20.)
    messages = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    said = {}
    for name in ('10', '20'):
        localize_video(model, films / f'{name}.mp4')
        said[name] = [m for m in messages if 'frame rate' in m]
        messages.clear()
    logger.removeHandler(handler)
    assert len(said['10']) == 1 and "'10.mp4' has 10" in said['10'][0]
    assert not said['20']


def test_suffixes_may_be_in_upper_case(config, tmp_path, video):
    upper = tmp_path / 'IMG_0001.MP4'
    upper.write_bytes(video.read_bytes())
    model = init_localizer(config)
    found = localize_video(model, upper)
    wanted = localize_video(model, video)
    np.testing.assert_array_equal(found['scores'], wanted['scores'])


def test_links_are_followed(config, tmp_path, video):
    """Of two names that differ in case alone the one that was given."""
    (tmp_path / 'link.mp4').symlink_to(video)
    (tmp_path / 'link.MP4').write_bytes(b'another file')
    found = localize_video(init_localizer(config), tmp_path / 'link.mp4')
    assert found['duration'] == pytest.approx(6)


def test_missing_and_damaged_files_are_named(config, tmp_path, video):
    model = init_localizer(config)
    with pytest.raises(FileNotFoundError, match="video=.*mean 'clip.mp4'"):
        localize_video(model, video.with_name('clop.mp4'))
    broken = tmp_path / 'broken.mp4'
    broken.write_bytes(b'no video')
    with pytest.raises(ValueError, match="cannot read '.*broken.mp4'"):
        localize_video(model, broken)
    with pytest.raises(FileNotFoundError, match='config=.*absent.py'):
        init_localizer(tmp_path / 'absent.py')
    with pytest.raises(ValueError, match='checkpoint=.*broken.mp4'):
        init_localizer(config, str(broken))
    dropped = init_localizer(config)
    replay(dropped, dict(stack='backbone.blocks', depth=3,
                         rounds=[dict(dropped=[0])]))
    file = checkpoint_of(dropped, tmp_path / 'no_record.pth')
    with pytest.raises(ValueError, match='no_record.pth.*missing.*blockdrop'):
        init_localizer(config, file)


def test_frames_are_decoded_window_by_window():
    steps = without_cache([
        dict(type='mmblockdrop.CachedFrames', cache_dir='x', transforms=[
            dict(type='open'), dict(type='DecordDecode'),
            dict(type='Resize')]),
        dict(type='mmblockdrop.SampleWindow'),
        dict(type='DecordDecode'),
        dict(type='FormatShape')])
    assert [s['type'] for s in steps] == [
        'open', 'mmblockdrop.SampleWindow', 'DecordDecode', 'Resize',
        'FormatShape']


def test_annotated_actions_of_the_classes_that_are_looked_for():
    truth = dict(segments=torch.tensor([[0., 9], [1, 2], [3, 4]]).numpy(),
                 labels=['sit', 'run', 'sit'])
    kept = of_classes(truth, ['run', 'fall'])
    assert kept['labels'] == ['run']
    assert kept['segments'].tolist() == [[1, 2]]
    assert of_classes(truth, None) is truth
    assert of_classes(truth, ['action'])['labels'] == ['action'] * 3


def test_demo_prints_and_writes(config, tmp_path, video, monkeypatch, capsys):
    model = init_localizer(config)
    file = checkpoint_of(model, tmp_path / 'c.pth')
    ann_file = tmp_path / 'ann.json'
    ann_file.write_text(json.dumps(dict(database=dict(clip=dict(
        annotations=[dict(segment=[1, 2], label='run')])))))
    monkeypatch.setattr(sys, 'argv', [
        'localize.py', str(video), '--config', config, '--checkpoint', file,
        '--teacher-checkpoint', file, '--ann-file', str(ann_file),
        '--out-dir', str(tmp_path / 'out'), '--score-thr', '0', '--device',
        'cpu', '--batch-size', '2', '--precision', 'bf16', '--compile'])
    compiled = []
    monkeypatch.setattr(torch.nn.Module, 'compile',
                        lambda module: compiled.append(type(module).__name__))
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / 'demo/localize.py'), run_name='__main__')
    assert end.value.code == 0
    assert 'start (s)' in capsys.readouterr().out
    assert compiled == ['LoRAViT', 'LoRAViT'], 'the encoder of both models'
    written = json.loads((tmp_path / 'out/clip.json').read_text())
    assert len(written['results']['clip']) == 9
    assert (tmp_path / 'out/clip.png').stat().st_size > 10000

    monkeypatch.setattr(sys, 'argv', [
        'localize.py', 'absent.mp4', '--config', config, '--checkpoint',
        file])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / 'demo/localize.py'), run_name='__main__')
    assert end.value.code == 1
    assert "video='absent.mp4' does not exist" in capsys.readouterr().err


def test_no_detection_is_said_with_the_best_score():
    text = localization_text(
        dict(detections=[], score_thr=0.3, best_score=0.125))
    assert '0.3' in text and '0.125' in text

"""The picture at the end of a run, where it cannot be drawn."""
import logging
from types import SimpleNamespace

from mmblockdrop.inference import picture
from mmblockdrop.registry import HOOKS

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.logging import MMLogger
from torch import nn


@pytest.fixture
def runner(tmp_path):
    dataset = SimpleNamespace(
        filenames=['absent.mp4'],
        ann_file='annotations.json',
        metainfo=dict(classes=('jump', )))
    model = nn.Module()
    model.student = nn.Identity()
    return SimpleNamespace(
        model=model,
        cfg=Config(dict()),
        val_dataloader=SimpleNamespace(dataset=dataset),
        work_dir=str(tmp_path),
        logger=MMLogger.get_current_instance())


def test_a_picture_that_fails_does_not_end_the_run(runner, caplog):
    runner.logger.addHandler(caplog.handler)
    try:
        with caplog.at_level(logging.WARNING):
            HOOKS.build(
                dict(type='mmblockdrop.TimelineHook')).after_train(runner)
    finally:
        runner.logger.removeHandler(caplog.handler)
    assert 'TimelineHook draws no picture' in caplog.text
    assert 'annotations.json' in caplog.text


def test_truth_is_of_the_known_classes(runner, monkeypatch):
    drawn = {}
    truth = dict(segments=np.array([[0., 1.], [2., 3.]]),
                 labels=['jump', 'wait'])
    monkeypatch.setattr(picture, 'read_actions', lambda *_: truth)
    monkeypatch.setattr(picture, 'localize_video',
                        lambda model, video, score_thr: dict(video=video))
    monkeypatch.setattr(
        picture, 'draw_localization',
        lambda found, path, **rest: drawn.update(rest, found=found) or path)
    hook = HOOKS.build(
        dict(type='mmblockdrop.TimelineHook', video='mine.mp4'))
    hook.after_train(runner)
    assert drawn['found'] == dict(video='mine.mp4')
    assert drawn['truth']['labels'] == ['jump']
    assert drawn['truth']['segments'].tolist() == [[0., 1.]]
    assert drawn['teacher'] is None

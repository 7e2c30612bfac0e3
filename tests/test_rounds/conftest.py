"""One trained toy localizer and one finished run, shared by all tests."""
from pathlib import Path
from typing import Any, Callable

import pytest
import torch
import toy
from mmengine.config import Config
from mmengine.runner import Runner

from mmblockdrop.registry import MODELS

#: Fine enough for every candidate to have a score of its own.
EVALUATOR = dict(
    type='mmblockdrop.TADMetric',
    tiou_thresholds=[0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])


def sharpen(cfg: Config) -> Config:
    """Let validation and scoring tell the candidates apart.

    Args:
        cfg: Config of a toy run.

    Returns:
        The same config.
    """
    cfg.val_evaluator = cfg.test_evaluator = EVALUATOR
    cfg.val_dataloader.dataset.length = 9
    cfg.test_dataloader.dataset.length = 9
    if 'score_dataloader' in cfg.train_cfg:
        cfg.train_cfg.score_dataloader.dataset.length = 8
        cfg.optim_wrapper.optimizer.lr = 1e-3
    return cfg


def train(cfg: Config) -> Runner:
    """Run a config.

    Args:
        cfg: Config.

    Returns:
        The runner, after training.
    """
    cfg.experiment_name = Path(cfg.work_dir).name + str(id(cfg))
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


@pytest.fixture(scope='session')
def trained(tmp_path_factory) -> str:
    """Checkpoint of a toy localizer whose blocks all matter."""
    folder = tmp_path_factory.mktemp('toy')
    torch.manual_seed(0)
    model = MODELS.build(toy.localizer())
    model.init_weights()
    for name, value in model.backbone.blocks.named_parameters():
        if value.dim() == 2:
            torch.nn.init.normal_(value, std=0.5)
    start = folder / 'start.pth'
    torch.save(dict(state_dict=model.state_dict(), meta={}), start)
    cfg = toy.config(
        folder / 'baseline',
        load_from=str(start),
        train_cfg=dict(by_epoch=True, max_epochs=3, val_interval=3),
        param_scheduler=[])
    cfg.default_hooks.checkpoint.interval = 3
    train(sharpen(cfg))
    return str(folder / 'baseline' / 'epoch_3.pth')


@pytest.fixture(scope='session')
def block_drop(trained) -> Callable[..., Config]:
    """Config of a block-drop run, see :func:`toy.block_drop`."""

    def make(work_dir: Any, **overrides: Any) -> Config:
        return sharpen(toy.block_drop(work_dir, trained, **overrides))

    return make

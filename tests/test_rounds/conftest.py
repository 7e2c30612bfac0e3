"""One trained toy localizer and one finished run, shared by all tests."""
from pathlib import Path
from typing import Any, Callable

from mmblockdrop.registry import MODELS

import pytest
import torch
import toy
from mmengine.config import Config
from mmengine.logging import MMLogger
from rounds_kit import count_only, sharpen, train


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


@pytest.fixture(scope='session')
def finished(block_drop, tmp_path_factory) -> Path:
    """Work directory of a finished run of two rounds."""
    cfg = block_drop(tmp_path_factory.mktemp('finished'))
    train(cfg)
    return Path(cfg.work_dir)


@pytest.fixture(scope='module')
def unmeasured(finished):
    """Runs count parameters only, and write no table and no pictures.

    Not so the shared run, which is there before.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('mmblockdrop.rounds.evaluator.measure', count_only)
        patch.setattr('mmblockdrop.rounds.loop.write_report',
                      lambda *args: None)
        yield


@pytest.fixture(scope='session', autouse=True)
def _quiet() -> None:
    """One thread, and only errors on the terminal."""
    torch.set_num_threads(1)
    MMLogger.get_instance('mmengine', log_level='ERROR')

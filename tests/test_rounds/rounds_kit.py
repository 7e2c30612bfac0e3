"""Runs of toy size that tell the candidates apart."""
import json
from pathlib import Path
from typing import Any, Dict, Tuple

import torch
from mmengine.config import Config
from mmengine.runner import Runner

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
    cfg.val_evaluator = cfg.test_evaluator = dict(EVALUATOR)
    cfg.log_level = 'ERROR'
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


def read_record(work_dir: Any) -> Dict[str, Any]:
    """Content of ``blockdrop.json``.

    Args:
        work_dir: Work directory of a run.

    Returns:
        The record.
    """
    return json.loads((Path(work_dir) / 'blockdrop.json').read_text())


def read_weights(path: Any) -> Tuple[Dict[str, torch.Tensor], Dict[str, Any]]:
    """Weights and meta information of a checkpoint.

    Args:
        path: File.

    Returns:
        State dict and ``meta``.
    """
    content = torch.load(path, weights_only=False)
    return content['state_dict'], content['meta']

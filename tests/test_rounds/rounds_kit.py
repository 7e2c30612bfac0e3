"""Runs of toy size that tell the candidates apart."""
import copy
import json
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from mmblockdrop.registry import MODELS
from mmblockdrop.rounds.evaluator import evaluate

import torch
import toy
from mmengine.config import Config
from mmengine.evaluator import Evaluator
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
        The changed config.
    """
    cfg = Config(cfg.to_dict(), format_python_code=False)  # yapf is slow
    cfg.val_evaluator = cfg.test_evaluator = dict(EVALUATOR)
    cfg.log_level = 'ERROR'
    for dataloader in (cfg.val_dataloader, cfg.test_dataloader):
        dataloader.batch_size = dataloader.dataset.length = 9
    if 'score_dataloader' in cfg.train_cfg:
        cfg.train_cfg.score_dataloader.dataset.length = 8
        cfg.train_cfg.score_dataloader.batch_size = 4
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


def count_only(localizer: torch.nn.Module, *window: Any,
               reference: Optional[torch.nn.Module]) -> Dict[str, Any]:
    """Cost without what takes its time to measure.

    Args:
        localizer: The localizer.
        window: Not looked at.
        reference: Not looked at.

    Returns:
        The number of parameters, and zero for the rest.
    """
    params = sum(p.numel() for p in localizer.parameters())
    return dict(params=params, macs=0, paper_macs=0, latency_ms=0.,
                latency_ratio=1., latency_spread=[1., 1.])


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


def block_of(name: str) -> Optional[int]:
    """Number of the block a parameter belongs to.

    Args:
        name: Name in the state dict of a localizer.

    Returns:
        The number, None outside the blocks.
    """
    parts = name.split('.')
    return int(parts[2]) if parts[1] == 'blocks' else None


def blocks_in(state: Dict[str, torch.Tensor]) -> List[int]:
    """Numbers of the blocks of a state dict.

    Args:
        state: State dict of a localizer.

    Returns:
        Sorted numbers.
    """
    return sorted({block_of(name) for name in state} - {None})


def metric_of(state: Dict[str, torch.Tensor], cfg: Config,
              dropped: List[int]) -> float:
    """Metric of the plain localizer with blocks absent by config.

    Args:
        state: Its weights.
        cfg: Config with the validation data.
        dropped: Blocks that are absent.

    Returns:
        The mean average precision.
    """
    model = MODELS.build(toy.localizer(drop_blocks=dropped))
    model.load_state_dict(state, strict=True)
    dataloader = Runner.build_dataloader(copy.deepcopy(cfg.val_dataloader))
    evaluator = Evaluator([dict(cfg.val_evaluator)])
    evaluator.dataset_meta = dataloader.dataset.metainfo
    return evaluate(model, dataloader, evaluator)['tad/mAP']

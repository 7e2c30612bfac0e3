"""The cost of a full run of block drop, worked out from its config."""
import argparse
from pathlib import Path
from typing import Any, Dict

from mmblockdrop.compression import BlockStack
from mmblockdrop.registry import DATASETS, MODELS
from mmblockdrop.report import complexity, markdown_table
from mmblockdrop.rounds.schedule import Phase
from mmblockdrop.utils.meta import empty_weights

import torch
from benchmark_page import ROOT
from mmengine.config import Config

RUN = ('configs/thumos14/blockdrop_vit-{}-p16-lora_videomae-k400-pre_2xb1-'
       '{}x60e_thumos14-768x160.py')
DEVICES = 8


def windows_of(dataset: Dict[str, Any], annotations: Path) -> int:
    """Windows of a data set, from its annotations alone.

    Args:
        dataset: Its config.
        annotations: ActivityNet-style JSON.

    Returns:
        Number of samples.
    """
    cfg = dict(
        dataset,
        data_root='',
        data_prefix=dict(),
        ann_file=str(annotations),
        classes=str(annotations.parent / 'category_idx.txt'),
        pipeline=[])
    return len(DATASETS.build(cfg))


def paper_run(size: str, rounds: int, annotations: Path,
              step_factor: float) -> Dict[str, float]:
    """Multiply-accumulates of a whole run of block drop.

    Args:
        size: 'small' or 'large'.
        rounds: Rounds of its config.
        annotations: Of THUMOS14.
        step_factor: Cost of a training step in forward passes of the teacher
            and the student.

    Returns:
        Counts, and MACs by part.
    """
    cfg = Config.fromfile(str(ROOT / RUN.format(size, rounds)))
    with empty_weights():
        model = MODELS.build(cfg.model.localizer).to('meta')
    stack = BlockStack(model, 'backbone.blocks')
    train = cfg.train_cfg
    videos = windows_of(cfg.train_dataloader.dataset, annotations)
    scored = windows_of(train.score_dataloader.dataset, annotations)
    val = windows_of(cfg.val_dataloader.dataset, annotations)
    shape = torch.zeros(1, 1, 3, 768, 160, 160, device='meta')
    full = complexity(model, shape)['total'].macs
    epochs = train.epochs_per_round
    phase = Phase(epochs, train.get('val_begin', 1),
                  train.get('val_interval', 1),
                  train.get('dynamic_intervals') or ())
    checks = 1 + sum(phase.due(epoch + 1) for epoch in range(epochs))
    parts = dict(plain=0, shared=0, train=0, validate=0)
    now = full
    for _ in range(rounds):
        n = len(stack.remaining)
        stack.remove(stack.remaining[-1])
        less = complexity(model, shape)['total'].macs
        block = now - less
        rest = now - n * block
        parts['plain'] += scored * n * less
        parts['shared'] += scored * (n * rest + block *
                                     (n - 1 + n * (n - 1) / 2))
        parts['train'] += videos * epochs * step_factor * (full + less) / 2
        parts['validate'] += val * checks * less
        now = less
    return dict(parts, size=size, rounds=rounds, videos=videos,
                scored=scored, val=val, full=full)


def paper_section(args: argparse.Namespace,
                  measured: Dict[str, float]) -> str:
    """The full THUMOS14 runs, worked out.

    Args:
        args: ``annotations`` and ``tmacs``.
        measured: ``frames``, ``macs`` and seconds of ``forward`` and ``step``
            of a long window.

    Returns:
        Markdown.
    """
    if not args.annotations.is_file():
        return ('### A full THUMOS14 run, on paper\n\nNot worked out: there '
                f'was no {args.annotations.name}.')
    factor = measured['step'] / measured['forward']
    speed = args.tmacs or measured['macs'] / measured['forward'] / 1e12
    runs = [paper_run(size, rounds, args.annotations, factor)
            for size, rounds in (('small', 3), ('large', 6))]
    rows = []
    for key, name in (('plain', 'score, plain'), ('shared', 'score, shared'),
                      ('train', 'train'), ('validate', 'validate')):
        row = {'part': name}
        for run in runs:
            hours = run[key] / (speed * 1e12 * DEVICES) / 3600
            row[f'{run["size"]}: PMACs'] = f'{run[key] / 1e15:.1f}'
            row[f'{run["size"]}: hours'] = f'{hours:.2f}'
        rows.append(row)
    total = {'part': 'all, with shared scoring'}
    for run in runs:
        macs = run['shared'] + run['train'] + run['validate']
        total[f'{run["size"]}: PMACs'] = f'{macs / 1e15:.1f}'
        total[f'{run["size"]}: hours'] = (
            f'{macs / (speed * 1e12 * DEVICES) / 3600:.2f}')
    run = runs[0]
    return (
        '### A full THUMOS14 run, on paper\n\nNot run: worked out from the '
        'configs `blockdrop_vit-{small,large}...thumos14-768x160` and parts '
        f'measured here. A round trains {run["videos"]} windows an epoch, '
        f'scores on {run["scored"]} windows and validates on {run["val"]}; '
        f'{runs[0]["rounds"]} rounds for VideoMAE-S '
        f'({runs[0]["full"] / 1e12:.2f} T multiply-accumulates a window), '
        f'{runs[1]["rounds"]} for VideoMAE-L '
        f'({runs[1]["full"] / 1e12:.2f} T). A training step costs '
        f'{factor:.2f} forward passes of a window of the mean of teacher and '
        f'student ({measured["frames"]} frames, measured above; without '
        'activation checkpointing, which adds one pass of the student). '
        f'Hours: {DEVICES} devices of {speed:.3f} T multiply-accumulates a '
        f'second each ({"given" if args.tmacs else "measured above"}), no '
        'loss between them and none by decoding or suppression.\n\n'
        f'{markdown_table([*rows, total])}')

"""Small localizers on made-up windows, to try scoring rules on.

A problem is a video transformer of a given depth with ActionFormer behind
it, trained for some seconds to find bright, flickering or dark stretches in
noise. The blocks start at strong random weights, their residual branches at
scales drawn log-uniformly, so that some blocks matter and some hardly do, as
in a pretrained model. Everything follows from the seed.
"""
import logging
from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, List, NamedTuple

from mmblockdrop.compression import BlockStack
from mmblockdrop.registry import MODELS

import numpy as np
import torch
from mmaction.structures import ActionDataSample
from mmengine.dataset import pseudo_collate
from mmengine.evaluator import Evaluator
from mmengine.structures import InstanceData
from torch import nn
from torch.utils.data import DataLoader, Dataset

FRAMES, SIZE, CLIP, FPS = 32, 16, 8, 8.
STEPS = FRAMES // 2
CLASSES = ('bright', 'flickering', 'dark')


class ToyWindows(Dataset):
    """Windows of noise with one to three actions.

    Args:
        length: Windows.
        seed: Seed of their content.
    """

    metainfo = dict(classes=CLASSES)

    def __init__(self, length: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.samples = [_window(rng, f'{seed}_{i}') for i in range(length)]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Dict[str, Any]:
        return self.samples[index]


def _window(rng: np.random.Generator, name: str) -> Dict[str, Any]:
    """One window: frames in noise, its actions, their times."""
    frames = rng.normal(120, 40, (3, FRAMES, SIZE, SIZE))
    segments, labels, place = [], [], int(rng.integers(0, 4))
    while place + 2 < STEPS and len(labels) < 3:
        end = min(place + int(rng.integers(2, 6)), STEPS)
        label = int(rng.integers(0, len(CLASSES)))
        change = np.full(2 * (end - place), (1., 0., -1.)[label])
        if label == 1:
            change[::2], change[1::2] = 1., -1.
        change *= rng.uniform(4, 12)
        frames[:, 2 * place:2 * end] += change[:, None, None]
        segments.append([place, end])
        labels.append(label)
        place = end + int(rng.integers(1, 4))
    segments = np.array(segments, np.float32).reshape(-1, 2)
    sample = ActionDataSample()
    sample.gt_instances = InstanceData(
        segments=torch.from_numpy(segments), labels=torch.tensor(labels))
    sample.set_metainfo(
        dict(
            video_name=name,
            duration=FRAMES / FPS,
            fps=FPS,
            total_frames=FRAMES,
            window_start_frame=0,
            snippet_stride=2,
            offset_frames=0,
            window_size=STEPS,
            valid_steps=STEPS,
            video_segments=segments * 2 / FPS,
            video_labels=np.array(labels)))
    inputs = torch.from_numpy(frames.clip(0, 255)).to(torch.uint8)[None]
    return dict(inputs=inputs, data_samples=sample)


def localizer(depth: int, width: int = 32) -> Dict[str, Any]:
    """Config of a toy localizer.

    Args:
        depth: Blocks.
        width: Width of the tokens.

    Returns:
        Config.
    """
    return dict(
        type='mmblockdrop.ActionFormer',
        window_size=STEPS,
        clip_frames=CLIP,
        data_preprocessor=dict(
            type='mmaction.ActionDataPreprocessor',
            mean=[120.] * 3,
            std=[40.] * 3,
            format_shape='NCTHW'),
        backbone=dict(
            type='mmblockdrop.LoRAViT',
            img_size=SIZE,
            patch_size=8,
            embed_dims=width,
            depth=depth,
            num_heads=2,
            mlp_ratio=2,
            num_frames=CLIP),
        projection=dict(
            type='mmblockdrop.ConvTransformerProjection',
            in_channels=width,
            out_channels=width,
            arch=(1, 1, 1),
            num_heads=2,
            path_drop=0.),
        head=dict(
            type='mmblockdrop.ActionFormerHead',
            num_classes=len(CLASSES),
            in_channels=width,
            num_convs=1,
            loss_normalizer=20,
            strides=[1, 2]),
        test_cfg=dict(score_thr=0.02, pre_nms_topk=60))


class Problem(NamedTuple):
    """A trained localizer and what its candidates are scored on.

    Attributes:
        model: The localizer.
        stack: Its blocks.
        batches: Scoring batches.
        new_evaluator: Gives a fresh evaluator.
    """
    model: nn.Module
    stack: BlockStack
    batches: DataLoader
    new_evaluator: Callable[[], Evaluator]


def make_problem(depth: int,
                 seed: int,
                 steps: int = 80,
                 num_batches: int = 16,
                 batch_size: int = 6) -> Problem:
    """Train a toy localizer.

    Args:
        depth: Blocks.
        seed: Seed of weights and data.
        steps: Training steps of eight windows.
        num_batches: Scoring batches.
        batch_size: Windows of a scoring batch.

    Returns:
        The problem.
    """
    torch.manual_seed(seed)
    model = MODELS.build(localizer(depth))
    with _silent():
        model.init_weights()
    _grade(model, np.exp(np.random.default_rng(seed).uniform(
        np.log(0.05), np.log(3), depth)))
    train(model, ToyWindows(8 * 16, 1000 + seed), steps, seed)
    windows = ToyWindows(num_batches * batch_size, 2000 + seed)

    def new_evaluator() -> Evaluator:
        evaluator = Evaluator([
            dict(
                type='mmblockdrop.TADMetric',
                tiou_thresholds=[0.3, 0.4, 0.5, 0.6, 0.7])
        ])
        evaluator.dataset_meta = windows.metainfo
        return evaluator

    return Problem(
        model.eval(), BlockStack(model, 'backbone.blocks'),
        DataLoader(windows, batch_size, collate_fn=pseudo_collate),
        new_evaluator)


def _grade(model: nn.Module, scales: np.ndarray) -> None:
    """Strong random weights, residual branches at given scales."""
    for block, scale in zip(model.backbone.blocks, scales):
        for name, weight in block.named_parameters():
            if weight.dim() == 2:
                nn.init.normal_(weight, std=weight.shape[1]**-0.5)
        with torch.no_grad():
            for layer in (block.attn.proj, block.mlp.layers[1]):
                layer.weight.mul_(float(scale))


def train(model: nn.Module, windows: ToyWindows, steps: int,
          seed: int) -> List[float]:
    """Train all weights.

    Args:
        model: The localizer.
        windows: Training windows.
        steps: Steps of eight windows.
        seed: Seed of the order.

    Returns:
        Losses.
    """
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    rng = np.random.default_rng(seed)
    losses = []
    for _ in range(steps):
        chosen = rng.choice(len(windows), 8, replace=False)
        batch = pseudo_collate([windows[i] for i in chosen])
        data = model.data_preprocessor(batch, True)
        loss, _ = model.parse_losses(model(**data, mode='loss'))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.)
        optimizer.step()
        losses.append(loss.item())
    return losses


@contextmanager
def _silent() -> Iterator[None]:
    """Nothing below a warning is logged."""
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)

"""Choosing the block: plain, with shared prefixes, raced.

    python projects/benchmarks/benchmark_scoring.py [--depths 12 24]

On seeded toy problems every rule chooses a block. Counted are executions of
a block on a batch, and how often the choice is that of the plain rule, which
runs on the first problems only: its choice is that of the shared rule.

A problem is a video transformer of a given depth with ActionFormer behind
it, trained for some seconds to find bright, flickering or dark stretches in
noise. The blocks start at strong random weights, their residual branches at
scales drawn log-uniformly, so that some blocks matter and some hardly do, as
in a pretrained model. Everything follows from the seed.
"""
import argparse
import contextlib
import io
import logging
import statistics
import sys
import time
from typing import (Any, Callable, Dict, Iterator, List, NamedTuple, Optional,
                    Sequence)

from mmblockdrop.compression import BlockStack
from mmblockdrop.registry import MODELS
from mmblockdrop.report import markdown_table
from mmblockdrop.scorers import (LossScorer, MetricScorer, RacingScorer,
                                 Scorer, ScoringContext)

import numpy as np
import torch
from common import add_arguments, median_ratio, publish
from mmaction.structures import ActionDataSample
from mmengine.dataset import pseudo_collate
from mmengine.evaluator import Evaluator
from mmengine.structures import InstanceData
from torch import nn
from torch.utils.data import DataLoader, Dataset

FRAMES, SIZE, CLIP, FPS = 32, 16, 8, 8.
STEPS = FRAMES // 2
CLASSES = ('bright', 'flickering', 'dark')
PLAIN, SHARED, RACED = 'plain', 'shared', 'raced'
RULES = (PLAIN, SHARED, RACED)
EXPLANATION = '''
Written by `benchmark_scoring.py`. A round scores what a localizer is without
each of its blocks. *plain* runs the model once per candidate, as the
published code does: N (N - 1) block executions per window. *shared* computes
the blocks in front of the missing one once; scores are equal bit for bit.
*raced* is `RacingScorer`, by loss only: after every batch candidates leave
that are behind by more than chance explains, with an error of 2 % for a single
comparison (chosen on other seeds, 100 to 119).

Sharing alone cannot go below a half: candidate i needs blocks i + 1 to N - 1
on inputs nobody else has, N (N - 1) / 2 in all, and N - 1 for the prefix, so
its share is 1/2 + 1/N.

**Problems.** Up to {problems} seeds per depth: transformer of width 32 on
windows of 32 frames of 16 x 16 pixels, ActionFormer behind it, three classes
of actions in noise, strong random weights, residual branches at scales drawn
between 0.05 and 3, trained for {steps} steps; {batches} scoring batches of
{size} windows.
*share* is of the plain executions, mean over problems. *regret* is how much
worse, in the criterion over all batches, the chosen block is than the best
one, mean over problems. The plain rule's choice is that of the shared rule,
whose scores are the same; that was checked on the timed problems.
'''


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--depths', type=int, nargs='+', default=[12, 24])
    parser.add_argument('--problems', type=int, default=20)
    parser.add_argument('--timed', type=int, default=2,
                        help='problems on which the plain rule runs too')
    parser.add_argument('--batches', type=int, default=32)
    parser.add_argument('--batch-size', type=int, default=2)
    parser.add_argument('--steps', type=int, default=60,
                        help='training steps of a problem')
    parser.add_argument('--criteria', nargs='+', default=['metric', 'loss'],
                        choices=['metric', 'loss'])
    add_arguments(parser)
    return parser.parse_args(argv)


# ---- problems


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


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Nothing below a warning is logged."""
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


# ---- rules


def apply(scorer: Scorer, problem: Problem) -> Dict[str, Any]:
    """Let a rule choose.

    Args:
        scorer: The rule.
        problem: The problem.

    Returns:
        ``scores``, ``choice``, ``executions`` and ``seconds``.
    """
    began = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        scores = scorer(
            ScoringContext(problem.model, problem.stack,
                           problem.stack.candidates(), problem.batches,
                           problem.new_evaluator))
    return dict(
        scores=scores,
        choice=scorer.best(scores)[0],
        executions=scorer.executions,
        seconds=time.perf_counter() - began)


def solve(depth: int, seed: int,
          args: argparse.Namespace) -> Dict[str, Dict[str, dict]]:
    """Let every rule choose on one problem, one after the other.

    Args:
        depth: Blocks.
        seed: Seed of the problem.
        args: See :func:`parse_args`.

    Returns:
        Criterion to rule to what :func:`apply` gives.
    """
    problem = make_problem(depth, seed, args.steps, args.batches,
                           args.batch_size)
    found = {}
    for criterion in args.criteria:
        exact = MetricScorer if criterion == 'metric' else LossScorer
        rules = {SHARED: exact()}
        if criterion == 'loss':
            rules[RACED] = RacingScorer()
        if seed < args.timed:
            rules = {PLAIN: exact(share_prefix=False), **rules}
        found[criterion] = {
            name: apply(rule, problem) for name, rule in rules.items()
        }
    return found


def table(depth: int, criterion: str, problems: List[dict],
          args: argparse.Namespace) -> str:
    """Rules by row.

    Args:
        depth: Blocks.
        criterion: 'metric' or 'loss'.
        problems: What :func:`solve` gives, problem by problem.
        args: See :func:`parse_args`.

    Returns:
        Markdown.
    """
    found = [problem[criterion] for problem in problems]
    timed = [p for p in found if PLAIN in p]
    for problem in timed:
        assert problem[PLAIN]['scores'] == problem[SHARED]['scores']
    plain = depth * (depth - 1)
    rows = []
    for name in RULES:
        mine = [p[name] for p in found if name in p]
        if not mine:  # plain, where no problem was timed
            continue
        runs = statistics.mean(x['executions'] for x in mine) / args.batches
        same = sum(p[name]['choice'] == p[SHARED]['choice'] for p in found
                   if name in p)
        regret = statistics.mean(
            abs(p[SHARED]['scores'][p[name]['choice']] -
                p[SHARED]['scores'][p[SHARED]['choice']])
            for p in found if name in p)
        row = {
            'rule': name,
            'executions per window': f'{runs:.1f}',
            'share': f'{runs / plain:.3f}',
            'same choice': f'{same} of {len(mine)}',
            'regret': f'{regret:.4f}'
        }
        if timed:
            seconds = [p[name]['seconds'] for p in timed]
            ratio = median_ratio(seconds, [p[PLAIN]['seconds'] for p in timed])
            row['seconds'] = f'{statistics.median(seconds):.2f}'
            row['time / plain'] = f'{ratio:.2f}'
        rows.append(row)
    title = 'mAP' if criterion == 'metric' else 'loss'
    return f'### {depth} blocks, by {title}\n\n{markdown_table(rows)}'


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the benchmark and write its section."""
    args = parse_args(argv)
    torch.set_num_threads(1)
    parts = [
        EXPLANATION.format(
            problems=args.problems,
            steps=args.steps,
            batches=args.batches,
            size=args.batch_size).strip()
    ]
    for depth in args.depths:
        problems = [solve(depth, seed, args) for seed in range(args.problems)]
        parts += [
            table(depth, criterion, problems, args)
            for criterion in args.criteria
        ]
    publish(args, 'scoring', 'Choosing the block', '\n\n'.join(parts))
    return 0


if __name__ == '__main__':
    sys.exit(main())

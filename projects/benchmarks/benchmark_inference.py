"""Latency against dropped blocks, against mmaction2, and over whole videos.

    python projects/benchmarks/benchmark_inference.py [--frames 96]

On a GPU the full window of the config is used. All figures of a table are
taken in turns in one process.
"""
import argparse
import contextlib
import statistics
import sys
from typing import Iterator, Optional, Sequence

from mmblockdrop.compression import BlockStack
from mmblockdrop.registry import MODELS
from mmblockdrop.report import complexity, markdown_table

import torch
from benchmark_models import trained_detector
from benchmark_page import add_arguments, alternate, median_ratio, publish
from mmengine.registry import init_default_scope
from torch import nn
from whole_video_speed import video_table

PAPER = dict(zip(range(5), (104.9, 98.4, 89.8, 81.2, 73.6)))


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Read the command line.

    Args:
        argv: Defaults to ``sys.argv``.

    Returns:
        argparse.Namespace: The arguments.
    """
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--frames', type=int,
                        help='frames of a window; default: 768 on a GPU, '
                        '32 without')
    parser.add_argument('--size', type=int, default=160,
                        help='height and width of the frames')
    parser.add_argument('--drops', type=int, default=4)
    parser.add_argument('--repeats', type=int,
                        help='default: 30 on a GPU, 5 without')
    parser.add_argument('--precisions', nargs='+', choices=['fp32', 'bf16'],
                        help='default: both on a GPU, fp32 without')
    parser.add_argument('--compile', action='store_true',
                        help='also time the encoder under torch.compile')
    parser.add_argument('--threads', type=int, default=0,
                        help='CPU threads; default: those of torch')
    add_arguments(parser)
    args = parser.parse_args(argv)
    args.device = 'cuda' if torch.cuda.is_available() else 'cpu'
    on_gpu = args.device == 'cuda'
    args.frames = args.frames or (768 if on_gpu else 32)
    args.repeats = args.repeats or (30 if on_gpu else 5)
    args.precisions = args.precisions or (
        ['fp32', 'bf16'] if on_gpu else ['fp32'])
    if args.threads:
        torch.set_num_threads(args.threads)
    return args


def build(args: argparse.Namespace, dropped: int,
          backbone: Optional[dict] = None) -> nn.Module:
    """The VideoMAE-S detector without its last blocks, at random weights.

    Args:
        args: See :func:`parse_args`.
        dropped: Blocks to leave out.
        backbone: Settings of the encoder to replace.

    Returns:
        In evaluation mode, on the device.
    """
    cfg = trained_detector(args.frames, args.size)
    levels = cfg.projection.arch[2] + 1
    while args.frames % 2**(levels - 1) and levels > 1:
        levels -= 1
    cfg.projection.arch = (*cfg.projection.arch[:2], levels - 1)
    cfg.neck.num_levels = levels
    cfg.head.strides = cfg.head.strides[:levels]
    cfg.head.regression_ranges = cfg.head.regression_ranges[:levels]
    cfg.backbone.update(backbone or {})
    torch.manual_seed(0)
    model = MODELS.build(cfg)
    if dropped:
        stack = BlockStack(model, 'backbone.blocks')
        for index in stack.remaining[-dropped:]:
            stack.remove(index)
    return model.eval().to(args.device)


@contextlib.contextmanager
def precision(args: argparse.Namespace, name: str) -> Iterator[None]:
    """Inference, with autocast if ``name`` is 'bf16'."""
    with torch.inference_mode(), torch.autocast(
            args.device, torch.bfloat16, enabled=name == 'bf16'):
        yield


def latency_table(args: argparse.Namespace, name: str) -> str:
    """Latency of the whole detector for each number of dropped blocks.

    Args:
        args: See :func:`parse_args`.
        name: Precision.

    Returns:
        Markdown.
    """
    inputs = torch.randn(1, 1, 3, args.frames, args.size, args.size,
                         device=args.device)
    models = {k: build(args, k) for k in range(args.drops + 1)}
    if args.compile:
        for model in models.values():
            model.backbone.compile()
    macs = {k: complexity(m, inputs)['total'].macs for k, m in models.items()}
    with precision(args, name):
        times = alternate(
            {k: lambda m=m: m(inputs) for k, m in models.items()},
            args.repeats, 2, torch.device(args.device))
    rows = []
    for k in models:
        faster = 1 / median_ratio(times[k], times[0])
        possible = macs[0] / macs[k]
        rows.append({
            'dropped': str(k),
            'MACs (G)': f'{macs[k] / 1e9:.1f}',
            'latency (ms)': f'{1e3 * statistics.median(times[k]):.1f}',
            'faster': f'{faster:.3f}',
            'MACs allow': f'{possible:.3f}',
            'reached': f'{100 * faster / possible:.1f} %',
            'paper (ms)': f'{PAPER[k]}' if k in PAPER else '-',
            'paper, faster': f'{PAPER[0] / PAPER[k]:.3f}'
            if k in PAPER else '-'
        })
    title = (f'### Latency of one window, {args.frames} frames of {args.size}'
             f' x {args.size}, {name}{", compiled" if args.compile else ""}, '
             f'{args.device}')
    return f'{title}\n\n{markdown_table(rows)}'


def encoder_table(args: argparse.Namespace) -> str:
    """Our encoder against mmaction2's at equal weights.

    Args:
        args: See :func:`parse_args`.

    Returns:
        Markdown.
    """
    ours = build(args, 0).backbone
    theirs = build(args, 0, dict(
        type='mmaction.VisionTransformer', return_feat_map=True)).backbone
    theirs.load_state_dict(ours.state_dict())
    clips = torch.randn(max(1, args.frames // 16), 3, 16, args.size,
                        args.size, device=args.device)
    rows = []
    for name in args.precisions:
        with precision(args, name):
            gap = (ours(clips).float() - theirs(clips).float()).abs().max()
            times = alternate(
                dict(ours=lambda: ours(clips), theirs=lambda: theirs(clips)),
                args.repeats, 2, torch.device(args.device))
        ms = {k: 1e3 * statistics.median(v) for k, v in times.items()}
        rows.append({
            'precision': name,
            'clips': str(len(clips)),
            'ours (ms)': f'{ms["ours"]:.1f}',
            'mmaction2 (ms)': f'{ms["theirs"]:.1f}',
            'ours / mmaction2':
            f'{median_ratio(times["ours"], times["theirs"]):.3f}',
            'largest difference': f'{gap.item():.1e}'
        })
    return ("### Encoder against mmaction2's `VisionTransformer`, equal "
            f'weights\n\n{markdown_table(rows)}')


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the benchmark and write its section."""
    args = parse_args(argv)
    init_default_scope('mmaction')
    parts = [
        'Written by `benchmark_inference.py`. VideoMAE-S with ActionFormer, '
        'random weights, one window, all of the detector but decoding and '
        'suppression. *MACs allow*: ratio of all multiply-accumulates. '
        '*reached*: share of that ratio. The paper gives latencies on its '
        'GPU. A dropped block leaves an identity that costs a call of Python.'
    ]
    parts += [latency_table(args, name) for name in args.precisions]
    parts += [encoder_table(args), video_table(args)]
    publish(args, 'inference', 'Inference', '\n\n'.join(parts))
    return 0


if __name__ == '__main__':
    sys.exit(main())

"""Latency against dropped blocks, against mmaction2, and over whole videos.

    python projects/benchmarks/benchmark_inference.py [--frames 96]

On a GPU the full window of the config is used. All figures of a table are
taken in turns in one process.
"""
import argparse
import contextlib
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, Iterator, Optional, Sequence

from mmblockdrop.apis import init_localizer, localize_video
from mmblockdrop.compression import BlockStack
from mmblockdrop.registry import MODELS
from mmblockdrop.report import complexity, markdown_table

import cv2
import numpy as np
import torch
from common import (add_arguments, alternate, detector, median_ratio, publish,
                    quiet)
from mmengine.config import Config
from torch import nn

PAPER = dict(zip(range(5), (104.9, 98.4, 89.8, 81.2, 73.6)))


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Read the command line."""
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
          **backbone: Any) -> nn.Module:
    """The VideoMAE-S detector without its last blocks, at random weights.

    Args:
        args: See :func:`parse_args`.
        dropped: Blocks to leave out.
        **backbone: Settings of the encoder to replace.

    Returns:
        In evaluation mode, on the device.
    """
    cfg = detector(args.frames, args.size, **backbone)
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
    theirs = build(
        args, 0, type='mmaction.VisionTransformer',
        return_feat_map=True).backbone
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


def video_config(folder: Path) -> Config:
    """Config of a narrow detector that reads a video.

    Args:
        folder: Where paths may point.

    Returns:
        The config.
    """
    frames = 64
    model = detector(frames, 64, 192, channels=128, levels=3)
    cfg = Config(dict(model=model))
    cfg.default_scope = 'mmaction'
    cfg.test_dataloader = dict(
        dataset=dict(
            type='mmblockdrop.UntrimmedVideoDataset',
            ann_file='none.json',
            data_prefix=dict(video=str(folder)),
            classes=[str(i) for i in range(20)],
            window_size=frames,
            snippet_stride=1,
            test_mode=True,
            pipeline=[
                dict(type='mmblockdrop.OpenVideo'),
                dict(type='mmblockdrop.SampleWindow'),
                dict(type='DecordDecode'),
                dict(type='Resize', scale=(64, 64), keep_ratio=False),
                dict(type='FormatShape', input_format='NCTHW'),
                dict(type='mmblockdrop.PackTADInputs')
            ]))
    return cfg


def make_video(path: Path, frames: int = 384, size: int = 256) -> None:
    """Write a video of moving noise.

    Args:
        path: MP4 to write.
        frames: Its length.
        size: Height and width.
    """
    writer = cv2.VideoWriter(
        str(path), cv2.VideoWriter_fourcc(*'mp4v'), 25, (size, size))
    rng = np.random.default_rng(0)
    picture = cv2.resize(
        rng.integers(0, 255, (32, 32, 3), np.uint8), (2 * size, 2 * size))
    for i in range(frames):
        x = i % size
        writer.write(np.ascontiguousarray(picture[x:x + size, x:x + size]))
    writer.release()


def video_table(args: argparse.Namespace) -> str:
    """A whole video, with and without what saves time.

    Args:
        args: ``device`` and ``repeats``.

    Returns:
        Markdown.
    """
    variants = {
        'window by window': dict(read_ahead=0, reuse_clips=False),
        'decoding ahead': dict(reuse_clips=False),
        'and clips of two windows encoded once': dict(),
        'and four windows at once': dict(batch_size=4)
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'video.mp4'
        make_video(path)
        model = init_localizer(video_config(Path(folder)),
                               device=args.device)
        found: Dict[str, Any] = {}

        def run(name: str) -> None:
            found[name] = localize_video(
                model, path, progress=False, **variants[name])

        times = alternate({n: lambda n=n: run(n) for n in variants},
                          max(3, args.repeats // 3), 1)
    first = next(iter(variants))
    rows = []
    for name in variants:
        gap = np.abs(found[name]['scores'] - found[first]['scores']).max()
        rows.append({
            'way': name,
            'seconds': f'{statistics.median(times[name]):.2f}',
            'time / first': f'{median_ratio(times[name], times[first]):.3f}',
            'largest difference of a score': f'{gap:.1e}'
        })
    return ('### A whole video\n\nA generated video of 384 frames of 256 x '
            '256, windows of 64 frames that overlap by half (11 windows), a '
            'transformer of 12 blocks of width 192 on 64 x 64 pixels.\n\n'
            f'{markdown_table(rows)}')


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the benchmark and write its section."""
    args = parse_args(argv)
    quiet()
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

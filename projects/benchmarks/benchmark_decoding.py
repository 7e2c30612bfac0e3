"""Decoding: frames per second, waiting in training, memory on long videos.

    python projects/benchmarks/benchmark_decoding.py VIDEO_FOLDER

Three tables. *Frames per second* of our pipeline against mmaction2's plain
one (DecordInit, SampleFrames, DecordDecode, Resize), on sliding windows of
every video, from the same frames. *Waiting*: the share of a training step in
which the model waits for windows. *Memory*: the peak while a short and a long
generated video are localized.
"""
import argparse
import os.path as osp
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from mmblockdrop.report import markdown_table
from mmblockdrop.utils.video import VIDEO_SUFFIXES, Video

import torch
from benchmark_models import quiet, small_localizer
from benchmark_page import add_arguments, alternate, median_ratio, publish
from decoding_pipelines import (many_videos_dataset, one_video_dataset,
                                pipelines, plain_windows, re_encoded)
from long_videos import memory_rows
from mmengine.dataset import pseudo_collate
from torch import nn
from torch.utils.data import DataLoader


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
    parser.add_argument('videos', type=Path, help='folder of videos')
    parser.add_argument('--max-videos', type=int, default=8,
                        help='videos to decode (default: 8)')
    parser.add_argument('--window', type=int, default=256,
                        help='frames of a window (default: 256)')
    parser.add_argument('--stride', type=int, default=1,
                        help='frames between two that are decoded')
    parser.add_argument('--pixels', type=int, default=96)
    parser.add_argument('--repeats', type=int, default=3)
    parser.add_argument('--steps', type=int, default=12,
                        help='training steps that are timed (default: 12)')
    parser.add_argument(
        '--workers', type=int, nargs='+', default=[0, 1],
        help='processes that decode in training (default: 0 1)')
    parser.add_argument(
        '--minutes', type=float, nargs='+', default=[10, 120],
        help='lengths of the generated videos (default: 10 120)')
    parser.add_argument('--generated-fps', type=float, default=25.)
    add_arguments(parser)
    return parser.parse_args(argv)


# Frames per second ---------------------------------------------------------


def decode_all(datasets: Sequence[Any]) -> int:
    """Read every window; return the number of frames."""
    return sum(
        dataset[i]['inputs'].shape[2] for dataset in datasets
        for i in range(len(dataset)))


def speed_rows(paths: Sequence[str],
               args: argparse.Namespace) -> List[Dict[str, str]]:
    """Frames per second of every pipeline.

    Args:
        paths: The videos.
        args: See :func:`parse_args`.

    Returns:
        Lines of the table.
    """
    with tempfile.TemporaryDirectory() as folder:
        work: Dict[str, Callable[[], int]] = {
            'mmaction2 alone, SampleFrames': partial(plain_windows, paths,
                                                     args)
        }
        for name, steps in pipelines(args, osp.join(folder, 'kept')).items():
            work[name] = partial(decode_all, [
                one_video_dataset(path, args, steps, folder)
                for path in paths
            ])
        steps = pipelines(args, folder)['ours: OpenVideo, Resize']
        try:
            small = re_encoded(paths, args, osp.join(folder, 'small'))
        except FileNotFoundError as error:
            print(f'No row of re-encoded videos: {error}', file=sys.stderr)
        else:
            work['ours: re-encoded by resize_videos.py'] = partial(
                decode_all, [
                    one_video_dataset(path, args, steps, folder)
                    for path in small
                ])
        frames = {name: read() for name, read in work.items()}
        times = alternate(work, args.repeats, warmup=0)
    base = list(work)[0]
    ratios = {n: median_ratio(times[n], times[base]) for n in work}
    return [{
        'pipeline': name,
        'frames': str(frames[name]),
        'frames per second':
        f'{frames[name] / statistics.median(times[name]):.0f}',
        'against the first':
        f'{frames[name] / frames[base] / ratios[name]:.2f}'
    } for name in work]


# Waiting -------------------------------------------------------------------


def waiting(loader: DataLoader, model: nn.Module,
            steps: int) -> Tuple[float, float]:
    """Train some steps and watch the clock.

    Args:
        loader: Windows.
        model: What is trained.
        steps: Steps that are timed, after one that is not.

    Returns:
        Seconds a step, and the share of it spent waiting for windows.
    """
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
    model.train()
    waited = total = 0.
    batches = iter(loader)
    for step in range(steps + 1):
        start = time.perf_counter()
        try:
            batch = next(batches)
        except StopIteration:
            batches = iter(loader)
            batch = next(batches)
        got = time.perf_counter()
        data = model.data_preprocessor(batch, True)
        sum(model(**data, mode='loss').values()).backward()
        optimizer.step()
        optimizer.zero_grad()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if step:
            waited += got - start
            total += time.perf_counter() - start
    return total / steps, waited / total


def waiting_rows(paths: Sequence[str],
                 args: argparse.Namespace) -> List[Dict[str, str]]:
    """Share of a training step spent waiting, by pipeline and workers.

    Args:
        paths: The videos.
        args: See :func:`parse_args`.

    Returns:
        Lines of the table.
    """
    rows = []
    model = small_localizer(args.window, args.pixels)
    with tempfile.TemporaryDirectory() as folder:
        for name, steps in pipelines(args, osp.join(folder, 'kept')).items():
            row = {'pipeline': name}
            for workers in args.workers:
                dataset = many_videos_dataset(
                    paths, args, steps, folder, test_mode=False,
                    windows_per_video=4)
                if 'CachedFrames' in name:
                    decode_all([dataset])  # the first epoch keeps them
                loader = DataLoader(
                    dataset, batch_size=1, shuffle=True, num_workers=workers,
                    collate_fn=pseudo_collate,
                    persistent_workers=workers > 0)
                seconds, share = waiting(loader, model, args.steps)
                row[f'{workers} workers: step (s)'] = f'{seconds:.3f}'
                row[f'{workers} workers: waiting'] = f'{100 * share:.0f} %'
                del loader
            rows.append(row)
    return rows


def main(argv: Optional[Sequence[str]] = None) -> str:
    """Measure and write the section; returns it."""
    args = parse_args(argv)
    quiet()
    paths = sorted(
        str(p) for p in args.videos.iterdir()
        if p.suffix.lower() in VIDEO_SUFFIXES)[:args.max_videos]
    if not paths:
        raise FileNotFoundError(f'{args.videos} has no video')
    first = Video(paths[0])
    lengths = memory_rows(args.minutes, args.generated_fps, args.window)
    body = (
        f'{len(paths)} videos of {args.videos.name}, the first '
        f'{first[0].shape[1]} x {first[0].shape[0]} pixels with '
        f'{len(first)} frames; windows of {args.window} frames, half of '
        f'which the next one repeats, to {args.pixels} x {args.pixels} '
        'pixels. One process, one thread of the decoder.\n\n'
        f'{markdown_table(speed_rows(paths, args))}\n\n'
        f'Training a small localizer (4 blocks of width 96), {args.steps} '
        'steps of one window:\n\n'
        f'{markdown_table(waiting_rows(paths, args))}\n\n'
        'Localizing a generated video (64 x 64 pixels, '
        f'{args.generated_fps:g} frames per second; the model sees 32 x 32):'
        ' memory on top of the model.\n\n'
        f'{markdown_table(lengths)}')
    return publish(args, 'decoding', 'Decoding', body)


if __name__ == '__main__':
    sys.exit(not main())

"""Decoding: frames per second, waiting in training, memory on long videos.

    python projects/benchmarks/benchmark_decoding.py VIDEO_FOLDER

Three tables. *Frames per second* of our pipeline against mmaction2's plain
one (DecordInit, SampleFrames, DecordDecode, Resize), on sliding windows of
every video, from the same frames. *Waiting*: the share of a training step in
which the model waits for windows. *Memory*: the peak while a short and a long
generated video are localized.
"""
import argparse
import json
import os
import os.path as osp
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from mmblockdrop.apis import localize_video
from mmblockdrop.data.prepare.transcode import Recipe, transcode
from mmblockdrop.registry import DATASETS, MODELS, TRANSFORMS
from mmblockdrop.report import markdown_table
from mmblockdrop.utils.video import VIDEO_SUFFIXES, Video

import cv2
import numpy as np
import torch
from common import (add_arguments, alternate, detector, in_new_process,
                    median_ratio, peak_resident, publish, quiet, restart_peak)
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from torch import nn
from torch.utils.data import DataLoader

INIT = dict(type='mmaction.DecordInit')
DECODE = dict(type='mmaction.DecordDecode')
PACK = [
    dict(type='mmaction.FormatShape', input_format='NCTHW'),
    dict(type='mmblockdrop.PackTADInputs')
]


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Read the command line."""
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


# ---- frames per second


def pipelines(args: argparse.Namespace, folder: str) -> Dict[str, List[dict]]:
    """What is compared, by name; the first is the plain one.

    Args:
        args: Pixels.
        folder: Where frames may be kept.

    Returns:
        Name to the steps between record and decoded window.
    """
    scale = (args.pixels, args.pixels)
    resize = dict(type='mmaction.Resize', scale=scale, keep_ratio=False)
    cut = dict(type='mmblockdrop.SampleWindow')
    opener = dict(type='mmblockdrop.OpenVideo')
    kept = dict(
        type='mmblockdrop.CachedFrames',
        cache_dir=folder,
        transforms=[opener, DECODE, resize])
    return {
        'mmaction2: DecordInit, Resize': [INIT, cut, DECODE, resize],
        'ours: OpenVideo, Resize': [opener, cut, DECODE, resize],
        'ours: OpenVideo(size)': [dict(opener, size=scale), cut, DECODE],
        'ours: CachedFrames': [kept, cut, DECODE]
    }


def windows_of(paths: Sequence[str], args: argparse.Namespace,
               steps: Sequence[dict], folder: str, **kwargs: Any) -> Any:
    """Windows over some videos of a folder.

    Args:
        paths: Videos of one folder.
        args: Window and stride.
        steps: Steps up to the decoded window.
        folder: Where an annotation file may be written.
        **kwargs: Arguments of the data set to replace.

    Returns:
        Its windows.
    """
    database = {}
    for path in paths:
        reader = Video(path)
        fps = reader.fps
        seconds = len(reader) / fps
        database[osp.splitext(osp.basename(path))[0]] = dict(
            subset='all', fps=fps, frame=len(reader), duration=seconds,
            annotations=[dict(segment=[0.1 * seconds, 0.6 * seconds],
                              label='action')])
    ann_file = osp.join(folder, 'annotations.json')
    with open(ann_file, 'w') as file:
        json.dump(dict(database=database), file)
    cfg = dict(
        type='mmblockdrop.UntrimmedVideoDataset',
        ann_file=ann_file,
        data_prefix=dict(video=osp.dirname(osp.abspath(paths[0]))),
        classes=['action'],
        window_size=args.window,
        snippet_stride=args.stride,
        overlap_ratio=0.5,
        test_mode=True,
        pipeline=[*steps, *PACK])
    return DATASETS.build(dict(cfg, **kwargs))


def plain_windows(paths: Sequence[str], args: argparse.Namespace) -> int:
    """As many windows by mmaction2's own sampling, not ours.

    Args:
        paths: The videos.
        args: Window, stride and pixels.

    Returns:
        Number of frames.
    """
    pipeline = Compose([
        TRANSFORMS.build(cfg) for cfg in (
            INIT,
            dict(type='mmaction.SampleFrames', clip_len=args.window,
                 frame_interval=args.stride, num_clips=1), DECODE,
            dict(type='mmaction.Resize', scale=(args.pixels, args.pixels),
                 keep_ratio=False),
            dict(type='mmaction.FormatShape', input_format='NCTHW'))
    ])
    frames = 0
    half = max(1, args.window // 2)
    for path in paths:
        steps = -(-len(Video(path)) // args.stride)
        for _ in range(max(1, -(-(steps - args.window) // half) + 1)):
            window = pipeline(dict(filename=path, start_index=0,
                                   modality='RGB'))
            frames += window['imgs'].shape[2]
    return frames


def re_encoded(paths: Sequence[str], args: argparse.Namespace,
               folder: str) -> List[str]:
    """The videos at their final size with close key frames."""
    recipe = Recipe(size=(args.pixels, args.pixels))
    small = []
    for path in paths:
        stem = osp.splitext(osp.basename(path))[0]
        small.append(osp.join(folder, f'{stem}.mp4'))
        transcode(path, small[-1], recipe)
    return small


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
                windows_of([path], args, steps, folder)
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
                    windows_of([path], args, steps, folder)
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


# ---- waiting


def small_localizer(frames: int, pixels: int) -> nn.Module:
    """A localizer of four blocks of width 96 for one class.

    Args:
        frames: Frames of a window.
        pixels: Side of a frame.

    Returns:
        On the GPU if there is one.
    """
    clip = next(n for n in range(16, 0, -2) if frames % n == 0)
    torch.manual_seed(0)
    cfg = detector(frames, pixels, 96, 4, 96, levels=3, clip_frames=clip)
    cfg.head.num_classes = 1
    model = MODELS.build(cfg)
    model.dataset_meta = dict(classes=['action'])
    return model.to('cuda' if torch.cuda.is_available() else 'cpu')


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
                dataset = windows_of(paths, args, steps, folder,
                                     test_mode=False, windows_per_video=4)
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


# ---- memory


def generate(path: str, minutes: float, fps: float, pixels: int) -> None:
    """Write a long video.

    Args:
        path: The file.
        minutes: Its length.
        fps: Frames per second.
        pixels: Side of a frame.

    Raises:
        RuntimeError: If OpenCV cannot write it.
    """
    writer = cv2.VideoWriter(
        path, cv2.VideoWriter_fourcc(*'mp4v'), fps, (pixels, pixels))
    if not writer.isOpened():
        raise RuntimeError(f'OpenCV cannot write {path}')
    ramp = np.linspace(0, 120, pixels).astype(np.uint8)
    frame = np.stack(np.broadcast_arrays(ramp, ramp[:, None], ramp[::-1]), -1)
    for index in range(round(minutes * 60 * fps)):
        shift = index % pixels
        writer.write(np.roll(frame, shift, 1))
    writer.release()


def localizing_peak(path: str, window: int, pixels: int) -> Tuple[int, float]:
    """Localize one video here and watch memory and clock.

    Args:
        path: The video.
        window: Frames of a window.
        pixels: Side of a frame.

    Returns:
        Bytes on top of the model, and seconds.
    """
    quiet()
    model = small_localizer(window, pixels).eval()
    opener = dict(type='mmblockdrop.OpenVideo')
    resize = dict(type='mmaction.Resize', scale=(pixels, pixels),
                  keep_ratio=False)
    cut = dict(type='mmblockdrop.SampleWindow')
    model.cfg = Config(
        dict(
            test_dataloader=dict(
                dataset=dict(
                    type='mmblockdrop.UntrimmedVideoDataset',
                    window_size=window,
                    snippet_stride=1,
                    pipeline=[opener, cut, DECODE, resize, *PACK]))))
    before = restart_peak()
    start = time.perf_counter()
    localize_video(model, path, progress=False)
    return peak_resident() - before, time.perf_counter() - start


def memory_rows(lengths: Sequence[float], fps: float,
                window: int) -> List[Dict[str, str]]:
    """Peak while videos of several lengths are localized.

    Args:
        lengths: Minutes.
        fps: Frames per second.
        window: Frames of a window.

    Returns:
        Lines of the table.
    """
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for minutes in lengths:
            path = osp.join(folder, 'long.mp4')
            generate(path, minutes, fps, 64)
            peak, seconds = in_new_process(localizing_peak, path, window,
                                           32)
            rows.append({
                'minutes': f'{minutes:g}',
                'frames': str(round(minutes * 60 * fps)),
                'file (MiB)': f'{os.path.getsize(path) / 2**20:.0f}',
                'peak (MiB)': f'{peak / 2**20:.0f}',
                'seconds': f'{seconds:.0f}'
            })
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

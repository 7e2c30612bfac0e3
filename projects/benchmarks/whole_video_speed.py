"""Time of localizing a whole video, with and without what saves time."""
import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any, Dict

from mmblockdrop.apis import init_localizer, localize_video
from mmblockdrop.report import markdown_table

import numpy as np
from benchmark_models import narrow, trained_detector
from benchmark_page import alternate, median_ratio
from mmengine.config import Config


def video_config(folder: Path) -> Config:
    """Config of a narrow detector that reads a video.

    Args:
        folder: Where paths may point.

    Returns:
        The config.
    """
    frames = 64
    model = narrow(trained_detector(frames, 64), 192)
    model.projection.arch = (2, 2, 2)
    model.neck.num_levels = 3
    model.head.update(
        strides=[1, 2, 4], regression_ranges=[(0, 4), (4, 8), (8, 10000)])
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
    import cv2
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

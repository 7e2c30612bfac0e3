"""Memory and time of localizing long videos."""
import os
import os.path as osp
import tempfile
import time
from typing import Dict, List, Sequence, Tuple

import numpy as np
from benchmark_models import quiet, small_localizer
from decoding_pipelines import DECODE, PACK
from mmengine.config import Config
from peak_memory import in_new_process, peak_resident, restart_peak


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
    import cv2
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
    from mmblockdrop.apis import localize_video
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

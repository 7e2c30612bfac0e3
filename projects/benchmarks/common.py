"""What the benchmarks share: page, timing, memory, models.

Every ``benchmark_*.py`` owns one section of ``docs/en/notes/benchmarks.md``
between two markers and replaces that section only.
"""
import argparse
import multiprocessing
import os
import platform
import re
import resource
import statistics
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence

from mmblockdrop.utils.io import whole_file

import torch
from mmaction.structures import ActionDataSample
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

ROOT = Path(__file__).resolve().parents[2]
#: The VideoMAE-S detector of the configs.
VIDEOMAE_S = ROOT / 'configs/_base_/models/actionformer_videomae-small.py'
#: Settings of its encoder for training; the trained one is merged.
TRAINING = ('lora', 'trainable', 'with_cp', 'pretrained')
#: Linux counts the largest resident size here, and starts anew when told to.
STATUS, CLEAR = Path('/proc/self/status'), Path('/proc/self/clear_refs')
PAGE = ROOT / 'docs' / 'en' / 'notes' / 'benchmarks.md'
TITLE = '''# Benchmarks

Every section is written by the program it names. Figures are medians, and
compared figures were taken in turns in one run on one machine; the line at
the end of a section names versions and hardware.
'''


# ---- the page


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that all benchmarks have.

    Args:
        parser: Has the benchmark's own arguments.
    """
    parser.add_argument(
        '--page', type=Path, default=PAGE,
        help='Markdown page whose section is replaced (default: %(default)s)')
    parser.add_argument(
        '--dry-run', action='store_true',
        help='print the section and leave the page as it is')


def publish(args: argparse.Namespace, name: str, title: str,
            body: str) -> str:
    """Print a section, and write it unless ``--dry-run`` was given.

    Args:
        args: With what :func:`add_arguments` added.
        name: Name of the benchmark, as in ``benchmark_<name>.py``.
        title: Heading of the section.
        body: Markdown.

    Returns:
        The section without markers.
    """
    text = f'## {title}\n\n{body.strip()}\n\n{conditions()}\n'
    print(text)
    if not args.dry_run:
        write_section(args.page, name, text)
    return text


def write_section(page: Path, name: str, text: str) -> None:
    """Replace one section of a page; the others stay as they are.

    The page is made when it is missing, a new section goes to its end.

    Args:
        page: Markdown file.
        name: Name of the section.
        text: Its Markdown, heading included.

    Raises:
        ValueError: If ``name`` could not stand in a marker.
    """
    if not re.fullmatch(r'[a-z0-9_-]+', name):
        raise ValueError(f'section name {name!r} must consist of small '
                         'letters, digits, - and _')
    begin = f'<!-- begin {name}: written by benchmark_{name}.py -->'
    end = f'<!-- end {name} -->'
    section = f'{begin}\n\n{text.strip()}\n\n{end}'
    page.parent.mkdir(parents=True, exist_ok=True)
    old = page.read_text(encoding='utf8') if page.exists() else TITLE
    pattern = re.compile(f'<!-- begin {name}:.*?{re.escape(end)}', re.DOTALL)
    new, found = pattern.subn(lambda match: section, old)
    if not found:
        new = f'{old.rstrip()}\n\n{section}\n'
    with whole_file(page) as temporary:
        temporary.write_text(new, encoding='utf8')


def conditions() -> str:
    """Versions and hardware of this process.

    Returns:
        One line of Markdown.
    """
    parts = [
        f'Python {platform.python_version()}', f'torch {torch.__version__}',
        f'{_processor()}, {torch.get_num_threads()} threads of '
        f'{os.cpu_count()} cores'
    ]
    if torch.cuda.is_available():
        parts.append(f'{torch.cuda.get_device_name()}, CUDA '
                     f'{torch.version.cuda}')
    # Of paths the last part: where things lie is nobody's business.
    command = ' '.join(Path(word).name if '/' in word else word
                       for word in sys.argv)
    parts.append(time.strftime('%Y-%m-%d'))
    return f'*`{command}`: {"; ".join(parts)}.*'


def _processor() -> str:
    """Name of the processor."""
    info = Path('/proc/cpuinfo')
    if info.exists():
        match = re.search(r'model name\s*:\s*(.+)', info.read_text())
        if match:
            return match.group(1).strip()
    return platform.processor() or platform.machine()


# ---- time and memory


def alternate(functions: Mapping[str, Callable[[], Any]],
              repeats: int,
              warmup: int = 1,
              device: Optional[torch.device] = None
              ) -> Dict[str, List[float]]:
    """Time several functions in turns, so that all meet the same machine.

    Args:
        functions: Name to function without arguments.
        repeats: Timed calls of each.
        warmup: Calls of each before that. Defaults to 1.
        device: A GPU is waited for.

    Returns:
        Seconds of each call.
    """
    times: Dict[str, List[float]] = {name: [] for name in functions}
    order = list(functions)
    for turn in range(warmup + repeats):
        for name in order:
            start = time.perf_counter()
            functions[name]()
            if device is not None and torch.device(device).type == 'cuda':
                torch.cuda.synchronize(device)
            if turn >= warmup:
                times[name].append(time.perf_counter() - start)
        order.reverse()
    return times


def median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Median of the ratios of two series measured in turns.

    Args:
        ours: Any unit.
        theirs: As many, in the same unit.

    Returns:
        Below one where ours is smaller.
    """
    return statistics.median(a / b for a, b in zip(ours, theirs))


def peak_resident() -> int:
    """Largest resident size of this process so far.

    Returns:
        Bytes.
    """
    if STATUS.exists():
        match = re.search(r'VmHWM:\s*(\d+) kB', STATUS.read_text())
        if match:
            return int(match.group(1)) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def restart_peak() -> int:
    """Count the peak from now on, where the system can.

    Returns:
        Bytes to subtract from a later peak.
    """
    try:
        CLEAR.write_text('5')
    except OSError:
        pass
    return peak_resident()


def in_new_process(function: Callable, *args: Any) -> Any:
    """Call a function where nothing was computed before.

    Args:
        function: Of a module; runs with as many threads as this process has.
        *args: Its arguments.

    Returns:
        What it returns.

    Raises:
        RuntimeError: If it fails.
    """
    context = multiprocessing.get_context('spawn')
    ours, theirs = context.Pipe()
    process = context.Process(
        target=_work,
        args=(theirs, torch.get_num_threads(), function, args))
    process.start()
    theirs.close()
    try:
        return ours.recv()
    except EOFError:
        process.join()
        raise RuntimeError(f'{function.__name__} failed in its own process, '
                           f'exit code {process.exitcode}') from None
    finally:
        process.join()


def _work(pipe: Any, threads: int, function: Callable, args: tuple) -> None:
    """Call the function in the new process."""
    torch.set_num_threads(threads)
    pipe.send(function(*args))
    pipe.close()


# ---- models


def quiet() -> None:
    """Keep mmengine from logging into the tables."""
    init_default_scope('mmaction')
    MMLogger.get_instance('mmengine', log_level='ERROR')


def detector(frames: int,
             pixels: int,
             width: int = 384,
             depth: int = 12,
             channels: int = 512,
             levels: int = 6,
             clip_frames: int = 16,
             **encoder: Any) -> Config:
    """Config of the VideoMAE-S detector as training leaves it, or a smaller.

    Args:
        frames: Frames and grid steps of a window.
        pixels: Side of a frame.
        width: Width of the transformer, heads of 64 each.
        depth: Its blocks.
        channels: Width of what is behind it.
        levels: Levels of the pyramid, fewer where the window is too short.
        clip_frames: Frames of a clip.
        **encoder: Further arguments of the encoder.

    Returns:
        The model, without what is for training only.
    """
    cfg = Config.fromfile(str(VIDEOMAE_S)).model
    for key in TRAINING:
        cfg.backbone.pop(key)
    while frames % 2**(levels - 1):
        levels -= 1
    cfg.window_size = cfg.projection.max_seq_len = frames
    cfg.clip_frames = clip_frames
    cfg.backbone.update(
        img_size=pixels,
        embed_dims=width,
        depth=depth,
        num_heads=max(1, width // 64),
        num_frames=clip_frames,
        **encoder)
    cfg.projection.update(
        in_channels=width,
        out_channels=channels,
        arch=(*cfg.projection.arch[:2], levels - 1))
    cfg.neck.update(
        in_channels=channels, out_channels=channels, num_levels=levels)
    ranges = cfg.head.regression_ranges
    cfg.head.update(
        in_channels=channels,
        strides=cfg.head.strides[:levels],
        regression_ranges=[*ranges[:levels - 1], (ranges[levels - 1][0],
                                                  ranges[-1][1])])
    return cfg


def noise_windows(size: int, frames: int, pixels: int,
                  segments: Sequence[Sequence[float]], device: str
                  ) -> Dict[str, Any]:
    """Windows of noise, as the localizer takes them.

    Args:
        size: Windows.
        frames: Frames and steps of a window.
        pixels: Side of a frame.
        segments: Start and end of the actions in steps; their labels are 0, 1,
            ...
        device: Where they lie.

    Returns:
        ``inputs`` and ``data_samples``.
    """
    samples = []
    for _ in range(size):
        sample = ActionDataSample(
            metainfo=dict(valid_steps=frames, window_size=frames))
        sample.gt_instances = InstanceData(
            segments=torch.tensor(segments),
            labels=torch.arange(len(segments))).to(device)
        samples.append(sample)
    inputs = torch.randn(size, 1, 3, frames, pixels, pixels, device=device)
    return dict(inputs=inputs, data_samples=samples)

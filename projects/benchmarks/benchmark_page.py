"""What the benchmarks share: the page they write, and fair timing.

Every ``benchmark_*.py`` owns one section of ``docs/en/notes/benchmarks.md``
between two markers and replaces that section only.
"""
import argparse
import fcntl
import os
import platform
import re
import statistics
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import (Any, Callable, Dict, Iterator, List, Mapping, Optional,
                    Sequence)

from mmblockdrop.utils.io import whole_file

import torch

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / 'docs' / 'en' / 'notes' / 'benchmarks.md'
TITLE = '''# Benchmarks

Every section is written by the program it names. Figures are medians, and
compared figures were taken in turns in one run on one machine; the line at
the end of a section names versions and hardware.
'''


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

    The page is made when it is missing, a new section goes to its end. Two
    programs may write at the same time.

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
    with _locked(page.parent):
        old = page.read_text(encoding='utf8') if page.exists() else TITLE
        pattern = re.compile(
            f'<!-- begin {name}:.*?{re.escape(end)}', re.DOTALL)
        new, found = pattern.subn(lambda match: section, old)
        if not found:
            new = f'{old.rstrip()}\n\n{section}\n'
        with whole_file(page) as partial:
            partial.write_text(new, encoding='utf8')


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


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
    info = Path('/proc/cpuinfo')
    if info.exists():
        match = re.search(r'model name\s*:\s*(.+)', info.read_text())
        if match:
            return match.group(1).strip()
    return platform.processor() or platform.machine()


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

"""Memory and time against frames, blocks and processes; a run on paper.

    python projects/benchmarks/benchmark_scale.py \
        [--annotations thumos_14_anno.json]

A step is one of block drop: teacher and student forward, the paper's three
alignments, LoRA, backward. Every figure comes from a process of its own
(without a GPU), so that its peak memory is known.
"""
import argparse
import sys
from pathlib import Path
from typing import Dict, List, Optional, Sequence

from mmblockdrop.report import markdown_table

import torch
from benchmark_page import PAGE, ROOT, add_arguments, publish
from full_run_cost import paper_section
from measured_steps import apart, forward, step, two_processes
from mmengine.registry import init_default_scope


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
    parser.add_argument('--frames', type=int, nargs='+',
                        default=[192, 768, 1536, 3072])
    parser.add_argument('--blocks', type=int, nargs='+',
                        default=[6, 12, 24])
    parser.add_argument('--width', type=int, default=192)
    parser.add_argument('--size', type=int, default=64,
                        help='height and width of the frames')
    parser.add_argument('--repeats', type=int, default=2)
    parser.add_argument('--threads', type=int, default=1,
                        help='CPU threads of each process')
    parser.add_argument('--annotations', type=Path, default=ROOT /
                        'data/thumos14/annotations/thumos_14_anno.json',
                        help='THUMOS14, to count the windows of a full run')
    parser.add_argument('--tmacs', type=float,
                        help='1e12 multiply-accumulates a second of a device '
                        'for the run on paper; default: as measured here')
    add_arguments(parser)
    args = parser.parse_args(argv)
    args.device = 'cuda' if torch.cuda.is_available() else 'cpu'
    return args


def size_rows(args: argparse.Namespace, frames: Sequence[int],
              blocks: Sequence[int]) -> List[Dict[str, float]]:
    """Measure a window and a step for every size.

    Args:
        args: See :func:`parse_args`.
        frames: Frames of a window.
        blocks: Blocks, as many.

    Returns:
        Numbers.
    """
    rows = []
    for f, b in zip(frames, blocks):
        window, train = apart(args, forward, f, b), apart(args, step, f, b)
        rows.append(
            dict(frames=f, blocks=b, macs=window['macs'],
                 forward=window['seconds'], forward_mb=window['mb'],
                 step=train['seconds'], step_mb=train['mb']))
    return rows


def as_table(rows: List[Dict[str, float]]) -> str:
    """Numbers of :func:`size_rows` as Markdown."""
    return markdown_table([{
        'frames': str(r['frames']),
        'blocks': str(r['blocks']),
        'MACs (G)': f'{r["macs"] / 1e9:.1f}',
        'window (s)': f'{r["forward"]:.3f}',
        'window (MB)': f'{r["forward_mb"]:.0f}',
        'step (s)': f'{r["step"]:.3f}',
        'step (MB)': f'{r["step_mb"]:.0f}'
    } for r in rows])


def draw(args: argparse.Namespace, by_frames: List[Dict[str, float]],
         path: Path) -> None:
    """Time and memory against frames.

    Args:
        args: See :func:`parse_args`.
        by_frames: Numbers.
        path: PNG to write.
    """
    import matplotlib
    matplotlib.use('Agg')
    import matplotlib.pyplot as plt
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.6, 3.2))
    frames = [r['frames'] for r in by_frames]
    for axes, keys, label in ((left, ('forward', 'step'), 'seconds'),
                              (right, ('forward_mb', 'step_mb'), 'MB')):
        for key, name in zip(keys, ('window', 'training step')):
            axes.plot(frames, [r[key] for r in by_frames], 'o-', label=name)
        axes.set_xlabel('frames')
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0)
        axes.set_xticks(frames)
        axes.tick_params(axis='x', labelrotation=45)
        axes.spines[['top', 'right']].set_visible(False)
    left.legend(frameon=False)
    figure.suptitle(f'{args.device}, one window', fontsize=9)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the benchmark and write its section."""
    args = parse_args(argv)
    torch.set_num_threads(args.threads)
    init_default_scope('mmaction')
    by_frames = size_rows(args, args.frames, [12] * len(args.frames))
    by_blocks = size_rows(args, [args.frames[0]] * len(args.blocks),
                          args.blocks)
    one = apart(args, step, args.frames[0], 12, 2)
    rows = [('1', one)]
    if args.device == 'cpu':
        rows.append(('2', two_processes(args, args.frames[0], 12)))
    processes = markdown_table([{
        'processes': name,
        'step of two windows (s)': f'{x["seconds"]:.3f}',
        'time / one process': f'{x["seconds"] / one["seconds"]:.2f}',
        'MB a process': f'{x["mb"]:.0f}'
    } for name, x in rows])
    picture = (args.page if not args.dry_run else PAGE).with_name(
        'benchmark_scale.png')
    if not args.dry_run:
        draw(args, by_frames, picture)
    body = '\n\n'.join([
        'Written by `benchmark_scale.py`. Detector on a transformer of width '
        f'{args.width}, frames of {args.size} x {args.size}, one window, '
        'float32. *window*: forward without gradients. *step*: teacher and '
        'student (one block fewer), LoRA, backward, AdamW. Memory is the peak '
        'above the process with its weights and the window loaded.',
        f'### Frames\n\n{as_table(by_frames)}\n\n'
        f'![Time and memory against frames]({picture.name})',
        f'### Blocks\n\n{as_table(by_blocks)}',
        f'### Processes\n\nDistributed data parallel, {args.threads} thread '
        f'each, {args.frames[0]} frames.\n\n{processes}',
        paper_section(args, by_frames[min(1, len(by_frames) - 1)])
    ])
    publish(args, 'scale', 'Scale', body)
    return 0


if __name__ == '__main__':
    sys.exit(main())

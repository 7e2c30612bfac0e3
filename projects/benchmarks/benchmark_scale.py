"""Memory and time against frames, blocks and processes; a run on paper.

    python projects/benchmarks/benchmark_scale.py \
        [--annotations thumos_14_anno.json]

A step is one of block drop: teacher and student forward, the paper's three
alignments, LoRA, backward. Every figure comes from a process of its own
(without a GPU), so that its peak memory is known.
"""
import argparse
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence

from mmblockdrop.compression import BlockStack, add_lora
from mmblockdrop.distillation import TeacherStudentWrapper
from mmblockdrop.registry import DATASETS, MODELS
from mmblockdrop.report import complexity, markdown_table
from mmblockdrop.rounds.schedule import Phase, Validation
from mmblockdrop.utils.canvas import canvas, save_figure
from mmblockdrop.utils.meta import empty_weights

import torch
import torch.distributed as dist
from common import (PAGE, ROOT, add_arguments, detector, in_new_process,
                    noise_windows, peak_resident, publish, quiet, restart_peak)
from mmengine.config import Config
from torch.nn.parallel import DistributedDataParallel

RUN = ('configs/thumos14/blockdrop_vit-{}-p16-lora_videomae-k400-pre_2xb1-'
       '{}x60e_thumos14-768x160.py')
DEVICES = 8


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Read the command line."""
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


# ---- a window and a step


def localizer(args: argparse.Namespace, frames: int, blocks: int) -> Config:
    """Config of the detector that is measured."""
    return detector(frames, args.size, args.width, blocks, 128)


def student_and_teacher(args: argparse.Namespace, frames: int,
                        blocks: int) -> TeacherStudentWrapper:
    """A wrapper ready for a step, with LoRA of a quarter of the width.

    Args:
        args: See :func:`parse_args`.
        frames: Frames of a window.
        blocks: Blocks of the transformer.

    Returns:
        On the device.
    """
    torch.manual_seed(0)
    cfg = localizer(args, frames, blocks)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / 'teacher.pth')
        torch.save(
            dict(state_dict=MODELS.build(cfg).state_dict(), meta={}), path)
        model = TeacherStudentWrapper(localizer=cfg, checkpoint=path)
        model.init_weights()
    BlockStack(model.student, 'backbone.blocks').remove(blocks // 2)
    model.student.backbone.requires_grad_(False)
    add_lora(model.student.backbone.blocks, rank=args.width // 4)
    return model.to(args.device).train()


def measured(args: argparse.Namespace,
             work: Callable[[], Any]) -> Dict[str, float]:
    """Time and memory of a call that was made once to warm up.

    Args:
        args: See :func:`parse_args`.
        work: What is measured.

    Returns:
        Median ``seconds``, and ``mb`` (1e6 bytes) above what was there before.
    """
    on_gpu = args.device == 'cuda'
    before = torch.cuda.memory_allocated() if on_gpu else restart_peak()
    times = []
    for _ in range(args.repeats + 1):
        began = time.perf_counter()
        work()
        if on_gpu:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    peak = torch.cuda.max_memory_allocated() if on_gpu else peak_resident()
    return dict(seconds=statistics.median(times[1:]),
                mb=(peak - before) / 1e6)


def forward(args: argparse.Namespace, frames: int,
            blocks: int) -> Dict[str, float]:
    """One window without gradients.

    Args:
        args: See :func:`parse_args`.
        frames: Frames of a window.
        blocks: Blocks of the transformer.

    Returns:
        What :func:`measured` gives, and ``macs``.
    """
    quiet()
    model = MODELS.build(localizer(args, frames, blocks))
    model = model.to(args.device).eval()
    data = noise_windows(1, frames, args.size, [[20., 60.]], args.device)
    with torch.inference_mode():
        found = measured(args, lambda: model(**data))
    return dict(found, macs=complexity(model, data['inputs'])['total'].macs)


def step(args: argparse.Namespace, frames: int, blocks: int,
         size: int = 1, group: Optional[str] = None, rank: int = 0,
         world: int = 1) -> Dict[str, float]:
    """One training step.

    Args:
        args: See :func:`parse_args`.
        frames: Frames of a window.
        blocks: Blocks of the transformer.
        size: Windows of this process.
        group: File by which the processes meet.
        rank: Number of this process.
        world: Processes.

    Returns:
        What :func:`measured` gives.
    """
    quiet()
    torch.set_num_threads(args.threads)
    torch.manual_seed(rank)
    model = student_and_teacher(args, frames, blocks)
    parse = model.parse_losses
    if group is not None:
        dist.init_process_group('gloo', f'file://{group}', rank=rank,
                                world_size=world)
        model = DistributedDataParallel(model)
    data = noise_windows(size, frames, args.size, [[20., 60.]], args.device)
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], 1e-4)

    def work() -> None:
        loss, _ = parse(model(**data, mode='loss'))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return measured(args, work)


def apart(args: argparse.Namespace, work: Callable,
          *values: Any) -> Dict[str, float]:
    """Measure in a process of its own, or here on a GPU.

    Args:
        args: See :func:`parse_args`.
        work: :func:`forward` or :func:`step`.
        *values: Its arguments after ``args``.

    Returns:
        What it returns.
    """
    if args.device == 'cuda':
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return work(args, *values)
    return in_new_process(work, args, *values)


def two_processes(args: argparse.Namespace, frames: int,
                  blocks: int) -> Dict[str, float]:
    """A step of two windows on two processes, one each.

    Args:
        args: See :func:`parse_args`.
        frames: Frames of a window.
        blocks: Blocks of the transformer.

    Returns:
        The slower process's ``seconds``, the larger one's ``mb``.
    """
    with tempfile.TemporaryDirectory() as folder, \
            multiprocessing.get_context('spawn').Pool(2) as pool:
        found = pool.starmap(step, [
            (args, frames, blocks, 1, os.path.join(folder, 'group'), rank, 2)
            for rank in (0, 1)
        ], chunksize=1)
    return {key: max(x[key] for x in found) for key in found[0]}


# ---- a full run on paper


def windows_of(dataset: Dict[str, Any], annotations: Path) -> int:
    """Windows of a data set, from its annotations alone.

    Args:
        dataset: Its config.
        annotations: ActivityNet-style JSON.

    Returns:
        Number of samples.
    """
    cfg = dict(
        dataset,
        data_root='',
        data_prefix=dict(),
        ann_file=str(annotations),
        classes=str(annotations.parent / 'category_idx.txt'),
        pipeline=[])
    return len(DATASETS.build(cfg))


def paper_run(size: str, rounds: int, annotations: Path,
              step_factor: float) -> Dict[str, float]:
    """Multiply-accumulates of a whole run of block drop.

    Args:
        size: 'small' or 'large'.
        rounds: Rounds of its config.
        annotations: Of THUMOS14.
        step_factor: Cost of a training step in forward passes of the teacher
            and the student.

    Returns:
        Counts, and MACs by part.
    """
    cfg = Config.fromfile(str(ROOT / RUN.format(size, rounds)))
    with empty_weights():
        model = MODELS.build(cfg.model.localizer).to('meta')
    stack = BlockStack(model, 'backbone.blocks')
    train = cfg.train_cfg
    videos = windows_of(cfg.train_dataloader.dataset, annotations)
    scored = windows_of(train.score_dataloader.dataset, annotations)
    val = windows_of(cfg.val_dataloader.dataset, annotations)
    shape = torch.zeros(1, 1, 3, 768, 160, 160, device='meta')
    full = complexity(model, shape)['total'].macs
    epochs = train.epochs_per_round
    phase = Phase(epochs, Validation(**train.get('validation', {})))
    checks = 1 + sum(phase.due(epoch + 1) for epoch in range(epochs))
    parts = dict(plain=0, shared=0, train=0, validate=0)
    now = full
    for _ in range(rounds):
        n = len(stack.remaining)
        stack.remove(stack.remaining[-1])
        less = complexity(model, shape)['total'].macs
        block = now - less
        rest = now - n * block
        parts['plain'] += scored * n * less
        parts['shared'] += scored * (n * rest + block *
                                     (n - 1 + n * (n - 1) / 2))
        parts['train'] += videos * epochs * step_factor * (full + less) / 2
        parts['validate'] += val * checks * less
        now = less
    return dict(parts, size=size, rounds=rounds, videos=videos,
                scored=scored, val=val, full=full)


def paper_section(args: argparse.Namespace,
                  measured: Dict[str, float]) -> str:
    """The full THUMOS14 runs, worked out.

    Args:
        args: ``annotations`` and ``tmacs``.
        measured: ``frames``, ``macs`` and seconds of ``forward`` and ``step``
            of a long window.

    Returns:
        Markdown.
    """
    if not args.annotations.is_file():
        return ('### A full THUMOS14 run, on paper\n\nNot worked out: there '
                f'was no {args.annotations.name}.')
    factor = measured['step'] / measured['forward']
    speed = args.tmacs or measured['macs'] / measured['forward'] / 1e12
    runs = [paper_run(size, rounds, args.annotations, factor)
            for size, rounds in (('small', 3), ('large', 6))]
    rows = []
    for key, name in (('plain', 'score, plain'), ('shared', 'score, shared'),
                      ('train', 'train'), ('validate', 'validate')):
        row = {'part': name}
        for run in runs:
            hours = run[key] / (speed * 1e12 * DEVICES) / 3600
            row[f'{run["size"]}: PMACs'] = f'{run[key] / 1e15:.1f}'
            row[f'{run["size"]}: hours'] = f'{hours:.2f}'
        rows.append(row)
    total = {'part': 'all, with shared scoring'}
    for run in runs:
        macs = run['shared'] + run['train'] + run['validate']
        total[f'{run["size"]}: PMACs'] = f'{macs / 1e15:.1f}'
        total[f'{run["size"]}: hours'] = (
            f'{macs / (speed * 1e12 * DEVICES) / 3600:.2f}')
    run = runs[0]
    return (
        '### A full THUMOS14 run, on paper\n\nNot run: worked out from the '
        'configs `blockdrop_vit-{small,large}...thumos14-768x160` and parts '
        f'measured here. A round trains {run["videos"]} windows an epoch, '
        f'scores on {run["scored"]} windows and validates on {run["val"]}; '
        f'{runs[0]["rounds"]} rounds for VideoMAE-S '
        f'({runs[0]["full"] / 1e12:.2f} T multiply-accumulates a window), '
        f'{runs[1]["rounds"]} for VideoMAE-L '
        f'({runs[1]["full"] / 1e12:.2f} T). A training step costs '
        f'{factor:.2f} forward passes of a window of the mean of teacher and '
        f'student ({measured["frames"]} frames, measured above; without '
        'activation checkpointing, which adds one pass of the student). '
        f'Hours: {DEVICES} devices of {speed:.3f} T multiply-accumulates a '
        f'second each ({"given" if args.tmacs else "measured above"}), no '
        'loss between them and none by decoding or suppression.\n\n'
        f'{markdown_table([*rows, total])}')


# ---- the section


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
    figure = canvas(7.6, 3.2)
    left, right = figure.subplots(1, 2)
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
    save_figure(figure, path)


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the benchmark and write its section."""
    args = parse_args(argv)
    torch.set_num_threads(args.threads)
    quiet()
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

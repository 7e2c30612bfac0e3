"""Memory and time against frames, blocks and processes; a run on paper.

    python tools/analysis_tools/benchmark_scale.py \
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

import mmblockdrop  # noqa: F401  (first: it mends the stack)
import torch
import torch.distributed as dist
from benchmark_page import PAGE, add_arguments, publish
from mmaction.structures import ActionDataSample
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from torch.nn.parallel import DistributedDataParallel

from mmblockdrop.blocks import BlockStack, add_lora
from mmblockdrop.distill import TeacherStudentWrapper
from mmblockdrop.registry import DATASETS, MODELS
from mmblockdrop.report import complexity, empty_weights, markdown_table

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / 'configs/_base_/models/actionformer_videomae-small.py'
RUN = ('configs/thumos14/blockdrop_vit-{}-p16-lora_videomae-k400-pre_2xb1-'
       '{}x60e_thumos14-768x160.py')
DEVICES = 8


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Read the command line.

    Args:
        argv (Sequence[str], optional): Defaults to ``sys.argv``.

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


def localizer(args: argparse.Namespace, frames: int, blocks: int) -> Config:
    """Config of the detector that is measured.

    Args:
        args (argparse.Namespace): See :func:`parse_args`.
        frames (int): Frames and steps of a window.
        blocks (int): Blocks of the transformer.

    Returns:
        Config: The model.
    """
    cfg = Config.fromfile(str(MODEL)).model
    cfg.window_size = cfg.projection.max_seq_len = frames
    for key in ('lora', 'trainable', 'pretrained'):
        cfg.backbone.pop(key, None)
    cfg.backbone.update(
        img_size=args.size, embed_dims=args.width, depth=blocks,
        num_heads=args.width // 64, with_cp=False)
    cfg.projection.update(in_channels=args.width, out_channels=128)
    cfg.neck.update(in_channels=128, out_channels=128)
    cfg.head.update(in_channels=128)
    return cfg


def batch(args: argparse.Namespace, frames: int, size: int) -> Dict[str, Any]:
    """Windows of noise with one action each.

    Args:
        args (argparse.Namespace): See :func:`parse_args`.
        frames (int): Frames of a window.
        size (int): Windows.

    Returns:
        dict: ``inputs`` and ``data_samples``.
    """
    samples = []
    for _ in range(size):
        sample = ActionDataSample()
        sample.gt_instances = InstanceData(
            segments=torch.tensor([[20., 60.]], device=args.device),
            labels=torch.tensor([1], device=args.device))
        sample.set_metainfo(dict(valid_steps=frames))
        samples.append(sample)
    inputs = torch.randn(size, 1, 3, frames, args.size, args.size,
                         device=args.device)
    return dict(inputs=inputs, data_samples=samples)


def student_and_teacher(args: argparse.Namespace, frames: int,
                        blocks: int) -> TeacherStudentWrapper:
    """A wrapper ready for a step, with LoRA of a quarter of the width.

    Args:
        args (argparse.Namespace): See :func:`parse_args`.
        frames (int): Frames of a window.
        blocks (int): Blocks of the transformer.

    Returns:
        TeacherStudentWrapper: On the device.
    """
    torch.manual_seed(0)
    cfg = localizer(args, frames, blocks)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / 'teacher.pth')
        torch.save(
            dict(state_dict=MODELS.build(cfg).state_dict(), meta={}), path)
        model = TeacherStudentWrapper(localizer=cfg, checkpoint=path)
        model.init_weights()
    BlockStack(model.student, 'backbone.blocks').drop(blocks // 2)
    model.student.backbone.requires_grad_(False)
    add_lora(model.student.backbone.blocks, rank=args.width // 4)
    return model.to(args.device).train()


def median_time(args: argparse.Namespace, work: Callable[[], Any]) -> float:
    """Median seconds of a call after one to warm up.

    Args:
        args (argparse.Namespace): See :func:`parse_args`.
        work (Callable): What is timed.

    Returns:
        float: Seconds.
    """
    times = []
    for _ in range(args.repeats + 1):
        began = time.perf_counter()
        work()
        if args.device == 'cuda':
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


def memory(args: argparse.Namespace, peak: bool) -> float:
    """Memory of this process, or of the GPU, in MB.

    Args:
        args (argparse.Namespace): See :func:`parse_args`.
        peak (bool): The most there was, not what is there now.

    Returns:
        float: MB of 1e6 bytes.
    """
    if args.device == 'cuda':
        return (torch.cuda.max_memory_allocated() if peak else
                torch.cuda.memory_allocated()) / 1e6
    key = 'VmHWM' if peak else 'VmRSS'
    for line in Path('/proc/self/status').read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1.024e-3
    raise RuntimeError('/proc/self/status tells no memory')


def forward(args: argparse.Namespace, frames: int,
            blocks: int) -> Dict[str, float]:
    """Time and memory of one window without gradients.

    Args:
        args (argparse.Namespace): See :func:`parse_args`.
        frames (int): Frames of a window.
        blocks (int): Blocks of the transformer.

    Returns:
        dict: ``seconds``, ``mb`` above what was there before, ``macs``.
    """
    model = MODELS.build(localizer(args, frames, blocks))
    model = model.to(args.device).eval()
    data = batch(args, frames, 1)
    before = memory(args, False)
    with torch.inference_mode():
        seconds = median_time(args, lambda: model(**data))
    return dict(
        seconds=seconds,
        mb=memory(args, True) - before,
        macs=complexity(model, data['inputs'])['total'].macs)


def step(args: argparse.Namespace, frames: int, blocks: int,
         size: int = 1, group: Optional[str] = None, rank: int = 0,
         world: int = 1) -> Dict[str, float]:
    """Time and memory of one training step.

    Args:
        args (argparse.Namespace): See :func:`parse_args`.
        frames (int): Frames of a window.
        blocks (int): Blocks of the transformer.
        size (int): Windows of this process.
        group (str, optional): File by which the processes meet.
        rank (int): Number of this process.
        world (int): Processes.

    Returns:
        dict: ``seconds`` and ``mb`` above what was there before.
    """
    torch.manual_seed(rank)
    model = student_and_teacher(args, frames, blocks)
    parse = model.parse_losses
    if group is not None:
        dist.init_process_group('gloo', f'file://{group}', rank=rank,
                                world_size=world)
        model = DistributedDataParallel(model)
    data = batch(args, frames, size)
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], 1e-4)
    before = memory(args, False)

    def work() -> None:
        loss, _ = parse(model(**data, mode='loss'))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    seconds = median_time(args, work)
    return dict(seconds=seconds, mb=memory(args, True) - before)


def apart(args: argparse.Namespace, work: Callable, *values: Any,
          **options: Any) -> Dict[str, float]:
    """Call a function in a process of its own, or here on a GPU.

    Args:
        args (argparse.Namespace): See :func:`parse_args`.
        work (Callable): The function; gets ``args`` first.
        *values: Its arguments.
        **options: Its keyword arguments.

    Returns:
        dict: What it returns.
    """
    if args.device == 'cuda':
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return work(args, *values, **options)
    context = multiprocessing.get_context('fork')
    queue = context.Queue()
    process = _start(context, queue, args, work, values, options)
    result = queue.get()
    process.join()
    return result


def _start(context: Any, queue: Any, args: argparse.Namespace,
           work: Callable, values: tuple, options: dict) -> Any:

    def call() -> None:
        torch.set_num_threads(args.threads)
        queue.put(work(args, *values, **options))

    process = context.Process(target=call)
    process.start()
    return process


def two_processes(args: argparse.Namespace, frames: int,
                  blocks: int) -> Dict[str, float]:
    """A step of two windows on two processes, one each.

    Args:
        args (argparse.Namespace): See :func:`parse_args`.
        frames (int): Frames of a window.
        blocks (int): Blocks of the transformer.

    Returns:
        dict: The slower process's ``seconds``, the larger one's ``mb``.
    """
    context = multiprocessing.get_context('fork')
    queue = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        group = os.path.join(folder, 'group')
        processes = [
            _start(context, queue, args, step, (frames, blocks),
                   dict(group=group, rank=rank, world=2)) for rank in (0, 1)
        ]
        found = [queue.get() for _ in processes]
        for process in processes:
            process.join()
    return {key: max(x[key] for x in found) for key in found[0]}


def size_rows(args: argparse.Namespace, frames: Sequence[int],
              blocks: Sequence[int]) -> List[Dict[str, float]]:
    """Measure a window and a step for every size.

    Args:
        args (argparse.Namespace): See :func:`parse_args`.
        frames (Sequence[int]): Frames of a window.
        blocks (Sequence[int]): Blocks, as many.

    Returns:
        list[dict]: Numbers.
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
        args (argparse.Namespace): See :func:`parse_args`.
        by_frames (list[dict]): Numbers.
        path (Path): PNG to write.
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


def windows_of(dataset: Dict[str, Any], annotations: Path) -> int:
    """Windows of a data set, from its annotations alone.

    Args:
        dataset (dict): Its config.
        annotations (Path): ActivityNet-style JSON.

    Returns:
        int: Number of samples.
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
        size (str): 'small' or 'large'.
        rounds (int): Rounds of its config.
        annotations (Path): Of THUMOS14.
        step_factor (float): Cost of a training step in forward passes of
            the teacher and the student.

    Returns:
        dict: Counts, and MACs by part.
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
    checks = len(range(train.val_begin, epochs + 1, train.val_interval)) + 1
    parts = dict(plain=0, shared=0, train=0, validate=0)
    now = full
    for _ in range(rounds):
        n = len(stack.left)
        stack.drop(stack.left[-1])
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
        args (argparse.Namespace): See :func:`parse_args`.
        measured (dict): Numbers of :func:`size_rows` for a long window.

    Returns:
        str: Markdown.
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

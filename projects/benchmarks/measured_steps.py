"""Time and memory of a window and of a training step, by size.

A step is one of block drop: teacher and student forward, the paper's three
alignments, LoRA, backward. Every figure comes from a process of its own
(without a GPU), so that its peak memory is known.
"""
import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, Optional

from mmblockdrop.compression import BlockStack, add_lora
from mmblockdrop.distillation import TeacherStudentWrapper
from mmblockdrop.registry import MODELS
from mmblockdrop.report import complexity

import torch
import torch.distributed as dist
from benchmark_models import narrow, noise_windows, trained_detector
from mmengine.config import Config
from peak_memory import peak_resident, resident
from torch.nn.parallel import DistributedDataParallel


def localizer(args: argparse.Namespace, frames: int, blocks: int) -> Config:
    """Config of the detector that is measured.

    Args:
        args: Of ``benchmark_scale.py``.
        frames: Frames and steps of a window.
        blocks: Blocks of the transformer.

    Returns:
        The model.
    """
    cfg = narrow(trained_detector(frames, args.size), args.width)
    cfg.backbone.depth = blocks
    return cfg


def batch(args: argparse.Namespace, frames: int, size: int) -> Dict[str, Any]:
    """Windows of noise with one action each.

    Args:
        args: Of ``benchmark_scale.py``.
        frames: Frames of a window.
        size: Windows.

    Returns:
        ``inputs`` and ``data_samples``.
    """
    return noise_windows(size, frames, args.size, [[20., 60.]], args.device)


def student_and_teacher(args: argparse.Namespace, frames: int,
                        blocks: int) -> TeacherStudentWrapper:
    """A wrapper ready for a step, with LoRA of a quarter of the width.

    Args:
        args: Of ``benchmark_scale.py``.
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


def median_time(args: argparse.Namespace, work: Callable[[], Any]) -> float:
    """Median seconds of a call after one to warm up.

    Args:
        args: Of ``benchmark_scale.py``.
        work: What is timed.

    Returns:
        Seconds.
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
        args: Of ``benchmark_scale.py``.
        peak: The most there was, not what is there now.

    Returns:
        MB of 1e6 bytes.
    """
    if args.device == 'cuda':
        return (torch.cuda.max_memory_allocated() if peak else
                torch.cuda.memory_allocated()) / 1e6
    return (peak_resident() if peak else resident()) / 1e6


def forward(args: argparse.Namespace, frames: int,
            blocks: int) -> Dict[str, float]:
    """Time and memory of one window without gradients.

    Args:
        args: Of ``benchmark_scale.py``.
        frames: Frames of a window.
        blocks: Blocks of the transformer.

    Returns:
        ``seconds``, ``mb`` above what was there before, ``macs``.
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
        args: Of ``benchmark_scale.py``.
        frames: Frames of a window.
        blocks: Blocks of the transformer.
        size: Windows of this process.
        group: File by which the processes meet.
        rank: Number of this process.
        world: Processes.

    Returns:
        ``seconds`` and ``mb`` above what was there before.
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
        args: Of ``benchmark_scale.py``.
        work: The function; gets ``args`` first.
        *values: Its arguments.
        **options: Its keyword arguments.

    Returns:
        What it returns.
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
        args: Of ``benchmark_scale.py``.
        frames: Frames of a window.
        blocks: Blocks of the transformer.

    Returns:
        The slower process's ``seconds``, the larger one's ``mb``.
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

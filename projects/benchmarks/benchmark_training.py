"""A training step beside the teacher, against the same written plainly.

    python projects/benchmarks/benchmark_training.py

*Plain* keeps what a straightforward version keeps: every feature of the
teacher until the end of the step, a copy of what attention leaves in every
block of both models, attention as two matrix products around a softmax, losses
at the end. *Ours* is the wrapper as it trains. Both share weights,
inputs, losses and optimizer. Time is taken in turns in one process; memory on
the CPU in processes of their own, on a GPU by torch.
"""
import argparse
import copy
import itertools
import statistics
import sys
from contextlib import ExitStack, contextmanager
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence

from mmblockdrop.compression import BlockStack, add_lora
from mmblockdrop.distillation import TeacherStudentWrapper, record
from mmblockdrop.registry import MODELS
from mmblockdrop.report import markdown_table

import torch
from common import (add_arguments, alternate, detector, in_new_process,
                    median_ratio, noise_windows, peak_resident, publish, quiet,
                    restart_peak)
from torch import Tensor, nn

STACK = 'backbone.blocks'
#: Width and depth of VideoMAE's encoders, and of one for quick looks.
SIZES = dict(tiny=(32, 3), S=(384, 12), B=(768, 12), L=(1024, 24))
CLIP_FRAMES = 16


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--size', choices=SIZES, default='S',
                        help='encoder of VideoMAE (default: S)')
    parser.add_argument(
        '--frames', type=int, nargs='+', default=[32, 96],
        help='frames of a window, multiples of 16 (default: 32 96)')
    parser.add_argument('--pixels', type=int, default=160)
    parser.add_argument('--batch-size', type=int, default=1)
    parser.add_argument(
        '--modes', nargs='+', default=['lora', 'full'],
        choices=['lora', 'full'], help='what is trained (default: both)')
    parser.add_argument('--with-cp', action='store_true',
                        help='also with activations recomputed')
    parser.add_argument('--precision', choices=['fp32', 'bf16'],
                        default='fp32')
    parser.add_argument('--dropped', type=int, default=1,
                        help='blocks the student has lost (default: 1)')
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--device', default='cuda'
                        if torch.cuda.is_available() else 'cpu')
    add_arguments(parser)
    args = parser.parse_args(argv)
    for frames in args.frames:
        if frames % CLIP_FRAMES:
            parser.error(f'--frames {frames} is not a multiple of '
                         f'{CLIP_FRAMES}')
    return args


def plain_attention(self: nn.Module, x: Tensor) -> Tensor:
    """Attention as two matrix products around a softmax."""
    b, n, c = x.shape
    qkv = self.qkv(x)
    if hasattr(self, 'q_bias'):
        qkv = qkv + torch.cat(
            (self.q_bias, torch.zeros_like(self.v_bias), self.v_bias))
    qkv = qkv.reshape(b, n, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
    q, k, v = qkv[0] * self.scale, qkv[1], qkv[2]
    weights = self.attn_drop((q @ k.transpose(-2, -1)).softmax(-1))
    x = (weights @ v).transpose(1, 2).reshape(b, n, -1)
    return self.proj_drop(self.proj(x))


@contextmanager
def attention_of(way: str, model: TeacherStudentWrapper) -> Iterator[None]:
    """Let both models compute attention plainly, if that is the way.

    It lasts until after the backward pass, which may recompute it.
    """
    modules = [
        block.attn for localizer in (model.teacher, model.student)
        for block in localizer.backbone.blocks
        if way == 'plain' and hasattr(block, 'attn')
    ]
    for module in modules:
        module.forward = plain_attention.__get__(module)
    try:
        yield
    finally:
        for module in modules:
            del module.forward


def plain_losses(model: TeacherStudentWrapper,
                 batch: Dict[str, Any]) -> Dict[str, Tensor]:
    """Losses of a step that records everything first.

    Args:
        model: Student and teacher.
        batch: What the model takes.

    Returns:
        As the wrapper's.
    """
    teacher, student = model.teacher, model.student
    kept: List[Any] = []
    paths = model.alignment_paths()
    stack = BlockStack(student, STACK)
    inside = [f'{stack.names[i]}.norm2:input' for i in stack.remaining]

    def run(localizer: nn.Module, mode: str) -> Any:
        with record(localizer, paths + inside) as out:
            result = localizer(**batch, mode=mode)
        kept.append([out[path].clone() for path in inside])
        return result, out

    with torch.no_grad():
        _, theirs = run(teacher, 'tensor')
    losses, ours = run(student, 'loss')
    for name, alignment in model.alignments.items():
        losses[f'loss_align_{name}'] = alignment.weight * alignment(
            ours, theirs, student, batch['data_samples'])
    losses['kept'] = kept  # until the backward pass is over
    return losses


def our_losses(model: TeacherStudentWrapper,
               batch: Dict[str, Any]) -> Dict[str, Tensor]:
    """Losses of a step as the wrapper takes them."""
    return model(**batch, mode='loss')


#: Name to what computes the losses of a step.
WAYS: Dict[str, Callable] = dict(plain=plain_losses, ours=our_losses)


def check_same(model: TeacherStudentWrapper, batch: Dict[str, Any]) -> None:
    """Check that the two steps that are compared compute the same losses.

    Args:
        model: Student and teacher.
        batch: What the model takes.

    Raises:
        RuntimeError: If they differ.
    """
    values = {}
    model.eval()
    for way, losses in WAYS.items():
        with attention_of(way, model):
            values[way] = {k: float(v.detach())
                           for k, v in losses(model, batch).items()
                           if 'loss' in k}
    model.train()
    for name, value in values['plain'].items():
        ours = values['ours'][name]
        if abs(ours - value) > 1e-3 * max(1e-3, abs(value)):
            raise RuntimeError(f'{name} is {value} plainly and {ours} in the '
                               'wrapper: the two steps differ')


def build(args: argparse.Namespace, frames: int, mode: str,
          with_cp: bool) -> TeacherStudentWrapper:
    """Student and teacher of random weights, ready to be trained.

    Args:
        args: Sizes, device and dropped blocks.
        frames: Frames of a window.
        mode: ``lora`` or ``full``.
        with_cp: Recompute activations.

    Returns:
        In training mode.
    """
    torch.manual_seed(0)
    width, depth = SIZES[args.size]
    model = MODELS.build(
        dict(
            type='mmblockdrop.TeacherStudentWrapper',
            localizer=detector(
                frames, args.pixels, width, depth, min(512, 8 * width),
                levels=3, with_cp=with_cp)))
    teacher = copy.deepcopy(model.student)
    model.__dict__['teacher'] = teacher.requires_grad_(False).eval()
    stack = BlockStack(model.student, STACK)
    for index in range(1, 1 + args.dropped):
        stack.remove(index)
    if mode == 'lora':
        encoder = model.student.backbone
        for name, parameter in encoder.named_parameters():
            parameter.requires_grad_('norm' in name or 'patch_embed' in name)
        encoder.fc_norm is None or encoder.fc_norm.requires_grad_(False)
        add_lora(encoder, rank=max(1, encoder.embed_dims // 4))
    return model.to(args.device).train()


def make_batch(args: argparse.Namespace, frames: int) -> Dict[str, Any]:
    """A batch of noise with two actions a window.

    Args:
        args: Batch size, pixels and device.
        frames: Frames of a window.

    Returns:
        ``inputs`` and ``data_samples`` as the model takes them.
    """
    torch.manual_seed(1)
    segments = [[1., frames / 4], [frames / 2, frames * .9]]
    return noise_windows(args.batch_size, frames, args.pixels, segments,
                         args.device)


def step_of(way: str, args: argparse.Namespace, model: TeacherStudentWrapper,
            batch: Dict[str, Any]) -> Callable[[], float]:
    """One training step.

    Args:
        way: ``plain`` or ``ours``.
        args: Precision and device.
        model: Student and teacher.
        batch: What the model takes.

    Returns:
        Runs the step, returns its loss.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-6)

    def step() -> float:
        with attention_of(way, model):
            return take()

    def take() -> float:
        with ExitStack() as context:
            if args.precision == 'bf16':
                context.enter_context(
                    torch.autocast(args.device.split(':')[0],
                                   torch.bfloat16))
            losses = WAYS[way](model, batch)
            total = sum(v for k, v in losses.items() if 'loss' in k)
        total.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(total.detach())

    return step


def peak_bytes(way: str, args: argparse.Namespace, frames: int, mode: str,
               with_cp: bool) -> int:
    """Memory of a step on top of models, optimizer and inputs.

    Args:
        way: ``plain`` or ``ours``.
        args: Sizes and device.
        frames: Frames of a window.
        mode: ``lora`` or ``full``.
        with_cp: Recompute activations.

    Returns:
        Bytes. On the CPU the growth of the largest resident size of this
        process, which should be a fresh one.
    """
    quiet()
    model, batch = build(args, frames, mode, with_cp), make_batch(args, frames)
    gpu = args.device.startswith('cuda')
    if gpu:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else:
        before = restart_peak()
    step_of(way, args, model, batch)()
    if gpu:
        return torch.cuda.max_memory_allocated() - before
    return peak_resident() - before


def compare(args: argparse.Namespace, frames: int, mode: str,
            with_cp: bool) -> Dict[str, str]:
    """One line of the table.

    Args:
        args: See :func:`parse_args`.
        frames: Frames of a window.
        mode: ``lora`` or ``full``.
        with_cp: Recompute activations.

    Returns:
        Text by column.
    """
    case = (args, frames, mode, with_cp)
    memory = {
        way: peak_bytes(way, *case) if args.device.startswith('cuda') else
        in_new_process(peak_bytes, way, *case)
        for way in WAYS
    }
    model, batch = build(args, frames, mode, with_cp), make_batch(args, frames)
    check_same(model, batch)
    steps = {way: step_of(way, args, model, batch) for way in WAYS}
    times = alternate(steps, args.repeats, device=args.device)
    row = {
        'frames': str(frames),
        'trained': mode,
        'recomputed': 'yes' if with_cp else 'no'
    }
    for way in WAYS:
        row[f'{way} (s)'] = f'{statistics.median(times[way]):.3f}'
    row['time'] = f'{median_ratio(times["ours"], times["plain"]):.2f}'
    for way in WAYS:
        row[f'{way} (MiB)'] = f'{memory[way] / 2**20:.0f}'
    row['memory'] = f'{memory["ours"] / memory["plain"]:.2f}'
    return row


def main(argv: Optional[Sequence[str]] = None) -> str:
    """Measure and write the section; returns it."""
    args = parse_args(argv)
    quiet()
    recompute = (False, True) if args.with_cp else (False, )
    rows = [
        compare(args, *case)
        for case in itertools.product(args.frames, args.modes, recompute)
    ]
    pixels = f'{args.pixels} x {args.pixels}'
    return publish(
        args, 'training', 'Training step beside the teacher',
        f'VideoMAE-{args.size}, {args.dropped} of '
        f'{SIZES[args.size][1]} blocks dropped from the student, '
        f'{args.batch_size} window a step of {pixels} pixels, '
        f'{args.precision} on {args.device}. *Plain* keeps all features of '
        'the teacher to the end, copies what attention leaves in every '
        'block, and writes attention as two matrix products and a softmax; '
        '*ours* is `TeacherStudentWrapper`. Time is a whole step, forward '
        'passes of both, backward and AdamW; memory is what a step takes on '
        'top of models and inputs. `time` and `memory` are ours over plain.'
        f'\n\n{markdown_table(rows)}')


if __name__ == '__main__':
    sys.exit(not main())

"""A training step beside the teacher, written without any care."""
from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, List

from mmblockdrop.compression import BlockStack
from mmblockdrop.distillation import TeacherStudentWrapper, record

import torch
from torch import Tensor, nn

STACK = 'backbone.blocks'


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
    """Refuse to compare two steps that compute different losses.

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

"""Alignments whose loss is a mean over modules, taken one by one.

What the teacher computed at a module is let go as soon as the student has
been there; see :mod:`.side_by_side`.
"""
import difflib
from typing import Any, List, Optional, Tuple

import torch
from torch import Tensor, nn

from mmblockdrop.compression import BlockStack
from mmblockdrop.compression.bypass import block_tensor
from mmblockdrop.compression.blocks import StackPath
from mmblockdrop.registry import MODELS
from .alignments import Alignment, Recording
from .padding import clip_times, real_times, select_real

#: Mask of the steps that hold real video, by the samples' metainfo.
VALID_STEPS = 'valid_steps'


class PathwiseAlignment(Alignment):
    """Base of alignments that are a mean over the modules they record."""

    def compare(self, path: str, student_out: Any, teacher_out: Any,
                student: nn.Module, data_samples: list) -> Tensor:
        """Distance at one module.

        Args:
            path: The module, one of :meth:`paths`.
            student_out: What it returned in the student.
            teacher_out: What it returned in the teacher.
            student: The student localizer.
            data_samples: The samples of the batch.

        Returns:
            Scalar.
        """
        raise NotImplementedError

    def forward(self, student_out: Recording, teacher_out: Recording,
                student: nn.Module, data_samples: list) -> Tensor:
        """See :meth:`Alignment.forward`."""
        paths = self.paths(student)
        return sum(
            self.compare(p, student_out[p], teacher_out[p], student,
                         data_samples) for p in paths) / len(paths)


@MODELS.register_module()
class BlockAlignment(PathwiseAlignment):
    """Outputs of the surviving blocks, matched by original number.

    The loss is the mean over the blocks that are left (paper, feature level
    alignment). Features of padding are left out: the rows of a feature are
    taken as the clips of the windows, ``samples * clips``, and those count
    that begin in real video. A loss that compares every token for itself
    (its attribute ``tokenwise`` is true) sees real tokens only.

    Args:
        stack: Dotted path of the stack, as of the ``BlockDropHook``.
        submodule: Module inside each block whose output is compared;
            ``<name>:input`` compares its input (``norm2:input`` is what
            attention and its residual leave in a transformer block). Defaults
            to '', the block itself.
        include_padding: Count all rows and tokens, as the published code does;
            also where the first axis is something else than clips. Defaults to
            False.
        time_axis: Axis of the features that is the time of a clip: 2 for
            ``[clips, C, t, h, w]``, 1 for ``[clips, t, h, w, C]``. Defaults to
            None, tokens ``[clips, t * h * w, C]`` where the encoder has a
            position table, else whole clips.
        loss: Defaults to the mean squared error.
        weight: Defaults to 1.
    """

    def __init__(self,
                 stack: StackPath = 'backbone.blocks',
                 submodule: str = '',
                 include_padding: bool = False,
                 time_axis: Optional[int] = None,
                 loss: dict = dict(type='mmblockdrop.FeatureMSELoss'),
                 weight: float = 1.) -> None:
        super().__init__(loss, weight)
        self.stack, self.submodule = stack, submodule
        self.include_padding, self.time_axis = include_padding, time_axis

    def paths(self, student: nn.Module) -> List[str]:
        """See :meth:`Alignment.paths`."""
        stack = BlockStack(student, self.stack)
        tail = f'.{self.submodule}' if self.submodule else ''
        return [stack.names[i] + tail for i in stack.left]

    def compare(self, path: str, student_out: Any, teacher_out: Any,
                student: nn.Module, data_samples: list) -> Tensor:
        """See :meth:`PathwiseAlignment.compare`."""
        s, t = block_tensor(student_out), block_tensor(teacher_out)
        if not self.include_padding:
            s, t = self._real(path, s, t, student, data_samples)
        return self.loss(s, t) if len(s) else s.float().sum()

    def _real(self, path: str, s: Tensor, t: Tensor, student: nn.Module,
              data_samples: list) -> Tuple[Tensor, Tensor]:
        """What shows real video."""
        times, axis = 1, self.time_axis
        if not getattr(self.loss, 'tokenwise', False):
            axis = None
        elif axis is not None:
            times = s.shape[axis]
        elif s.dim() == 3:
            times = clip_times(student, path) or 1
            if s.shape[1] % times:
                times = 1
        real = real_times(len(s), times, data_samples, student)
        if real is None:
            return s, t
        if axis is not None:
            s, t = (x.movedim(axis, 1) for x in (s, t))
        elif times > 1:
            s, t = (x.unflatten(1, (times, -1)) for x in (s, t))
        else:
            real = real.squeeze(1)
        return select_real(s, t, real)


@MODELS.register_module()
class ModuleAlignment(PathwiseAlignment):
    """Output of one module, for any localizer.

    Where the output is a list (the levels of a pyramid) the loss is the
    mean over its entries.

    Args:
        module: Dotted path in the localizer; ``<path>:input`` for what goes
            into the module.
        index: Entry of a tuple or dict output. Defaults to None, the output as
            it is.
        mask: Which elements count. A dotted path of a tensor of the localizer
            that broadcasts to the output, such as ``bm_mask`` of BMN, whose
            non-zero entries count; or ``valid_steps`` for the steps (last
            axis) that hold real video, by ``valid_steps`` and ``window_size``
            of the samples. The loss is then given the elements that count as
            one row each, ``[N]``. Defaults to None, all of them.
        loss: Defaults to the mean squared error.
        weight: Defaults to 1.

    Raises:
        ValueError: ``mask`` names no tensor of the localizer, or one that
            does not fit the output.
    """

    def __init__(self,
                 module: str,
                 index: Any = None,
                 mask: Optional[str] = None,
                 loss: dict = dict(type='mmblockdrop.FeatureMSELoss'),
                 weight: float = 1.) -> None:
        super().__init__(loss, weight)
        self.module, self.index, self.mask = module, index, mask

    def paths(self, student: nn.Module) -> List[str]:
        """See :meth:`Alignment.paths`."""
        if self.mask not in (None, VALID_STEPS):
            find_tensor(student, self.mask)
        return [self.module]

    def compare(self, path: str, student_out: Any, teacher_out: Any,
                student: nn.Module, data_samples: list) -> Tensor:
        """See :meth:`PathwiseAlignment.compare`."""
        s, t = student_out, teacher_out
        if self.index is not None:
            s, t = s[self.index], t[self.index]
        if isinstance(s, Tensor):
            s, t = [s], [t]
        pairs = [(a, b) for a, b in zip(s, t)]
        if self.mask is not None:
            pairs = [self._select(a, b, student, data_samples)
                     for a, b in pairs]
        return sum(self.loss(a, b) for a, b in pairs) / len(pairs)

    def _select(self, s: Tensor, t: Tensor, student: nn.Module,
                data_samples: list) -> Tuple[Tensor, Tensor]:
        """Elements that count, of student and teacher."""
        if self.mask == VALID_STEPS:
            length = s.shape[-1]
            sizes = [x.get('window_size', length) for x in data_samples]
            share = [
                x.get(VALID_STEPS, n) / n for x, n in zip(data_samples, sizes)
            ]
            limit = torch.tensor(share, device=s.device)[:, None]
            mask = torch.arange(length, device=s.device) / length < limit
            mask = mask.view(len(share), *[1] * (s.dim() - 2), -1)
        else:
            mask = find_tensor(student, self.mask).to(s.device) != 0
        try:
            mask = mask.expand_as(s)
        except RuntimeError:
            raise ValueError(
                f'mask={self.mask!r} of the alignment of {self.module!r} has '
                f'shape {tuple(mask.shape)}, which does not fit the output '
                f'{tuple(s.shape)}') from None
        return s[mask], t[mask]


def find_tensor(model: nn.Module, path: str) -> Tensor:
    """Take a buffer or parameter of a model.

    Args:
        model: Any model.
        path: Dotted path, as in its state dict.

    Returns:
        The tensor.

    Raises:
        ValueError: No such tensor; names the nearest.
    """
    tensors = dict(model.named_buffers())
    if path in tensors:
        return tensors[path]
    tensors.update(model.named_parameters())
    if path not in tensors:
        near = difflib.get_close_matches(path, tensors, n=1, cutoff=0.3)
        hint = f' Did you mean {near[0]!r}?' if near else ''
        raise ValueError(
            f'mask={path!r} of an alignment is neither {VALID_STEPS!r} nor a '
            f'tensor of {type(model).__name__}.{hint}')
    return tensors[path]

"""What of the student is compared with what of the teacher.

An alignment names the modules whose outputs it needs and turns the two
recordings into one scalar. The wrapper runs both models and records.

Features of padding are left out: a window that reaches beyond its video
repeats the last frame, and the samples say by ``valid_steps`` how many of
their ``window_size`` grid steps are real.
"""
from typing import Any, Dict, List, Optional, Tuple

from mmblockdrop.compression import BlockStack, StackPath, block_tensor
from mmblockdrop.registry import MODELS, replaced_by
from mmblockdrop.structures.time_grid import valid_share
from mmblockdrop.utils.messages import did_you_mean

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

Recording = Dict[str, Any]
#: Mask of the grid steps that hold real video, by the samples' metainfo.
VALID_STEPS = 'valid_steps'


class Alignment(BaseModule):
    """Base of all alignments.

    Args:
        loss: Config of the distance.
        weight: Factor of the loss. Defaults to 1.
    """

    def __init__(self, loss: dict, weight: float = 1.) -> None:
        super().__init__()
        self.loss = MODELS.build(loss)
        self.weight = weight

    def paths(self, student: nn.Module) -> List[str]:
        """Dotted paths of the modules to record, in both models.

        Args:
            student: The student localizer.

        Returns:
            Paths.
        """
        raise NotImplementedError

    def forward(self, student_out: Recording, teacher_out: Recording,
                student: nn.Module, data_samples: list) -> Tensor:
        """Distance between the two recordings.

        Args:
            student_out: Path to output, of the student.
            teacher_out: Path to output, of the teacher.
            student: The student localizer.
            data_samples: The samples of the batch.

        Returns:
            Scalar, before ``weight``.
        """
        raise NotImplementedError


class FeatureAlignment(Alignment):
    """Base of alignments that are a mean over the modules they record.

    Each module is compared as soon as the student has run it, so that the
    teacher's output there can be let go.
    """

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
        return mean([
            self.compare(p, student_out[p], teacher_out[p], student,
                         data_samples) for p in self.paths(student)
        ])


@MODELS.register_module()
@replaced_by('mmblockdrop.PublishedBlockAlignment', 'include_padding')
class BlockAlignment(FeatureAlignment):
    """Outputs of the surviving blocks, matched by original number.

    The loss is the mean over the remaining blocks (paper, feature level
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
                 time_axis: Optional[int] = None,
                 loss: dict = dict(type='mmblockdrop.FeatureMSELoss'),
                 weight: float = 1.) -> None:
        super().__init__(loss, weight)
        self.stack, self.submodule = stack, submodule
        self.time_axis = time_axis

    def paths(self, student: nn.Module) -> List[str]:
        """See :meth:`Alignment.paths`."""
        stack = BlockStack(student, self.stack)
        tail = f'.{self.submodule}' if self.submodule else ''
        return [stack.names[i] + tail for i in stack.remaining]

    def compare(self, path: str, student_out: Any, teacher_out: Any,
                student: nn.Module, data_samples: list) -> Tensor:
        """See :meth:`FeatureAlignment.compare`."""
        s, t = block_tensor(student_out), block_tensor(teacher_out)
        s, t = self.real_video(path, s, t, student, data_samples)
        return self.loss(s, t) if len(s) else s.float().sum()

    def real_video(self, path: str, s: Tensor, t: Tensor, student: nn.Module,
                   data_samples: list) -> Tuple[Tensor, Tensor]:
        """Take what shows real video.

        Args:
            path: Block the features are of.
            s: Feature of the student.
            t: Feature of the teacher, same shape.
            student: The localizer.
            data_samples: The samples of the batch.

        Returns:
            Rows, or tokens, of both that are not padding.
        """
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
class ModuleAlignment(FeatureAlignment):
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
            non-zero entries count; or ``valid_steps`` for the grid steps (last
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
        """See :meth:`FeatureAlignment.compare`."""
        s, t = student_out, teacher_out
        if self.index is not None:
            s, t = s[self.index], t[self.index]
        if isinstance(s, Tensor):
            s, t = [s], [t]
        pairs = [(a, b) for a, b in zip(s, t)]
        if self.mask is not None:
            pairs = [self._select(a, b, student, data_samples)
                     for a, b in pairs]
        return mean([self.loss(a, b) for a, b in pairs])

    def _select(self, s: Tensor, t: Tensor, student: nn.Module,
                data_samples: list) -> Tuple[Tensor, Tensor]:
        """Elements that count, of student and teacher."""
        if self.mask == VALID_STEPS:
            length = s.shape[-1]
            share = [valid_share(x, length) for x in data_samples]
            limit = torch.tensor(share, device=s.device)[:, None]
            mask = torch.arange(length, device=s.device) / length < limit
            mask = mask.view(len(share), *[1] * (s.dim() - 2), -1)
        else:
            assert self.mask is not None
            mask = find_tensor(student, self.mask).to(s.device) != 0
        try:
            mask = mask.expand_as(s)
        except RuntimeError:
            raise ValueError(
                f'mask={self.mask!r} of the alignment of {self.module!r} has '
                f'shape {tuple(mask.shape)}, which does not fit the output '
                f'{tuple(s.shape)}') from None
        return s[mask], t[mask]


@MODELS.register_module()
class ClassAlignment(Alignment):
    """Class logits at all valid points of all levels (paper, prediction).

    Args:
        head: Dotted path of the anchor-free head.
        loss: Defaults to KL at temperature 3.5. A loss with the attribute
            ``needs_targets`` is given the positive classes too.
        weight: Defaults to 1.
    """

    def __init__(self,
                 head: str = 'head',
                 loss: dict = dict(type='mmblockdrop.ClassKLLoss'),
                 weight: float = 1.) -> None:
        super().__init__(loss, weight)
        self.head = head

    def paths(self, student: nn.Module) -> List[str]:
        """See :meth:`Alignment.paths`."""
        return [self.head]

    def forward(self, student_out: Recording, teacher_out: Recording,
                student: nn.Module, data_samples: list) -> Tensor:
        """See :meth:`Alignment.forward`."""
        head = student.get_submodule(self.head)
        preds = student_out[self.head]
        logits, _, valid, _ = head.flatten(preds)
        target = head.flatten(teacher_out[self.head])[0]
        pair = logits[valid], target[valid]
        if getattr(self.loss, 'needs_targets', False):
            return self.loss(*pair, head.targets(preds,
                                                 data_samples)[0][valid])
        return self.loss(*pair)


@MODELS.register_module()
class SegmentAlignment(Alignment):
    """Segments at the points that lie in an action (paper, prediction).

    Args:
        head: Dotted path of the anchor-free head.
        loss: A loss on segments ``[N, 2]`` in grid steps. Defaults to GIoU,
            which the paper names; the published configs use DIoU.
        weight: Defaults to 1.
    """

    def __init__(self,
                 head: str = 'head',
                 loss: dict = dict(type='mmblockdrop.GIoULoss'),
                 weight: float = 1.) -> None:
        super().__init__(loss, weight)
        self.head = head

    def paths(self, student: nn.Module) -> List[str]:
        """See :meth:`Alignment.paths`."""
        return [self.head]

    def forward(self, student_out: Recording, teacher_out: Recording,
                student: nn.Module, data_samples: list) -> Tensor:
        """See :meth:`Alignment.forward`."""
        head = student.get_submodule(self.head)
        preds = student_out[self.head]
        positive = head.positives(preds, data_samples)
        segments = head.decode(preds)[0][positive]
        if not len(segments):
            return head.flatten(preds)[1].sum() * 0
        target = head.decode(teacher_out[self.head])[0][positive]
        return self.loss(segments, target)


# ------------------------------------------------------------ real or padded
def real_times(rows: int, times: int, data_samples: list,
               student: nn.Module) -> Optional[Tensor]:
    """Tell real video from padding.

    The rows are the clips of the windows, ``samples * clips`` of them with
    the clips of a window next to each other; each clip is ``times`` equal
    pieces. A piece counts if it begins in real video.

    Args:
        rows: Length of the first axis of the features.
        times: Pieces of time of a row; 1 takes or leaves whole clips.
        data_samples: The samples of the batch.
        student: Tells ``window_size`` where the samples do not.

    Returns:
        Bool ``[rows, times]`` on the CPU. None where all counts: nothing is
        padded, the samples do not tell, or their number does not divide the
        rows.
    """
    if not data_samples or rows % len(data_samples):
        return None
    size = getattr(student, 'window_size', None)
    sizes = [sample.get('window_size', size) for sample in data_samples]
    if None in sizes:
        return None
    valid = [s.get(VALID_STEPS, n) for s, n in zip(data_samples, sizes)]
    if all(v >= n for v, n in zip(valid, sizes)):
        return None
    pieces = rows // len(data_samples) * times
    begin = torch.arange(pieces) * torch.tensor(sizes).unsqueeze(1)
    real = begin < torch.tensor(valid).unsqueeze(1) * pieces
    return real.reshape(rows, times)


def clip_times(model: nn.Module, path: str) -> Optional[int]:
    """Times of a clip's tokens, where the encoder tells.

    Args:
        model: The localizer.
        path: Dotted path of a module inside the encoder.

    Returns:
        Number of times, the slowest part of the order of the tokens. It is
        read from the encoder's position table (``pos_embed`` over
        ``grid_size``, as mmaction2's transformers keep them); None where there
        is none.
    """
    while path:
        path = path.rpartition('.')[0]
        module = model.get_submodule(path)
        table = getattr(module, 'pos_embed', None)
        grid = getattr(module, 'grid_size', None)
        if isinstance(table, Tensor) and grid is not None:
            places = grid[0] * grid[1]
            tokens = table.shape[1]
            return tokens // places if tokens % places == 0 else None
    return None


def select_real(student: Tensor, teacher: Tensor,
                real: Tensor) -> Tuple[Tensor, Tensor]:
    """Take what shows real video from two features.

    Args:
        student: ``[rows, times, ...]``, or ``[rows, ...]`` for a mask of whole
            rows.
        teacher: The same shape.
        real: Bool ``[rows, times]``, or ``[rows]``.

    Returns:
        ``[n, ...]`` each, views where possible.
    """
    student, teacher = (x.flatten(0, real.dim() - 1) if real.dim() > 1 else x
                        for x in (student, teacher))
    index = real.flatten().nonzero().squeeze(1)
    if len(index) and int(index[-1]) == len(index) - 1:
        return student[:len(index)], teacher[:len(index)]
    index = index.to(student.device)
    return student.index_select(0, index), teacher.index_select(0, index)


def mean(losses: List[Tensor]) -> Tensor:
    """Mean of scalars, added in their order."""
    total = losses[0]
    for loss in losses[1:]:
        total = total + loss
    return total / len(losses)


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
        raise ValueError(
            f'mask={path!r} of an alignment is neither {VALID_STEPS!r} nor a '
            f'tensor of {type(model).__name__}{did_you_mean(path, tensors)}')
    return tensors[path]

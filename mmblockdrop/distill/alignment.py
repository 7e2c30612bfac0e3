"""What of the student is held against what of the teacher.

An alignment names the modules whose outputs it needs and turns the two
recordings into one scalar. The wrapper runs both models and records.
"""
import difflib
from typing import Any, Dict, List, Optional, Tuple

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmblockdrop.registry import MODELS

Recording = Dict[str, Any]
#: Mask of the steps that hold real video, by the samples' metainfo.
VALID_STEPS = 'valid_steps'


class Alignment(BaseModule):
    """Base of all alignments.

    Args:
        loss (dict): Config of the distance.
        weight (float): Factor of the loss. Defaults to 1.
    """

    def __init__(self, loss: dict, weight: float = 1.) -> None:
        super().__init__()
        self.loss = MODELS.build(loss)
        self.weight = weight

    def paths(self, student: nn.Module) -> List[str]:
        """Dotted paths of the modules to record, in both models.

        Args:
            student (nn.Module): The student localizer.

        Returns:
            List[str]: Paths.
        """
        raise NotImplementedError

    def forward(self, student_out: Recording, teacher_out: Recording,
                student: nn.Module, data_samples: list) -> Tensor:
        """Distance between the two recordings.

        Args:
            student_out (dict): Path to output, of the student.
            teacher_out (dict): Path to output, of the teacher.
            student (nn.Module): The student localizer.
            data_samples (list): The samples of the batch.

        Returns:
            Tensor: Scalar, before ``weight``.
        """
        raise NotImplementedError


@MODELS.register_module()
class ModuleAlignment(Alignment):
    """Output of one module, for any localizer.

    Where the output is a list (the levels of a pyramid) the loss is the
    mean over its entries.

    Args:
        module (str): Dotted path in the localizer; ``<path>:input`` for
            what goes into the module.
        index (int | str, optional): Entry of a tuple or dict output.
            Defaults to None, the output as it is.
        mask (str, optional): Which elements count. A dotted path of a
            tensor of the localizer that broadcasts to the output, such as
            ``bm_mask`` of BMN, whose non-zero entries count; or
            ``valid_steps`` for the steps (last axis) that hold real video,
            by ``valid_steps`` and ``window_size`` of the samples.
            The loss is then given the elements that count as one row each,
            ``[N]``. Defaults to None, all of them.
        loss (dict): Defaults to the mean squared error.
        weight (float): Defaults to 1.

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

    def forward(self, student_out: Recording, teacher_out: Recording,
                student: nn.Module, data_samples: list) -> Tensor:
        """See :meth:`Alignment.forward`."""
        s, t = student_out[self.module], teacher_out[self.module]
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
        model (nn.Module): Any model.
        path (str): Dotted path, as in its state dict.

    Returns:
        Tensor: The tensor.

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


@MODELS.register_module()
class ClassAlignment(Alignment):
    """Class logits at all valid points of all levels (paper, prediction).

    Args:
        head (str): Dotted path of the anchor-free head.
        loss (dict): Defaults to KL at temperature 3.5. A loss with the
            attribute ``needs_targets`` is given the positive classes too.
        weight (float): Defaults to 1.
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
        head (str): Dotted path of the anchor-free head.
        loss (dict): A loss on segments ``[N, 2]`` in feature-grid steps.
            Defaults to GIoU, which the paper names; the published configs
            use DIoU.
        weight (float): Defaults to 1.
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

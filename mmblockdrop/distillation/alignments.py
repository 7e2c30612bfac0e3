"""What of the student is held against what of the teacher.

An alignment names the modules whose outputs it needs and turns the two
recordings into one scalar. The wrapper runs both models and records.
"""
from typing import Any, Dict, List

from mmengine.model import BaseModule
from torch import Tensor, nn

from mmblockdrop.registry import MODELS

Recording = Dict[str, Any]


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
        loss: A loss on segments ``[N, 2]`` in feature-grid steps. Defaults to
            GIoU, which the paper names; the published configs use DIoU.
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

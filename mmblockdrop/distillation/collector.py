"""Losses against the teacher, taken while the student runs."""
from collections import Counter, defaultdict
from contextlib import contextmanager
from typing import Any
from typing import Counter as Count
from typing import Dict, Iterator, List, Set

from mmblockdrop.utils.recorder import joined

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from .alignments import FeatureAlignment, Recording, mean


class AlignmentCollector:
    """Compares the student with a recording of the teacher, on the way.

    When the student has run a module that a feature alignment compares, the
    losses there are taken at once and the teacher's output is let go; of it
    remains what the gradient of the loss needs. Alignments that need all
    their modules together are computed at the end.

    Args:
        alignments: Name to alignment.
        student: The student localizer.
        teacher_out: Path to output of the teacher, which has run before. What
            was compared is taken from it.
        data_samples: The samples of the batch.

    Attributes:
        runs: Path to how often the module has run in the student.
    """

    def __init__(self, alignments: nn.ModuleDict, student: nn.Module,
                 teacher_out: Recording, data_samples: list) -> None:
        self.alignments = alignments
        self.student = student
        self.student_out: Recording = {}
        self.teacher_out = teacher_out
        self.data_samples = data_samples
        self.paths = {n: a.paths(student) for n, a in alignments.items()}
        self.runs: Count[str] = Counter()
        self._gradients = torch.is_grad_enabled()
        self._waiting: Dict[str, List[str]] = defaultdict(list)
        self._kept: Set[str] = set()
        self._parts: Dict[str, Dict[str, Tensor]] = defaultdict(dict)
        for name, paths in self.paths.items():
            if isinstance(alignments[name], FeatureAlignment):
                for path in paths:
                    self._waiting[path].append(name)
            else:
                self._kept.update(paths)

    def collect(self, path: str, value: Any) -> None:
        """Take what a module of the student has returned.

        Args:
            path: The module.
            value: Its output. Where a module takes its rows in several runs,
                losses wait for the last.

        Raises:
            ValueError: The module runs more often than in the teacher, or
                without gradients in a pass that has them.
        """
        if self._gradients and not torch.is_grad_enabled():
            raise ValueError(
                f'module={path!r} of an alignment runs without gradients, so '
                'the alignment would teach nothing. Recompute activations '
                'with use_reentrant=False, and align no frozen part.')
        if path in self.runs and path not in self.student_out:
            raise ValueError(
                f'module={path!r} of an alignment runs several times in one '
                'forward pass, more often than in the teacher: choose a '
                'module that runs once')
        self.runs[path] += 1
        self.student_out[path] = joined(path, self.student_out, value)
        if path in self._waiting and self._is_complete(path):
            self._compare(path)

    def _is_complete(self, path: str) -> bool:
        """Whether the student has as many rows as the teacher."""
        ours, theirs = self.student_out[path], self.teacher_out.get(path)
        if isinstance(ours, Tensor) and isinstance(theirs, Tensor):
            return len(ours) >= len(theirs)
        return theirs is not None

    def _compare(self, path: str) -> None:
        """Take the losses at a module and let its outputs go."""
        ours, theirs = self.student_out[path], self.teacher_out[path]
        with _saved_tensors_kept():
            for name in self._waiting.pop(path):
                self._parts[name][path] = self.alignments[name].compare(
                    path, ours, theirs, self.student, self.data_samples)
        if path not in self._kept:
            del self.student_out[path], self.teacher_out[path]

    def losses(self) -> Dict[str, Tensor]:
        """Finish.

        Returns:
            Name of the alignment to its loss, with its weight.
        """
        for path in list(self._waiting):
            self._compare(path)
        losses = {}
        for name, alignment in self.alignments.items():
            if isinstance(alignment, FeatureAlignment):
                loss = mean([self._parts[name][p] for p in self.paths[name]])
            else:
                loss = alignment(self.student_out, self.teacher_out,
                                 self.student, self.data_samples)
            losses[name] = alignment.weight * loss
        return losses


@contextmanager
def _saved_tensors_kept() -> Iterator[None]:
    """Keep what a loss saves, also inside a block that is recomputed.

    A block under activation checkpointing throws away what is saved inside
    it and runs again in the backward pass, without the hook that takes the
    loss.
    """
    with saved_tensors_hooks(lambda x: x.detach(), lambda x: x):
        yield

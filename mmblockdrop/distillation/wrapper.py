"""The student and its frozen teacher, as one model."""
import copy
import logging
from typing import Any, Dict, List, Optional, Sequence, Set, Union

from mmblockdrop.compression import load_localizer
from mmblockdrop.registry import MODELS
from mmblockdrop.utils.batches import batch_size, joined_samples, one_sample
from mmblockdrop.utils.messages import reject_unknown, require_choice
from mmblockdrop.utils.recorder import not_in_place, on_output, record

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModel
from torch import Tensor, nn

from .collector import AlignmentCollector

#: Modes that the teacher can run in.
TEACHER_MODES = ('tensor', 'loss')


@MODELS.register_module()
class TeacherStudentWrapper(BaseModel):
    """Trains a localizer to agree with its uncompressed self.

    ``loss`` is the task loss of the student plus one loss per alignment;
    ``predict`` and ``tensor`` are the student alone. The state dict is the
    student's, with the names of the plain localizer, so every checkpoint
    loads into the plain config. The teacher is not a submodule: optimizer,
    DDP, EMA and checkpoints do not see it.

    Args:
        localizer: Config of the localizer, for both.
        checkpoint: The trained localizer. Student and teacher start from it.
            Defaults to None, for testing, or when ``load_from`` gives the
            student's weights and there is no alignment.
        alignments: Name to alignment. Defaults to the paper's three: block
            outputs, class logits, segments. An empty dict trains with ground
            truth only, without teacher.
        task_weight: Factor of the student's own losses.
        data_preprocessor: Defaults to the localizer's.
        teacher_mode: Mode the teacher runs in. 'loss' is for localizers whose
            predictions are made on the way to the loss only (PEM, TCANet,
            recognizers with their head); the losses are thrown away. Defaults
            to 'tensor'.

    Raises:
        FileNotFoundError: ``checkpoint`` does not exist.
        ValueError: The checkpoint does not fit the localizer; the error
            lists the keys. Or an argument is unknown.
    """

    def __init__(self,
                 localizer: dict,
                 checkpoint: Optional[str] = None,
                 alignments: Optional[Dict[str, dict]] = None,
                 task_weight: float = 1.,
                 data_preprocessor: Optional[dict] = None,
                 teacher_mode: str = 'tensor',
                 **removed: Any) -> None:
        if removed.pop('together', False):
            print_log(
                'model.together=True was removed and has no effect: losses '
                'are the same without it.',
                logger='current',
                level=logging.WARNING)
        reject_unknown(type(self), removed, 'model')
        require_choice('model.teacher_mode', teacher_mode, TEACHER_MODES)
        student = not_in_place(MODELS.build(copy.deepcopy(localizer)))
        super().__init__(data_preprocessor=data_preprocessor)
        if data_preprocessor is None:
            self.data_preprocessor = student.data_preprocessor
        self.student = student
        self.localizer = localizer
        self.checkpoint = checkpoint
        self.task_weight = task_weight
        self.teacher_mode = teacher_mode
        if alignments is None:
            alignments = dict(
                block=dict(type='mmblockdrop.BlockAlignment'),
                cls=dict(type='mmblockdrop.ClassAlignment'),
                seg=dict(type='mmblockdrop.SegmentAlignment'))
        self.alignments = nn.ModuleDict(
            {name: MODELS.build(cfg) for name, cfg in alignments.items()})
        self.__dict__['teacher'] = None
        self._teacher_takes_one = False
        self._register_state_dict_hook(_keep_student_only)
        self._register_load_state_dict_pre_hook(_accept_student)

    def init_weights(self) -> None:
        """Load the trained localizer into student and teacher."""
        if self.checkpoint is None:
            if len(self.alignments):
                raise ValueError(
                    'model.checkpoint is None: the alignments '
                    f'{list(self.alignments)} need a trained teacher.')
            super().init_weights()
            return
        for alignment in self.alignments.values():
            alignment.init_weights()
        load_localizer(self.student, self.checkpoint, 'model.checkpoint')
        if len(self.alignments):
            self.set_teacher(self.checkpoint)

    def set_teacher(self, checkpoint: str) -> None:
        """Take the localizer of a checkpoint as teacher.

        Args:
            checkpoint: An uncompressed localizer, or one of an earlier round
                (dynamic teacher).

        Raises:
            ValueError: An alignment names a module that is not there.
        """
        teacher = not_in_place(MODELS.build(copy.deepcopy(self.localizer)))
        load_localizer(teacher, checkpoint)
        teacher.requires_grad_(False)
        teacher.to(next(self.student.parameters()).device)
        for model in (teacher, self.student):
            with record(model, self.alignment_paths()):
                pass
        self.__dict__['teacher'] = teacher.eval()

    def uncompressed(self) -> nn.Module:
        """The teacher, also where no alignment needs one.

        Returns:
            The uncompressed localizer, in evaluation mode.

        Raises:
            ValueError: ``checkpoint`` is None.
        """
        if self.teacher is None:
            if self.checkpoint is None:
                raise ValueError('model.checkpoint=None: expected the trained '
                                 'localizer, which repair and '
                                 'FeatureErrorScorer compare with')
            self.set_teacher(self.checkpoint)
        return self.teacher

    def alignment_paths(self) -> List[str]:
        """Paths of the modules that the alignments compare.

        Returns:
            Dotted paths in the localizer, without repetition.
        """
        return sorted({
            path
            for alignment in self.alignments.values()
            for path in alignment.paths(self.student)
        })

    def forward(self,
                *args: Any,
                mode: str = 'tensor',
                **kwargs: Any) -> Union[Dict[str, Tensor], List, Any]:
        """Run the student, in training after the teacher.

        Args:
            *args: What the localizer takes, such as inputs and samples.
            mode: 'loss', 'predict' or 'tensor'; may also be the last of
                ``args``.
            **kwargs: The same by name, whatever the localizer calls it.

        Returns:
            What the localizer returns in that mode; for 'loss' with one more
            entry ``loss_align_<name>`` per alignment.
        """
        if args and isinstance(args[-1], str):
            *args, mode = args  # type: ignore[assignment]
        if mode != 'loss':
            return self.student(*args, mode=mode, **kwargs)
        if not len(self.alignments):
            return self._task_losses(
                self.student(*args, mode='loss', **kwargs))
        if self.teacher is None:
            raise RuntimeError('TeacherStudentWrapper has no teacher yet: '
                               'call init_weights() before training.')
        paths = self.alignment_paths()
        teacher_out = self._teacher_outputs(paths, list(args), kwargs)
        reached = set(teacher_out)
        collector = AlignmentCollector(self.alignments, self.student,
                                       teacher_out,
                                       find_samples([*args, *kwargs.values()]))
        with on_output(self.student, paths, collector.collect):
            losses = self._task_losses(
                self.student(*args, mode='loss', **kwargs))
        self._check_reached(paths, reached, set(collector.runs))
        for name, value in collector.losses().items():
            losses[f'loss_align_{name}'] = value
        return losses

    def _teacher_outputs(self, paths: List[str], args: List[Any],
                         kwargs: Dict[str, Any]) -> Dict[str, Any]:
        """Outputs of the teacher, sample by sample if it takes only one."""

        def outputs(args: List[Any], kwargs: Dict[str, Any]) -> Dict[str, Any]:
            with torch.no_grad(), record(self.teacher, paths) as found:
                self.teacher(*args, mode=self.teacher_mode, **kwargs)
            return found

        size = batch_size([*args, *kwargs.values()])
        why: Optional[Exception] = None
        if not self._teacher_takes_one:
            try:
                return outputs(args, kwargs)
            except (AssertionError, NotImplementedError, ValueError) as error:
                if size == 1:
                    raise
                why = error
        found = []
        for place in range(size):
            one = one_sample([*args, *kwargs.values()], place)
            try:
                found.append(outputs(one[:len(args)],
                                     dict(zip(kwargs, one[len(args):]))))
            except (AssertionError, NotImplementedError, ValueError) as error:
                raise why or error
        self._teacher_takes_one = True
        return {
            path: joined_samples([f[path] for f in found])
            for path in found[0]
        }

    def _check_reached(self, paths: List[str], by_teacher: Set[str],
                       by_student: Set[str]) -> None:
        """Reject alignments of modules that did not run."""
        for path in paths:
            if path not in by_student:
                raise ValueError(f'module={path!r} of an alignment does not '
                                 'run in training: nothing to compare')
            if path not in by_teacher:
                raise ValueError(
                    f'module={path!r} of an alignment does not run in mode '
                    f'{self.teacher_mode!r} of {type(self.teacher).__name__}:'
                    " set model.teacher_mode='loss'")

    def _task_losses(self, losses: Dict[str, Any]) -> Dict[str, Any]:
        """Weigh the student's own losses; other entries are only logged."""
        if self.task_weight == 1:
            return losses
        return {
            name: value * self.task_weight if 'loss' in name else value
            for name, value in losses.items()
        }

    def _apply(self, fn: Any, *args, **kwargs) -> 'TeacherStudentWrapper':
        """Move the teacher along with the student."""
        super()._apply(fn, *args, **kwargs)
        if self.teacher is not None:
            self.teacher._apply(fn, *args, **kwargs)
        return self

    def __deepcopy__(self, memo: dict) -> 'TeacherStudentWrapper':
        """Copy the student; the copies (EMA) share the frozen teacher."""
        if self.teacher is not None:
            memo[id(self.teacher)] = self.teacher
        clone = type(self).__new__(type(self))
        memo[id(self)] = clone
        clone.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return clone


def find_samples(arguments: Sequence[Any]) -> List[Any]:
    """The data samples among what a localizer is given.

    Args:
        arguments: All arguments.

    Returns:
        The first list of mmengine's data elements; empty if there is none.
    """
    for value in arguments:
        if isinstance(value, (list, tuple)) and value and all(
                hasattr(sample, 'get') for sample in value):
            return list(value)
    return []


def _keep_student_only(module: nn.Module, state_dict: dict, prefix: str,
                       *args) -> None:
    """State dict hook: names of the plain localizer."""
    for key in [k for k in state_dict if k.startswith(prefix)]:
        value = state_dict.pop(key)
        name = key[len(prefix):]
        if name.startswith('student.'):
            state_dict[prefix + name[len('student.'):]] = value


def _accept_student(state_dict: dict, prefix: str, *args) -> None:
    """Load hook: names of the plain localizer become the student's."""
    for key in [k for k in state_dict if k.startswith(prefix)]:
        name = key[len(prefix):]
        if not name.startswith('student.'):
            state_dict[f'{prefix}student.{name}'] = state_dict.pop(key)

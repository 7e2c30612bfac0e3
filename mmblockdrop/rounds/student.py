"""The localizer that is shortened: LoRA, what is trained, its weights."""
from typing import Optional, Sequence

from mmblockdrop.compression import (check_lora, has_lora, load_localizer,
                                     merge_lora, read_localizer)
from mmblockdrop.utils.checkpoint import load_strictly

from mmengine.runner import Runner
from torch import nn

from .hook import BlockDropHook
from .rebuild import (check_paths, freeze_except, fresh_localizer,
                      localizer_of, plain_model, replace_localizer)

#: When LoRA is merged: after every round, or once after the last.
MERGES = ('round', 'end')


class Student:
    """The localizer of a runner.

    Args:
        runner: The runner, before weights are loaded.
        hook: Drops blocks and attaches LoRA.
        lora: See ``DistillationLoop``.
        merge: ``merge_lora`` of ``DistillationLoop``.
        frozen: See ``DistillationLoop``.
        trainable: See ``DistillationLoop``.
        dynamic_teacher: See ``DistillationLoop``.

    Raises:
        ValueError: LoRA, a path or the teacher cannot work with this model.
    """

    def __init__(self, runner: Runner, hook: BlockDropHook,
                 lora: Optional[dict], merge: str,
                 frozen: Optional[Sequence[str]], trainable: Sequence[str],
                 dynamic_teacher: bool) -> None:
        self.runner, self.hook = runner, hook
        self.lora, self.merges_rounds = lora, merge == 'round'
        if merge not in MERGES:
            raise ValueError(f'train_cfg.merge_lora={merge!r}: expected one '
                             f'of {list(MERGES)}.')
        paths = hook.paths()
        if lora is not None and not has_lora(self.localizer):
            check_lora([self.localizer.get_submodule(p) for p in paths],
                       **lora)
        if frozen is None:
            frozen = [] if lora is None else sorted(
                {path.split('.')[0] for path in paths})
        check_paths(self.localizer, frozen, 'train_cfg.frozen')
        self.frozen, self.trainable = frozen, trainable
        self.fixed = {
            name
            for name, parameter in self.localizer.named_parameters()
            if not parameter.requires_grad
        }
        model = plain_model(runner.model)
        if dynamic_teacher and not hasattr(model, 'set_teacher'):
            raise ValueError(
                'train_cfg.dynamic_teacher needs model.type='
                "'mmblockdrop.TeacherStudentWrapper', found "
                f'{type(model).__name__}.')

    @property
    def localizer(self) -> nn.Module:
        """The localizer itself."""
        return localizer_of(self.runner.model)

    def prepare(self) -> None:
        """Attach LoRA and choose what is trained."""
        self.hook.attach_lora(self.runner, self.lora)
        trained = freeze_except(self.localizer, self.frozen, self.trainable,
                                self.fixed)
        self.runner.logger.info(f'{trained} values are trained')

    def learn_from(self, path: str) -> None:
        """Take the result of an earlier round as teacher.

        Args:
            path: Its checkpoint.
        """
        plain_model(self.runner.model).set_teacher(path)

    def load(self, path: str) -> None:
        """Take over the best epoch of a round.

        LoRA is merged, unless it is carried on to the next round.

        Args:
            path: Its weights.
        """
        state, _ = read_localizer(path)
        if not any('.lora_' in name for name in state):
            self.merge()  # the epoch was written before LoRA was attached
        load_strictly(self.localizer, state, path)
        if self.merges_rounds:
            self.merge()

    def merge(self) -> int:
        """Fold LoRA into the weights.

        Returns:
            Number of merged layers.
        """
        merged = merge_lora(self.localizer)
        self.hook.lora = None
        return merged

    def go_back(self, path: str) -> None:
        """Become the result of an earlier round, with the blocks it had.

        Args:
            path: Its checkpoint; LoRA in it is merged.
        """
        fresh = fresh_localizer(self.runner)
        load_localizer(fresh, path)
        replace_localizer(self.runner, fresh)
        self.hook.lora = None

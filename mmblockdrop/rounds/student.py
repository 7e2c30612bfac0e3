"""The localizer that is shortened: LoRA, what is trained, its weights."""
from typing import Any, Collection, Dict, List, Optional, Sequence

from mmblockdrop.compression import (Id, LinearRepair, check_lora, has_lora,
                                     load_localizer, merge_lora,
                                     read_localizer)
from mmblockdrop.utils.batches import run_model
from mmblockdrop.utils.checkpoint import load_strictly
from mmblockdrop.utils.messages import did_you_mean, listed, require_choice

from mmengine.runner import Runner
from torch import nn

from .hook import BlockDropHook
from .rebuild import (fresh_localizer, localizer_of, plain_model,
                      replace_localizer)

#: When LoRA is merged: after every round, or once after the last.
MERGES = ('round', 'end')
#: What the published configs train of a frozen encoder, by parts of names.
PUBLISHED_TRAINABLE = ('lora_', 'norm', 'patch_embed', 'adapter')


class Student:
    """The localizer of a runner.

    Args:
        runner: The runner, before weights are loaded.
        hook: Drops blocks and attaches LoRA.
        lora: See ``DistillationLoop``.
        frozen: Paths in the localizer that are frozen but for ``trainable``.
            Defaults to the module that holds the stack with LoRA, nothing
            without.
        trainable: Parts of the names of parameters inside ``frozen`` that are
            trained. Defaults to LoRA, norms, patch embedding and adapters.
        merge_lora: 'round' merges LoRA after every round, and the next one
            starts with a fresh one; 'end' carries it on and merges it after
            the last round.
        dynamic_teacher: From the second round on, learn from the result of the
            round before. Defaults to False, the uncompressed teacher.

    Raises:
        ValueError: LoRA, a path or the teacher cannot work with this model.
    """

    def __init__(self,
                 runner: Runner,
                 hook: BlockDropHook,
                 lora: Optional[dict] = None,
                 frozen: Optional[Sequence[str]] = None,
                 trainable: Sequence[str] = PUBLISHED_TRAINABLE,
                 merge_lora: str = 'round',
                 dynamic_teacher: bool = False) -> None:
        self.runner, self.hook = runner, hook
        self.lora, self.dynamic_teacher = lora, dynamic_teacher
        require_choice('train_cfg.student.merge_lora', merge_lora, MERGES)
        self.merges_rounds = merge_lora == 'round'
        paths = hook.paths()
        if lora is not None and not has_lora(self.localizer):
            check_lora([self.localizer.get_submodule(p) for p in paths],
                       **lora)
        if frozen is None:
            frozen = [] if lora is None else sorted(
                {path.split('.')[0] for path in paths})
        check_paths(self.localizer, frozen, 'train_cfg.student.frozen')
        self.frozen, self.trainable = frozen, trainable
        self.fixed = {
            name
            for name, parameter in self.localizer.named_parameters()
            if not parameter.requires_grad
        }
        model = plain_model(runner.model)
        if dynamic_teacher and not hasattr(model, 'set_teacher'):
            raise ValueError(
                'train_cfg.student.dynamic_teacher=True: expected model.type='
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

    def repair(self, repair: LinearRepair, removed: Sequence[Id],
               batches: Any) -> List[Dict[str, Any]]:
        """Repair what was just removed; LoRA is merged first.

        Args:
            repair: How.
            removed: Ids of what was removed.
            batches: Calibration data.

        Returns:
            One entry per fitted layer, for the record.
        """
        self.merge()
        model = plain_model(self.runner.model)
        entries = repair(
            self.localizer, model.uncompressed(),
            self.hook.structure(self.runner), removed, batches,
            lambda localizer, batch: run_model(
                localizer, model.data_preprocessor(batch, False), 'tensor'))
        for entry in entries:
            self.runner.logger.info(describe_repair(entry))
        return entries

    def go_back(self, path: str) -> None:
        """Become the result of an earlier round, with the blocks it had.

        Args:
            path: Its checkpoint; LoRA in it is merged.
        """
        fresh = fresh_localizer(self.runner)
        load_localizer(fresh, path)
        replace_localizer(self.runner, fresh)
        self.hook.lora = None


def describe_repair(entry: Dict[str, Any]) -> str:
    """Say in one line what a repair did.

    Args:
        entry: Entry of the record.

    Returns:
        The line.
    """
    if 'why_not' in entry:
        return f'{entry["layer"]} is not repaired: {entry["why_not"]}'
    done = f'ridge {entry["ridge"]:g}' if entry['kept'] else 'left as it is'
    return (f'{entry["layer"]}: held-out error {entry["error_before"]:.4f} -> '
            f'{entry["error_after"]:.4f} on {entry["tokens"]} tokens, {done}')


def freeze_except(model: nn.Module,
                  frozen: Sequence[str],
                  trainable: Sequence[str],
                  fixed: Collection[str] = ()) -> int:
    """Choose what is trained.

    Args:
        model: The localizer.
        frozen: Dotted paths of the modules that are frozen, apart from what
            ``trainable`` names. Everything else is trained.
        trainable: Parts of parameter names.
        fixed: Names of parameters that stay frozen, as the localizer froze
            them itself.

    Returns:
        Number of trained values.
    """
    for parameter in model.parameters():
        parameter.requires_grad = True
    for path in frozen:
        for name, parameter in model.get_submodule(path).named_parameters():
            parameter.requires_grad = any(part in name for part in trainable)
    for name, parameter in model.named_parameters():
        if name in fixed:
            parameter.requires_grad = False
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def check_paths(model: nn.Module, paths: Sequence[str], key: str) -> None:
    """Check that paths name modules.

    Args:
        model: The localizer.
        paths: Dotted paths.
        key: Config key they come from.

    Raises:
        ValueError: Names the path and the nearest one that is there.
    """
    names = [name for name, _ in model.named_modules() if name]
    for path in paths:
        if path not in names:
            children = [name for name, _ in model.named_children()]
            raise ValueError(
                f'{key} names {path!r}: expected a module of '
                f'{type(model).__name__}, inside {listed(children)}'
                f'{did_you_mean(path, names)}')

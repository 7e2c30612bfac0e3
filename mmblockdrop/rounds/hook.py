"""The record of what was dropped: kept, written, and replayed."""
import copy
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence

from mmblockdrop.compression import (Id, StackPath, Structure, attach_lora,
                                     has_lora, record_of, replay)
from mmblockdrop.compression.record import VERSION, structure_class
from mmblockdrop.registry import HOOKS
from mmblockdrop.utils.io import check_folder, write_json

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from .rebuild import localizer_of, rebuild_ema
from .resume import RECORD, began_from, go_on, left_record, write_whole_files
from .run_file import RUN_KEY
from .strict_load import check_loaded, source_of


@HOOKS.register_module()
class BlockDropHook(Hook):
    """Keeps the record, and makes any model what its checkpoint says.

    Before a checkpoint's weights are loaded, in resuming, testing or
    fine-tuning, what its record names is removed from the fresh model, and
    LoRA is attached if the checkpoint holds any. The hook runs ahead of
    ``EMAHook``.

    Args:
        stack: Dotted path of the blocks inside the localizer.
        start_dropped: Original numbers of blocks that go before the first
            round, after the trained weights are loaded.
        structure: What is removed: whole blocks, or another registered
            structure.

    Raises:
        ValueError: There is no such structure; names the nearest.
    """

    priority = 'ABOVE_NORMAL'

    def __init__(self,
                 stack: StackPath = 'backbone.blocks',
                 start_dropped: Sequence[Id] = (),
                 structure: str = 'mmblockdrop.BlockStack') -> None:
        self.path = stack
        self.start_dropped = list(start_dropped)
        self.structure_class = structure_class(structure,
                                               'BlockDropHook.structure')
        self.record: Dict[str, Any] = {}
        self.interrupted: Optional[Dict[str, Any]] = None
        self.lora: Optional[dict] = None
        self.run_id: Optional[str] = None
        self._after_replay: List[Callable[[], None]] = []

    # -------------------------------------------------------------- the model
    def structure(self, runner: Runner) -> Structure:
        """What can be removed from the runner's localizer.

        Args:
            runner: The runner.

        Returns:
            The structure.
        """
        return self.structure_class(
            localizer_of(runner.model), self.path,
            self.record.get('probe'))  # type: ignore[call-arg]

    def paths(self) -> List[str]:
        """Dotted paths of the blocks.

        Returns:
            One or several.
        """
        return [self.path] if isinstance(self.path, str) else list(self.path)

    def drop(self, runner: Runner, parts: Sequence[Id]) -> None:
        """Remove parts of the runner's localizer.

        Args:
            runner: The runner.
            parts: Their ids.
        """
        structure = self.structure(runner)
        for part in parts:
            structure.remove(part)

    def attach_lora(self, runner: Runner, lora: Optional[dict]) -> None:
        """Attach fresh LoRA to the remaining blocks.

        Args:
            runner: The runner.
            lora: Arguments of ``add_lora``; None leaves the blocks as they
                are.
        """
        self.lora = lora
        localizer = localizer_of(runner.model)
        if lora is not None and not has_lora(localizer):
            attach_lora(localizer, self.paths(), lora)

    # ------------------------------------------------------------- the record
    def before_run(self, runner: Runner) -> None:
        """Start a record for this model.

        A resumed run keeps what the interrupted one wrote, for its scores,
        and goes on from its newest checkpoint that is whole.
        """
        write_whole_files()
        load_from = None if runner._resume else runner._load_from
        if runner._resume:
            self.interrupted = left_record(runner)
            go_on(runner, self.interrupted)
            load_from = began_from(Path(runner.work_dir), self.interrupted)
        self.record = dict(
            version=VERSION,
            **self.structure(runner).record(),
            load_from=load_from,
            start_dropped=[],
            rounds=[])

    @property
    def rounds(self) -> List[Dict[str, Any]]:
        """One entry per round."""
        return self.record['rounds']

    @property
    def current(self) -> Optional[Dict[str, Any]]:
        """The round that has dropped but not finished."""
        if self.rounds and self.rounds[-1]['state'] == 'dropped':
            return self.rounds[-1]
        return None

    def write(self, runner: Runner) -> None:
        """Write ``blockdrop.json`` into the work directory.

        Args:
            runner: The runner.
        """
        if is_main_process():
            write_json(self.record, Path(runner.work_dir) / RECORD)

    def before_save_checkpoint(self, runner: Runner,
                               checkpoint: dict) -> None:
        """Put the record into the checkpoint.

        Raises:
            FileNotFoundError: The work directory has been removed.
        """
        check_folder(Path(runner.work_dir))
        record = copy.deepcopy(self.record)
        if self.lora is not None and has_lora(localizer_of(runner.model)):
            record['lora'] = dict(self.lora)
        checkpoint['meta']['blockdrop'] = record
        if self.run_id is not None:
            checkpoint['meta'][RUN_KEY] = self.run_id

    # -------------------------------------------------------------- the replay
    def call_after_replay(self, callback: Callable[[], None]) -> None:
        """Register what has to follow when a record was replayed.

        Args:
            callback: Called without arguments, before weights are loaded.
        """
        self._after_replay.append(callback)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Shape the model as the checkpoint's was.

        Raises:
            ValueError: The checkpoint does not fit; lists the keys.
        """
        record = record_of(checkpoint, source_of(runner))
        if record is not None:
            lora = record.pop('lora', None)
            self.path = record['stack']
            self.structure_class = structure_class(record['kind'])
            self.record = record
            replay(localizer_of(runner.model), record)
            self.attach_lora(runner, lora)
            rebuild_ema(runner)
            for callback in self._after_replay:
                callback()
        check_loaded(runner, checkpoint)


def find_hook(runner: Runner) -> BlockDropHook:
    """The ``BlockDropHook`` of a runner.

    Args:
        runner: The runner.

    Returns:
        The hook.

    Raises:
        ValueError: None is registered.
    """
    for hook in runner.hooks:
        if isinstance(hook, BlockDropHook):
            return hook
    known = sorted(type(h).__name__ for h in runner.hooks)
    raise ValueError(
        'DistillationLoop needs custom_hooks = [dict(type='
        "'mmblockdrop.BlockDropHook', stack='backbone.blocks')]; the run has "
        f'{known}')

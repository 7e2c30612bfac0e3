"""Owns the record of what was dropped, when and why."""
import copy
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

from mmblockdrop.compression import (StackPath, Structure, add_lora, has_lora,
                                     read_localizer, replay, upgrade_record)
from mmblockdrop.compression.record import VERSION, structure_class
from mmblockdrop.registry import HOOKS

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from .failure import check_loss
from .files import keep_checkpoints_whole, read_json, write_json
from .fit import check_fit
from .rebuild import localizer_of
from .resume import go_on, keep_one_more

FILE = 'blockdrop.json'


@HOOKS.register_module()
class BlockDropHook(Hook):
    """Keeps the record, and makes any model what its checkpoint says.

    Before a checkpoint's weights are loaded, in resuming, testing or
    fine-tuning, the blocks that its record names are dropped from the fresh
    model, and LoRA is attached if the checkpoint holds any. The hook runs
    ahead of ``EMAHook``.

    Args:
        stack: Dotted path of the blocks inside the localizer.
        start_dropped: Original numbers of blocks that go before the first
            round, after the trained weights are loaded.
        structure: Registered name of what is removed. Defaults to whole
            blocks.

    Raises:
        ValueError: There is no such structure.
    """

    priority = 'ABOVE_NORMAL'

    def __init__(self,
                 stack: StackPath = 'backbone.blocks',
                 start_dropped: Sequence[int] = (),
                 structure: str = 'mmblockdrop.BlockStack') -> None:
        self.path = stack
        self.structure = structure_class(structure, 'BlockDropHook.structure')
        self.start_dropped = list(start_dropped)
        self.record: Dict[str, Any] = {}
        self.interrupted: Optional[Dict[str, Any]] = None
        self.lora: Optional[dict] = None

    def before_run(self, runner: Runner) -> None:
        """Start a record for this model.

        A resumed run keeps what the interrupted one wrote, for its scores,
        and goes on from its newest checkpoint that is whole.
        """
        keep_checkpoints_whole(runner)
        keep_one_more(runner)
        load_from = None if runner._resume else runner._load_from
        if runner._resume:
            self.interrupted = read_json(Path(runner.work_dir) / FILE)
            go_on(runner, self.interrupted)
            load_from = (self.interrupted or {}).get('load_from')
        self.record = dict(
            version=VERSION,
            **self.stack(runner).record(),
            load_from=load_from,
            start_dropped=[],
            rounds=[])

    def after_train_iter(self,
                         runner: Runner,
                         batch_idx: int,
                         data_batch: Any = None,
                         outputs: Optional[dict] = None) -> None:
        """End a run whose loss is no number any more.

        Raises:
            FloatingPointError: The loss is NaN or infinite.
        """
        if isinstance(outputs, dict):
            check_loss(runner, self.record, outputs, batch_idx)

    def stack(self, runner: Runner) -> Structure:
        """What can be removed from the runner's localizer.

        Args:
            runner: The runner.

        Returns:
            The structure.
        """
        return self.structure(
            localizer_of(runner.model), self.path, self.record.get('probe'))

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

    def drop(self, runner: Runner, indices: Sequence[int]) -> None:
        """Drop blocks from the runner's localizer.

        Args:
            runner: The runner.
            indices: Original numbers.
        """
        stack = self.stack(runner)
        for index in indices:
            stack.remove(index)

    def attach_lora(self, runner: Runner, lora: Optional[dict]) -> None:
        """Attach fresh LoRA to the blocks that are left.

        Args:
            runner: The runner.
            lora: Arguments of ``add_lora``; None leaves the blocks as they
                are.
        """
        self.lora = lora
        localizer = localizer_of(runner.model)
        if lora is not None and not has_lora(localizer):
            add_lora([localizer.get_submodule(p) for p in self.paths()],
                     **lora)

    def paths(self) -> List[str]:
        """Dotted paths of the blocks.

        Returns:
            One or several.
        """
        return [self.path] if isinstance(self.path, str) else list(self.path)

    def write(self, runner: Runner) -> None:
        """Write ``blockdrop.json`` into the work directory.

        Args:
            runner: The runner.
        """
        if is_main_process():
            write_json(self.record, Path(runner.work_dir) / FILE)

    def interrupted_round(self, criterion: str,
                          scored_by: str) -> Optional[Dict[str, Any]]:
        """What an interrupted run had found for the coming round.

        Args:
            criterion: Name of the rule that would score now.
            scored_by: Short name of the rule with its data.

        Returns:
            Entry of the record with scores by this rule for exactly this
            state, if there is one.
        """
        found, done = self.interrupted, len(self.rounds)
        if found is None or len(found['rounds']) <= done:
            return None
        entry = found['rounds'][done]
        same = entry['criterion'] == criterion and entry.get(
            'scored_by', scored_by) == scored_by
        return entry if same and history(found, done) == history(
            self.record, done) else None

    def take_over_epochs(self, path: Path) -> None:
        """Take over what the best epoch's file knows of the current round.

        An interrupted run may have kept an epoch that ended after the
        checkpoint from which it goes on.

        Args:
            path: Weights of the best epoch.
        """
        if self.interrupted is None or not path.is_file():
            return
        _, found = read_localizer(str(path))
        done = len(self.rounds) - 1
        if found is None or len(found['rounds']) <= done:
            return
        entry, ours = found['rounds'][done], self.rounds[-1]
        if entry.get('dropped') == ours['dropped'] and history(
                found, done) == history(self.record, done):
            ours['epochs'] = {**entry['epochs'], **ours['epochs']}

    def before_save_checkpoint(self, runner: Runner,
                               checkpoint: dict) -> None:
        """Put the record into the checkpoint."""
        record = copy.deepcopy(self.record)
        if self.lora is not None and has_lora(localizer_of(runner.model)):
            record['lora'] = dict(self.lora)
        checkpoint['meta']['blockdrop'] = record

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Shape the model as the checkpoint's was.

        Raises:
            ValueError: The checkpoint does not fit; lists the keys.
        """
        record = checkpoint.get('meta', {}).get('blockdrop')
        if record is not None:
            record = upgrade_record(record)
            lora = record.pop('lora', None)
            self.path = record['stack']
            self.structure = structure_class(record['kind'])
            self.record = record
            replay(localizer_of(runner.model), record)
            self.attach_lora(runner, lora)
            prepare = getattr(runner._train_loop, 'prepare_alignment', None)
            if runner._resume and self.current and prepare:
                prepare()
        check_fit(
            localizer_of(runner.model).state_dict(), checkpoint, self.paths())


def history(record: Dict[str, Any], rounds: int) -> List[Any]:
    """What a run was after some rounds, to tell it from other runs.

    Args:
        record: Its record.
        rounds: How many rounds.

    Returns:
        Plain data.
    """
    return [
        record['start_dropped'], record['baseline']['metrics'],
        *((r['dropped'], r['metric_after']) for r in record['rounds'][:rounds])
    ]


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

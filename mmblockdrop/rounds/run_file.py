"""What tells a run from others in its folder, and the configs it ran with."""
import json
import uuid
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional, Tuple

from mmblockdrop.utils.config import plain_config, type_name
from mmblockdrop.utils.io import json_data, read_json, write_json

from mmengine.dist import barrier, is_main_process

#: The file, in the work directory.
RUN_FILE = 'blockdrop_run.json'
#: Key in ``meta`` of a checkpoint: which run wrote it.
RUN_KEY = 'blockdrop_run'
#: Settings of a loader that change nothing of what is read.
WITHOUT_EFFECT = ('num_workers', 'persistent_workers', 'pin_memory',
                  'prefetch_factor')
#: Parts of a config that a run of rounds follows.
FOLLOWED = ('model', 'train_dataloader', 'val_dataloader', 'val_evaluator',
            'train_cfg', 'optim_wrapper', 'param_scheduler', 'custom_hooks',
            'default_hooks', 'auto_scale_lr', 'model_wrapper_cfg',
            'randomness')
EFFECT, NEXT = 'takes effect', 'takes effect from the next round'
NO_EFFECT, REFUSED = 'has no effect', 'refused'
#: What a changed setting means between two rounds and within one; the first
#: entry that its key begins with.
RULES: Tuple[Tuple[str, str, str], ...] = (
    ('custom_hooks.BlockDropHook', REFUSED, REFUSED),
    ('model.checkpoint', EFFECT, EFFECT),
    ('model.alignments', NEXT, REFUSED),
    ('model.task_weight', NEXT, REFUSED),
    ('model', REFUSED, REFUSED),
    ('train_cfg.type', REFUSED, REFUSED),
    ('train_cfg.metric', REFUSED, REFUSED),
    ('train_cfg.higher_is_better', REFUSED, REFUSED),
    ('train_cfg.drops', EFFECT, EFFECT),
    ('train_cfg.stop', EFFECT, EFFECT),
    ('train_cfg.validation', EFFECT, EFFECT),
    ('train_cfg.drops_per_round', NEXT, NEXT),
    ('train_cfg.scorer', NEXT, NEXT),
    ('train_cfg.score_dataloader', NEXT, NEXT),
    ('train_cfg', NEXT, REFUSED),
    ('train_dataloader', NEXT, REFUSED),
    ('val_dataloader', EFFECT, REFUSED),
    ('val_evaluator', EFFECT, REFUSED),
    ('optim_wrapper', NEXT, REFUSED),
    ('param_scheduler', NEXT, REFUSED),
    ('auto_scale_lr', NEXT, REFUSED),
    ('custom_hooks.EMAHook', NEXT, REFUSED),
    ('randomness.seed', NO_EFFECT, NO_EFFECT),
)

#: Where a run is: its epochs so far, and the finished round that a file is the
#: result of, or 0.
State = Tuple[int, int]
Flat = Dict[str, Any]


class RunFile:
    """``blockdrop_run.json``: one entry for each config that a run ran with.

    An entry has ``id``, ``config`` and ``load_from``; one that another has
    followed also ``until``, the state from which that went on, and that one
    ``within``, the round that it found begun. A checkpoint names the id of
    the entry it was written under, so files of other runs in the same folder,
    and those that a changed config has made obsolete, are told apart.

    Args:
        work_dir: Work directory.
    """

    def __init__(self, work_dir: Path) -> None:
        self.path = work_dir / RUN_FILE
        self.entries: List[Dict[str, Any]] = []
        try:
            found = read_json(self.path, RUN_FILE)['entries']
            if all(isinstance(e['id'], str) for e in found):
                self.entries = found
        except (OSError, ValueError, KeyError, TypeError):
            pass  # of an earlier version, or damaged: files go by their names

    @property
    def last(self) -> Dict[str, Any]:
        """The entry that holds now; empty if there is none."""
        return self.entries[-1] if self.entries else {}

    def begin(self, config: Flat, load_from: Optional[str]) -> None:
        """Start a run.

        Args:
            config: See :func:`flat_config`.
            load_from: Weights that it begins from.
        """
        self.entries = []
        self._add(dict(config=config, load_from=load_from))

    def change(self, config: Flat, state: State,
               within: Optional[int]) -> None:
        """Go on with another config.

        Args:
            config: See :func:`flat_config`.
            state: Where the run goes on.
            within: The round it is in; None between two.
        """
        load_from = self.last.get('load_from')
        if self.entries:
            self.entries[-1]['until'] = list(state)
        self._add(dict(config=config, load_from=load_from, within=within))

    def _add(self, entry: Dict[str, Any]) -> None:
        self.entries.append(dict(id=uuid.uuid4().hex[:12], **entry))
        barrier()  # every process has read what it was
        if is_main_process():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(dict(version=1, entries=self.entries), self.path)

    def wrote(self, meta: Mapping[str, Any], state: State) -> Optional[bool]:
        """Whether this run wrote a checkpoint that still holds.

        Args:
            meta: ``meta`` of the checkpoint.
            state: Its state.

        Returns:
            None if file or checkpoint is of an earlier version.
        """
        number = meta.get(RUN_KEY)
        if number is None or not self.entries:
            return None
        for entry in self.entries:
            if entry['id'] == number:
                until = entry.get('until')
                return until is None or list(state) <= list(until)
        return False

    def wrote_best(self, meta: Mapping[str, Any], number: int) -> bool:
        """Whether this run wrote the best epoch of a round, and it holds.

        Args:
            meta: ``meta`` of the file.
            number: The round, from one.

        Returns:
            True also if file or checkpoint is of an earlier version.
        """
        found = meta.get(RUN_KEY)
        if found is None:
            return True
        for entry in reversed(self.entries):
            if entry['id'] == found:
                return True
            if entry.get('within') != number:
                return False
        return True


# -------------------------------------------------------------- its config
def flat_config(cfg: Mapping[str, Any],
                moved: Mapping[str, Tuple[str, str]]) -> Flat:
    """Settings that a run of rounds follows, by dotted key.

    Args:
        cfg: A whole config.
        moved: Keys of ``train_cfg`` of earlier versions to where they stand
            now.

    Returns:
        Key to plain value, as JSON gives it back. Hooks are named by type.
    """
    flat: Flat = {}
    for key in FOLLOWED:
        value = plain_config(cfg.get(key))
        if key == 'custom_hooks':
            value = {type_name(hook) or str(place): hook
                     for place, hook in enumerate(value or [])}
        for name, entry in _leaves(value, key):
            group = moved.get(name.removeprefix('train_cfg.').split('.')[0])
            if name.startswith('train_cfg.') and group:
                rest = name.split('.')[2:]
                name = '.'.join(['train_cfg', *group, *rest])
            flat[name] = entry
    return flat


def _leaves(value: Any, key: str) -> Iterator[Tuple[str, Any]]:
    """Dotted keys of what holds no further settings."""
    if isinstance(value, (list, tuple)) and any(
            isinstance(entry, dict) for entry in value):
        value = dict(enumerate(value))
    if isinstance(value, dict) and value:
        for name, entry in value.items():
            yield from _leaves(entry, f'{key}.{name}')
    elif value is not None:
        text = json.dumps(
            json_data(value), default=lambda x: type(x).__name__)
        yield key, json.loads(text)


def changes(before: Flat, now: Flat,
            within: bool) -> List[Tuple[str, str]]:
    """Compare two configs of a run.

    Args:
        before: What it ran with.
        now: What it is to go on with.
        within: Whether it goes on within a round.

    Returns:
        One line per changed setting, and what it means.
    """
    found = []
    for key in sorted({*before, *now}):
        if before.get(key) == now.get(key):
            continue
        meaning = _meaning(key, within)
        found.append((f'  {key}: {_shown(before, key)} -> {_shown(now, key)} '
                      f'({meaning})', meaning))
    return found


def _meaning(key: str, within: bool) -> str:
    if 'dataloader' in key and key.rpartition('.')[2] in WITHOUT_EFFECT:
        return EFFECT
    for start, between_rounds, in_round in RULES:
        if key == start or key.startswith(f'{start}.'):
            return in_round if within else between_rounds
    return EFFECT


def _shown(flat: Flat, key: str) -> str:
    return repr(flat[key]) if key in flat else 'not set'


def refusal(lines: List[Tuple[str, str]], number: Optional[int],
            work_dir: str) -> str:
    """Say why a run does not go on with another config.

    Args:
        lines: See :func:`changes`.
        number: The round it is in; None between two.
        work_dir: Its work directory.

    Returns:
        The text.
    """
    text = '\n'.join(line for line, _ in lines)
    never = [
        line for line, meaning in lines if meaning == REFUSED
        and _meaning(line.strip().partition(':')[0], False) == REFUSED
    ]
    if never or number is None:
        way = ('What is refused cannot change within a run: begin another one '
               'in another --work-dir.')
    elif number == 1:
        way = ('What is refused cannot change within round 1: begin again '
               'without --resume, or in another --work-dir.')
    else:
        way = (f'What is refused cannot change within round {number}: '
               f'--resume {Path(work_dir) / f"round_{number - 1}.pth"} '
               'repeats the round with the new settings.')
    return (f'The config differs from the one that this run has run with '
            f'({Path(work_dir) / RUN_FILE}):\n{text}\n{way}')

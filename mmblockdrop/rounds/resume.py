"""How a run ends early, and where and with what it goes on."""
import errno
import logging
import math
import os
import re
import shutil
import zipfile
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple, Union

from mmblockdrop.compression import read_localizer, upgrade_record
from mmblockdrop.registry import HOOKS
from mmblockdrop.utils.checkpoint import read_checkpoint
from mmblockdrop.utils.io import read_json, whole_file

import torch
from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, get_file_backend, register_backend
from mmengine.hooks import CheckpointHook, Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from .run_file import RunFile, State

#: The record of a run, in its work directory.
RECORD = 'blockdrop.json'
#: mmengine's note of the newest checkpoint.
LATEST = 'last_checkpoint'
#: In front of a checkpoint's name while the next one is written.
HELD = 'held_'
#: The disk is full, a quota is used up, a file would exceed its limit.
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


# -------------------------------------------------- what a killed run leaves
class WholeFileBackend(LocalBackend):
    """mmengine's backend of local files, writing them whole or not at all.

    A process that is killed while it writes a checkpoint leaves the older
    file of the same name as it was.
    """

    def put(self, obj: bytes, filepath: Union[str, Path]) -> None:
        """Write bytes to a file.

        Args:
            obj: The content.
            filepath: The file; its folder is made if it is not there.
        """
        Path(filepath).parent.mkdir(parents=True, exist_ok=True)
        with whole_file(filepath) as temporary:
            super().put(obj, temporary)


def write_whole_files() -> None:
    """Let mmengine write local files whole, unless that is changed already.

    Checkpoints that go to another storage are written as before.
    """
    if type(get_file_backend('.')) is LocalBackend:
        register_backend('local', WholeFileBackend, force=True, prefixes='')


@contextmanager
def last_checkpoint_held(runner: Runner) -> Iterator[None]:
    """Keep the newest checkpoint until the next one is written.

    ``CheckpointHook`` with ``max_keep_ckpts=1`` removes it before. It has a
    second name meanwhile, which stays if the run ends.

    Args:
        runner: The runner.
    """
    work_dir = Path(runner.work_dir)
    at_risk = is_main_process() and any(
        isinstance(hook, CheckpointHook) and hook.max_keep_ckpts == 1
        for hook in runner.hooks)
    latest = _noted([work_dir]) if at_risk else None
    if latest is not None and not latest.name.startswith(HELD):
        held = work_dir / f'{HELD}{latest.name}'
        held.unlink(missing_ok=True)
        try:
            os.link(latest, held)
        except OSError:  # the file system knows no links
            with whole_file(held) as temporary:
                shutil.copyfile(latest, temporary)
    yield
    if at_risk:
        for path in work_dir.glob(f'{HELD}*.pth'):
            path.unlink()


def read_record(work_dir: Path) -> Optional[Dict[str, Any]]:
    """Read the record that a run has left.

    Args:
        work_dir: Work directory of the run.

    Returns:
        The record, of today's version; None if there is none.

    Raises:
        ValueError: The file is damaged.
    """
    path = work_dir / RECORD
    if not path.is_file():
        return None
    record = read_json(path, RECORD)
    if not isinstance(record, dict):
        raise ValueError(f'{RECORD}={str(path)!r} holds a '
                         f'{type(record).__name__}, expected a record')
    try:
        return upgrade_record(record)
    except ValueError as error:
        raise ValueError(f'{RECORD}={str(path)!r}: {error}') from error


def left_record(runner: Runner) -> Optional[Dict[str, Any]]:
    """Read what an interrupted run has left, also where it is damaged.

    Args:
        runner: A runner that resumes.

    Returns:
        The record; that of the newest whole checkpoint where the file is
        damaged.

    Raises:
        ValueError: The file is damaged and there is no checkpoint; says what
            to delete.
    """
    work_dir = Path(runner.work_dir)
    try:
        return read_record(work_dir)
    except ValueError as error:
        point = _newest(folders(runner), None)
        record = None if point is None else _meta(point).get('blockdrop')
        if record is None:
            raise ValueError(
                f'{error}. No checkpoint has a record either: delete '
                f'{work_dir / RECORD} and start again without --resume.'
            ) from error
        runner.logger.warning(f'{error}. The record is taken from {point}.')
        return upgrade_record(record)


# -------------------------------------------------------- where it can go on
def folders(runner: Runner) -> List[Path]:
    """Folders that hold the checkpoints of a run, before it trains.

    Args:
        runner: The runner.

    Returns:
        The work directory, and those that a ``CheckpointHook`` writes into.
    """
    work_dir = Path(runner.work_dir)
    others = [
        Path(hook.out_dir) / work_dir.name for hook in runner.hooks
        if isinstance(hook, CheckpointHook) and hook.out_dir
        and Path(hook.out_dir) != work_dir and '://' not in str(hook.out_dir)
    ]
    return [work_dir, *others]


def last_point(work_dir: Path,
               record: Optional[Dict[str, Any]] = None,
               others: Sequence[Path] = ()) -> Optional[Path]:
    """Newest checkpoint of a run that is whole, found by its content.

    That is the checkpoint of the last epoch, or the result of the last
    round where a later one is not there. Notes of where files were do not
    count, so the copy of a folder goes on from itself.

    Args:
        work_dir: Work directory.
        record: Content of ``blockdrop.json`` there. Defaults to None, not
            known.
        others: Other folders that hold checkpoints of the run.

    Returns:
        The checkpoint; None if the run has to begin again.
    """
    return _newest([work_dir, *others], record)


def _newest(where: Sequence[Path],
            record: Optional[Dict[str, Any]]) -> Optional[Path]:
    """Newest whole checkpoint in some folders, the work directory first."""
    run = RunFile(where[0])
    points: List[Tuple[State, bool, Path]] = []
    noted = _noted(where)
    for folder in where:
        for pattern in ('epoch_*.pth', f'{HELD}epoch_*.pth'):
            points += [((_epoch_of(path), 0), path.name[0] == 'e', path)
                       for path in folder.glob(pattern)]
    if noted is not None and all(noted != path for *_, path in points):
        points.append(((_epoch_of(noted), 0), False, noted))
    for path, state in _results(where[0], record):
        points.append((state, True, path))
    for state, _, path in sorted(points, reverse=True):
        known = noted is not None and state[0] <= _epoch_of(noted)
        if _holds(path, state, run, known or bool(state[1])):
            return path
    return None


def _results(work_dir: Path, record: Optional[Dict[str, Any]]
             ) -> Iterator[Tuple[Path, State]]:
    """Results of finished rounds, as the record or they themselves tell."""
    if record is not None:
        for entry in record.get('rounds', []):
            if 'last_epoch' in entry:
                yield (work_dir / entry['checkpoint'],
                       (entry['last_epoch'], entry.get('round', 1)))
        return
    for path in work_dir.glob('round_*[0-9].pth'):
        try:
            meta = _meta(path)
        except ValueError:
            continue
        rounds = (meta.get('blockdrop') or {}).get('rounds') or [{}]
        if rounds[-1].get('checkpoint') == path.name:
            yield path, (rounds[-1].get('last_epoch', 0), len(rounds))


def _holds(path: Path, state: State, run: RunFile, known: bool) -> bool:
    """Whether a file is whole and of this run, and can be gone on from."""
    if not zipfile.is_zipfile(path):
        return False
    try:
        meta = _meta(path)
    except ValueError as error:
        print_log(f'Passed over: {error}', 'current', logging.WARNING)
        return False
    written = run.wrote(meta, state)
    if written is False or (written is None and not known):
        return False
    rounds = (meta.get('blockdrop') or {}).get('rounds') or [{}]
    if rounds[-1].get('state') != 'dropped':
        return True
    try:
        require_best(run.path.parent, meta['blockdrop'])
    except (OSError, ValueError) as error:
        print_log(f'{path} is passed over, and the round repeated: {error}',
                  'current', logging.WARNING)
        return False
    return True


def _meta(path: Path) -> Dict[str, Any]:
    """What a checkpoint says about itself; raises where it is damaged."""
    content = read_checkpoint(path)
    meta = content.get('meta') if isinstance(content, dict) else None
    return meta if isinstance(meta, dict) else {}


def require_best(work_dir: Path, record: Dict[str, Any]) -> None:
    """Check the file of the best epoch of a round that has begun.

    Args:
        work_dir: Work directory.
        record: The record, with the round as last entry.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is damaged, or of another run.
    """
    entry = record['rounds'][-1]
    path = work_dir / f'round_{entry["round"]}_best.pth'
    meta = _meta(path)
    found = (meta.get('blockdrop') or {}).get('rounds') or []
    same = len(found) >= len(record['rounds']) and found[
        len(record['rounds']) - 1].get('dropped') == entry['dropped']
    if meta.get('blockdrop') and not (
            same and RunFile(work_dir).wrote_best(meta, entry['round'])):
        raise ValueError(f'{path} was written by another run')


def _noted(where: Sequence[Path]) -> Optional[Path]:
    """Checkpoint that mmengine's note names, by its name alone.

    A note that is broken stands for the newest file; without a note there is
    no checkpoint, unless it says itself which run wrote it.
    """
    note = where[0] / LATEST
    if not note.is_file():
        return None
    named = Path(note.read_text(errors='replace').strip().strip('\0')).name
    for folder in where:
        if named and zipfile.is_zipfile(folder / named):
            return folder / named
    whole = [
        p for folder in where
        for pattern in ('epoch_*.pth', f'{HELD}epoch_*.pth')
        for p in folder.glob(pattern) if zipfile.is_zipfile(p)
    ]
    return max(whole, key=lambda p: p.stat().st_mtime, default=None)


def _epoch_of(path: Path) -> int:
    """Epochs that had ended; mmengine writes them into the name."""
    number = re.search(r'epoch_(\d+)\.pth$', path.name)
    return int(number.group(1)) if number else 10**9


def go_on(runner: Runner, record: Optional[Dict[str, Any]]) -> None:
    """Tell a runner that resumes which checkpoint to resume from.

    A checkpoint that the user named stays. Without any the run begins
    again from the weights it began from.

    Args:
        runner: A runner with ``resume=True``, before it loads.
        record: What the interrupted run left.
    """
    if runner._load_from is not None:
        return
    point = _newest(folders(runner), record or {})
    if point is not None:
        runner._load_from = str(point)
        return
    runner.logger.warning(
        f'{runner.work_dir} holds no checkpoint to resume from; the run '
        'begins again with the scores that were found.')
    runner._resume = False
    runner._load_from = began_from(Path(runner.work_dir), record)


def began_from(work_dir: Path,
               record: Optional[Dict[str, Any]]) -> Optional[str]:
    """Weights that a run was given as ``load_from``.

    Args:
        work_dir: Its work directory.
        record: What it left.

    Returns:
        The path, if it was given any.
    """
    last = RunFile(work_dir).last or record or {}
    return last.get('load_from')


# ------------------------------------------------------- what it takes along
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


def scored_round(found: Optional[Dict[str, Any]], record: Dict[str, Any],
                 criterion: str, scored_by: str) -> Optional[Dict[str, Any]]:
    """What an interrupted run had found for the coming round.

    Args:
        found: The record that it left.
        record: The record of this run.
        criterion: Name of the rule that would score now.
        scored_by: Short name of the rule with its data.

    Returns:
        Entry of the record with scores by this rule for exactly this state,
        if there is one.
    """
    done = len(record['rounds'])
    if found is None or len(found['rounds']) <= done:
        return None
    entry = found['rounds'][done]
    same = entry['criterion'] == criterion and entry.get(
        'scored_by', scored_by) == scored_by
    return entry if same and history(found, done) == history(
        record, done) else None


def evaluated_epochs(path: Path,
                     record: Dict[str, Any]) -> Dict[str, Dict[str, Any]]:
    """What the file of the best epoch knows of the current round.

    An interrupted run may have kept an epoch that ended after the
    checkpoint from which it goes on.

    Args:
        path: Weights of the best epoch.
        record: The record of this run, with the round as last entry.

    Returns:
        ``epochs`` and ``intervals`` of the round; empty if the file is of
        another run.
    """
    if not path.is_file():
        return dict(epochs={}, intervals={})
    _, found = read_localizer(str(path))
    done = len(record['rounds']) - 1
    if found is None or len(found['rounds']) <= done:
        return dict(epochs={}, intervals={})
    entry, ours = found['rounds'][done], record['rounds'][-1]
    same = entry.get('dropped') == ours['dropped'] and history(
        found, done) == history(record, done)
    return {key: entry.get(key, {}) if same else {}
            for key in ('epochs', 'intervals')}


# ------------------------------------------------------ what is said at once
def where_to_go_on(work_dir: Path, record: Dict[str, Any]) -> str:
    """A sentence on where a run that ends now can go on.

    Args:
        work_dir: Work directory.
        record: The record of the run.

    Returns:
        The sentence.
    """
    point = last_point(work_dir, record)
    done = [r for r in record.get('rounds', []) if 'checkpoint' in r]
    result = f' The last finished round is {done[-1]["checkpoint"]}.' if (
        done) else ' No round was finished.'
    if point is None:
        return 'No checkpoint was written yet.' + result
    return f'--resume goes on from {point.name}.' + result


@contextmanager
def explained(runner: Runner, record: Dict[str, Any]) -> Iterator[None]:
    """Explain a full disk and a removed folder.

    Args:
        runner: The runner.
        record: The record of the run.

    Raises:
        OSError: What happened and where the run can go on; the number of
            the error is the system's.
    """
    try:
        yield
    except OSError as error:
        work_dir = Path(runner.work_dir)
        if error.errno in NO_SPACE:
            text = (f'{error.strerror}: {error.filename or work_dir} could '
                    'not be written and was left as it was. Make room, then '
                    'go on with --resume. '
                    f'{where_to_go_on(work_dir, record)}')
        elif not work_dir.is_dir():
            text = (f'The work directory {work_dir} was removed while the '
                    'run was going, with everything in it. The run ends: '
                    'its results have no place.')
        else:
            raise
        raise OSError(error.errno, text) from error


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Ends a run whose loss is not finite, and says where it can go on.

    ``DistillationLoop`` registers it where the config does not.
    """

    priority = 'ABOVE_NORMAL'

    def after_train_iter(self,
                         runner: Runner,
                         batch_idx: int,
                         data_batch: Any = None,
                         outputs: Optional[dict] = None) -> None:
        """Look at the loss.

        Raises:
            FloatingPointError: It is NaN or infinite. Says in which round,
                epoch and iteration, and which parts of it are.
        """
        values = {
            name: value.detach() if isinstance(value, torch.Tensor) else value
            for name, value in (outputs or {}).items()
            if 'loss' in name and isinstance(value, (torch.Tensor, float))
        }
        total = values.get('loss', 0.)
        if math.isfinite(total):
            return
        bad = ', '.join(
            f'{name} {float(value)}' for name, value in values.items()
            if name != 'loss' and not math.isfinite(value))
        work_dir = Path(runner.work_dir)
        record = read_record(work_dir) or {}
        number = len(record.get('rounds', []))
        where = f'Round {number}, epoch' if number else 'Epoch'
        raise FloatingPointError(
            f'{where} {runner.epoch + 1} of the run, iteration '
            f'{batch_idx + 1}: the loss is {float(total)} '
            f'({bad or "the sum"}). A smaller learning rate, gradient '
            'clipping (optim_wrapper.clip_grad) or bfloat16 instead of '
            f'float16 may help. {where_to_go_on(work_dir, record)}')

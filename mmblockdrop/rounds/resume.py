"""How a run ends early, and where and with what it goes on."""
import errno
import math
import os
import re
import shutil
import zipfile
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple, Union

from mmblockdrop.compression import read_localizer, upgrade_record
from mmblockdrop.registry import HOOKS
from mmblockdrop.utils.io import read_json, whole_file

import torch
from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, get_file_backend, register_backend
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import Runner

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
    latest = _latest(work_dir) if at_risk else None
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
    try:
        return upgrade_record(read_json(path, RECORD))
    except ValueError as error:
        raise ValueError(f'{error}. Without this file --resume goes on from '
                         'the newest checkpoint.') from error


# -------------------------------------------------------- where it can go on
def last_point(work_dir: Path, record: Dict[str, Any]) -> Optional[Path]:
    """Newest checkpoint of a run that is whole.

    That is the checkpoint of the last epoch, or the result of the last
    round where a later one is not there.

    Args:
        work_dir: Work directory.
        record: Content of ``blockdrop.json`` there.

    Returns:
        The checkpoint; None if the run has to begin again.
    """
    points: List[Tuple[int, int, Path]] = []
    latest = _latest(work_dir)
    if latest is not None:
        points.append((_epoch_of(latest), 0, latest))
    for entry in record.get('rounds', []):
        if 'last_epoch' in entry:
            points.append((entry['last_epoch'], 1,
                           work_dir / entry['checkpoint']))
    points = [p for p in points if zipfile.is_zipfile(p[-1])]
    return max(points)[-1] if points else None


def _latest(work_dir: Path) -> Optional[Path]:
    """Checkpoint of the last epoch, also where its note is broken."""
    note = work_dir / LATEST
    if not note.is_file():
        return None
    named = note.read_text(errors='replace').strip().strip('\0')
    for path in (work_dir / Path(named).name, Path(named)):
        if named and zipfile.is_zipfile(path):
            return path
    whole = [
        p for pattern in ('epoch_*.pth', f'{HELD}epoch_*.pth')
        for p in work_dir.glob(pattern) if zipfile.is_zipfile(p)
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
    record = record or {}
    point = last_point(Path(runner.work_dir), record)
    if point is not None:
        runner._load_from = str(point)
        return
    runner.logger.warning(
        f'{runner.work_dir} holds no checkpoint to resume from; the run '
        'begins again with the scores that were found.')
    runner._resume = False
    runner._load_from = record.get('load_from')


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


def evaluated_epochs(path: Path, record: Dict[str, Any]) -> Dict[str, float]:
    """What the file of the best epoch knows of the current round.

    An interrupted run may have kept an epoch that ended after the
    checkpoint from which it goes on.

    Args:
        path: Weights of the best epoch.
        record: The record of this run, with the round as last entry.

    Returns:
        Epoch of the round to metric; empty if the file is of another run.
    """
    if not path.is_file():
        return {}
    _, found = read_localizer(str(path))
    done = len(record['rounds']) - 1
    if found is None or len(found['rounds']) <= done:
        return {}
    entry, ours = found['rounds'][done], record['rounds'][-1]
    same = entry.get('dropped') == ours['dropped'] and history(
        found, done) == history(record, done)
    return entry['epochs'] if same else {}


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

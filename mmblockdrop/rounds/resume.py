"""Where an interrupted run can go on."""
import re
import zipfile
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

LATEST = 'last_checkpoint'


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
    named = note.read_text().strip()
    for path in (Path(named), work_dir / Path(named).name):
        if named and zipfile.is_zipfile(path):
            return path
    whole = [p for p in work_dir.glob('epoch_*.pth') if zipfile.is_zipfile(p)]
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


def keep_one_more(runner: Runner) -> None:
    """Never let the only checkpoint go before the next one is written.

    mmengine removes old checkpoints before it writes a new one.

    Args:
        runner: The runner.
    """
    for hook in runner.hooks:
        if isinstance(hook, CheckpointHook) and hook.max_keep_ckpts == 1:
            runner.logger.info(
                'CheckpointHook.max_keep_ckpts=1 would leave no checkpoint '
                'while the next one is written: two are kept.')
            hook.max_keep_ckpts = 2

"""Say clearly why a run ended, and what is left of it."""
import errno
import math
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator

import torch
from mmengine.runner import Runner

from .resume import last_point

#: The disk is full, a quota is used up, a file would exceed its limit.
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


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
                    f'go on with --resume. {what_is_left(runner, record)}')
        elif not work_dir.is_dir():
            text = (f'The work directory {work_dir} was removed while the '
                    'run was going, with everything in it. The run ends: '
                    'its results have no place.')
        else:
            raise
        raise OSError(error.errno, text) from error


def check_loss(runner: Runner, record: Dict[str, Any], losses: Dict[str, Any],
               iteration: int) -> None:
    """End a run whose loss is no number any more.

    Args:
        runner: The runner.
        record: The record of the run.
        losses: What the training step returned, scalars by name.
        iteration: Number in the epoch, from zero.

    Raises:
        FloatingPointError: The loss is NaN or infinite. Says in which round,
            epoch and iteration, and which parts of it are.
    """
    values = {
        name: value.detach() if isinstance(value, torch.Tensor) else value
        for name, value in losses.items()
        if 'loss' in name and isinstance(value, (torch.Tensor, float))
    }
    total = values.get('loss', 0.)
    if math.isfinite(total):
        return
    bad = ', '.join(f'{name} {float(value)}' for name, value in values.items()
                    if name != 'loss' and not math.isfinite(value))
    number = len(record.get('rounds', []))
    where = f'Round {number}, epoch' if number else 'Epoch'
    raise FloatingPointError(
        f'{where} {runner.epoch + 1} of the run, iteration {iteration + 1}: '
        f'the loss is {float(total)} ({bad or "the sum"}). A smaller '
        'learning rate, gradient clipping (optim_wrapper.clip_grad) or '
        'bfloat16 instead of float16 may help. '
        f'{what_is_left(runner, record)}')


def what_is_left(runner: Runner, record: Dict[str, Any]) -> str:
    """A sentence on where a run that ends now can go on.

    Args:
        runner: The runner.
        record: The record of the run.

    Returns:
        The sentence.
    """
    point = last_point(Path(runner.work_dir), record)
    done = [r for r in record.get('rounds', []) if 'checkpoint' in r]
    result = f' The last finished round is {done[-1]["checkpoint"]}.' if (
        done) else ' No round was finished.'
    if point is None:
        return 'No checkpoint was written yet.' + result
    return f'--resume goes on from {point.name}.' + result

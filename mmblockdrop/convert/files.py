"""Weights in the checkpoints of other projects; checkpoints written whole."""
from pathlib import Path
from typing import Any, Dict, Optional, Tuple

from mmblockdrop.utils.checkpoint import (State, state_dict_of, unwrap_state,
                                          write_checkpoint)

import torch


def unwrap(content: Any, source: str) -> Tuple[State, str]:
    """Find the state dict of a checkpoint.

    Args:
        content: What :func:`read_checkpoint` returned.
        source: File, for errors.

    Returns:
        State dict, and the keys it stood under, joined by points ('' for a
        bare state dict). ``module.`` in front of every name is taken off.

    Raises:
        ValueError: There is no state dict.
    """
    state = state_dict_of(content, source)
    for name, value in state.items():
        if not isinstance(value, torch.Tensor):
            raise ValueError(f'{source} holds no weights: its {name} is a '
                             f'{type(value).__name__}')
    return state, unwrap_state(content)[1]


def strip(state: State, prefix: str) -> State:
    """Take a prefix off the names that have it."""
    return {name.removeprefix(prefix): v for name, v in state.items()}


def save_checkpoint(content: Dict[str, Any],
                    path: str,
                    source: Optional[str] = None) -> None:
    """Write a checkpoint that is either whole or absent.

    Args:
        content: ``state_dict`` and ``meta``.
        path: File.
        source: File that was read, which stays.

    Raises:
        FileExistsError: There is such a file.
    """
    target = Path(path)
    if target.exists():
        what = 'the file that was read' if source and target.samefile(
            source) else 'a file that exists'
        raise FileExistsError(f'{path} is {what}: name another one')
    target.parent.mkdir(parents=True, exist_ok=True)
    write_checkpoint(content, target)

"""Read checkpoints without running their code; write them whole."""
import argparse
import difflib
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Dict, Optional, Tuple

from mmblockdrop.compat.checkpoint import mmengine_globals_allowed
from mmblockdrop.utils.io import whole_file

import torch

from .report import State

#: Where a state dict stands inside a checkpoint.
WRAPPERS = ('state_dict', 'model', 'module')


def read_checkpoint(path: str) -> Any:
    """Read a checkpoint of any of the supported projects.

    Tensors, numbers, text, containers, and the few harmless names that
    mmengine and ``argparse`` write are allowed. Nothing else is opened.

    Args:
        path: File.

    Returns:
        Its content, on the CPU.

    Raises:
        FileNotFoundError: No such file; with the nearest name.
        pickle.UnpicklingError: The file holds anything else, by name.
    """
    file = Path(path)
    if not file.is_file():
        there = [p.name for p in file.parent.glob('*')]
        near = difflib.get_close_matches(file.name, there, 1)
        hint = f'; did you mean {file.parent / near[0]}?' if near else ''
        raise FileNotFoundError(f'there is no checkpoint {path}{hint}')
    # torch < 2.5 has no such list and refuses the name.
    also = getattr(torch.serialization, 'safe_globals', nullcontext)
    with mmengine_globals_allowed(str(path)), also([argparse.Namespace]):
        return torch.load(file, map_location='cpu', weights_only=True)


def unwrap(content: Any, source: str) -> Tuple[State, str]:
    """Find the state dict of a checkpoint.

    Args:
        content: What :func:`read_checkpoint` returned.
        source: File, for the error.

    Returns:
        State dict, and the keys it stood under, joined by points ('' for a
        bare state dict). ``module.`` in front of every name is taken off.

    Raises:
        ValueError: There is no state dict.
    """
    path = []
    while isinstance(content, dict) and not _is_state(content):
        inside = [k for k in WRAPPERS if isinstance(content.get(k), dict)]
        if not inside:
            break
        path.append(inside[0])
        content = content[inside[0]]
    if not isinstance(content, dict) or not _is_state(content):
        found = list(content)[:8] if isinstance(content, dict) else type(
            content).__name__
        raise ValueError(f'{source} holds no weights: found {found}, expected '
                         f'a state dict, bare or under one of {WRAPPERS}')
    return strip(content, 'module.'), '.'.join(path)


def _is_state(content: Dict[str, Any]) -> bool:
    return bool(content) and all(
        isinstance(v, torch.Tensor) for v in content.values())


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
            source) else 'a file that is there already'
        raise FileExistsError(f'{path} is {what}: name another one')
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(target) as temporary:
        torch.save(content, temporary)

"""Shape a fresh localizer as its checkpoint says, and load the weights."""
from typing import Any, Dict, List, Optional, Tuple, Union

from mmblockdrop.utils.checkpoint import (load_strictly, read_checkpoint,
                                          state_dict_of)

from torch import Tensor, nn

from .lora import TARGETS, add_lora, has_lora, linear_names, merge_lora
from .record import replay, upgrade_record

Shortened = Union[str, List[str]]


def load_localizer(model: nn.Module,
                   checkpoint: str,
                   key: str = 'checkpoint') -> Dict[str, Any]:
    """Make a fresh localizer what a checkpoint holds, with LoRA merged.

    Args:
        model: Uncompressed localizer; loses what the checkpoint has lost.
        checkpoint: File written by mmengine.
        key: Config key or argument that gave it, for errors.

    Returns:
        The checkpoint's ``meta``.

    Raises:
        FileNotFoundError: No such file.
        ValueError: It cannot be read or does not fit; lists the keys.
    """
    content = read_checkpoint(checkpoint, key)
    shape_localizer(model, content)
    load_strictly(
        model,
        state_dict_of(content),
        f'{key}={checkpoint!r}',
        hint='' if record_of(content) else
        "; it holds no record of a compression, meta['blockdrop']")
    merge_lora(model)
    return content.get('meta') or {}


def read_localizer(
        checkpoint: str,
        key: str = 'checkpoint'
) -> Tuple[Dict[str, Tensor], Optional[Dict[str, Any]]]:
    """Read weights and record of a checkpoint.

    Args:
        checkpoint: File written by mmengine.
        key: Config key or argument that gave it, for errors.

    Returns:
        State dict of the plain localizer, and the record of what was removed
        from it, if there is one.

    Raises:
        FileNotFoundError: No such file.
        ValueError: It cannot be read, or its record is damaged.
    """
    content = read_checkpoint(checkpoint, key)
    return state_dict_of(content), record_of(content)


def record_of(content: Dict[str, Any]) -> Optional[Dict[str, Any]]:
    """Take the record out of a checkpoint.

    Args:
        content: Content of the checkpoint.

    Returns:
        The record, upgraded to the version of today; None without one.

    Raises:
        ValueError: The record is damaged.
    """
    record = (content.get('meta') or {}).get('blockdrop')
    return None if record is None else upgrade_record(record)


def shape_localizer(model: nn.Module, content: Dict[str, Any]) -> None:
    """Remove and adapt what a checkpoint says was removed and adapted.

    LoRA is attached if the checkpoint holds any, and merged if it holds none.

    Args:
        model: Uncompressed localizer.
        content: Content of the checkpoint.

    Raises:
        ValueError: The record is damaged or made from another model.
    """
    adapted = any('.lora_' in name for name in state_dict_of(content))
    if not adapted:
        merge_lora(model)
    record = record_of(content)
    if record is None:
        return
    replay(model, record)
    if adapted and record.get('lora') and not has_lora(model):
        attach_lora(model, record['stack'], record['lora'])


def attach_lora(model: nn.Module, stack: Shortened,
                lora: Dict[str, Any]) -> None:
    """Attach fresh LoRA to the blocks that remain.

    Targets of which no layer remains, as where the attention of every block
    was removed, are passed over.

    Args:
        model: The localizer.
        stack: Dotted path of the blocks, or several.
        lora: Arguments of :func:`~mmblockdrop.compression.add_lora`.

    Raises:
        ValueError: See :func:`~mmblockdrop.compression.add_lora`.
    """
    paths = [stack] if isinstance(stack, str) else stack
    modules = [model.get_submodule(path) for path in paths]
    names = linear_names(modules)
    targets = [t for t in lora.get('targets', TARGETS) if t in names]
    if targets:
        add_lora(modules, **dict(lora, targets=targets))

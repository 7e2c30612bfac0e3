"""Shape a fresh localizer as its checkpoint says, and load the weights."""
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

from mmblockdrop.utils.checkpoint import (load_strictly, read_checkpoint,
                                          state_dict_of)
from mmblockdrop.utils.messages import listed

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
    source = f'{key}={checkpoint!r}'
    state = state_dict_of(content, source)
    shape_localizer(model, content, source)
    load_strictly(model, state, source, record_hint(content))
    merge_lora(model)
    return meta_of(content)


def meta_of(content: Any) -> Dict[str, Any]:
    """What a checkpoint says of itself.

    Args:
        content: Content of the checkpoint.

    Returns:
        Its ``meta``; empty without one.
    """
    meta = content.get('meta') if isinstance(content, dict) else None
    return meta if isinstance(meta, dict) else {}


def record_hint(content: Any) -> str:
    """What to say of the record where a checkpoint does not fit.

    Args:
        content: Content of the checkpoint.

    Returns:
        The end of a sentence; empty where there is a record.
    """
    if 'blockdrop' in meta_of(content):
        return ''
    return "; it holds no record of a compression, meta['blockdrop']"


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
    source = f'{key}={checkpoint!r}'
    return state_dict_of(content, source), record_of(content, source)


def record_of(content: Any,
              source: str = 'The checkpoint') -> Optional[Dict[str, Any]]:
    """Take the record out of a checkpoint.

    Args:
        content: Content of the checkpoint.
        source: Config key and file that gave it, for errors.

    Returns:
        The record, upgraded to the version of today; None without one.

    Raises:
        ValueError: The record is damaged.
    """
    record = meta_of(content).get('blockdrop')
    if record is None:
        return None
    try:
        return upgrade_record(record)
    except ValueError as error:
        raise ValueError(f'{source}: {error}') from error


def check_classes(model: nn.Module,
                  classes: Optional[Sequence[str]],
                  source: str,
                  one_for_all: bool = False) -> None:
    """Check that a localizer knows as many classes as its data.

    Args:
        model: The localizer. Of its modules named ``...head``, outside the
            backbone, those with ``num_classes`` are asked.
        classes: Names of the classes; None if they are not known.
        source: Where they come from, for errors.
        one_for_all: Accept a head of one class, whose segments get their
            classes elsewhere or not at all.

    Raises:
        ValueError: The numbers differ.
    """
    for name, module in model.named_modules():
        count = getattr(module, 'num_classes', None)
        if (not name.endswith('head') or 'backbone' in name.split('.')
                or not isinstance(count, int) or not classes
                or count == len(classes) or one_for_all and count == 1):
            continue
        raise ValueError(
            f'model.{name}.num_classes={count}, but {source} has '
            f'{len(classes)} classes: {listed(classes)}')


def shape_localizer(model: nn.Module,
                    content: Dict[str, Any],
                    source: str = 'The checkpoint') -> None:
    """Remove and adapt what a checkpoint says was removed and adapted.

    LoRA is attached if the checkpoint holds any, and merged if it holds none.

    Args:
        model: Uncompressed localizer.
        content: Content of the checkpoint.
        source: Config key and file that gave it, for errors.

    Raises:
        ValueError: The record is damaged or made from another model.
    """
    adapted = any('.lora_' in name for name in state_dict_of(content, source))
    if not adapted:
        merge_lora(model)
    record = record_of(content, source)
    if record is None:
        return
    try:
        replay(model, record)
    except ValueError as error:
        raise ValueError(f'{source}: {error}') from error
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

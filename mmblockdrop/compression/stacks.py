"""Find the stacks of blocks of a model, and read their paths."""
import difflib
from typing import Dict, List, Sequence, Tuple, Union

from torch import nn

from .bypass import DroppedBlock

Path = Union[str, nn.Module]
CONTAINERS = (nn.ModuleList, nn.Sequential)
#: Errors name so many stacks of one kind one by one.
MANY = 4


def find_stacks(model: nn.Module) -> Dict[str, int]:
    """List the places of a model that hold a stack of blocks.

    Args:
        model: Any model.

    Returns:
        Dotted path to number of blocks, for every ``ModuleList`` or
        ``Sequential`` of at least two modules of one class that consist of
        modules themselves. Blocks that were dropped count.
    """
    return {
        name: len(module)
        for name, module in model.named_modules()
        if isinstance(module, CONTAINERS) and _holds_blocks(module)
    }


def _holds_blocks(container: nn.Module) -> bool:
    blocks = [m for m in container if not isinstance(m, DroppedBlock)]
    kinds = {type(m) for m in blocks}
    return (len(container) > 1 and len(kinds) == 1 and all(
        any(m.children()) and any(True for _ in m.parameters())
        for m in blocks))


def stack_listing(model: nn.Module) -> str:
    """Name the stacks of a model in one line.

    Args:
        model: Any model.

    Returns:
        Paths with their lengths. What more than :data:`MANY` blocks hold alike
        is named once, as ``layers.*.experts``.
    """
    stacks = find_stacks(model)
    groups: Dict[Tuple[str, int], List[str]] = {}
    for path, length in stacks.items():
        groups.setdefault((_starred(model, path), length), []).append(path)
    entries = []
    for (starred, length), paths in groups.items():
        if len(paths) > MANY:
            entries.append(f'{starred} ({length} blocks, {len(paths)} times)')
        else:
            entries += [f'{path} ({length} blocks)' for path in paths]
    return ', '.join(entries) or 'none'


def _starred(model: nn.Module, path: str) -> str:
    """Path with stars for the numbers of blocks."""
    parts = path.split('.')
    parents = [
        model, *(model.get_submodule('.'.join(parts[:i]))
                 for i in range(1, len(parts)))
    ]
    return '.'.join('*' if isinstance(parent, CONTAINERS) else part
                    for parent, part in zip(parents, parts))


def block_names(model: nn.Module, paths: Sequence[Path]) -> List[str]:
    """Name the blocks that some paths stand for.

    Args:
        model: Any model.
        paths: Dotted paths, or modules of the model. A ``ModuleList`` or
            ``Sequential`` stands for the modules in it, any other module for
            itself.

    Returns:
        Dotted path of every block.

    Raises:
        ValueError: A path names nothing, or nothing in the model; a block
            is named twice, or lies inside another.
    """
    names: List[str] = []
    for part in paths:
        path = part if isinstance(part, str) else path_of(model, part)
        module = find_module(model, path)
        inside = list(module._modules) if isinstance(module,
                                                     CONTAINERS) else []
        if isinstance(module, CONTAINERS) and not inside:
            raise ValueError(f'stack={path!r} is empty.')
        names += [f'{path}.{n}'.lstrip('.') for n in inside] or [path]
    for i, name in enumerate(names):
        for other in names[:i]:
            if name == other:
                raise ValueError(f'stack names the block {name!r} twice.')
            inner, outer = sorted((name, other), key=len, reverse=True)
            if inner.startswith(f'{outer}.'):
                raise ValueError(f'stack names {inner!r}, which lies inside '
                                 f'the block {outer!r}: choose one of them.')
    return names


def path_of(model: nn.Module, module: nn.Module) -> str:
    """Find the dotted path of a module.

    Args:
        model: Any model.
        module: A module of it.

    Returns:
        Its path.

    Raises:
        ValueError: It is not part of the model.
    """
    for name, child in model.named_modules():
        if child is module:
            return name
    raise ValueError(f'stack holds a {type(module).__name__} that is not a '
                     f'module of {type(model).__name__}; its stacks are: '
                     f'{stack_listing(model)}.')


def find_module(model: nn.Module, path: str) -> nn.Module:
    """Find a module by its dotted path.

    Args:
        model: Any model.
        path: Dotted path.

    Returns:
        The module.

    Raises:
        ValueError: There is none; lists the stacks that exist.
    """
    try:
        return model.get_submodule(path)
    except AttributeError:
        near = difflib.get_close_matches(
            path, find_stacks(model), n=1, cutoff=0.3)
        hint = f' Did you mean {near[0]!r}?' if near else ''
        raise ValueError(
            f'stack={path!r} is not a module of {type(model).__name__}.'
            f'{hint} Its stacks are: {stack_listing(model)}.') from None

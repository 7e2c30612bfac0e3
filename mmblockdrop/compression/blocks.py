"""Whole blocks: the stacks of a model, and how a block is removed.

A stack is named by the dotted path of a ``ModuleList`` or ``Sequential``
(``backbone.blocks``), or by several paths. Its blocks are numbered from
zero in the order of the uncompressed model, and keep that number for ever:
a removed block is replaced in place by one that returns its input, so no
other parameter changes its name.
"""
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple, Union

from mmblockdrop.registry import STRUCTURES
from mmblockdrop.utils.messages import did_you_mean

from torch import nn

from .bypass import Bypass, DroppedBlock
from .record import Id, read_id
from .spec import find_place
from .structure import Path, StackPath, Structure, Undo

CONTAINERS = (nn.ModuleList, nn.Sequential)
#: Errors name so many stacks of one kind one by one.
MANY = 4


@STRUCTURES.register_module()
class BlockStack(Structure):
    """Whole blocks, by their number.

    Args:
        model: The localizer, or any other model.
        path: Dotted path of a ``ModuleList`` or ``Sequential``, or of single
            modules, or several of either; or the modules themselves.
        probed: What :attr:`probed` gave for the same model. Defaults to None:
            nothing is known yet, so that every block may be removed and is
            replaced by its first argument.

    Attributes:
        path: The path or paths.
        names: Dotted path of every block, by number.
        bypass: What takes the place of a block's output, where that is not its
            first argument.

    Raises:
        ValueError: A path names nothing; the error lists the stacks that
            exist, with their lengths. Or a block is named twice.
    """

    unit, units = 'block', 'blocks'

    def __init__(self,
                 model: nn.Module,
                 path: StackPath,
                 probed: Optional[Dict[str, Any]] = None) -> None:
        super().__init__(model, path, probed)
        self.bypass: Dict[Id, Bypass] = {
            read_id(i, self.ids): p
            for i, p in (probed or {}).get('passes', {}).items()
        }
        if probed is None:
            self.fixed = self._declared_fixed()

    def _find_parts(self) -> Dict[Id, str]:
        self.path = named(self.model, self.path)
        return dict(enumerate(block_names(self.model, listed(self.path))))

    @property
    def remaining(self) -> List[Id]:
        """Original numbers of the blocks that have not been removed."""
        return [i for i in self.ids if not isinstance(self[i], DroppedBlock)]

    def stand_in(self, part: Id) -> nn.Module:
        """See :meth:`Structure.stand_in`."""
        return DroppedBlock(self.bypass.get(part, 0))

    def _take_out(self, part: Id) -> Undo:
        name = self.names[part]
        taken = [(name, self._put(name, self.stand_in(part)))]
        place = find_place(self.model, name)
        if place is not None:
            number = name.rpartition('.')[2]
            for leaf, bypass in place.spec.leaves.items():
                path = f'{place.prefix}.{leaf.format(number)}'.lstrip('.')
                taken.append((path, self._put(path, DroppedBlock(bypass))))
        self._changed(name)

        def undo() -> None:
            for path, module in taken:
                self._put(path, module)
            self._changed(name)

        return undo

    def _declared_fixed(self) -> Dict[Id, str]:
        """Blocks that have to stay by what their class says."""
        fixed: Dict[Id, str] = {}
        for part in self.remaining:
            place = find_place(self.model, self.names[part])
            if place is not None and place.spec.why_fixed is not None:
                why = place.spec.why_fixed(self[part])
                fixed.update({part: why} if why else {})
        return fixed

    def probe(self, run: Callable[[], Any]) -> None:
        """See :meth:`Structure.probe`; what the class says holds too."""
        super().probe(run)
        self.fixed = {**self._declared_fixed(), **self.fixed}

    def _note_bypass(self, bypass: Dict[Id, Bypass]) -> None:
        self.bypass = bypass

    @property
    def probed(self) -> Dict[str, Any]:
        """What a probe found, as plain data for a record."""
        bypass = {
            i: block.bypass
            for i in self.ids if isinstance(block := self[i], DroppedBlock)
        }
        bypass.update(self.bypass)
        return dict(
            super().probed,
            passes={str(i): p
                    for i, p in bypass.items() if p != 0})


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


def listed(path: StackPath) -> List[Path]:
    """List the paths of a stack.

    Args:
        path: One or several.

    Returns:
        All of them.
    """
    return [path] if isinstance(path, (str, nn.Module)) else list(path)


def named(model: nn.Module, path: StackPath) -> Union[str, List[str]]:
    """Write the path of a stack as text, for a record.

    Args:
        model: Any model.
        path: Dotted paths, or modules of the model.

    Returns:
        The same with the path in the place of a module.

    Raises:
        ValueError: A module is not part of the model.
    """
    paths = [p if isinstance(p, str) else path_of(model, p)
             for p in listed(path)]
    return paths[0] if isinstance(path, (str, nn.Module)) else paths


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
        raise ValueError(
            f'stack={path!r} is not a module of {type(model).__name__}, '
            f'expected one of its stacks: {stack_listing(model)}'
            f'{did_you_mean(path, find_stacks(model))}') from None

"""Skip a block for a while, drop it for good, replay earlier drops.

A stack is named by the dotted path of a ``ModuleList`` or ``Sequential``
(``backbone.blocks``), or by several paths. Its blocks are numbered from
zero in the order of the uncompressed model, and keep that number for ever:
a dropped block is replaced in place by one that returns its input, so no
other parameter changes its name.
"""
import difflib
from contextlib import contextmanager
from typing import Any, Dict, Iterator, List, Sequence, Union

from torch import nn

StackPath = Union[str, Sequence[str]]


class DroppedBlock(nn.Identity):
    """Stands where a block was; returns its first input."""

    def forward(self, x: Any, *args, **kwargs) -> Any:
        """Return ``x`` whatever else the block was given."""
        return x


def find_stacks(model: nn.Module) -> Dict[str, int]:
    """List the places of a model that hold a stack of blocks.

    Args:
        model (nn.Module): Any model.

    Returns:
        Dict[str, int]: Dotted path to number of blocks, for every
        ``ModuleList`` or ``Sequential`` of at least two modules with
        parameters.
    """
    stacks = {}
    for name, module in model.named_modules():
        if name and isinstance(module, (nn.ModuleList, nn.Sequential)):
            if len(module) > 1 and any(True for _ in module.parameters()):
                stacks[name] = len(module)
    return stacks


def _resolve(model: nn.Module, path: str) -> nn.Module:
    try:
        return model.get_submodule(path)
    except AttributeError:
        stacks = find_stacks(model)
        near = difflib.get_close_matches(path, stacks, n=1, cutoff=0.3)
        hint = f' Did you mean {near[0]!r}?' if near else ''
        listing = ', '.join(f'{k} ({n} blocks)' for k, n in stacks.items())
        raise ValueError(
            f'stack={path!r} is not a module of {type(model).__name__}.'
            f'{hint} Its stacks are: {listing or "none"}.') from None


class BlockStack:
    """The blocks of a model that may be dropped.

    Args:
        model (nn.Module): The localizer, or any other model.
        path (str | Sequence[str]): Dotted path of a ``ModuleList`` or
            ``Sequential``, or of single modules, or several of either.

    Raises:
        ValueError: A path names nothing; the error lists the stacks that
            exist, with their lengths.
    """

    def __init__(self, model: nn.Module, path: StackPath) -> None:
        self.model = model
        self.path = path
        self.names: List[str] = []
        for part in [path] if isinstance(path, str) else path:
            module = _resolve(model, part)
            if isinstance(module, (nn.ModuleList, nn.Sequential)):
                self.names += [f'{part}.{i}' for i in range(len(module))]
            else:
                self.names.append(part)

    def __len__(self) -> int:
        """Number of blocks of the uncompressed model."""
        return len(self.names)

    def __getitem__(self, index: int) -> nn.Module:
        return self.model.get_submodule(self.names[index])

    @property
    def left(self) -> List[int]:
        """List[int]: Original numbers of the blocks that are left."""
        return [
            i for i in range(len(self))
            if not isinstance(self[i], DroppedBlock)
        ]

    def check(self, index: int) -> None:
        """Refuse a number that cannot be dropped.

        Args:
            index (int): Original number of a block.

        Raises:
            ValueError: No such block, already dropped, or the last one.
        """
        if index not in range(len(self)):
            raise ValueError(f'Block {index} of {self.path!r} does not exist:'
                             f' it has blocks 0 to {len(self) - 1}.')
        if index not in self.left:
            raise ValueError(f'Block {index} of {self.path!r} is dropped '
                             f'already; left are {self.left}.')
        if len(self.left) == 1:
            raise ValueError(f'Block {index} is the last one of '
                             f'{self.path!r} and stays.')

    def drop(self, index: int) -> nn.Module:
        """Take a block out for good.

        Args:
            index (int): Original number of the block.

        Returns:
            nn.Module: The block that was taken out.

        Raises:
            ValueError: See :meth:`check`.
        """
        self.check(index)
        return self._put(index, DroppedBlock())

    @contextmanager
    def skip(self, index: int) -> Iterator[None]:
        """Leave a block out inside a ``with`` statement.

        Args:
            index (int): Original number of the block.
        """
        block = self.drop(index)
        try:
            yield
        finally:
            self._put(index, block)

    def _put(self, index: int, module: nn.Module) -> nn.Module:
        parent_name, _, name = self.names[index].rpartition('.')
        parent = self.model.get_submodule(parent_name)
        old = parent._modules[name]
        parent._modules[name] = module
        return old


def replay(model: nn.Module, record: Dict[str, Any]) -> List[int]:
    """Drop from a fresh model what a record says was dropped.

    Blocks that are gone already are left as they are, so replaying twice
    does no harm.

    Args:
        model (nn.Module): The uncompressed localizer.
        record (dict): The record of a run, as in ``blockdrop.json`` and in
            ``checkpoint['meta']['blockdrop']``.

    Returns:
        List[int]: Original numbers of all dropped blocks.

    Raises:
        ValueError: The model's stack is shorter or longer than the one the
            record was made from.
    """
    stack = BlockStack(model, record['stack'])
    if len(stack) != record['depth']:
        raise ValueError(
            f'The checkpoint was compressed from a model with '
            f'{record["depth"]} blocks in {record["stack"]!r}; this config '
            f'builds {len(stack)}.')
    dropped = dropped_blocks(record)
    for index in dropped:
        if index in stack.left:
            stack.drop(index)
    return dropped


def dropped_blocks(record: Dict[str, Any]) -> List[int]:
    """List the blocks a record says were dropped, in that order."""
    dropped = list(record.get('start_dropped', []))
    for entry in record['rounds']:
        dropped += entry.get('dropped', [])
    return dropped

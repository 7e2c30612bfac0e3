"""Skip a block for a while, drop it for good, replay earlier drops.

A stack is named by the dotted path of a ``ModuleList`` or ``Sequential``
(``backbone.blocks``), or by several paths. Its blocks are numbered from
zero in the order of the uncompressed model, and keep that number for ever:
a dropped block is replaced in place by one that returns its input, so no
other parameter changes its name.
"""
from contextlib import contextmanager
from typing import (Any, Callable, Dict, Iterator, List, Optional, Sequence,
                    Union)

import torch
from torch import nn

from .bypass import DroppedBlock, Passes
from .probe import probe_blocks
from .stacks import Path, block_names, find_stacks, path_of

StackPath = Union[Path, Sequence[Path]]

__all__ = [
    'BlockStack', 'DroppedBlock', 'StackPath', 'dropped_blocks', 'find_stacks',
    'replay'
]


class BlockStack:
    """The blocks of a model that may be dropped.

    Args:
        model: The localizer, or any other model.
        path: Dotted path of a ``ModuleList`` or ``Sequential``, or of single
            modules, or several of either; or the modules themselves.
        probed: What :attr:`probed` gave for the same model. Defaults to None:
            nothing is known yet, so that every block may be dropped and is
            replaced by its first argument.

    Attributes:
        path: The path or paths.
        names: Dotted path of every block.
        fixed: Blocks that have to stay, and why.
        passes: What takes the place of a block's output, where that is not its
            first argument.
        order: Blocks in the order in which they run.
        idle: Linear layers in the blocks whose weights are read without
            calling them; known after :meth:`probe`.

    Raises:
        ValueError: A path names nothing; the error lists the stacks that
            exist, with their lengths. Or a block is named twice.
    """

    def __init__(self,
                 model: nn.Module,
                 path: StackPath,
                 probed: Optional[Dict[str, Any]] = None) -> None:
        self.model = model
        parts = [path] if isinstance(path, (str, nn.Module)) else path
        paths = [p if isinstance(p, str) else path_of(model, p) for p in parts]
        self.path = paths[0] if isinstance(path, (str, nn.Module)) else paths
        self.names = block_names(model, paths)
        probed = probed or {}
        self.fixed = {
            int(i): why
            for i, why in probed.get('fixed', {}).items()
        }
        self.passes: Dict[int, Passes] = {
            int(i): p
            for i, p in probed.get('passes', {}).items()
        }
        self.order: List[int] = probed.get('order', [*range(len(self))])
        self.idle: List[str] = []

    def __len__(self) -> int:
        """Number of blocks of the uncompressed model."""
        return len(self.names)

    def __getitem__(self, index: int) -> nn.Module:
        return self.model.get_submodule(self.names[index])

    @property
    def left(self) -> List[int]:
        """Original numbers of the blocks that are left."""
        return [
            i for i in range(len(self))
            if not isinstance(self[i], DroppedBlock)
        ]

    @property
    def droppable(self) -> List[int]:
        """Those of them that a probe has not found fixed."""
        return [i for i in self.left if i not in self.fixed]

    @property
    def why_fixed(self) -> str:
        """A sentence on the fixed blocks; empty without any."""
        reasons = [f'{self.names[i]} {why}' for i, why in self.fixed.items()]
        return f' Fixed: {"; ".join(reasons)}.' if reasons else ''

    @property
    def probed(self) -> Dict[str, Any]:
        """What a probe found, as plain data for a record."""
        passes = {
            i: block.passes
            for i in range(len(self))
            if isinstance(block := self[i], DroppedBlock)
        }
        passes.update(self.passes)
        found: Dict[str, Any] = dict(
            fixed={
                str(i): why
                for i, why in self.fixed.items()
            },
            passes={
                str(i): p
                for i, p in sorted(passes.items()) if p != 0
            })
        if self.order != sorted(self.order):
            found['order'] = self.order
        return found

    def probe(self, run: Callable[[], Any]) -> None:
        """Find out which blocks may be dropped, by running the model.

        A block may go if what it is given can stand for what it returns,
        and if the model runs without it. The others are fixed.

        Args:
            run: Runs the model on a few samples, in evaluation mode: ``lambda:
                model(inputs)``.
        """
        found = probe_blocks({i: self[i] for i in self.left}, self.names, run)
        self.fixed, self.passes = found.fixed, found.passes
        self.idle = found.idle
        self.order = [*range(len(self))]
        if found.order != sorted(found.order):
            ran = set(found.order)
            self.order = found.order + [i for i in self.order if i not in ran]
        if not self._error_without(self.droppable, run):
            return
        for index in self.droppable:
            error = self._error_without([index], run)
            if error:
                self.fixed[index] = f'without it the model fails: {error}'

    def _error_without(self, indices: Sequence[int],
                       run: Callable[[], Any]) -> Optional[str]:
        """Run the model without some blocks; say what goes wrong."""
        blocks = {
            i: self._put(i, DroppedBlock(self.passes.get(i, 0)))
            for i in indices
        }
        try:
            with torch.no_grad():
                run()
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:  # whatever a foreign model may raise
            return f'{type(error).__name__}: {error}'.split('\n')[0]
        finally:
            for index, block in blocks.items():
                self._put(index, block)
        return None

    def check(self, index: int) -> None:
        """Refuse a number that cannot be dropped.

        Args:
            index: Original number of a block.

        Raises:
            ValueError: No such block, already dropped, fixed, or the last
                one.
        """
        if index not in range(len(self)):
            raise ValueError(f'Block {index} of {self.path!r} does not exist:'
                             f' it has blocks 0 to {len(self) - 1}.')
        if index not in self.left:
            raise ValueError(f'Block {index} of {self.path!r} is dropped '
                             f'already; left are {self.left}.')
        if index in self.fixed:
            raise ValueError(
                f'Block {index} of {self.path!r} ({self.names[index]}) has to '
                f'stay: {self.fixed[index]}. Blocks that may go: '
                f'{self.droppable or "none"}.')
        if len(self.left) == 1:
            raise ValueError(f'Block {index} is the last one of '
                             f'{self.path!r} and stays.')

    def drop(self, index: int) -> nn.Module:
        """Take a block out for good.

        Args:
            index: Original number of the block.

        Returns:
            The block that was taken out.

        Raises:
            ValueError: See :meth:`check`.
        """
        self.check(index)
        return self._put(index, DroppedBlock(self.passes.get(index, 0)))

    @contextmanager
    def skip(self, index: int) -> Iterator[None]:
        """Leave a block out inside a ``with`` statement.

        Args:
            index: Original number of the block.
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
        model: The uncompressed localizer.
        record: The record of a run, as in ``blockdrop.json`` and in
            ``checkpoint['meta']['blockdrop']``.

    Returns:
        Original numbers of all dropped blocks.

    Raises:
        ValueError: The model's stack is shorter or longer than the one the
            record was made from.
    """
    stack = BlockStack(model, record['stack'], record.get('probe'))
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
    """List the blocks a record says were dropped, in that order.

    A round that was taken back ('rejected') drops nothing.
    """
    dropped = list(record.get('start_dropped', []))
    for entry in record['rounds']:
        if entry.get('state') != 'rejected':
            dropped += entry.get('dropped', [])
    return dropped

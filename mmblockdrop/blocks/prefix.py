"""Share the blocks before the missing one between candidates.

Scoring N candidates plainly executes N (N - 1) blocks a batch. A candidate
without block i computes blocks 0 to i - 1 exactly as the others do, so they
are computed once: (N - 1) + N (N - 1) / 2 executions, with scores equal bit
for bit.
"""
from collections import defaultdict
from contextlib import ExitStack
from functools import partial
from typing import Any, Callable, DefaultDict, Dict, Iterable, Iterator, List

from torch import nn

from .surgery import BlockStack


class SharedPrefix:
    """Runs a model with one block missing after another, on one batch.

    Used as ``with SharedPrefix(stack) as prefix: for index in
    prefix.candidates(indices): model(batch)``. Inside the loop the model
    lacks block ``index``, as in :meth:`BlockStack.skip`. Blocks must run one
    after another, with the model in evaluation mode and without gradients;
    they may run several times a forward pass, if for every candidate the
    same number of times.

    Args:
        stack (BlockStack): The blocks of the model.

    Attributes:
        executions (int): Number of block executions so far.
    """

    def __init__(self, stack: BlockStack) -> None:
        self.stack = stack
        self.executions = 0
        self._missing = -1
        self._blocks: List[nn.Module] = []
        self._skipped = ExitStack()
        self._outputs: DefaultDict[int, List[Any]] = defaultdict(list)
        self._calls: Dict[int, int] = defaultdict(int)

    def __enter__(self) -> 'SharedPrefix':
        for index in self.stack.left:
            block = self.stack[index]
            block.forward = partial(self._run, index, block.forward)
            self._blocks.append(block)
        return self

    def __exit__(self, *exc) -> None:
        self._skipped.close()
        for block in self._blocks:
            block.__dict__.pop('forward', None)
        self._blocks.clear()
        self._outputs.clear()

    def candidates(self, indices: Iterable[int]) -> Iterator[int]:
        """Walk the candidates of one batch, from the last to the first.

        Args:
            indices (Iterable[int]): Original numbers of the candidates.

        Yields:
            int: The block that is missing until the next step.
        """
        self._outputs.clear()
        for index in sorted(indices, reverse=True):
            self._missing = index
            self._calls = defaultdict(int)
            self._skipped.enter_context(self.stack.skip(index))
            yield index
            self._skipped.close()
        self._missing = -1
        self._outputs.clear()

    def _run(self, index: int, forward: Callable, x: Any, *args,
             **kwargs) -> Any:
        if index > self._missing:
            self.executions += 1
            return forward(x, *args, **kwargs)
        known, call = self._outputs[index], self._calls[index]
        self._calls[index] += 1
        if call == len(known):
            self.executions += 1
            known.append(forward(x, *args, **kwargs))
        return known[call]

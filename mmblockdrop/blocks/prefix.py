"""Share the blocks before the missing one between candidates.

Scoring N candidates plainly executes N (N - 1) blocks a batch. A candidate
without block i computes blocks 0 to i - 1 exactly as the others do, so they
are computed once: (N - 1) + N (N - 1) / 2 executions, with scores equal bit
for bit.
"""
from functools import partial
from typing import Any, Callable, Dict, Iterable, Iterator, Optional

from .surgery import BlockStack


class SharedPrefix:
    """Runs a model with one block missing after another, on one batch.

    Used as ``with SharedPrefix(stack) as prefix: for index in
    prefix.candidates(indices): model(batch)``. Inside the loop the model
    lacks block ``index``. Blocks must run one after another, each at most
    once a forward pass, and the model in evaluation mode without gradients.

    Args:
        stack (BlockStack): The blocks of the model.

    Attributes:
        executions (int): Number of block executions so far.
    """

    def __init__(self, stack: BlockStack) -> None:
        self.stack = stack
        self.executions = 0
        self._missing: Optional[int] = None
        self._outputs: Dict[int, Any] = {}

    def __enter__(self) -> 'SharedPrefix':
        for index in self.stack.left:
            block = self.stack[index]
            block.forward = partial(self._run, index, block.forward)
        return self

    def __exit__(self, *exc) -> None:
        for index in self.stack.left:
            self.stack[index].__dict__.pop('forward', None)
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
            yield index
        self._missing = None
        self._outputs.clear()

    def _run(self, index: int, forward: Callable, x: Any, *args,
             **kwargs) -> Any:
        if self._missing is None or index > self._missing:
            self.executions += 1
            return forward(x, *args, **kwargs)
        if index == self._missing:
            return x
        if index not in self._outputs:
            self.executions += 1
            self._outputs[index] = forward(x, *args, **kwargs)
        return self._outputs[index]

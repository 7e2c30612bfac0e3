"""Share what candidates have in common: the blocks before the missing one.

Scoring N candidates plainly executes N (N - 1) blocks a batch. A candidate
without block i computes blocks 0 to i - 1 exactly as the others do, so they
are computed once: (N - 1) + N (N - 1) / 2 executions, with scores equal bit
for bit. That is not taken on trust: a result is used again only if the block
is given the same again and its weights have not been written to, as repair
does. What runs in front of the stack, as the patch embedding, is computed once
by the same rule.
"""
from contextlib import ExitStack
from functools import partial
from typing import (Any, Callable, Dict, Iterable, Iterator, List, NamedTuple,
                    Optional, Set, Tuple, TypeVar)

import torch
from torch import Tensor, nn

from .bypass import call_values
from .record import Id
from .structure import Structure

#: Id of a part, or path of a module beside the parts.
Key = Id
AnyId = TypeVar('AnyId', bound=Id)


class SharedPrefix:
    """Runs a model with one part missing after another, on one batch.

    Used as ``with SharedPrefix(structure) as prefix: for part in
    prefix.candidates(parts): model(batch)``, in evaluation mode and without
    gradients. Inside the loop the model lacks ``part``, as in
    :meth:`Structure.without`. What follows says block for any part.

    A block is executed again wherever its inputs are not those it had for
    the first candidate, or where they, its output or its weights have been
    written to since. So blocks may run several times a forward pass, in any
    order, side by side, and take masks, sizes or lists. What a block hands on
    by other ways than its return value, such as an attribute of the model, is
    not seen. The same holds for modules that run before the first block,
    unless a hook is registered inside them.

    Args:
        structure: The parts of the model.

    Attributes:
        executions: Number of block executions so far.
    """

    def __init__(self, structure: Structure) -> None:
        self.structure = structure
        self.executions = 0
        self._place = {index: i for i, index in enumerate(structure.order)}
        self._missing: Optional[Id] = None
        self._first = False
        self._began = False
        self._front: Set[str] = set()
        self._wrapped: List[Tuple[nn.Module, Any]] = []
        self._removed = ExitStack()
        self._known: Dict[Tuple[Key, int], '_Run'] = {}
        self._calls: Dict[Key, int] = {}

    def __enter__(self) -> 'SharedPrefix':
        for index in self.structure.remaining:
            block = self.structure[index]
            self._wrap(block, partial(self._run, index, block,
                                      block.forward))
        for name, module in _beside(self.structure).items():
            self._wrap(module, partial(self._run_beside, name, module,
                                       module.forward))
        return self

    def _wrap(self, module: nn.Module, forward: Callable) -> None:
        self._wrapped.append((module, module.__dict__.get('forward')))
        module.forward = forward

    def __exit__(self, *exc) -> None:
        self._removed.close()
        for module, own in self._wrapped:
            del module.forward
            if own is not None:  # as mmengine's activation checkpointing sets
                module.forward = own
        self._wrapped.clear()
        self._known.clear()

    def candidates(self, parts: Iterable[AnyId]) -> Iterator[AnyId]:
        """Walk the candidates of one batch, from the last to the first.

        Args:
            parts: Ids of the candidates.

        Yields:
            The part that is missing until the next step.
        """
        self._known.clear()
        self._front.clear()
        self._first, self._began = True, False
        for index in sorted(
                parts, key=lambda i: self._place[i], reverse=True):
            self._missing = index
            self._calls = {}
            self._removed.enter_context(self.structure.without(index))
            yield index
            self._removed.close()
            self._first = False
        self._missing = None
        self._known.clear()

    def _count(self, key: Key) -> int:
        """How often a module has run before in this pass."""
        call = self._calls.get(key, 0)
        self._calls[key] = call + 1
        return call

    def _run(self, index: Id, module: nn.Module, forward: Callable, *args,
             **kwargs) -> Any:
        self._began = True
        call = self._count(index)
        shared = (self._missing is not None
                  and self._place[index] < self._place[self._missing])
        given = _note(call_values(args, kwargs)) if shared else None
        known = self._known.get((index, call))
        if given is not None and known is not None and known.serves(
                module, args, kwargs):
            return known.output
        self.executions += 1
        output = forward(*args, **kwargs)
        if self._first:
            self._keep((index, call), module, given, args, kwargs, output)
        return output

    def _run_beside(self, name: str, module: nn.Module, forward: Callable,
                    *args, **kwargs) -> Any:
        """Run a module outside the blocks; once if it stands in front."""
        call = self._count(name)
        if self._first and not self._began:
            self._front.add(name)
        if name not in self._front or _has_hooks_inside(module):
            return forward(*args, **kwargs)
        known = self._known.get((name, call))
        if known is not None and known.serves(module, args, kwargs):
            return known.output
        given = _note(call_values(args, kwargs)) if self._first else None
        output = forward(*args, **kwargs)
        self._keep((name, call), module, given, args, kwargs, output)
        return output

    def _keep(self, key: Tuple[Key, int], module: nn.Module, given: Any,
              args: tuple, kwargs: Dict[str, Any], output: Any) -> None:
        """Keep an execution if it can be told from others later."""
        if given is None or not _same(given, call_values(args, kwargs)):
            return
        returned, weights = _note(output), _note(_weights(module))
        if returned is not None and weights is not None:
            self._known[key] = _Run(weights, given, list(kwargs), output,
                                    returned)


def _beside(structure: Structure) -> Dict[str, nn.Module]:
    """Outermost modules of the model that hold no part."""
    parts = set(structure.names.values())
    above = {
        '.'.join(name.split('.')[:i])
        for name in parts for i in range(name.count('.') + 1)
    }
    found = {}
    for path in above:
        above_it = structure.model.get_submodule(path)
        for name, child in above_it.named_children():
            whole = f'{path}.{name}'.lstrip('.')
            if whole not in above and whole not in parts:
                found[whole] = child
    return found


def _has_hooks_inside(module: nn.Module) -> bool:
    """Whether a hook inside a module would be missed if it did not run."""
    return any(m._forward_hooks or m._forward_pre_hooks
               for m in module.modules() if m is not module)


class _Run(NamedTuple):
    """One execution of a block."""
    weights: Any
    given: Any
    keywords: List[str]
    output: Any
    returned: Any

    def serves(self, module: nn.Module, args: tuple,
               kwargs: Dict[str, Any]) -> bool:
        """Whether it was given the same, and nothing has been written to."""
        return (self.keywords == list(kwargs)
                and _same(self.returned, self.output)
                and _same(self.weights, _weights(module))
                and _same(self.given, call_values(args, kwargs)))


def _weights(module: nn.Module) -> List[Tensor]:
    """Parameters and buffers of a module."""
    return [*module.parameters(), *module.buffers()]


class _Seen(NamedTuple):
    """A tensor, and how often it had been written to."""
    tensor: Tensor
    version: int


def _note(value: Any) -> Optional[Any]:
    """Note down a value; None if it cannot be compared later."""
    if isinstance(value, Tensor):
        return None if value.is_inference() else _Seen(value, value._version)
    if isinstance(value, dict):
        value = list(value.items())
    if isinstance(value, (tuple, list)):
        notes = [_note(v) for v in value]
        return None if any(n is None for n in notes) else notes
    if value is None or isinstance(
            value, (int, float, str, torch.dtype, torch.device)):
        return (value, )
    return None


def _same(note: Any, value: Any) -> bool:
    """Whether a value is what was noted down, to the last bit."""
    if isinstance(note, _Seen):
        return isinstance(value, Tensor) and _same_tensor(note, value)
    if isinstance(value, dict):
        value = list(value.items())
    if isinstance(note, list):
        return (isinstance(value, (tuple, list)) and len(note) == len(value)
                and all(map(_same, note, value)))
    return type(value) is type(note[0]) and value == note[0]


def _same_tensor(note: _Seen, value: Tensor) -> bool:
    old = note.tensor
    if value.is_inference() or old._version != note.version:
        return False
    if value is old:
        return True
    return (value.shape == old.shape and value.dtype == old.dtype
            and value.device == old.device and value.stride() == old.stride()
            and torch.equal(value, old))

"""What stands for the output of a part that is removed, found by running it.

A removed block hands on one of the values that it is given. Which one, or
whether there is none, so that the block has to stay, a forward pass tells.
"""
from contextlib import ExitStack
from typing import (Any, Callable, Dict, Iterator, List, Mapping, NamedTuple,
                    Optional, Sequence, Union)

import torch
from torch import Tensor, nn

from .record import Id

#: Which argument stands for the output: a position, a keyword, None for the
#: value None, or a list of these where the block returns a tuple. Plain data,
#: as it is written into the record.
Bypass = Union[int, str, None, List[Any]]


class NoBypass(ValueError):
    """Nothing that a block was given can stand for what it returned."""


class DroppedBlock(nn.Identity):
    """Stands where a block was; returns what it was given.

    Args:
        bypass: Which argument takes the place of the block's output, or which
            ones where it returned a tuple; see :data:`Bypass`. Defaults to the
            first.
    """

    def __init__(self, bypass: Bypass = 0) -> None:
        super().__init__()
        self.bypass = bypass

    def forward(self, *args, **kwargs) -> Any:
        """Return the arguments that stand for the output of the block."""
        return take_bypass(self.bypass, args, kwargs)

    def extra_repr(self) -> str:
        """Return what differs from the default."""
        return '' if self.bypass == 0 else f'bypass={self.bypass}'


def block_tensor(value: Any) -> Tensor:
    """Take the features out of what a block returns or is given.

    Args:
        value: A tensor; or a tuple, list or dict such as ``(features, mask)``
            or ``(tokens, (t, h, w))``.

    Returns:
        The first tensor in it.

    Raises:
        TypeError: There is none.
    """
    for tensor in _tensors(value):
        return tensor
    raise TypeError(f'expected a tensor, or a tuple, list or dict that holds '
                    f'one, found {describe(value)}')


def call_values(args: Sequence[Any], kwargs: Dict[str, Any]) -> List[Any]:
    """List all that a block was given, keywords last."""
    return [*args, *kwargs.values()]


def find_bypass(args: Sequence[Any], kwargs: Dict[str, Any],
                  output: Any) -> Bypass:
    """Find what stands for the output of a block that is removed.

    A tensor is replaced by the first tensor among the arguments if shape and
    type are the same. Of a tuple, each entry is replaced by an argument like
    it, preferably the one at the same place; entries that are not tensors,
    as a size ``(t, h, w)``, must be equal to that argument.

    Args:
        args: Positional arguments of the block.
        kwargs: Its keyword arguments.
        output: What it returned.

    Returns:
        See :data:`Bypass`.

    Raises:
        NoBypass: Says why there is nothing.
    """
    values = call_values(args, kwargs)
    names: List[Union[int, str]] = [*range(len(args)), *kwargs]
    if not list(_tensors(output)):
        raise NoBypass(f'returns {describe(output)}')
    first = next((i for i, v in enumerate(values) if list(_tensors(v))), None)
    if first is None:
        raise NoBypass('is given no tensor')
    if can_replace(values[first], output):
        return names[first]
    if not isinstance(output, (tuple, list)):
        raise NoBypass(_change(values[first], output))
    return [
        None if i is None else names[i]
        for i in _match(values, first, list(output))
    ]


def take_bypass(bypass: Bypass, args: Sequence[Any],
                kwargs: Dict[str, Any]) -> Any:
    """Return what stands for the output of a removed block.

    Args:
        bypass: See :data:`Bypass`.
        args: Positional arguments.
        kwargs: Keyword arguments.

    Returns:
        The argument, or a tuple of arguments.
    """
    if isinstance(bypass, list):
        return tuple(take_bypass(p, args, kwargs) for p in bypass)
    if bypass is None:
        return None
    if isinstance(bypass, str):
        return kwargs[bypass]
    return args[bypass] if bypass < len(args) else call_values(
        args, kwargs)[bypass]


def can_replace(value: Any, output: Any) -> bool:
    """Whether a value can take the place of another.

    Args:
        value: What a block was given.
        output: What it returned.

    Returns:
        Tensors have the same shape, type and device; anything else is equal.
    """
    if isinstance(value, Tensor) and isinstance(output, Tensor):
        return (value.shape == output.shape and value.dtype == output.dtype
                and value.device == output.device)
    if isinstance(value, (tuple, list)) and isinstance(output, (tuple, list)):
        return len(value) == len(output) and all(
            map(can_replace, value, output))
    if isinstance(value, dict) and isinstance(output, dict):
        return value.keys() == output.keys() and all(
            can_replace(value[k], output[k]) for k in output)
    return value is output or (isinstance(value, (int, float, str))
                               and value == output)


def describe(value: Any) -> str:
    """Say in a few words what a value is.

    Args:
        value: Any value.

    Returns:
        The shape of a tensor, the entries of a tuple, or the type.
    """
    if isinstance(value, Tensor):
        return str(list(value.shape))
    if isinstance(value, (tuple, list)):
        return f'({", ".join(describe(v) for v in value)})'
    if value is None or isinstance(value, (int, float, str)):
        return repr(value)
    return type(value).__name__


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for entry in value:
            yield from _tensors(entry)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


def _change(value: Any, output: Any) -> str:
    """Say why the first cannot stand for the second."""
    before, after = describe(value), describe(output)
    if before == after and isinstance(output, Tensor):
        before, after = str(value.dtype), str(output.dtype)
    return f'turns {before} into {after}'


def _match(values: List[Any], first: int,
           output: List[Any]) -> List[Optional[int]]:
    """An argument for each entry of a tuple; a tensor serves once."""
    used: List[int] = []
    found: List[Optional[int]] = []
    for place, entry in enumerate(output):
        free = [i for i in (place, *range(len(values))) if i < len(values)]
        if isinstance(entry, Tensor):
            free = [i for i in free if i not in used]
            if not used:  # the features
                free = [first]
        index = next((i for i in free if can_replace(values[i], entry)), None)
        if index is None and entry is not None:
            raise NoBypass(
                _change(values[first], entry) if isinstance(entry, Tensor) and
                not used else f'returns {describe(entry)} at place {place}, '
                f'which is none of its arguments')
        if index is not None and isinstance(entry, Tensor):
            used.append(index)
        found.append(index)
    return found


class Findings(NamedTuple):
    """What a probe found.

    Attributes:
        fixed: Modules that have to stay, and why.
        bypass: For the others, what takes the place of their output.
        order: The modules in the order in which they ran.
        idle: Dotted paths of linear layers in them that were not called, as
            where attention reads the weight itself.
    """
    fixed: Dict[Id, str]
    bypass: Dict[Id, Bypass]
    order: List[Id]
    idle: List[str]


def probe_modules(modules: Dict[Id, nn.Module], names: Mapping[Id, str],
                 run: Callable[[], Any]) -> Findings:
    """Run a model and look at what goes into some modules and comes out.

    Args:
        modules: Id to module.
        names: Dotted paths of all modules, by id.
        run: Runs the model once, in evaluation mode.

    Returns:
        What was found.
    """
    calls: Dict[Id, List[Any]] = {}
    called = set()

    def look(index: Id) -> Callable:

        def hook(block: nn.Module, args: tuple, kwargs: dict, output: Any):
            found: Any
            try:
                found = find_bypass(args, kwargs, output)
            except NoBypass as error:
                found = error
            calls.setdefault(index, []).append(found)

        return hook

    def note(layer: nn.Module, *_) -> None:
        called.add(id(layer))

    linears = {
        index: [(name, layer) for name, layer in block.named_modules()
                if isinstance(layer, nn.Linear)]
        for index, block in modules.items()
    }
    with ExitStack() as stack, torch.no_grad():
        for index, block in modules.items():
            handles = [
                block.register_forward_hook(look(index), with_kwargs=True),
                *(layer.register_forward_hook(note)
                  for _, layer in linears[index])
            ]
            for handle in handles:
                stack.callback(handle.remove)
        run()
    verdicts = {index: _verdict(calls.get(index, [])) for index in modules}
    idle = [
        f'{names[index]}.{name}' for index in calls
        for name, layer in linears[index] if id(layer) not in called
    ]
    return Findings(
        {
            i: str(v)
            for i, v in verdicts.items() if isinstance(v, NoBypass)
        }, {
            i: v
            for i, v in verdicts.items() if not isinstance(v, NoBypass)
        }, [*calls], idle)


def _verdict(calls: Sequence[Any]) -> Any:
    """What the calls of one block agree on, or why it has to stay."""
    if not calls:
        return NoBypass('does not run')
    for found in calls:
        if isinstance(found, NoBypass):
            return found
    if any(found != calls[0] for found in calls):
        return NoBypass('is called in several ways')
    return calls[0]

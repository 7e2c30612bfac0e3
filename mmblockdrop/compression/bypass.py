"""What a block is given, what it returns, and what of the first can stand
for the second once the block is gone."""
from typing import Any, Dict, Iterator, List, Optional, Sequence, Union

from torch import Tensor, nn

#: Which argument stands for the output: a position, a keyword, None for the
#: value None, or a list of these where the block returns a tuple. Plain data,
#: as it is written into the record.
Passes = Union[int, str, None, List[Any]]


class NoStandIn(ValueError):
    """Nothing that a block was given can stand for what it returned."""


class DroppedBlock(nn.Identity):
    """Stands where a block was; returns what it was given.

    Args:
        passes: Which argument takes the place of the block's output, or which
            ones where it returned a tuple; see :data:`Passes`. Defaults to the
            first.
    """

    def __init__(self, passes: Passes = 0) -> None:
        super().__init__()
        self.passes = passes

    def forward(self, *args, **kwargs) -> Any:
        """Return the arguments that stand for the output of the block."""
        return take(self.passes, args, kwargs)

    def extra_repr(self) -> str:
        """Return what differs from the default."""
        return '' if self.passes == 0 else f'passes={self.passes}'


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


def choose_passes(args: Sequence[Any], kwargs: Dict[str, Any],
                  output: Any) -> Passes:
    """Find what stands for the output of a block that is gone.

    A tensor is replaced by the first tensor among the arguments if shape and
    type are the same. Of a tuple, each entry is replaced by an argument like
    it, preferably the one at the same place; entries that are not tensors,
    as a size ``(t, h, w)``, must be equal to that argument.

    Args:
        args: Positional arguments of the block.
        kwargs: Its keyword arguments.
        output: What it returned.

    Returns:
        See :data:`Passes`.

    Raises:
        NoStandIn: Says why there is nothing.
    """
    values = call_values(args, kwargs)
    names: List[Union[int, str]] = [*range(len(args)), *kwargs]
    if not list(_tensors(output)):
        raise NoStandIn(f'returns {describe(output)}')
    first = next((i for i, v in enumerate(values) if list(_tensors(v))), None)
    if first is None:
        raise NoStandIn('is given no tensor')
    if stands_for(values[first], output):
        return names[first]
    if not isinstance(output, (tuple, list)):
        raise NoStandIn(_change(values[first], output))
    return [
        None if i is None else names[i]
        for i in _match(values, first, list(output))
    ]


def take(passes: Passes, args: Sequence[Any], kwargs: Dict[str, Any]) -> Any:
    """Return what stands for the output of a block that is gone.

    Args:
        passes: See :data:`Passes`.
        args: Positional arguments.
        kwargs: Keyword arguments.

    Returns:
        The argument, or a tuple of arguments.
    """
    if isinstance(passes, list):
        return tuple(take(p, args, kwargs) for p in passes)
    if passes is None:
        return None
    if isinstance(passes, str):
        return kwargs[passes]
    return args[passes] if passes < len(args) else call_values(
        args, kwargs)[passes]


def stands_for(value: Any, output: Any) -> bool:
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
            map(stands_for, value, output))
    if isinstance(value, dict) and isinstance(output, dict):
        return value.keys() == output.keys() and all(
            stands_for(value[k], output[k]) for k in output)
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
    """Why the first is no stand-in for the second."""
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
        index = next((i for i in free if stands_for(values[i], entry)), None)
        if index is None and entry is not None:
            raise NoStandIn(
                _change(values[first], entry) if isinstance(entry, Tensor) and
                not used else f'returns {describe(entry)} at place {place}, '
                f'which is none of its arguments')
        if index is not None and isinstance(entry, Tensor):
            used.append(index)
        found.append(index)
    return found

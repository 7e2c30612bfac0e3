"""Record what modules return while a model runs."""
from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterable, Iterator

import torch
from torch import Tensor, nn

from .messages import did_you_mean, listed

#: Behind a path: record what goes into the module.
INPUT = ':input'


@contextmanager
def on_output(model: nn.Module, paths: Iterable[str],
              callback: Callable[[str, Any], None]) -> Iterator[None]:
    """Call back whenever one of some modules has run.

    Args:
        model: Model that will run inside the statement.
        paths: Dotted paths of its modules; the empty path is the model itself.
            ``<path>:input`` asks for the first input of the module instead of
            its output.
        callback: Called with the path and the value.

    Raises:
        ValueError: A path names no module.
    """
    handles = []

    def hook_of(path: str):

        def hook(module: nn.Module, args: tuple, kwargs: dict, output: Any):
            if path.endswith(INPUT):
                output = args[0] if args else next(iter(kwargs.values()))
            callback(path, output)

        return hook

    try:
        for path in paths:
            handles.append(
                _module(model, path).register_forward_hook(
                    hook_of(path), with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def record(model: nn.Module,
           paths: Iterable[str]) -> Iterator[Dict[str, Any]]:
    """Record the outputs of some modules inside a ``with`` statement.

    Where a module runs several times, as an encoder that takes its clips in
    chunks, its tensors are joined along the first dimension.

    Args:
        model: Model that will run inside the statement.
        paths: As in :func:`on_output`.

    Yields:
        Path to output, filled while the model runs.

    Raises:
        ValueError: A path names no module, or one that runs several times
            and whose outputs cannot be joined.
    """
    outputs: Dict[str, Any] = {}

    def keep(path: str, value: Any) -> None:
        outputs[path] = joined(path, outputs, value)

    with on_output(model, paths, keep):
        yield outputs


def not_in_place(model: nn.Module) -> nn.Module:
    """Let activations leave their input as it is.

    An activation in place would change what an alignment has recorded of
    the module before it, and, where that module has been dropped, a tensor
    that others still need.

    Args:
        model: Any model; changed.

    Returns:
        The same model.
    """
    for module in model.modules():
        if getattr(module, 'inplace', False) is True:
            module.inplace = False
    return model


def joined(path: str, outputs: Dict[str, Any], value: Any) -> Any:
    """Put a further output of a module behind the earlier ones.

    Args:
        path: The module.
        outputs: Path to what the module has returned so far.
        value: What it returns now.

    Returns:
        ``value``, or all tensors along the first dimension.

    Raises:
        ValueError: They cannot be joined.
    """
    if path not in outputs:
        return value
    first = outputs[path]
    tensors = isinstance(first, Tensor) and isinstance(value, Tensor)
    if not tensors or first.shape[1:] != value.shape[1:]:
        raise ValueError(
            f'module={path!r} of an alignment runs several times in one '
            'forward pass, and its outputs cannot be joined: choose a module '
            'that runs once')
    return torch.cat((first, value))


def _module(model: nn.Module, path: str) -> nn.Module:
    try:
        return model.get_submodule(path.removesuffix(INPUT))
    except AttributeError:
        children = [name for name, _ in model.named_children()]
        names = [name for name, _ in model.named_modules() if name]
        raise ValueError(
            f'module={path!r} of an alignment is not in '
            f'{type(model).__name__}: expected a module inside '
            f'{listed(children)}{did_you_mean(path, names)}') from None

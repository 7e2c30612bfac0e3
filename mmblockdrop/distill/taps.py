"""Record what modules return while a model runs."""
import difflib
from contextlib import contextmanager
from typing import Any, Dict, Iterable, Iterator

import torch
from torch import Tensor, nn

#: Behind a path: record what goes into the module.
INPUT = ':input'


@contextmanager
def tap(model: nn.Module, paths: Iterable[str]) -> Iterator[Dict[str, Any]]:
    """Keep the outputs of some modules inside a ``with`` statement.

    Where a module runs several times, as an encoder that takes its clips in
    chunks, its tensors are joined along the first dimension.

    Args:
        model (nn.Module): Model that will run inside the statement.
        paths (Iterable[str]): Dotted paths of its modules; the empty path
            is the model itself. ``<path>:input`` keeps the first input of
            the module instead of its output.

    Yields:
        Dict[str, Any]: Path to output, filled while the model runs.

    Raises:
        ValueError: A path names no module, or one that runs several times
            and whose outputs cannot be joined.
    """
    outputs: Dict[str, Any] = {}
    handles = []

    def keep(path: str):

        def hook(module, args, output):
            value = args[0] if path.endswith(INPUT) else output
            if path in outputs:
                value = _join(path, outputs[path], value)
            outputs[path] = value

        return hook

    try:
        for path in paths:
            handles.append(
                _module(model, path).register_forward_hook(keep(path)))
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def _join(path: str, first: Any, second: Any) -> Tensor:
    tensors = isinstance(first, Tensor) and isinstance(second, Tensor)
    if not tensors or first.shape[1:] != second.shape[1:]:
        raise ValueError(
            f'module={path!r} of an alignment runs several times in one '
            'forward pass, and its outputs cannot be joined: choose a module '
            'that runs once')
    return torch.cat((first, second))


def _module(model: nn.Module, path: str) -> nn.Module:
    try:
        return model.get_submodule(path.removesuffix(INPUT))
    except AttributeError:
        names = [name for name, _ in model.named_modules() if name]
        near = difflib.get_close_matches(path, names, n=1, cutoff=0.3)
        hint = f' Did you mean {near[0]!r}?' if near else ''
        children = [name for name in names if '.' not in name]
        raise ValueError(
            f'module={path!r} of an alignment is not in '
            f'{type(model).__name__}.{hint} It starts with one of '
            f'{children}.') from None

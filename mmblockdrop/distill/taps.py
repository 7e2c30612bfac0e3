"""Record what modules return while a model runs."""
from contextlib import contextmanager
from typing import Any, Dict, Iterable, Iterator

from torch import nn


@contextmanager
def tap(model: nn.Module, paths: Iterable[str]) -> Iterator[Dict[str, Any]]:
    """Keep the outputs of some modules inside a ``with`` statement.

    Args:
        model (nn.Module): Model that will run inside the statement.
        paths (Iterable[str]): Dotted paths of its modules; the empty path
            is the model itself.

    Yields:
        Dict[str, Any]: Path to last output, filled while the model runs.

    Raises:
        ValueError: A path names no module.
    """
    outputs: Dict[str, Any] = {}
    handles = []

    def keep(path: str):

        def hook(module, args, output):
            outputs[path] = output

        return hook

    try:
        for path in paths:
            handles.append(
                _module(model, path).register_forward_hook(keep(path)))
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def _module(model: nn.Module, path: str) -> nn.Module:
    try:
        return model.get_submodule(path)
    except AttributeError:
        children = [name for name, _ in model.named_children()]
        raise ValueError(
            f'module={path!r} of an alignment is not in '
            f'{type(model).__name__}, which has {children}') from None

"""Models without values, on the meta device: for shapes and counts."""
import copy
from contextlib import contextmanager
from typing import Iterator, Optional

import torch
from torch import nn


@contextmanager
def empty_weights() -> Iterator[None]:
    """Modules built inside hold parameters without values (meta device).

    Other tensors stay where they are, so that constructors may read them;
    :func:`on_meta` moves buffers too.
    """
    register = nn.Module.register_parameter

    def register_empty(self: nn.Module, name: str,
                       param: Optional[nn.Parameter]) -> None:
        if param is not None:
            param = nn.Parameter(param.to('meta'), param.requires_grad)
        register(self, name, param)

    nn.Module.register_parameter = register_empty
    try:
        yield
    finally:
        nn.Module.register_parameter = register


def on_meta(model: nn.Module) -> nn.Module:
    """Copy a model to the meta device without copying its weights.

    Args:
        model: Any model.

    Returns:
        The copy, without values.
    """
    memo = {}
    for tensor in (*model.parameters(), *model.buffers()):
        empty = torch.empty_like(tensor, device='meta', requires_grad=False)
        if isinstance(tensor, nn.Parameter):
            empty = nn.Parameter(empty, requires_grad=False)
        memo[id(tensor)] = empty
    return copy.deepcopy(model, memo).to('meta')

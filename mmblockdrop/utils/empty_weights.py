"""Build models of any size without memory for their weights."""
from contextlib import contextmanager
from typing import Iterator, Optional

from torch import nn


@contextmanager
def empty_weights() -> Iterator[None]:
    """Modules built inside hold parameters without values (meta device).

    Buffers and other tensors stay where they are, so that constructors may
    read them.
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

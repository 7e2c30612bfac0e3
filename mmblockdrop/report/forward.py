"""One forward pass of any localizer, for those who measure it."""
import copy
from typing import Any, Optional, Sequence, Union

import torch
from torch import Tensor, nn

Inputs = Union[Tensor, Sequence[Tensor]]


def forward_mode(model: nn.Module, inputs: Inputs,
                 data_samples: Optional[list] = None) -> str:
    """Mode in which a localizer computes its predictions.

    Args:
        model: See :func:`complexity`.
        inputs: One window.
        data_samples: Samples of the inputs.

    Returns:
        'tensor', or 'predict' for a localizer that cannot run in it on these
        inputs.
    """
    if data_samples is None:
        return 'tensor'
    try:
        with torch.no_grad():
            call(on_meta(model).eval(), empty_inputs(inputs), data_samples)
    except (RuntimeError, ValueError):  # shapes do not fit, or no such mode
        return 'predict'
    return 'tensor'


def empty_inputs(inputs: Inputs) -> Inputs:
    """Inputs without values, on the meta device."""
    if isinstance(inputs, (list, tuple)):
        return [torch.empty_like(x, device='meta') for x in inputs]
    return torch.empty_like(inputs, device='meta')


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


def call(model: nn.Module, inputs: Inputs, data_samples: Optional[list],
         mode: str = 'tensor') -> Any:
    """Run a model on one window.

    Args:
        model: A localizer, or any module that takes inputs.
        inputs: The window.
        data_samples: Its samples.
        mode: Mode of the localizer.

    Returns:
        What the model returns.
    """
    if hasattr(model, 'data_preprocessor'):
        return model(inputs, data_samples, mode=mode)
    return model(inputs)

"""Initial weights that mmengine has no initializer for."""
import math
import re
from typing import Iterable, List, Sequence

from mmblockdrop.registry import WEIGHT_INITIALIZERS

import torch
from mmengine.model.weight_init import update_init_info
from torch import nn


@WEIGHT_INITIALIZERS.register_module()
class ScaleWeights:
    """Multiply weights by a factor, after the initializers listed before it.

    For residual branches that shall begin weaker than the layers inside them:
    of a transformer the last layer of each branch is called ``attn.proj`` and
    ``mlp.layers.1``. A branch that begins weak leaves the stream of tokens
    almost as it is, which helps deep stacks to begin to learn (GPT-2 scales
    by one over the square root of the number of branches).

    Args:
        layers: Ends of the dotted names of the layers.
        factor: What their weights are multiplied by.

    Raises:
        ValueError: The factor is not finite, or ``layers`` is empty; when
            called, an entry of ``layers`` ends no name of a layer with a
            weight.
    """

    def __init__(self, layers: Sequence[str], factor: float) -> None:
        if isinstance(layers, str) or not layers:
            raise ValueError(
                f'ScaleWeights.layers={layers!r}, expected a list of ends of '
                "names of layers, e.g. ['attn.proj', 'mlp.layers.1']")
        if not math.isfinite(factor):
            raise ValueError(
                f'ScaleWeights.factor={factor}, expected a finite number')
        self.layers = tuple(layers)
        self.factor = factor

    def __call__(self, module: nn.Module) -> None:
        """Scale in place.

        Args:
            module: What holds the layers.
        """
        weights = {
            name: layer.weight
            for name, layer in module.named_modules()
            if isinstance(getattr(layer, 'weight', None), nn.Parameter)
        }
        for end in self.layers:
            found = [
                weight for name, weight in weights.items()
                if f'.{name}'.endswith(f'.{end}')
            ]
            if not found:
                raise ValueError(
                    f'ScaleWeights.layers: no layer of '
                    f'{type(module).__name__} has a name that ends with '
                    f'{end!r}; there are {_ends(weights)}')
            with torch.no_grad():
                for weight in found:
                    weight.mul_(self.factor)
        if hasattr(module, '_params_init_info'):
            update_init_info(
                module,
                init_info=f'ScaleWeights: factor={self.factor}, '
                f'layers={list(self.layers)}')


def _ends(names: Iterable[str]) -> List[str]:
    """Names within a block, each once."""
    return sorted({re.sub(r'^.*?\d+\.', '', name) for name in names})
